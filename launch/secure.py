"""What a job's hosts know and a stranger does not: one certificate with its key, and 32 bytes to knock with.

A *knock* is the first thing in a connection between hosts: who it is for, a number that is used once, and an HMAC
over both. Nothing is answered before it is right, so that a port scan, garbage and another job's nodes meet silence.
Behind it TLS begins, and both sides must present this job's certificate. The key is made anew for every attempt at a
job and dies with it. ``ssl`` is imported only where a TLS context is made: in the channel's own process.
"""
import base64
import binascii
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import struct
import subprocess
import tempfile

from launch.spec import LaunchError

__all__ = ["JobKey", "Nonces", "ReplayGuard", "KNOCK", "check_target"]

NONCE, TARGET, MAC = 16, 32, 32     # bytes of a knock's three parts: number used once, target padded with NUL, HMAC
KNOCK = NONCE + TARGET + MAC
LABEL = b"gluonzoo channel 1: knock of a dialling host at the listening host "
OPENSSL_LIMIT = 30                  # seconds
DAYS = 3650
NO_CHECK_TIME, PARTIAL_CHAIN = 0x200000, 0x80000    # OpenSSL's X509_V_FLAG_..., of which Python names only the second
CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
# Given in full, because the openssl.cnf of a machine may be missing or ask for things at the terminal.
CONFIG = b"""\
[req]
distinguished_name = name
x509_extensions = own
prompt = no
[name]
CN = gluonzoo job
[own]
basicConstraints = critical,CA:FALSE
"""


class JobKey:
    """A job's certificate and private key (PEM text) and its MAC key (32 bytes); ``create`` makes a new one."""

    def __init__(self, certificate, private_key, mac_key):
        self.certificate, self._private_key, self._mac_key = certificate, private_key, mac_key

    def __repr__(self):
        return "JobKey(...)"        # it may end up in a traceback

    @classmethod
    def create(cls):
        """A new key from the operating system's random numbers.

        Raises: LaunchError when this machine has neither the openssl program nor the Python package cryptography.
        """
        try:
            certificate, private_key = _by_openssl()
        except FileNotFoundError:
            certificate, private_key = _by_cryptography()
        return cls(certificate, private_key, os.urandom(MAC))

    def pack(self):
        """The key as one line of text, for a link or an environment variable."""
        fields = {"version": 1, "certificate": self.certificate, "private_key": self._private_key,
                  "mac_key": self._mac_key.hex()}
        return base64.b64encode(json.dumps(fields).encode()).decode()

    @classmethod
    def unpack(cls, text):
        """The key of ``pack``'s text.

        Raises: ValueError when the text is something else; the message tells its length, not its content.
        """
        try:
            fields = json.loads(base64.b64decode(text.encode("ascii"), validate=True).decode("ascii"))
            if fields["version"] != 1:
                raise ValueError
            mac_key = bytes.fromhex(fields["mac_key"])
            certificate, private_key = (_only_pem(fields["certificate"], "CERTIFICATE"),
                                        _only_pem(fields["private_key"], "PRIVATE KEY"))
            if len(mac_key) != MAC:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"not a job's key: {len(text) if isinstance(text, str) else type(text)} characters"
                             ) from None
        return cls(certificate, private_key, mac_key)

    def knock(self, host, target, nonce):
        """The bytes that ask host number ``host`` for ``target``."""
        body = nonce + check_target(target).encode("ascii").ljust(TARGET, b"\0")
        return body + self._mac(host, body)

    def target(self, knock, host):
        """What a knock at host number ``host`` asks for; None when it was not made with this key for this host."""
        body, mac = knock[:-MAC], knock[-MAC:]
        if len(knock) != KNOCK or not hmac.compare_digest(mac, self._mac(host, body)):
            return None
        return body[NONCE:].rstrip(b"\0").decode("ascii")

    def _mac(self, host, body):
        return hmac.new(self._mac_key, LABEL + struct.pack("!i", host) + body, hashlib.sha256).digest()

    def context(self, server):
        """A TLS context for one side of a connection, to be made in the channel's process only."""
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        # No names to check: every host presents the same certificate, which is also the only one that is trusted, and
        # an address proves nothing. Which host it is stands in the knock, which is repeated inside TLS.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        # The certificate is not looked at by date: it lives as long as the job's processes know it, whatever the
        # clocks of the hosts say, and a job may run for longer than any date one would write into it.
        context.verify_flags |= NO_CHECK_TIME | PARTIAL_CHAIN
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)        # of TLS 1.2; those of 1.3 are all good, and Python cannot choose there
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        if server:
            context.num_tickets = 0         # nothing is ever resumed
        context.load_verify_locations(cadata=self.certificate)
        # ssl reads keys from files only.
        with _anonymous_file((self.certificate + self._private_key).encode("ascii")) as path:
            context.load_cert_chain(path)
        return context


