"""Attacks on the channel's port, and from the middle of the network, while a job uses it."""
import os
import random
import select
import socket
import ssl
import threading
import time

from launch.channel import Channel
from launch.secure import KNOCK, JobKey, Nonces

import pytest

HOST = "127.0.0.1"
MB = 1 << 20


class Pair:
    """Host 2's channel, which serves an echo, and a channel that has a route to it (through ``way``, if given)."""

    def __init__(self):
        self.key, self.nonces = JobKey.create(), Nonces()
        self.echo = socket.create_server((HOST, 0), backlog=128)
        threading.Thread(target=self._echo, daemon=True).start()
        self.far, self.near = Channel().start(), Channel().start()
        for channel in (self.far, self.near):
            channel.send("key", key=self.key.pack())
        self.far.send("listen", host=HOST, port=0, index=2)
        self.port = self.far.receive(10)[0]["port"]
        self.far.send("serve", target="31001", to=list(self.echo.getsockname()))
        self.far.send("accept", target="control")

    def _echo(self):
        while True:
            try:
                sock, _ = self.echo.accept()
            except OSError:
                return
            threading.Thread(target=_echo, args=(sock,), daemon=True).start()

    def route(self, way=None, target="31001"):
        """A local port that leads to host 2's target."""
        self.near.send("route", bind=[HOST, 0], address=[HOST, way or self.port], host=2, target=target)
        return self.near.receive(10)[0]["port"]

    def knock(self, host=2, target="31001"):
        return self.key.knock(host, target, self.nonces.next())

    def call(self, port=None):
        """A connection to the channel's port, or another."""
        sock = socket.create_connection((HOST, port or self.port), 10)
        sock.settimeout(15)
        return sock

    def works(self, port, count=100000):
        """Whether a connection through the route carries bytes there and back."""
        data = os.urandom(count)
        with self.call(port) as sock:
            threading.Thread(target=_send_all, args=(sock, data), daemon=True).start()
            return read_all(sock) == data

    def close(self):
        self.near.close()
        self.far.close()
        self.echo.shutdown(socket.SHUT_RDWR)
        self.echo.close()


def _echo(sock):
    with sock:
        try:
            while True:
                data = sock.recv(1 << 16)
                if not data:
                    sock.shutdown(socket.SHUT_WR)
                    return
                sock.sendall(data)
        except OSError:
            return


def _send_all(sock, data):
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return      # the reader sees it


def read_all(sock):
    found = bytearray()
    while True:
        piece = sock.recv(1 << 16)
        if not piece:
            return bytes(found)
        found += piece


@pytest.fixture
def pair():
    made = Pair()
    yield made
    made.close()


def answer(sock):
    """What a stranger is told, until it is cut off."""
    try:
        return read_all(sock)
    except (ConnectionResetError, BrokenPipeError):
        return b""


def told(pair, data, end=True):
    """What the port answers to these bytes."""
    with pair.call() as sock:
        try:
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return answer(sock)


