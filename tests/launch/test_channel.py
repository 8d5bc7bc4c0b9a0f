"""The channel with real processes on loopback: bytes, ends, back-pressure, descriptors, and what is left afterwards."""
import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import launch
from launch.channel import Channel
from launch.secure import JobKey
from launch.spec import LaunchError

import pytest

HOST = "127.0.0.1"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(launch.__file__)))
MB = 1 << 20


@pytest.fixture(scope="module")
def key():
    return JobKey.create().pack()


@pytest.fixture
def made(key):
    """A maker of channels: made(index) listens as host ``index``, made() does not. All are gone afterwards."""
    channels = []

    def make(index=None, host=HOST, key=key, **start):
        one = Channel().start(**start)
        channels.append(one)
        one.send("key", key=key)
        if index is not None:
            one.send("listen", host=host, port=0, index=index)
            one.port = expect(one, "listening")["port"]
        return one
    yield make
    pids = [one.pid for one in channels if one._process is not None]
    for one in channels:
        one.close()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.fixture
def tunnel(made):
    """A maker: tunnel(listener) -> (port that leads to the listener, near channel, far channel)."""
    def make(listener, host=HOST, target="31001"):
        far, near = made(2, host=host), made()
        far.send("serve", target=target, to=[HOST, listener.getsockname()[1]])
        return route(near, far, target, host), near, far
    return make


def route(near, far, target="31001", host=HOST, index=2):
    near.send("route", bind=[HOST, 0], address=[host, far.port], host=index, target=target)
    return expect(near, "routed")["port"]


def expect(channel, event, seconds=10.0):
    """The next event, which must be this one; its descriptor as a socket under "sock"."""
    found, fd = channel.receive(seconds)
    assert found is not None and found["event"] == event, (event, found)
    return found if fd is None else {**found, "sock": socket.socket(fileno=fd)}


def quiet(channel, seconds=0.3):
    """The channel has nothing to say."""
    assert channel.receive(seconds) == (None, None)


def listening():
    sock = socket.socket()
    sock.bind((HOST, 0))
    sock.listen(128)
    return sock


def call(port):
    sock = socket.create_connection((HOST, port), 10)
    sock.settimeout(20)
    return sock


def taken(listener):
    listener.settimeout(10)
    sock, _ = listener.accept()
    sock.settimeout(20)
    return sock


def read_all(sock):
    """All bytes until the end, in pieces of random size."""
    found, dice = bytearray(), random.Random(1)
    while True:
        piece = sock.recv(dice.choice((1, 100, 5000, 1 << 17)))
        if not piece:
            return bytes(found)
        found += piece


def send_all(sock, data, seed):
    """In pieces of random size; then the end."""
    dice, view = random.Random(seed), memoryview(data)
    while view:
        count = dice.choice((1, 77, 16384, 70000, 1 << 19))
        sock.sendall(view[:count])
        view = view[count:]
    sock.shutdown(socket.SHUT_WR)


def together(*functions):
    """Run functions at the same time; what they return."""
    results = [None] * len(functions)

    def run(index):
        results[index] = functions[index]()
    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "does not end"
    return results


def digest(data):
    return hashlib.sha256(data).hexdigest()


# ---- bytes

def test_many_megabytes_both_ways_at_once(tunnel):
    there, back = os.urandom(14 * MB + 5), os.urandom(10 * MB + 3)
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            _, _, got_there, got_back = together(
                lambda: send_all(one, there, 1), lambda: send_all(other, back, 2),
                lambda: read_all(other), lambda: read_all(one))
    assert (digest(got_there), digest(got_back)) == (digest(there), digest(back))
    quiet(near), quiet(far)


