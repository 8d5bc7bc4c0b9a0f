"""Agents that dial in: the launcher has a channel process of its own, and who comes there with the job's key is a link.

``JoinStarter`` waits for agents that somebody else starts (``launch/dialer.py``); ``carrier.py`` has those that one
program starts for us (mpirun, srun). All are Starters: ``remote.py``.

An agent that comes while nobody waits for it (its predecessor is not known to be dead yet, or the job goes on without
that host) is held, and taken when the job starts again.
"""
import os
import shlex
import socket
from typing import NamedTuple, Optional, Tuple

from launch.channel import Channel
from launch.dialer import Invitation, target
from launch.facts import facts
from launch.links import Link
from launch.secure import JobKey
from launch.sites import is_loopback
from launch.spec import LaunchError

__all__ = ["JoinOptions", "JoinStarter", "JoinLink", "own_addresses", "DIALER"]

DIALER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "dialer.py")
BEAT = 2.0              # seconds between two heartbeats to agents that are held
LISTEN_LIMIT = 15.0     # seconds for the channel's process to start and listen


class JoinOptions(NamedTuple):
    """How agents come in.

    Args: addresses: of this machine, as agents shall dial it, the best first.  port: 0 for a free one.  key: packed
        JobKey, None for a new one.  key_file: where a new one is put for those who start agents, and removed from at
        the end; None for nowhere.  python: of the agents.
    """
    addresses: Tuple[str, ...]
    port: int = 0
    key: Optional[str] = None
    key_file: Optional[str] = None
    python: str = "python3"
    connect_timeout: float = 30.0
    host_timeout: float = 20.0


def own_addresses(resolve=None):
    """Addresses of this machine that others may reach it by, the likeliest first; loopback when there is no other."""
    found = []
    for address in [*_named(socket.gethostname()), _outgoing(), *(one for some in facts()["addresses"].values()
                                                                  for one in some)]:
        if address and not is_loopback(address) and address not in found:
            found.append(address)
    return tuple(sorted(found, key=lambda address: ":" in address)) or ("127.0.0.1",)


def _named(name):
    try:
        return [entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                if not entry[4][0].startswith("fe80")]
    except (OSError, UnicodeError):
        return []