def hello(pair):
    """What a client of TLS says first."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        pair.key.context(False).wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


class Middle:
    """A proxy on the way to a port: records both directions, and may change what goes by.

    Args: change: called with the connection's number, "up" or "down", and bytes; returns the bytes to pass on, or None
        to end that direction without a word of TLS.
    """

    def __init__(self, port, change=None):
        self.port, self.change = port, change or (lambda _number, _direction, data: data)
        self.listener = socket.create_server((HOST, 0), backlog=64)
        self.here, self.seen = self.listener.getsockname()[1], []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.seen.append({"up": b"", "down": b""})
            threading.Thread(target=self._carry, args=(sock, len(self.seen) - 1), daemon=True).start()

    def _carry(self, sock, number):
        with sock, socket.create_connection((HOST, self.port)) as there:
            ways = {sock: (there, "up"), there: (sock, "down")}
            try:
                while ways:
                    for source in select.select(list(ways), [], [], 15)[0] or list(ways):
                        goal, direction = ways[source]
                        data = source.recv(1 << 16)
                        self.seen[number][direction] += data
                        data = self.change(number, direction, data) if data else None
                        if data is None:
                            goal.shutdown(socket.SHUT_WR)
                            del ways[source]
                        else:
                            goal.sendall(data)
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


# ---- silence

def test_the_tests_own_knock_is_right(pair):
    """Or else the tests below would show nothing: behind a right knock TLS answers."""
    assert len(told(pair, pair.knock() + hello(pair))) > 500


def test_a_knock_with_one_wrong_bit(pair):
    begin = hello(pair)         # so that TLS would answer
    for bit in range(8 * KNOCK):
        wrong = bytearray(pair.knock())
        wrong[bit // 8] ^= 1 << bit % 8
        assert told(pair, bytes(wrong) + begin, end=bit % 2 == 0) == b"", bit
    assert pair.works(pair.route())


def test_a_knock_for_something_else(pair):
    other = JobKey.create()
    for knock in (pair.knock(host=3), pair.knock(host=0), pair.knock(target="31002"), pair.knock(target="contro"),
                  other.knock(2, "31001", Nonces().next()), pair.knock(target=" 31001")):
        assert told(pair, knock + hello(pair)) == b""


def test_truncated_knocks(pair):
    for length in range(0, KNOCK, 3):
        assert told(pair, pair.knock()[:length]) == told(pair, pair.knock()[:length] + hello(pair)) == b""


def test_a_knock_that_takes_too_long(pair):
    began = time.monotonic()
    with pair.call() as idle, pair.call() as slow:
        knock = pair.knock()
        for byte in range(KNOCK):
            try:
                slow.sendall(knock[byte:byte + 1])
            except OSError:
                break
            time.sleep(0.1)
        assert answer(slow) == answer(idle) == b""
    assert 4.5 < time.monotonic() - began < 9.0


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 1000, b"\n",
                                  bytes(range(256)) * 300, b"\xff\0\0\0\0\0\0\0\1\x7f" + b"\3\0NULL" + b"\0" * 48],
                         ids=["http", "ssh", "zeros", "line", "bytes", "zmtp"])
def test_other_protocols(pair, text):
    assert told(pair, text) == b""
    assert told(pair, (text * 100)[:10000], end=False) == b""


def test_tls_without_a_knock(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for one in (context, pair.key.context(False)):      # even with the right certificate
        with pair.call() as sock, pytest.raises(OSError):
            one.wrap_socket(sock)


def test_before_there_is_a_key():
    with Channel().start() as bare:
        bare.send("listen", host=HOST, port=0, index=2)
        port = bare.receive(10)[0]["port"]
        bare.send("accept", target="control")
        with socket.create_connection((HOST, port), 10) as sock:
            sock.sendall(JobKey.create().knock(2, "control", Nonces().next()))
            assert answer(sock) == b""


# ---- replay, and hosts with another key

def test_a_recorded_session_says_nothing_again(pair):
    with Middle(pair.port) as middle:
        port = pair.route(middle.here)
        for _ in range(3):
            assert pair.works(port, 5000)
        for session in middle.seen:
            assert len(session["up"]) > 5000 and len(session["down"]) > 5000
            for part in (session["up"], session["up"][:KNOCK], session["up"][:KNOCK + 300]):
                assert told(pair, part, end=False) == b""
                assert told(pair, part) == b""
        # Also when it is the first to arrive a second time after many others, and from many at once.
        assert all(pair.works(port, 10) for _ in range(20))
        results = []
        threads = [threading.Thread(target=lambda: results.append(told(pair, middle.seen[0]["up"]))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b""] * 20
        assert pair.works(port)


def test_a_knock_held_back_is_good_for_one_connection_only(pair):
    """Who steals a fresh knock gets as far as TLS, and no further."""
    knock = pair.knock()
    stolen = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stolen.check_hostname, stolen.verify_mode = False, ssl.CERT_NONE
    with pair.call() as sock:
        sock.sendall(knock)
        with pytest.raises(OSError):
            with stolen.wrap_socket(sock) as secure:
                secure.sendall(knock)
                assert secure.recv(100) == b""
                raise ConnectionResetError
    assert told(pair, knock, end=False) == b""
    assert pair.near.receive(0.2) == pair.far.receive(0.2) == (None, None)


@pytest.mark.parametrize("what", ["knock", "certificate"])
def test_a_host_with_another_jobs_key_is_refused(pair, what):
    """Even when it knows how to knock."""
    other = JobKey.create()
    if what == "certificate":
        other = JobKey(other.certificate, other._private_key, pair.key._mac_key)
    with Channel().start() as stranger:
        stranger.send("key", key=other.pack())
        stranger.send("dial", address=[HOST, pair.port], host=2, target="control", timeout=1)
        event, fd = stranger.receive(10)
        assert event["event"] == "failed" and fd is None
        assert pair.far.receive(0.3) == (None, None)
        # And nobody of this job talks to it.
        stranger.send("listen", host=HOST, port=0, index=2)
        port = stranger.receive(10)[0]["port"]
        stranger.send("accept", target="control")
        pair.near.send("dial", address=[HOST, port], host=2, target="control", timeout=1)
        event, fd = pair.near.receive(10)
        assert event["event"] == "failed" and fd is None
        assert ("certificate is not this job's" in event["why"]) == (what == "certificate"), event
        assert stranger.receive(0.3) == (None, None)


# ---- in the middle

def test_knocks_that_are_exchanged_on_the_way(pair):
    """Two right knocks for different targets, each put before the other's TLS: neither connection comes about."""
    held, ready = {}, threading.Barrier(2)

    def exchange(number, direction, data):
        if direction == "up" and number not in held:
            held[number] = data[:KNOCK]
            ready.wait(5)
            return held[1 - number] + data[KNOCK:]
        return data
    with Middle(pair.port, exchange) as middle:
        pair.near.send("dial", address=[HOST, middle.here], host=2, target="control", timeout=0.1)
        with pair.call(pair.route(middle.here)) as sock:
            sock.sendall(b"for 31001 only")
            assert answer(sock) == b""
        events = [pair.near.receive(5)[0]["event"]]
        assert events == ["failed"] and pair.far.receive(0.3) == (None, None)
    assert set(held) == {0, 1} and held[0][16:48] != held[1][16:48]


