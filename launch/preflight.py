"""What a job on these hosts would lack, found out host by host with the job's own means (``launch.py check``).

The hosts get agents as for a job (``ssh.py``), all at the same time, and with a fresh key each other's channels: what
is tried is what a job does. In the place of roles run small programs, which look around and talk to one another. They
leave nothing behind.
"""
import json
import os
import time
from typing import Mapping, NamedTuple, Optional

from launch import ports
from launch.findings import Findings, Problem, judge
from launch.links import RemoteRole
from launch.secure import JobKey
from launch.sites import Sites
from launch.spec import LaunchError, ProcessSpec

__all__ = ["Preflight", "Wanted"]

BEAT = 2.0
ROUNDS = 3              # questions for the time: the quickest answer counts
PORT_ROUNDS = 5
LOOK_LIMIT, DEEP_LIMIT, CALL_LIMIT = 20.0, 180.0, 8.0       # seconds for the programs below
MARK = "gluonzoo-found:"

# Run on each host, in the folder roles start in; what they find is their last line.
FOLDER = f"""
import json, os, shutil, sys
disk = os.statvfs(".")
print({MARK!r} + json.dumps({{"free": disk.f_bavail * disk.f_frsize, "writable": os.access(".", os.W_OK),
    "program": shutil.which(sys.argv[1]) if sys.argv[1] else None}}))
"""
PYTHON = f"""
import importlib.util, json, os, re, sys
def version(name):
    spec = importlib.util.find_spec(name)
    for folder in spec.submodule_search_locations if spec else ():
        try:
            with open(os.path.join(folder, "_version.py")) as file:
                return re.search("__version__ = [\\"'](.+)[\\"']", file.read()).group(1)
        except (OSError, AttributeError):
            return "unknown"
print({MARK!r} + json.dumps({{"python": sys.version.split()[0], "gluonzoo": version("gluonzoo"),
    "mxnet": importlib.util.find_spec("mxnet") is not None}}))
"""
DEEP = f"""
import gluonzoo, mxnet, json, sys
print({MARK!r} + json.dumps({{"python": sys.version.split()[0], "gluonzoo": gluonzoo.__version__,
    "mxnet": mxnet.__version__}}))
"""
# The two ends of every connection between hosts: one answers each byte with a word, the other asks for it.
ANSWER = """
import socket, sys, threading
def serve(sock):
    with sock:
        while sock.recv(1):
            sock.sendall(sys.argv[2].encode())
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
CALL = f"""
import json, socket, sys, threading, time
word, found, deadline = sys.argv[1].encode(), {{}}, time.monotonic() + float(sys.argv[2])
def ask(sock):
    began, data = time.perf_counter(), b""
    sock.sendall(b"?")
    while len(data) < len(word):
        piece = sock.recv(100)
        if not piece:
            raise OSError("closed")
        data += piece
    return (time.perf_counter() - began) * 1000 if data == word else None
def call(port):
    while port not in found and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.settimeout(max(0.1, deadline - time.monotonic()))
                found[port] = min(ask(sock) for _ in range(3))
        except (OSError, TypeError):
            time.sleep(0.1)
