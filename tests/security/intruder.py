"""What somebody on the network of a job can do: listen to the switch, look for ports, send what he likes.

Everything runs in threads that have entered a network namespace; see tests/launch/namespaces.py.
"""
import collections
import concurrent.futures
import ctypes
import errno
import os
import random
import select
import socket
import ssl
import struct
import threading
import time

__all__ = ["Inside", "Recorder", "open_ports", "told", "frames", "ZMTP"]

CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33
#: How a connection of ZeroMQ, and so of ps-lite, begins: signature, version, mechanism.
ZMTP = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + b"\0" * 48


class Inside(concurrent.futures.ThreadPoolExecutor):
    """Threads in the network namespace of this name; ``run`` calls a function there."""

    def __init__(self, name, threads=1):
        def enter():
            with open(f"/run/netns/{name}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter {name}")
        super().__init__(threads, initializer=enter)

    def run(self, function, *arguments):
        return self.submit(function, *arguments).result()


class Recorder:
    """All TCP between the hosts, as a tap on a port of the switch sees it. To be made and started inside its namespace.

    streams(): {(address, port, address, port): bytes} of each direction that was seen from its beginning.
    """
    MOST = 1 << 18      # bytes kept of a direction

    def __init__(self, device):
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._sock.bind((device, 0))
        self._sock.settimeout(0.2)
        self._first, self._pieces, self._over = {}, collections.defaultdict(dict), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._over.is_set():
            try:
                self._take(self._sock.recv(1 << 17))
            except socket.timeout:
                continue

    def _take(self, frame):
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:       # IPv4, TCP
            return
        start = 14 + 4 * (frame[14] & 15)
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        source, goal, number = struct.unpack_from("!HHI", frame, start)
        flow = socket.inet_ntoa(frame[26:30]), source, socket.inet_ntoa(frame[30:34]), goal
        data, flags = frame[start + 4 * (frame[start + 12] >> 4):end], frame[start + 13]
        if flags & 2:
            self._first[flow], self._pieces[flow] = (number + 1) & 0xffffffff, {}
        if flow in self._first and data:
            offset = (number - self._first[flow]) & 0xffffffff
            if offset < self.MOST:
                self._pieces[flow][offset] = max(data, self._pieces[flow].get(offset, b""), key=len)

    def streams(self):
        found = {}
        for flow, pieces in list(self._pieces.items()):
            whole = b""
            for offset in sorted(pieces.copy()):
                if offset > len(whole):
                    break
                whole = whole[:offset] + pieces[offset] if offset + len(pieces[offset]) > len(whole) else whole
            if whole:
                found[flow] = whole
        return found

    def close(self):
        self._over.set()
        self._thread.join()
        self._sock.close()


def open_ports(address, ports=range(1, 65536), batch=400):
    """The TCP ports of a host that take connections."""
    found, ports = [], list(ports)
    for start in range(0, len(ports), batch):
        poll, waiting = select.poll(), {}
        for port in ports[start:start + batch]:
            sock = socket.socket()
            sock.setblocking(False)
            code = sock.connect_ex((address, port))
            if code in (0, errno.EINPROGRESS):
                waiting[sock.fileno()] = sock, port
                poll.register(sock, select.POLLOUT)
            else:
                sock.close()
        deadline = time.monotonic() + 5
        while waiting and time.monotonic() < deadline:
            for fd, _ in poll.poll(500):
                sock, port = waiting.pop(fd)
                poll.unregister(fd)
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found.append(port)
                sock.close()
        assert not waiting, "every port answers, if only by refusing"
    return found


def told(address, data, end=True, patience=10):
    """What is answered to these bytes, until the connection ends; `end`: say that no more will come."""
    found = b""
    with socket.create_connection(address, 10) as sock:
        sock.settimeout(patience)
        try:
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
            while True:
                piece = sock.recv(1 << 16)
                if not piece:
                    return found
                found += piece
        except OSError as error:
            if error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                return found
            raise


def _client_hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def frames(recorded, count, seed):
    """Random bytes, and mutated forms of what was heard on the wire and of what these programs say."""
    dice = random.Random(seed)
    bases = [stream[:6000] for stream in recorded] + [ZMTP + os.urandom(200), _client_hello(), b"GET / HTTP/1.0\r\n\r\n"]
    for _ in range(count):
        kind = dice.random()
        if kind < 0.25:
            yield os.urandom(dice.randrange(1, 3000))
            continue
        frame = bytearray(dice.choice(bases))
        if kind < 0.35:
            frame[:0] = os.urandom(dice.choice((1, 16, 48, 80)))
        if kind > 0.5:
            frame = frame[:dice.randrange(1, len(frame) + 1)]
        for _ in range(dice.choice((0, 1, 1, 3, 30))):
            place = dice.randrange(len(frame))
            frame[place] ^= 1 << dice.randrange(8)
        yield bytes(frame)