def test_one_wrong_bit_in_the_stream_is_noticed(pair):
    """What was changed on the way is never delivered; what came before it is."""
    dice = random.Random(3)
    data = os.urandom(200000)
    for _ in range(10):
        position, passed = dice.randrange(5000, 150000), {"up": 0, "down": 0}

        def flip(_number, direction, piece, position=position, passed=passed):
            start, passed[direction] = passed[direction], passed[direction] + len(piece)
            if direction == "down" and start <= position < passed[direction]:
                piece = bytearray(piece)
                piece[position - start] ^= 1 << dice.randrange(8)
            return bytes(piece)
        with Middle(pair.port, flip) as middle, pair.call(pair.route(middle.here)) as sock:
            threading.Thread(target=_send_all, args=(sock, data), daemon=True).start()
            found = bytearray()
            with pytest.raises(ConnectionResetError):
                while True:
                    piece = sock.recv(1000)
                    assert piece, "an end that looks like a real one"
                    found += piece
            assert data.startswith(bytes(found)) and len(found) <= position
        event = pair.near.receive(5)[0]
        assert event["event"] == "broken" and event["port"] == 31001
        while pair.far.receive(0.1)[0]:
            continue


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_stream_cut_short_does_not_look_like_its_end(pair, direction):
    passed = {"up": 0, "down": 0}

    def cut(_number, way, piece):
        passed[way] += len(piece)
        return None if way == direction and passed[way] > 50000 else piece
    with Middle(pair.port, cut) as middle, pair.call(pair.route(middle.here)) as sock:
        threading.Thread(target=_send_all, args=(sock, os.urandom(MB)), daemon=True).start()
        with pytest.raises(ConnectionResetError):
            read_all(sock)
    assert pair.near.receive(5)[0]["event"] == "broken"


# ---- noise and numbers