threads = [threading.Thread(target=call, args=(int(port),), daemon=True) for port in sys.argv[3:]]
for thread in threads: thread.start()
for thread in threads: thread.join(max(0.0, deadline - time.monotonic()))
print({MARK!r} + json.dumps(found))
"""


class Wanted(NamedTuple):
    """What the job needs of its hosts.

    Args: version: gluonzoo's here.  cwd: folder there.  python: of the roles.  remote_python: of the agents.  program:
        COMMAND's, None when there is none.  env, path: for the roles.  deep: import mxnet, do not only look for it.
    """
    version: Optional[str]
    cwd: Optional[str]
    python: str
    remote_python: str = "python3"
    program: Optional[str] = None
    env: Mapping[str, str] = {}
    path: tuple = ()
    channel_port: int = 0
    connect_timeout: float = 30.0
    host_timeout: float = 20.0
    insecure: bool = False
    deep: bool = False


class _Kept:
    """In the place of a RoleOutput: what a program has printed."""

    def __init__(self):
        self.data = b""

    def feed(self, data):
        self.data = (self.data + data)[-(1 << 16):]


class Preflight:
    """Args: hosts: list of Host.  starter: see ``remote.py``.  wanted: Wanted."""

    def __init__(self, hosts, starter, wanted):
        self._hosts, self._starter, self._wanted = hosts, starter, wanted
        self._sites, self._links, self._said = Sites(hosts), {}, {}
        self._loop, self._word = None, os.urandom(8).hex()
        self.found = [Findings(host) for host in hosts]
        self.problems = []

    def run(self, loop):
        """Ask all hosts everything; returns the problems, those of hosts in their order."""
        self._loop = loop
        self._starter.open(loop, lambda place, text: self._said.setdefault(place, []).append(text))
        loop.every(min(BEAT, self._wanted.host_timeout / 4), self._beat)
        try:
            self._reach()
            self._clocks()
            self._look()
            self._network()
        finally:
            self._leave()
        for found in self.found:
            self.problems += judge(found, self._wanted)
        return self.problems

    # ---- links ----

    def _beat(self):
        for link in self._links.values():
            if link.there:
                link.send("beat")
                link.check()

    def _there(self):
        return [number for number in sorted(self._links) if self._links[number].there]

    def _hello(self, number, key=None):
        wanted = self._wanted
        listen = [self._sites.listen, wanted.channel_port] if key is not None else None
        return {"version": wanted.version, "host": number, "timeout": wanted.host_timeout, "key": key, "listen": listen,
                "cwd": wanted.cwd, "path": list(wanted.path)}

    def _reach(self):
        """Start an agent on every host and wait for each to answer or fail."""
        def welcome(link):
            self._links[link.place] = link
            link.ask("hello", "ready", **self._hello(link.place))

        def settled(number):
            link = self._links.get(number)
            return link.there or link.why if link is not None else self._starter.missing(number)
        numbers = range(len(self._hosts))
        self._starter.start(numbers, welcome)
        self._loop.until(lambda: all(settled(number) for number in numbers), self._wanted.connect_timeout)
        for number in numbers:
            link, found = self._links.get(number), self.found[number]
            if link is None:
                found.why = self._starter.missing(number) or "it did not answer"
            elif not link.there:
                link.close(f"no answer within {self._wanted.connect_timeout:g} s (--connect-timeout)")
                found.why = link.why
            else:
                found.facts = dict(link.ready)

    def _ask(self, numbers, op, answer, fields, seconds=None):
        """Ask hosts something; returns the answers by number, of those that have answered."""
        for number in numbers:
            self._links[number].ask(op, answer, **fields(number))

        def done(link):
            return answer in link.answers or link.why or link.trouble
        self._loop.until(lambda: all(done(self._links[number]) for number in numbers),
                         seconds or self._wanted.connect_timeout)
        return {number: self._links[number].answers[answer] for number in numbers
                if answer in self._links[number].answers}

    def _run(self, number, argv, cwd=None, env=None):
        """Start a program on a host; returns its RemoteRole."""
        link = self._links[number]
        role = RemoteRole(ProcessSpec("program", number, link.name, tuple(argv), {}), _Kept(), link, len(link.roles))
        link.roles[role.index] = role
        link.send("start", index=role.index, role="program", argv=list(argv), env=dict(env or {}), cwd=cwd,
                  worker=False)
        return role

    def _results(self, roles, seconds):
        """What programs have found, by number of their host: a value, or why there is none."""
        self._loop.until(lambda: all(role.code is not None or role.link.why for role in roles.values()), seconds)
        return {number: _result(role, seconds) for number, role in roles.items()}

    # ---- what is asked ----

    def _clocks(self):
        """The difference of clocks: the time in the answer against the middle between question and answer."""
        for _ in range(ROUNDS):
            numbers = self._there()
            asked, waiting = time.time(), set(numbers)

            def note(asked=asked, waiting=waiting):
                now = time.time()
                for number in [n for n in waiting if "ready" in self._links[n].answers or self._links[n].why]:
                    waiting.discard(number)
                    found, answer = self.found[number], self._links[number].answers.get("ready")
                    if answer is not None and (found.round_trip is None or now - asked < found.round_trip):
                        found.skew, found.round_trip = answer["time"] - (asked + now) / 2, now - asked
                return not waiting
            for number in numbers:
                self._links[number].ask("hello", "ready", **self._hello(number))
            self._loop.until(note, self._wanted.connect_timeout)

    def _look(self):
        """The folder, COMMAND, and what the roles' Python would import."""
        wanted = self._wanted
        folders, pythons = {}, {}
        for number in self._there():
            agent = self.found[number].facts["executable"] or "python3"
            folders[number] = self._run(number, [agent, "-I", "-c", FOLDER, wanted.program or ""], wanted.cwd,
                                        wanted.env)
            pythons[number] = self._run(number, [wanted.python, "-c", DEEP if wanted.deep else PYTHON], wanted.cwd,
                                        wanted.env)
        for number, result in self._results(folders, LOOK_LIMIT).items():
            self.found[number].folder = result
        for number, result in self._results(pythons, DEEP_LIMIT if wanted.deep else LOOK_LIMIT).items():
            self.found[number].python = result

    def _network(self):
        """The address of every host, and a connection from each to each other."""
        key = None
        if not self._wanted.insecure and not self._sites.one:
            try:
                key = JobKey.create().pack()
            except LaunchError as error:
                self.problems.append(Problem("this machine", str(error)))
        here = self._settle()
        for number in here:
            found = self.found[number]
            found.address = self._sites.addresses[number]
            found.interface = next((name for name, some in found.facts["addresses"].items() if found.address in some),
                                   None)
        if key is None or self._sites.one or len(here) < 2:
            return
        ready = self._ask(here, "hello", "ready", lambda number: self._hello(number, key))
        for number in here:
            self.found[number].channel_port = ready.get(number, {}).get("channel_port")
            self._note_trouble(number, self.found[number].channel_port is not None, "it did not open")
        here = [number for number in here if not self.found[number].channel]
        self._connect(here, self._sites.leaders(here))

    def _settle(self):
        """The hosts that are there and whose addresses are known."""
        here = self._there()
        while here:
            try:
                self._sites.settle({number: self.found[number].facts for number in here})
                return here
            except LaunchError as error:        # it names the host
                bad = next((n for n in here if f"host {self._hosts[n].name} " in str(error)
                            or f"the name {self._hosts[n].name} " in str(error)), here[0])
                self.problems.append(Problem(self._hosts[bad].name, str(error)))
                here.remove(bad)
        return here

    def _note_trouble(self, number, well, otherwise):
        link = self._links[number]
        if not well or link.why:
            self.found[number].channel = link.why or link.trouble or otherwise

    def _connect(self, here, leaders):
        """Have every site's first host connect to every host of other sites, and note how that goes."""
        port = self._ports(leaders, here)
        if not port:
            return

        def routes(number):
            others = [n for n in here if not self._sites.same(n, number)] if number in leaders else []
            return {"routes": [[port[n], self._sites.addresses[n], self.found[n].channel_port, n] for n in others],
                    "serve": [port[number]]}
        routed = self._ask(here, "routes", "routed", routes)
        for number in here:
            self._note_trouble(number, number in routed, "it did not make its connections")
        answering = {n: self._run(n, [self._python(n), "-I", "-c", ANSWER, str(port[n]), self._word]) for n in here}
        self._loop.until(lambda: all(role.pid or role.code is not None for role in answering.values()), LOOK_LIMIT)
        self._said.clear()
        calling = {}
        for number in (n for n in leaders if n in routed):
            others = [str(port[n]) for n in here if not self._sites.same(n, number)]
            calling[number] = self._run(number, [self._python(number), "-I", "-c", CALL, self._word, str(CALL_LIMIT),
                                                 *others])
        results = self._results(calling, CALL_LIMIT + LOOK_LIMIT)
        for number, result in results.items():
            for other in (n for n in here if not self._sites.same(n, number)):
                self._note_call(number, other, result, port[other])

    def _note_call(self, number, other, result, port):
        """Take in whether a host has reached another."""
        name, found = self._hosts[number].name, self.found[other]
        if isinstance(result, str):
            found.reached[name] = f"unknown: the program that tries it failed there, {result}"
            return
        milliseconds = result.get(str(port))
        if milliseconds is None:
            begins = f"{found.address} port {found.channel_port}: "
            said = [text[len(begins):] for text in self._said.get(number, ()) if text.startswith(begins)]
            found.reached[name] = said[-1] if said else "the connection is closed before the key is proved"
        else:
            found.reached[name] = round(milliseconds, 3)

    def _python(self, number):
        return self.found[number].facts["executable"] or "python3"

    def _ports(self, leaders, here):
        """A port by number of the host, free on all of them."""
        supply = iter(ports.candidate_ports(len(here), ()))
        chosen = {number: next(supply) for number in here}
        for _ in range(PORT_ROUNDS):
            def fields(number, chosen=chosen):
                return {"ports": list(chosen.values()), "own": [chosen[n] for n in here if self._sites.same(n, number)]}
            answers = self._ask(leaders, "ports", "ports", fields)
            taken = {port for answer in answers.values() for port in answer["taken"]}
            if not taken:
                return chosen
            chosen = {number: next(supply) if port in taken else port for number, port in chosen.items()}
        self.problems.append(Problem(self._hosts[leaders[0]].name, "no ports were found that are free on all hosts"))
        return {}

    def _leave(self):
        for link in self._links.values():
            link.left = True
            link.send("bye")
        deadline = time.monotonic() + BEAT
        while any(not link.why for link in self._links.values()) and time.monotonic() < deadline:
            self._loop.pump(0.1)
        for link in self._links.values():
            link.close("over")
        self._starter.close()


def _result(role, seconds):
    """What a program has found, or why it has not."""
    if role.refused is not None:
        return role.refused[0]
    lines = [line.strip() for line in role.output.data.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines and lines[-1].startswith(MARK):
        return json.loads(lines[-1][len(MARK):])
    if role.code is None:
        return f"no answer within {seconds:g} s"
    return lines[-1] if lines else role.lost or f"it {role.ending()}"
