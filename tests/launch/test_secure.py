"""A job's key: made, packed, knocked with; nonces; what TLS accepts."""
import base64
import json
import os
import random
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading

import launch
from launch import secure
from launch.secure import KNOCK, JobKey, Nonces, ReplayGuard
from launch.spec import LaunchError

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(launch.__file__)))


@pytest.fixture(scope="module")
def key():
    return JobKey.create()


@pytest.fixture(scope="module")
def other():
    return JobKey.create()


def handshake(server, client):
    """A TLS handshake in memory; the version both agreed on. Raises what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(5):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for writer, reader in (sides, sides[::-1]):
        writer.write(b"hello")
        assert reader.read(10) == b"hello"
    assert sides[0].getpeercert(True) == sides[1].getpeercert(True)
    return sides[0].version()


# ---- making and packing

def test_packed_and_unpacked(key):
    text = key.pack()
    assert "\n" not in text and text.isascii()
    again = JobKey.unpack(text)
    assert again.pack() == text
    assert handshake(key.context(True), again.context(False)) == "TLSv1.3"


def test_every_key_is_another(key, other):
    assert key.certificate != other.certificate and key._private_key != other._private_key
    assert key._mac_key != other._mac_key and len(key._mac_key) == 32


def changed(key, **fields):
    content = json.loads(base64.b64decode(key.pack()))
    content.update(fields)
    return base64.b64encode(json.dumps(content).encode()).decode()


def test_nonsense_is_not_unpacked(key):
    text = key.pack()
    wrong = ["", "x", "=", "é", None, 7, b"bytes", text[:-5], text[4:], text + "AAAA", "!" + text[1:],
             base64.b64encode(b"[]").decode(), base64.b64encode(b"{}").decode(), base64.b64encode(b"[" * 9999).decode(),
             changed(key, version=2), changed(key, mac_key="00"), changed(key, mac_key="zz" * 32),
             changed(key, mac_key=7), changed(key, certificate="", private_key=""), changed(key, certificate=None),
             changed(key, private_key=key.certificate), changed(key, certificate=key.certificate * 2)]
    for nonsense in wrong:
        with pytest.raises(ValueError, match="not a job's key") as caught:
            JobKey.unpack(nonsense)
        assert len(str(caught.value)) < 80 and "PRIVATE" not in str(caught.value)


def test_it_shows_no_secret(key):
    for text in (repr(key), str(key), f"{key}", f"{[key]}"):
        assert "JobKey(...)" in text and len(text) < 20


@pytest.mark.parametrize("dates", [(b"190101000000", b"200101000000"), (b"480101000000", b"490101000000")])
def test_no_clock_makes_it_invalid(key, dates, monkeypatch):
    """Whatever the hosts' clocks say: a certificate that has run out, and one of the future."""
    times = iter(dates)
    binary, count = re.subn(rb"\x17\x0d\d{12}Z", lambda _: b"\x17\x0d" + next(times) + b"Z",
                            ssl.PEM_cert_to_DER_cert(key.certificate))
    assert count == 2
    old = JobKey(ssl.DER_cert_to_PEM_cert(binary), key._private_key, key._mac_key)
    assert handshake(old.context(True), old.context(False)) == "TLSv1.3"
    monkeypatch.setattr(secure, "NO_CHECK_TIME", 0)
    with pytest.raises(ssl.SSLError, match="expired|not yet valid"):
        handshake(old.context(True), old.context(False))


RECORDER = """\
#!{python} -S
import json, os, sys
with open({record!r}, "w") as file:
    json.dump([sys.argv, dict(os.environ)], file)
os.execv({real!r}, sys.argv)
"""


def program(folder, text):
    """An ``openssl`` for a PATH of its own."""
    folder.mkdir()
    path = folder / "openssl"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def test_making_it_shows_it_to_nobody(tmp_path, monkeypatch):
    record, scratch = tmp_path / "record", tmp_path / "scratch"
    scratch.mkdir()
    text = RECORDER.format(python=sys.executable, record=str(record), real=shutil.which("openssl"))
    monkeypatch.setenv("PATH", program(tmp_path / "bin", text))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.chdir(scratch)
    before = os.listdir("/proc/self/fd")
    key = JobKey.create()
    key.context(True), key.context(False)
    assert os.listdir("/proc/self/fd") == before        # nothing in memory either
    shown = record.read_text()
    assert "-newkey" in shown
    for secret in key._private_key.split("\n")[1:3] + [key._mac_key.hex()]:
        assert secret not in shown
    assert os.listdir(scratch) == []