def frames(pair, recorded, dice):
    """Endless bytes an attacker could send: random, and mutated forms of the real thing."""
    while True:
        knock = pair.key.knock(2, "31001", Nonces().next())
        base = dice.choice((os.urandom(dice.randrange(1, 3000)), knock, recorded, recorded[KNOCK:], knock[:48] + os.urandom(32),
                            knock + os.urandom(200), knock + recorded[KNOCK:]))
        changed = bytearray(base)
        for _ in range(dice.choice((0, 1, 3, 30))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        if dice.random() < 0.3:
            del changed[dice.randrange(len(changed)):]
        # A knock that is still right leads to TLS: its answer is no answer to a stranger.
        yield bytes(changed), not changed.startswith(knock)


def test_a_thousand_frames_while_a_tunnel_works(pair):
    with Middle(pair.port) as middle:
        assert pair.works(pair.route(middle.here), 2000)
        recorded = middle.seen[0]["up"]
    port, done, results, sent = pair.route(), threading.Event(), [], 0

    def transfer():
        while not done.is_set():
            results.append(pair.works(port, MB))
    worker = threading.Thread(target=transfer)
    with pair.call(port) as standing:
        standing.sendall(b"before")
        assert standing.recv(100) == b"before"
        worker.start()
        try:
            dice = random.Random(11)
            for data, silent in frames(pair, recorded, dice):
                reply = told(pair, data, end=dice.random() < 0.5 or len(data) < KNOCK or not silent)
                assert reply == b"" or not silent
                sent += 1
                if sent == 1000:
                    break
        finally:
            done.set()
            worker.join(30)
        standing.sendall(b"after")
        assert standing.recv(100) == b"after"
    assert len(results) >= 3 and all(results)
    assert pair.near.receive(0.2) == pair.far.receive(0.2) == (None, None)
    assert tasks(pair.far.pid) < 10


def tasks(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def test_a_flood_of_idle_connections(pair):
    port = pair.route()
    with pair.call(port) as standing:
        crowd = []
        try:
            for number in range(500):
                crowd.append(pair.call())
                if number % 100 == 99:
                    standing.sendall(b"still here")
                    assert standing.recv(100) == b"still here"
            assert len(os.listdir(f"/proc/{pair.far.pid}/fd")) < 300
            began = time.monotonic()
            assert pair.works(port)
            assert time.monotonic() - began < 3.0
            standing.sendall(b"still here")
            assert standing.recv(100) == b"still here"
            # The oldest were dropped, the newest still have their time.
            assert answer(crowd[0]) == b""
            crowd[-1].settimeout(0.05)
            with pytest.raises(socket.timeout):
                crowd[-1].recv(1)
        finally:
            for sock in crowd:
                sock.close()


def test_a_flood_from_one_place_is_in_its_own_way_only(pair):
    """A host whose knock has come half when the flood begins."""
    knock = pair.knock()
    with pair.call() as slow:
        slow.sendall(knock[:40])
        time.sleep(0.2)
        crowd = []
        try:
            for _ in range(600):
                crowd.append(socket.create_connection((HOST, pair.port), 10, ("127.0.0.2", 0)))
            slow.sendall(knock[40:] + hello(pair))
            assert slow.recv(1000) != b""
        finally:
            for sock in crowd:
                sock.close()


def tries(pair, port):
    """As ZeroMQ does: again and again, here for a few seconds."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            if pair.works(port, 500000):
                return True
        except OSError:
            pass
        time.sleep(0.1)
    return False


def test_a_storm_of_connections(pair):
    """Four threads that connect, send something and leave, as fast as they can, from where we come from as well."""
    port, over, count = pair.route(), threading.Event(), [0]

    def storm():
        while not over.is_set():
            try:
                with socket.create_connection((HOST, pair.port), 10) as sock:
                    sock.sendall(b"x" * (count[0] % 100))
                count[0] += 1
            except OSError:
                continue
    threads = [threading.Thread(target=storm, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        began = time.monotonic()
        assert [tries(pair, port) for _ in range(5)] == [True] * 5
        took = time.monotonic() - began
    finally:
        over.set()
        for thread in threads:
            thread.join(15)
    assert count[0] > 50 and took < 10.0