def test_small_messages_go_at_once(tunnel):
    with listening() as listener:
        port, _, _ = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            for sock in (one, other):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.monotonic()
            for number in range(100):
                message = b"%05d" % number
                for sender, reader in ((one, other), (other, one)):
                    sender.sendall(message[:2])
                    time.sleep(0.002)
                    sender.sendall(message[2:])     # Nagle's algorithm would wait for an answer to the first, 40 ms
                    found = b""
                    while len(found) < 5:
                        found += reader.recv(100)
                    assert found == message
            assert time.monotonic() - began < 5.0


def test_fifty_tunnels_at_once(tunnel):
    with listening() as listener:
        port, near, far = tunnel(listener)

        def echo():
            for _ in range(50):
                sock = taken(listener)
                threading.Thread(target=lambda s=sock: (send_all(s, read_all(s), 3), s.close()), daemon=True).start()

        def ask():
            data = os.urandom(300000)
            with call(port) as sock:
                send_all(sock, data, 4)
                return read_all(sock) == data
        results = together(echo, *[ask] * 50)
    assert results[1:] == [True] * 50
    quiet(near), quiet(far)


@pytest.mark.parametrize("first", ["near", "far"])
def test_half_close_leaves_the_other_direction_open(tunnel, first):
    answer = os.urandom(8 * MB)
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            if first == "far":
                one, other = other, one
            one.sendall(b"question")
            one.shutdown(socket.SHUT_WR)
            assert read_all(other) == b"question"       # the end has arrived
            time.sleep(0.2)
            other.sendall(answer[:100])
            assert one.recv(100) == answer[:100]
            sender = threading.Thread(target=send_all, args=(other, answer, 5))
            sender.start()
            time.sleep(0.5)                             # so that everything on the way is full
            assert read_all(one) == answer
            sender.join()
    quiet(near), quiet(far)


def test_a_reader_that_does_not_read_stops_the_sender(tunnel):
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            one.settimeout(1.0)
            piece, sent = os.urandom(MB), 0
            with pytest.raises(socket.timeout):
                while sent < 200 * MB:
                    sent += one.send(piece)
            assert sent < 100 * MB      # kernel buffers; the channel itself holds less than 1 MB
            assert all(memory(channel.pid) < 150 * MB for channel in (near, far))
            one.shutdown(socket.SHUT_WR)
            got = 0
            while True:
                data = other.recv(MB)
                if not data:
                    break
                got += len(data)
            assert got == sent


def memory(pid):
    """Bytes of a process in memory."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_idle_tunnels_cost_no_processor_time(tunnel):
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            one.sendall(b"x")
            assert other.recv(10) == b"x"
            other.shutdown(socket.SHUT_WR)      # also with one half closed
            assert one.recv(10) == b""
            before = processor(near.pid) + processor(far.pid)
            time.sleep(1.0)
            assert processor(near.pid) + processor(far.pid) - before < 0.1


def processor(pid):
    """Seconds of processor time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- targets and routes

def test_a_target_that_does_not_listen_yet(tunnel):
    with listening() as listener:
        address = listener.getsockname()
        port, near, far = tunnel(listener)
    with call(port) as sock:
        assert closed(sock)
    quiet(near), quiet(far)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
        with call(port) as one, taken(listener) as other:
            one.sendall(b"now")
            assert other.recv(10) == b"now"


