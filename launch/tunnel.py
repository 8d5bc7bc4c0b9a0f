"""One connection of the channel until its two sides know each other: TCP, the knock, TLS, the word that all is well.

Each connection has a thread of its own, which alone uses the connection's TLS object; ``splice.py`` then carries the
bytes.
"""
import contextlib
import errno
import socket
import ssl
import threading
import time

from launch.secure import KNOCK

__all__ = ["Life", "Refused", "TurnedAway", "Stopped", "Secure", "dial", "answer", "connect", "prepare",
           "closed_early", "why"]

HANDSHAKE = 10.0            # seconds from a right knock to the first byte
CONNECT = 5.0               # seconds for one TCP connection
KEEPALIVE = (10, 5, 3)      # idle connections: seconds before the first probe, between probes, probes
WIRE = 1 << 17              # bytes read at once from the network
YES = b"\x01"


class Refused(Exception):
    """No connection came about; the message says why."""


class TurnedAway(Refused):
    """There was a connection, and it was closed without a word: the target is not there yet, or the key is another."""


class Stopped(Exception):
    """Another thread ended this connection."""


class Life:
    """The sockets of one connection: its own thread opens and closes them, any other may ``stop`` it."""

    def __init__(self, owner=None):
        self.owner = owner      # for the channel: what this connection belongs to
        self._lock, self._sockets, self._stopped = threading.Lock(), [], threading.Event()

    def add(self, sock):
        """Take a socket in and return it."""
        with self._lock:
            if self._stopped.is_set():
                sock.close()
                raise Stopped
            self._sockets.append(sock)
        return sock

    def drop(self, sock):
        """Close one of the sockets."""
        with self._lock:
            self._sockets.remove(sock)
            sock.close()

    def sleep(self, seconds):
        """Wait, unless stopped."""
        if self._stopped.wait(seconds):
            raise Stopped

    def stop(self):
        """From another thread: whoever waits for one of the sockets wakes up."""
        with self._lock:        # so that none of them is closed, and its number reused, meanwhile
            self._stopped.set()
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def stopped(self):
        return self._stopped.is_set()

    def close(self):
        """Close all sockets."""
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()


def prepare(sock):
    """The settings every TCP socket of the channel gets."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), KEEPALIVE):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def connect(address, life, deadline):
    """A TCP connection to the first of the address's meanings that answers.

    Raises: Refused.
    """
    try:
        found = socket.getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"{address[0]}: {why(error)}") from None
    last = "no address"
    for family, kind, protocol, _, where in found:
        try:
            sock = life.add(socket.socket(family, kind, protocol))
        except OSError as error:        # a kernel without IPv6
            last = why(error)
            continue
        try:
            sock.settimeout(_left(deadline, CONNECT))
            sock.connect(where)
            prepare(sock)
            return sock
        except OSError as error:
            last = why(error)
            life.drop(sock)
    raise Refused(f"{address[0]} port {address[1]}: {last}")


def dial(address, knock, context, life):
    """A connection to what a host's channel offers: connect, knock, TLS, and the word that the target is there.

    Args: knock: JobKey.knock's bytes.  context: JobKey.context(False).
    Raises: Refused; TurnedAway.
    """
    sock = connect(address, life, time.monotonic() + CONNECT)
    deadline = time.monotonic() + HANDSHAKE
    try:
        sock.settimeout(HANDSHAKE)
        sock.sendall(knock)
        secure = Secure(sock, context, False)
        secure.handshake(deadline)
        # Once more, where nobody can exchange it: the knock outside could be another connection's.
        secure.write(knock, deadline)
        if secure.read(1, deadline) != YES:
            raise Refused(f"{address[0]} port {address[1]}: an answer that is none")
        return secure
    except OSError as error:        # ssl.SSLError is one
        life.drop(sock)
        where = f"{address[0]} port {address[1]}"
        if isinstance(error, ConnectionError):
            raise TurnedAway(f"{where} closes at once: what is asked for is not there, or the key differs") from None
        raise Refused(f"{where}: {why(error)}") from None
    except BaseException:
        life.drop(sock)
        raise


def answer(sock, knock, context):
    """The listening side of ``dial`` after the right knock; the caller then calls ``welcome``.

    Raises: Refused.
    """
    deadline = time.monotonic() + HANDSHAKE
    try:
        secure = Secure(sock, context, True)
        secure.handshake(deadline)
        if secure.read(KNOCK, deadline) != knock:
            raise Refused("another knock inside than outside")
        return secure
    except OSError as error:
        raise Refused(why(error)) from None


class Secure:
    """A socket with TLS: blocking calls with a deadline to begin with, then ``splice`` takes it over."""

    def __init__(self, sock, context, server):
        self.sock, self.incoming, self.outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server)

    def handshake(self, deadline):
        self._call(deadline, self.tls.do_handshake)

    def write(self, data, deadline):
        self._call(deadline, self.tls.write, data)      # shorter than a record: never written in part

    def read(self, count, deadline):
        data = b""
        while len(data) < count:
            piece = self._call(deadline, self.tls.read, count - len(data))
            if not piece:
                raise closed_early()
            data += piece
        return data

    def welcome(self):
        """Tell the dialling side that its target is there."""
        self.write(YES, time.monotonic() + HANDSHAKE)

    def _call(self, deadline, function, *arguments):
        while True:
            try:
                return function(*arguments)
            except ssl.SSLWantReadError:
                pass
            finally:
                self._flush(deadline)
            self.sock.settimeout(_left(deadline))
            data = self.sock.recv(WIRE)
            if not data:
                raise closed_early()
            self.incoming.write(data)

    def _flush(self, deadline):
        if self.outgoing.pending:
            self.sock.settimeout(_left(deadline))
            self.sock.sendall(self.outgoing.read())


def _left(deadline, limit=None):
    """Seconds to a deadline, no more than limit.

    Raises: socket.timeout when there are none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left if limit is None else min(left, limit)


def closed_early():
    """The end of a TCP connection where TLS has not said that it ends. Not left to ssl: some versions let it pass."""
    return ConnectionAbortedError(errno.ECONNABORTED, "closed by the other side")


def why(error):
    """An OSError in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not this job's ({error.verify_message})"
    if isinstance(error, (ConnectionAbortedError, BrokenPipeError)):
        return "closed by the other side"
    if isinstance(error, socket.timeout):
        return "timed out"
    return getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