def _outgoing():
    """The address that connections to the outside come from; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("198.51.100.1", 9))       # an address of nobody (RFC 5737)
            return sock.getsockname()[0]
        except OSError:
            return None


class JoinLink(Link):
    """A link to an agent that has dialled. It may be carried by a program that carries others too."""

    def __init__(self, place, host, peer, loop, timeout, fd, carrier, say):
        super().__init__(place, host.name, loop, timeout, fd, os.dup(fd), carrier, say)
        self._peer, self._nameless = peer, " " in host.name

    def _take(self, op, fields):
        if op == "ready":
            fields["peer"] = self._peer         # what the launcher sees of it
            if self._nameless:
                self.name = str(fields["hostname"])[:255]
        super()._take(op, fields)

    def _story(self):
        return self.starting.ending()


class JoinStarter:
    """Waits for agents: see ``remote.py``.

    Args: hosts: list of Host, all of them with ``dials``.
    """
    again, silent = True, "no agent has come for it"

    def __init__(self, hosts, options):
        self._hosts, self._options = hosts, options
        self._loop = self._say = self._welcome = self._channel = self._port = None
        self._key = options.key
        self._expected, self._held, self._given = set(), {}, {}
        self._trouble = ""          # why nobody can come in any more

    # ---- for the back end ----

    def open(self, loop, say):
        """Listen. Raises: LaunchError."""
        self._loop, self._say = loop, say
        if self._key is None:
            self._key = JobKey.create().pack()
        self._listen()
        loop.every(BEAT, self._beat)
        self._opened()

    def start(self, places, welcome):
        """Take these hosts' agents when they are there, or when they come."""
        self._welcome, lacking = welcome, []
        for place in places:
            held = self._held.pop(place, None)
            if held is not None and not held.why:
                self._give(place, held)
            else:
                self._expected.add(place)
                lacking.append(place)
        if self._channel is None:
            try:
                self._listen()
            except LaunchError as error:
                self._trouble = str(error)
                return
        if lacking:
            self._call(lacking)

    def missing(self, _place):
        """Why no agent can come, "" while one may."""
        return self._trouble

    def script(self, place):
        """What has to be run on a host."""
        return [self._line(place)]

    def close(self):
        """Send those away that nobody needed, and listen no more."""
        for link in self._held.values():
            link.send("bye")
            link.close("over")
        self._dismiss()
        if self._loop is not None:
            self._loop.every(None, self._beat)
        self._hang_up()
        self._closed()

    # ---- what kinds of starters differ in ----

    def _opened(self):
        """Tell who starts the agents where they are awaited."""
        if self._options.key_file is not None:
            _write_key(self._options.key_file, self._key)
        self._say(None, f"waiting for {len(self._hosts)} agents; on each host: {self._line(None)}")

    def _closed(self):
        if self._options.key_file is not None and self._port is not None:
            try:
                os.unlink(self._options.key_file)
            except OSError:
                return

    def _call(self, places):
        """See to it that agents are started there; somebody else does."""

    def _carrier(self, _place):
        """The program behind an agent that has come, None when there is none."""
        return None

    def _dismiss(self):
        """All links have ended: so shall what carried them."""

    def _line(self, place):
        words = [self._options.python, DIALER, "--key-file", self._options.key_file or "KEYFILE"]
        if place is not None:
            words += ["--index", str(place)]
        host = self._options.addresses[0]
        host = f"[{host}]" if ":" in host else host
        return " ".join(map(shlex.quote, words + [f"{host}:{self._port or self._options.port or 'PORT'}"]))

    # ---- the channel ----

    def _listen(self):
        """Start the channel's process; after its death too, on the same port."""
        local = all(is_loopback(address) for address in self._options.addresses)
        any_address = "::" if all(":" in address for address in self._options.addresses) else "0.0.0.0"
        self._channel = Channel().start()
        try:
            self._channel.send("key", key=self._key)
            self._channel.send("listen", host=self._options.addresses[0] if local else any_address,
                               port=self._port or self._options.port, index=0)
            for place in (None, *range(len(self._hosts))):
                self._channel.send("accept", target=target(place))
            event, _ = self._channel.receive(LISTEN_LIMIT)
            if event is None or event["event"] != "listening":
                raise LaunchError(f"cannot listen for agents on port {self._port or self._options.port}: "
                                  f"{event['why'] if event else 'the channel does not answer'} (--join-port)")
        except LaunchError:
            self._channel.close()
            self._channel = None
            raise
        self._port, self._trouble = event["port"], ""
        self._loop.watch(self._channel, self._event)

    def _hang_up(self):
        if self._channel is not None:
            self._loop.unwatch(self._channel)
            self._channel.close()
            self._channel = None

    def _event(self):
        try:
            event, fd = self._channel.receive(0)
        except LaunchError as error:
            self._hang_up()             # the links end with it
            self._trouble = str(error)
            return
        if event is not None and event["event"] == "accepted":
            self._come(event["target"], event["peer"][0], fd)
        elif fd is not None:
            os.close(fd)

    # ---- agents ----

    def _come(self, wanted, peer, fd):
        """An agent is there."""
        place = self._free() if wanted == target(None) else int(wanted.rpartition("-")[2])
        if place is None:
            self._say(None, f"an agent has come from {peer}, but there is one for each of {len(self._hosts)} hosts; "
                            "sent away")
            os.close(fd)
            return
        peer = peer[7:] if peer.startswith("::ffff:") else peer
        link = JoinLink(place, self._hosts[place], peer, self._loop, self._options.host_timeout, fd,
                        self._carrier(place), lambda text: self._say(place, text))
        if place in self._expected:
            self._give(place, link)
            return
        old = self._held.pop(place, None)
        if old is not None:
            old.close("another agent has come in its place")
        self._held[place] = link

    def _free(self):
        """A place for an agent that does not care."""
        taken = [place for place, link in [*self._given.items(), *self._held.items()] if not link.why]
        free = [place for place in range(len(self._hosts)) if place not in taken]
        return next((place for place in free if place in self._expected), free[0] if free else None)

    def _give(self, place, link):
        self._expected.discard(place)
        self._given[place] = link
        self._welcome(link)

    def _beat(self):
        """Those that are held shall know that somebody is there."""
        for place, link in list(self._held.items()):
            link.send("beat")
            if link.why:
                del self._held[place]

    def _invitation(self, variable, places):
        """For the environment of agents that a program of ours starts."""
        return Invitation(tuple((address, self._port) for address in self._options.addresses), self._key,
                          self._options.connect_timeout, variable, places).pack()


def _write_key(path, key):
    """A file for its owner only, and new: what somebody else has put there is not written into."""
    try:
        if os.path.lexists(path):
            os.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, 0o600)
            file.write(key + "\n")
    except OSError as error:
        raise LaunchError(f"cannot write the job's key to {path}: {error.strerror}") from None
