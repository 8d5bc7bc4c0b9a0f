"""The channel's own process: one loop that listens, hears knocks and obeys the parent, and a thread a connection.

The loop never waits for anybody. Strangers can make it accept connections and read 80 bytes of each, in a bounded
number and for a bounded time; a thread and TLS begin only behind the right knock.
"""
import collections
import contextlib
import errno
import resource
import selectors
import socket
import threading
import time

from launch import channel
from launch.secure import KNOCK, JobKey, Nonces, ReplayGuard, check_target
from launch.splice import Broken, splice
from launch.tunnel import CONNECT, Life, Refused, Stopped, TurnedAway, answer, connect, dial, prepare, why

__all__ = ["Gate"]

STRANGERS = 256         # connections that have not knocked yet; then the oldest of those who have most must go
PATIENCE = 5.0          # seconds for a knock
BACKLOG = 1024
BATCH = 64              # connections accepted in one go, before the others are looked at again
TIMEOUT = 30.0          # seconds a dial is tried by default
PAUSE = 0.25            # between two tries
COMPLAIN = 10.0         # seconds between two events about a route that does not get through
CLEAR_LIMIT = 3.0       # seconds for cut tunnels to end
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Route:
    """A port of this host that stands for one of another host."""

    def __init__(self, listener, message):
        self.listener, self.port = listener, message["bind"][1]
        self.address, self.host, self.target = message["address"], message["host"], check_target(message["target"])
        self.complained = 0.0


class Keys:
    """What follows from a JobKey: TLS contexts, own nonces, others' nonces."""

    def __init__(self, text):
        self.key = JobKey.unpack(text)
        self.server, self.client = self.key.context(True), self.key.context(False)
        self.nonces, self.guard = Nonces(), ReplayGuard()

    def heard(self, knock, index):
        """The target of a knock that is right and new, or None."""
        target = self.key.target(knock, index)
        return target if target is not None and self.guard.fresh(knock[:16]) else None