def closed(sock):
    """Whether the connection ends without a byte."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6(tunnel, made, host):
    with listening() as listener:
        try:
            port, near, far = tunnel(listener, host=host)
        except AssertionError as error:
            pytest.skip(f"no IPv6 here: {error}")
        with call(port) as one, taken(listener) as other:
            one.sendall(b"six")
            assert other.recv(10) == b"six"
        if host == "::":                # both protocols
            with call(route(made(), far)) as one, taken(listener) as other:
                one.sendall(b"four")
                assert other.recv(10) == b"four"


def test_a_taken_port_is_refused(made):
    near = made()
    with listening() as listener:
        port = listener.getsockname()[1]
        near.send("route", bind=[HOST, port], address=[HOST, 1], host=2, target="31001")
        event = expect(near, "refused")
    assert event == {"event": "refused", "port": port, "why": "Address already in use"}


def test_a_route_that_leads_nowhere_says_so_once(made):
    with listening() as gone:
        port = gone.getsockname()[1]
    near = made()
    near.send("route", bind=[HOST, 0], address=[HOST, port], host=2, target="31001")
    here = expect(near, "routed")["port"]
    for _ in range(3):
        with call(here) as sock:
            assert closed(sock)
    event = expect(near, "failed")
    assert event["port"] == here and event["why"] == f"{HOST} port {port}: Connection refused"
    quiet(near)


@pytest.mark.parametrize("message", [
    {"op": "nonsense"}, {"op": "run"}, {"op": "listen"}, {"op": "serve", "target": "x" * 33, "to": [HOST, 1]},
    {"op": "key", "key": "abc"}, {"op": "listen", "host": HOST, "port": 99999}, {"op": "dial", "target": ""},
    {"op": "route", "bind": [HOST, 0]}])
def test_a_message_that_cannot_be_followed(made, message):
    one = made()
    one.send(**message)
    event = expect(one, "failed")
    assert event["op"] == message["op"] and event["why"]
    one.send("listen", host=HOST, port=0, index=1)
    expect(one, "listening")


def test_clear_takes_everything_of_an_attempt_away(made):
    with listening() as listener:
        far, near = made(2), made()
        far.send("serve", target="31001", to=[HOST, listener.getsockname()[1]])
        far.send("accept", target="control")
        near.send("dial", address=[HOST, far.port], host=2, target="control")
        control, other_control = expect(near, "dialed")["sock"], expect(far, "accepted")["sock"]
        port = route(near, far)
        with call(port) as one, taken(listener) as other, control, other_control:
            one.sendall(b"x")
            assert other.recv(1) == b"x"
            near.send("clear")
            assert expect(near, "cleared") == {"event": "cleared"}
            assert closed(one) and closed(other)
            with pytest.raises(ConnectionRefusedError):
                call(port)
            far.send("clear")
            while far.receive(5)[0] != {"event": "cleared"}:        # it may have called the cut tunnel broken
                continue
            again = route(near, far)
            with call(again) as sock:
                assert closed(sock)         # not served any more
            fresh = JobKey.create().pack()
            for channel in (far, near):
                channel.send("clear")
                expect(channel, "cleared")
                channel.send("key", key=fresh)
            far.send("serve", target="31001", to=[HOST, listener.getsockname()[1]])
            with call(route(near, far)) as one, taken(listener) as other:
                one.sendall(b"y")
                assert other.recv(1) == b"y"
            control.sendall(b"still here")      # what was handed over is the parent's own
            assert other_control.recv(100) == b"still here"


# ---- connections of the parent

def test_dial_and_accept_hand_over_descriptors(made):
    far, near = made(0), made()
    far.send("accept", target="control")
    data = os.urandom(4 * MB)
    for _ in range(3):
        near.send("dial", address=[HOST, far.port], host=0, target="control")
        dialed, accepted = expect(near, "dialed"), expect(far, "accepted")
        assert dialed["target"] == accepted["target"] == "control" and dialed["address"] == [HOST, far.port]
        assert accepted["peer"][0] == HOST
        with dialed["sock"] as one, accepted["sock"] as other:
            one.settimeout(10), other.settimeout(10)
            assert not os.get_inheritable(one.fileno())
            _, got = together(lambda: send_all(one, data, 1), lambda: read_all(other))  # noqa: B023
            assert got == data
            other.sendall(b"answer after the end")
            other.close()
            assert read_all(one) == b"answer after the end"
    quiet(near), quiet(far)


def test_dial_waits_for_a_launcher_that_starts_later(made):
    with listening() as later:
        port = later.getsockname()[1]
    near = made()
    near.send("dial", address=["localhost", port], host=0, target="control", timeout=20)
    quiet(near, 0.6)
    far = made()
    far.send("listen", host=HOST, port=port, index=0)
    expect(far, "listening")
    quiet(near, 0.6)            # reached, but nothing accepts
    far.send("accept", target="control")
    with expect(near, "dialed")["sock"] as one, expect(far, "accepted")["sock"] as other:
        one.sendall(b"hello")
        assert other.recv(10) == b"hello"


def test_dial_gives_up(made):
    near, far = made(), made(1)
    far.send("accept", target="control")
    for address, host, reason in (([HOST, 1], 1, "refused"), ([HOST, far.port], 2, "closes at once"),
                                  (["no.such.host.invalid", 1], 1, "no.such.host.invalid")):
        near.send("dial", address=address, host=host, target="control", timeout=0.5)
        event = expect(near, "failed")
        assert event["address"] == address and reason in event["why"]
    quiet(far)


# ---- programs and hosts that go away

def test_a_program_that_dies_is_an_end_not_a_fault(tunnel):
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            one.sendall(b"last words")
            assert other.recv(100) == b"last words"
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()                 # a reset, as when a process is killed with data unread
            assert other.recv(100) == b""
            other.sendall(b"into the void")
        quiet(near), quiet(far)


def test_a_channel_that_dies_is_a_fault(tunnel):
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            one.sendall(b"x")
            assert other.recv(1) == b"x"
            os.kill(near.pid, signal.SIGKILL)
            with pytest.raises(ConnectionResetError):       # not an end that could be taken for a real one
                other.recv(1)
            event = expect(far, "broken")
            assert event["port"] == 31001 and event["why"]
            with pytest.raises(LaunchError, match=f"pid {near.pid}"):
                while near.receive(5)[0]:
                    continue


PARENT = """\
import sys, time
from launch.channel import Channel
from launch.secure import JobKey
one = Channel().start()
one.send("key", key=JobKey.create().pack())
one.send("listen", host="127.0.0.1", port=0, index=1)
one.send("route", bind=["127.0.0.1", 0], address=["127.0.0.1", 9], host=2, target="31001")
print(one.pid, one.receive(10)[0]["port"], one.receive(10)[0]["port"], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_with_its_parent(number, waiting):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env={**os.environ, "PYTHONPATH": ROOT},
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with parent.stdout:
        pid, *ports = map(int, parent.stdout.readline().split())
        for port in ports:
            call(port).close()
        parent.send_signal(number)
        parent.wait()
    waiting(lambda: state(pid) == "Z", 5)
    for port in ports:
        waiting(lambda: refuses(port), 2)       # noqa: B023 (a zombie's other threads may take a moment longer)


def refuses(port):
    try:
        call(port).close()
    except ConnectionRefusedError:
        return True
    return False


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"      # or gone altogether


def test_closing_leaves_nothing(made, tunnel):
    before = len(os.listdir("/proc/self/fd"))
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            pids, ports = [near.pid, far.pid], [port, far.port]
            near.close(), far.close()
            assert closed(one) and closed(other)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            call(port)


def test_connections_leave_nothing_in_the_processes(tunnel, waiting):
    with listening() as listener:
        port, near, far = tunnel(listener)

        def descriptors():
            return [len(os.listdir(f"/proc/{c.pid}/{what}")) for c in (near, far) for what in ("fd", "task")]
        before = descriptors()
        for number in range(20):
            with call(port) as one, taken(listener) as other:
                one.sendall(b"x")
                assert other.recv(1) == b"x"
                if number % 2:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        waiting(lambda: descriptors() == before, 8)


# ---- the process

def test_the_key_is_in_no_command_line_environment_or_file(tmp_path, key, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    secrets = [key[40:80].encode(), JobKey.unpack(key)._private_key.split("\n")[1].encode()]
    with Channel().start() as one:
        one.send("key", key=key)
        one.send("listen", host=HOST, port=0, index=1)
        expect(one, "listening")
        for pid in [one.pid, os.getpid()]:
            for name in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
                assert not [secret for secret in secrets if secret in text]
        names = [os.readlink(f"/proc/{one.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{one.pid}/fd")
                 if int(fd) > 2]
        assert not [name for name in names if "memfd" in name or "deleted" in name]
        with open(f"/proc/{one.pid}/limits") as file:
            core = [line.split() for line in file if line.startswith("Max core")][0]
        assert core[4:6] == ["0", "0"]
    assert os.listdir(tmp_path) == []


def test_started_from_memory(made):
    text = ("import sys; sys.path.insert(0, sys.stdin.readline().strip()); from launch.channel import main; "
            "main(sys.argv[1:])")
    far = made(1, argv=[sys.executable, "-S", "-c", text], stdin_data=ROOT.encode() + b"\n")
    far.send("accept", target="control")
    near = made()
    near.send("dial", address=[HOST, far.port], host=1, target="control")
    expect(near, "dialed")["sock"].close()
    expect(far, "accepted")["sock"].close()


def test_a_program_that_is_not_there():
    with pytest.raises(LaunchError, match="cannot start the channel with /no/such/python"):
        Channel().start(argv=["/no/such/python"])


def test_wrong_use():
    for arguments in ([], ["x"], ["99"]):
        done = subprocess.run([sys.executable, "-m", "launch.channel", *arguments], cwd=ROOT, capture_output=True)
        assert done.returncode == 2 and done.stderr.startswith(b"error: launch.channel wants the number")


def test_the_parents_side_does_without_ssl():
    code = "import launch.channel, launch.secure, sys; sys.exit('ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT).returncode == 0


# ---- the network

@pytest.mark.slow
def test_a_reader_that_sleeps_for_long_is_not_taken_for_a_cut_network(tunnel):
    with listening() as listener:
        port, near, far = tunnel(listener)
        with call(port) as one, taken(listener) as other:
            data = os.urandom(64 * MB)
            sender = threading.Thread(target=lambda: (one.settimeout(120), send_all(one, data, 1)))
            sender.start()
            time.sleep(60)
            quiet(near), quiet(far)
            assert digest(read_all(other)) == digest(data)
            sender.join()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
@pytest.mark.parametrize("busy", [True, False])
def test_a_cut_network_is_noticed(made, key, busy, waiting):
    """Two namespaces joined by a cable; the cable is taken down."""
    name, there, here = f"gzc{os.getpid()}", "10.123.77.1", "10.123.77.2"

    def ip(*words):
        return subprocess.run(["ip", *words], check=True, capture_output=True)
    ip("netns", "add", name)
    try:
        ip("link", "add", "gzc0", "type", "veth", "peer", "name", "gzc1", "netns", name)
        ip("addr", "add", there + "/30", "dev", "gzc0")
        ip("link", "set", "gzc0", "up")
        ip("-n", name, "addr", "add", here + "/30", "dev", "gzc1")
        ip("-n", name, "link", "set", "gzc1", "up")
        far = made(1, host=there)
        far.send("accept", target="control")
        text = f"import sys; sys.path.insert(0, {ROOT!r}); from launch.channel import main; main(sys.argv[1:])"
        near = made(argv=["ip", "netns", "exec", name, sys.executable, "-S", "-c", text])
        near.send("dial", address=[there, far.port], host=1, target="control")
        with expect(near, "dialed")["sock"] as one, expect(far, "accepted")["sock"] as other:
            ip("link", "set", "gzc0", "down")
            if busy:
                one.sendall(b"x" * 100000)
                other.sendall(b"x" * 100000)
            began = time.monotonic()
            events = [expect(channel, "broken", 45) for channel in (near, far)]
            assert 10 < time.monotonic() - began < 45 and all(event["why"] for event in events)
            assert read_all(one) == read_all(other) == b""
    finally:
        subprocess.run(["ip", "link", "del", "gzc0"], capture_output=True)
        ip("netns", "del", name)