def test_without_openssl(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(LaunchError, match="openssl program .* neither; install one of them"):
        JobKey.create()


def test_by_cryptography(tmp_path, monkeypatch, other):
    pytest.importorskip("cryptography")
    monkeypatch.setenv("PATH", str(tmp_path))
    made = JobKey.unpack(JobKey.create().pack())
    assert handshake(made.context(True), made.context(False)) == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        handshake(made.context(True), other.context(False))


@pytest.mark.parametrize("text, message", [
    ("#!/bin/sh\necho first >&2; echo the reason >&2; exit 3\n", r"exit code 3\): the reason"),
    ("#!/bin/sh\necho -----BEGIN PRIVATE KEY-----\n", r"exit code 0\): \(no message\)")])
def test_an_openssl_that_fails(tmp_path, monkeypatch, text, message):
    monkeypatch.setenv("PATH", program(tmp_path / "bin", text) + ":/bin:/usr/bin")
    with pytest.raises(LaunchError, match=message):
        JobKey.create()


def test_an_openssl_that_may_not_run(tmp_path, monkeypatch):
    folder = program(tmp_path / "bin", "#!/no/such/program\n")
    os.chmod(os.path.join(folder, "openssl"), 0o644)
    monkeypatch.setenv("PATH", folder)
    with pytest.raises(LaunchError, match="cannot run openssl to make the job's key: Permission denied"):
        JobKey.create()


def test_importing_it_does_not_import_ssl():
    code = "import launch.secure, sys; sys.exit('ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT).returncode == 0


def test_an_anonymous_file_without_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with secure._anonymous_file(b"text") as path:
        with open(path, "rb") as file:
            assert file.read() == b"text"
        assert os.readlink(path).endswith("(deleted)") and os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(path)


# ---- knocking

@pytest.mark.parametrize("target", ["31001", "control", "x", "a" * 32])
@pytest.mark.parametrize("host", [0, 2, 1000000, -1])
def test_a_knock_names_its_target(key, target, host):
    knock = key.knock(host, target, Nonces().next())
    assert len(knock) == KNOCK
    assert key.target(knock, host) == target


def test_any_other_bit_makes_it_wrong(key, other):
    knock = key.knock(2, "31001", Nonces().next())
    for bit in range(8 * KNOCK):
        wrong = bytearray(knock)
        wrong[bit // 8] ^= 1 << bit % 8
        assert key.target(bytes(wrong), 2) is None
    for length in range(KNOCK):
        assert key.target(knock[:length], 2) is None
    assert key.target(knock + b"\0", 2) is None
    assert key.target(knock, 3) is None and key.target(knock, 0) is None and other.target(knock, 2) is None
    assert key.target(knock, 2) == "31001"


@pytest.mark.parametrize("target", ["", "a" * 33, "31001\0", "a\n", "é"])
def test_targets_that_cannot_be(key, target):
    with pytest.raises(ValueError, match="a target is 1 to 32 printable ASCII characters"):
        key.knock(2, target, Nonces().next())


def test_a_nonce_is_never_given_twice():
    nonces, found = Nonces(), []
    threads = [threading.Thread(target=lambda: found.extend(nonces.next() for _ in range(2000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16000 and {len(nonce) for nonce in found} == {16}
    assert Nonces().next() not in found


def nonce(number, own=b"12345678"):
    return own + number.to_bytes(8, "big")


def test_a_nonce_is_fresh_once():
    guard, nonces = ReplayGuard(), Nonces()
    used = [nonces.next() for _ in range(5000)]
    assert all(guard.fresh(one) for one in used)
    assert not any(guard.fresh(one) for one in used)


def test_nonces_out_of_order():
    """Against a set, with numbers that stay within the window and others that fall out of it."""
    guard, seen, dice, highest = ReplayGuard(), {}, random.Random(5), {}
    for _ in range(20000):
        own = dice.choice((b"process1", b"process2"))
        top = highest.get(own, 0)
        number = max(1, top + dice.choice((1, 1, 2, 0, -1, -7, -4000, -4095, -4096, -5000)) + dice.randrange(3))
        expected = number > top or (top - number < ReplayGuard.WINDOW and number not in seen.setdefault(own, set()))
        assert guard.fresh(nonce(number, own)) == expected, (number, top)
        seen.setdefault(own, set()).add(number)
        highest[own] = max(top, number)


def test_the_window_at_its_edges():
    guard = ReplayGuard()
    assert guard.fresh(nonce(10000)) and guard.fresh(nonce(10000 - 4095)) and not guard.fresh(nonce(10000 - 4096))
    assert guard.fresh(nonce(2 ** 64 - 1)) and not guard.fresh(nonce(2 ** 64 - 1)) and not guard.fresh(nonce(10001))
    assert not guard.fresh(nonce(0))
    assert guard.fresh(nonce(2 ** 64 - 2)) and guard.fresh(nonce(1, b"another!"))


def test_the_guard_does_not_grow():
    guard = ReplayGuard()
    for number in range(1, 20000, 3):
        guard.fresh(nonce(number))
    assert len(guard._seen) == 1
    (_, window), = guard._seen.values()
    assert window.bit_length() <= ReplayGuard.WINDOW


# ---- TLS

def test_another_jobs_certificate_is_refused_both_ways(key, other):
    with pytest.raises(ssl.SSLError):
        handshake(key.context(True), other.context(False))
    with pytest.raises(ssl.SSLError):
        handshake(other.context(True), key.context(False))
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)      # trusts anybody, presents nothing
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        handshake(key.context(True), stranger)


def test_a_certificate_made_with_the_jobs_certificate_is_refused(key, other, tmp_path):
    """Trusting it is not trusting what claims to come from it; that would take the private key anyway."""
    forged = JobKey(other.certificate + key.certificate, other._private_key, key._mac_key)
    with pytest.raises(ssl.SSLError):
        handshake(key.context(True), forged.context(False))


def test_versions(key):
    server, client = key.context(True), key.context(False)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(server, client) == "TLSv1.2"
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2
    assert all(context.options & ssl.OP_NO_COMPRESSION and context.options & ssl.OP_NO_RENEGOTIATION
               and context.verify_mode == ssl.CERT_REQUIRED for context in (server, client))