class Nonces:
    """Numbers used once, for the knocks of one process: 8 random bytes of its own, then a counter."""

    def __init__(self):
        self._own, self._count = os.urandom(NONCE - 8), itertools.count(1)

    def next(self):
        """16 bytes. Safe to call from several threads."""
        return self._own + struct.pack("!Q", next(self._count))


class ReplayGuard:
    """Which nonces have been seen, in bounded memory: for each dialling process its highest number and a window.

    As in IPsec (RFC 4303, 3.4.3): a number below the window counts as seen. To be asked about knocks whose HMAC is
    right only, so that strangers cannot fill it.
    """
    WINDOW = 4096       # far more than the connections one process begins before the first of them has arrived

    def __init__(self):
        self._seen = {}

    def fresh(self, nonce):
        """Whether this nonce is here for the first time; it is seen from then on."""
        own, number = nonce[:-8], int.from_bytes(nonce[-8:], "big")
        highest, window = self._seen.get(own, (0, 0))       # bit i of window: highest - i was seen
        if number > highest:
            shift = number - highest
            window = 1 if shift >= self.WINDOW else (window << shift | 1) & ((1 << self.WINDOW) - 1)
            highest = number
        else:
            bit = 1 << (highest - number) if highest - number < self.WINDOW else 0
            if not bit or window & bit:
                return False
            window |= bit
        self._seen[own] = highest, window
        return True


def check_target(target):
    """Return ``target`` when it fits into a knock.

    Raises: ValueError when it is empty, too long or not printable ASCII.
    """
    if not (0 < len(target) <= TARGET and target.isprintable() and target.isascii()):
        raise ValueError(f"a target is 1 to {TARGET} printable ASCII characters, got {target!r}")
    return target


@contextlib.contextmanager
def _anonymous_file(content):
    """Path of a file in memory that nobody else can open by name and that is gone afterwards."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("gluonzoo", os.MFD_CLOEXEC)
    else:       # a Python built against an old C library
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _by_openssl():
    """Certificate and private key, made by the openssl program; the key comes through a pipe."""
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha256", "-nodes",
            "-days", str(DAYS), "-keyout", "-", "-config"]
    with _anonymous_file(CONFIG) as path:
        fd = int(path.rpartition("/")[2])
        try:
            done = subprocess.run(argv + [path], stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(fd,),
                                  timeout=OPENSSL_LIMIT)
        except subprocess.TimeoutExpired:
            raise LaunchError(f"openssl did not make a key within {OPENSSL_LIMIT} s") from None
        except PermissionError as error:
            raise LaunchError(f"cannot run openssl to make the job's key: {error.strerror}") from None
    text = done.stdout.decode("ascii", "replace")
    try:
        return _pem(text, "CERTIFICATE"), _pem(text, "PRIVATE KEY")
    except ValueError:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["(no message)"])[-1]
        raise LaunchError(f"openssl req made no key (exit code {done.returncode}): {last}") from None


def _by_cryptography():
    """Certificate and private key, made by the Python package cryptography."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise LaunchError("a job on several hosts needs the openssl program (or the Python package cryptography) on "
                          "the launching machine to make its key, and there is neither; install one of them, or "
                          "use --insecure-network") from None
    import datetime
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gluonzoo job")])
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True).sign(key, hashes.SHA256()))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM).decode("ascii"), private.decode("ascii")


def _pem(text, kind):
    """The first PEM block of a kind in a text."""
    begin, end = f"-----BEGIN {kind}-----\n", f"\n-----END {kind}-----\n"
    start = text.index(begin)
    block = text[start:text.index(end, start) + len(end)]
    binascii.a2b_base64(block[len(begin):-len(end)])
    return block


def _only_pem(text, kind):
    """The text, when it is one PEM block of this kind and nothing else."""
    if not isinstance(text, str) or _pem(text, kind) != text:
        raise ValueError
    return text