class Gate:
    """The process. ``run`` it in the main thread."""

    def __init__(self, parent):
        self.parent, self.selector, self.send_lock = parent, selectors.DefaultSelector(), threading.Lock()
        self.keys, self.listener, self.index = None, None, 0
        self.served, self.routes = {}, []       # target: address, or None for the parent
        self.strangers = collections.OrderedDict()      # socket: [deadline, peer, bytes so far], oldest first
        self.lives, self.lives_lock = set(), threading.Lock()

    def run(self):
        """Obey and serve until the parent has gone; returns an exit code."""
        _limits()
        self.parent.setblocking(True)
        self.selector.register(self.parent, selectors.EVENT_READ, self._obey)
        while True:
            first = next(iter(self.strangers.values()), None)
            ready = self.selector.select(None if first is None else max(0.0, first[0] - time.monotonic()))
            for key, _ in ready:
                if key.fileobj is self.parent:
                    if not self._obey():
                        return 0
                elif key.fileobj.fileno() >= 0:     # not closed by what came before it in this round
                    key.data(key.fileobj)
            now = time.monotonic()
            while self.strangers and next(iter(self.strangers.values()))[0] <= now:
                self._forget(next(iter(self.strangers)))

    # ---- the parent

    def _obey(self):
        message, _ = channel.receive(self.parent)
        if message is None:
            return False
        op = message.get("op")
        try:
            if op not in ("key", "listen", "serve", "accept", "route", "dial", "clear"):
                raise ValueError("there is no such message")
            getattr(self, "_" + op)(message)
        except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
            told = why(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self._tell({"event": "failed", "op": op, "why": told})
        return True

    def _tell(self, event, fd=None, wait=True):
        """Send an event to the parent; without ``wait`` it is dropped when the parent does not listen."""
        with self.send_lock, contextlib.suppress(OSError):      # of a parent that has gone the loop learns by itself
            channel.send(self.parent, event, fd, 0 if wait else socket.MSG_DONTWAIT)

    def _key(self, message):
        self.keys = Keys(message["key"])

    def _listen(self, message):
        if self.listener is not None:
            raise ValueError("it listens already")
        self.listener = _listener(message["host"], message["port"])
        self.index = message.get("index", 0)
        self.selector.register(self.listener, selectors.EVENT_READ, self._stranger)
        self._tell({"event": "listening", "port": self.listener.getsockname()[1]})

    def _serve(self, message):
        host, port = message["to"]
        self.served[check_target(message["target"])] = (host, port)

    def _accept(self, message):
        self.served[check_target(message["target"])] = None

    def _route(self, message):
        port = message["bind"][1]
        try:
            route = Route(_listener(*message["bind"]), message)
        except OSError as error:
            return self._tell({"event": "refused", "port": port, "why": why(error)})
        route.port = route.listener.getsockname()[1]
        self.routes.append(route)
        self.selector.register(route.listener, selectors.EVENT_READ, lambda listener: self._local(listener, route))
        return self._tell({"event": "routed", "port": route.port})

    def _dial(self, message):
        self._begin(self._carry_dialed, dict(message), check_target(message["target"]), self.keys, owner="parent")

    def _clear(self, _message):
        for route in self.routes:
            self.selector.unregister(route.listener)
            route.listener.close()
        self.routes = []
        self.served = {target: to for target, to in self.served.items() if to is None}
        with self.lives_lock:
            cut = [(life, thread) for life, thread in self.lives if life.owner != "parent"]
        for life, _ in cut:
            life.stop()
        deadline = time.monotonic() + CLEAR_LIMIT
        for _, thread in cut:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._tell({"event": "cleared"})

    # ---- connections that begin

    def _stranger(self, listener):
        """Connections from the network, before they have knocked."""
        for sock, peer in _accepted(listener, self._make_room):
            self.strangers[sock] = [time.monotonic() + PATIENCE, list(peer[:2]), b""]
            self.selector.register(sock, selectors.EVENT_READ, self._listen_to)
            if len(self.strangers) > STRANGERS:
                self._forget(self._least_welcome())

    def _least_welcome(self):
        """The oldest connection from the place most come from: who floods us is in his own way, not in others'."""
        places = collections.OrderedDict()
        for sock, (_, peer, _) in self.strangers.items():
            places.setdefault(_place(peer[0]), []).append(sock)
        return max(places.values(), key=len)[0]

    def _make_room(self):
        for sock in list(self.strangers)[:BATCH]:
            self._forget(sock)

    def _forget(self, sock):
        self.selector.unregister(sock)
        del self.strangers[sock]
        sock.close()

    def _listen_to(self, sock):
        """Read a stranger's knock, and not a byte more: the rest is for TLS."""
        entry = self.strangers[sock]
        try:
            data = sock.recv(KNOCK - len(entry[2]))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        entry[2] += data
        if data and len(entry[2]) < KNOCK:
            return
        target = self.keys.heard(entry[2], self.index) if data and self.keys is not None else None
        if target is None or target not in self.served:
            self._forget(sock)
            return
        self.selector.unregister(sock)
        del self.strangers[sock]
        self._begin(self._carry_in, sock, entry[1], entry[2], target, self.served[target], self.keys,
                    owner="parent" if self.served[target] is None else None, sock=sock)

    def _local(self, listener, route):
        """Connections from this host's roles."""
        for sock, _ in _accepted(listener, lambda: time.sleep(PAUSE)):
            self._begin(self._carry_out, sock, route, self.keys, sock=sock)

    # ---- threads

    def _begin(self, body, *arguments, owner=None, sock=None):
        """Run ``body(life, *arguments)`` in a thread; whatever happens its sockets are closed."""
        life = Life(owner)

        def run():
            try:
                body(life, *arguments)
            except (Stopped, Refused):
                pass
            except OSError:
                pass            # a socket that failed between two steps
            finally:
                life.close()
                with self.lives_lock:
                    self.lives.discard((life, thread))
        thread = threading.Thread(target=run, daemon=True)
        if sock is not None:
            life.add(sock)
        with self.lives_lock:
            self.lives.add((life, thread))
        try:
            thread.start()
        except RuntimeError:    # no more threads
            life.close()
            self.lives.discard((life, thread))

    def _carry_in(self, life, sock, peer, knock, target, to, keys):
        """A connection from another host, to where its target is."""
        prepare(sock)
        secure = answer(sock, knock, keys.server)
        if to is None:
            plain = self._hand_over(life, {"event": "accepted", "target": target, "peer": peer})
        else:
            plain = connect(to, life, time.monotonic() + CONNECT)
        secure.welcome()
        self._splice(life, secure, plain, target)

    def _carry_out(self, life, sock, route, keys):
        """A connection of one of this host's roles, to another host."""
        if keys is None:
            return
        prepare(sock)
        try:
            secure = dial(route.address, self._knock(keys, route), keys.client, life)
        except TurnedAway:      # the usual case: the role there has not started yet, and this one will try again
            return
        except Refused as error:
            now = time.monotonic()
            if now - route.complained > COMPLAIN:
                route.complained = now
                self._tell({"event": "failed", "port": route.port, "why": str(error)}, wait=False)
            return
        self._splice(life, secure, sock, route.target)

    def _carry_dialed(self, life, message, target, keys):
        """A connection for the parent, tried again and again until its time is over."""
        address, host = message["address"], message["host"]
        event = {name: message[name] for name in ("address", "host", "target")}
        deadline = time.monotonic() + message.get("timeout", TIMEOUT)
        while True:
            try:
                if keys is None:
                    raise Refused("there is no key")
                secure = dial(address, keys.key.knock(host, target, keys.nonces.next()), keys.client, life)
                break
            except Refused as error:
                if time.monotonic() + PAUSE >= deadline or keys is None:
                    return self._tell({"event": "failed", **event, "why": str(error)})
                life.sleep(PAUSE)
        return self._splice(life, secure, self._hand_over(life, {"event": "dialed", **event}), target)

    @staticmethod
    def _knock(keys, route):
        return keys.key.knock(route.host, route.target, keys.nonces.next())

    def _hand_over(self, life, event):
        """One end of a socket pair for the parent; returns the other."""
        ours, theirs = socket.socketpair()
        life.add(ours)
        with theirs:
            self._tell(event, theirs.fileno())
        return ours

    def _splice(self, life, secure, plain, target):
        try:
            splice(secure, plain)
        except Broken as error:
            if str(error) and not life.stopped:
                port = int(target) if target.isdigit() else 0
                self._tell({"event": "broken", "port": port, "target": target, "why": str(error)}, wait=False)


def _listener(host, port):
    """A socket that listens; ``::`` and an empty host mean IPv4 as well."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        return sock
    except (OSError, OverflowError) as error:
        sock.close()
        raise error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)) from None


def _place(host):
    """Where an address belongs to: for IPv6 its network, of whose addresses one host may take as many as it likes."""
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed if packed.startswith(b"\0" * 10) else packed[:8]     # the first: IPv4 in IPv6's clothes


def _accepted(listener, make_room):
    """The connections that wait, at most BATCH of them."""
    for _ in range(BATCH):
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:
                make_room()
                return
            continue        # it was reset while it waited
        sock.setblocking(False)
        yield sock, peer


def _limits():
    """Many descriptors, and no core file: it would hold the key."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
