"""The back end for jobs on several hosts: an agent on each, and a link to each agent.

How agents come to life is a Starter's business. It has
    open(loop, say)         once; say(place, text) shows a line about a host,
                            or about all of them (None)
    start(places, welcome)  see to it that these hosts (numbers in the list of hosts) get an agent; call welcome(link)
                            for each Link as soon as there is one, now (ssh starts a program for each host) or later,
                            from the event loop (agents that dial in)
    missing(place)          why a host that has no link will not get one, "" while it may
    script(place)           lines that show what would be run for a host (--dry-run)
    close()                 give everything back
and ``again``: whether a host whose agent is gone can be started once more; ``silent``: why a host may have no link.

An attempt: every host has a link, ``hello`` gives it the key of this attempt, all agree on ports that are free
everywhere, each host listens on the ports of roles elsewhere (``routes``), then roles are started. Afterwards the
agents stay, for the next attempt. Hosts that share a loopback interface (several agents on one machine) are a *site*:
they need no channel between them, and the first of them makes it for all.
"""
import shlex
import time

from launch import ports
from launch.links import RemoteRole
from launch.reach import BEAT, HostLost, Hosts, RemoteOptions
from launch.spec import OWNED, WORKER, LaunchError, counts, ordered, place, plan

__all__ = ["RemoteJob", "RemoteOptions", "passed_on"]

TRIES = 3               # to prepare an attempt, when hosts are lost meanwhile
ROUNDS = 20             # proposals of ports, before it is no coincidence
PORTS_LIMIT = 2.0       # seconds for the answer whether a port is free
END_MARGIN = 8.0        # seconds an agent may take on top of grace to say that all has ended
TUNNEL_PATIENCE = 3.0   # a connection between hosts broke: time for a role's end to explain it
LEAVE = 2.0             # seconds for the agents to end by themselves
PREFIXES, NAMES = ("GLUONZOO_", "MXNET_", "OMP_", "KMP_", "LC_"), ("PYTHONPATH", "LANG")


def passed_on(environ):
    """What of the caller's environment reaches roles on other hosts unasked."""
    return {name: value for name, value in environ.items()
            if (name.startswith(PREFIXES) or name in NAMES) and name not in OWNED}


class RemoteJob(Hosts):
    """A job on several hosts, as the supervisor wants it: see ``supervise.py``.

    Args: hosts: list of Host.  starter: see above.  options: RemoteOptions.
    """

    def __init__(self, job, hosts, starter, options):
        super().__init__(job, hosts, starter, options)
        place(self.hosts, job)             # what cannot be is told before anything is started
        self._where, self._here, self._used, self._ports = None, [], set(), None
        self._broken_since = None

    # ---- for the supervisor ----

    def open(self, loop, screen):
        """Take the event loop to be used."""
        self._loop, self._screen = loop, screen
        self.starter.open(loop, lambda number, text: screen.say(
            text if number is None else f"host {self.hosts[number].name}: {text}"))
        loop.every(min(BEAT, self.options.host_timeout / 4), self.beat)

    def prepare(self, restart):
        """Reach the hosts, deal out the roles, agree on ports and connect the hosts; returns the ProcessSpecs.

        Raises: LaunchError, Interrupted.
        """
        for _ in range(TRIES):
            try:
                return self._prepare(restart)
            except HostLost as error:       # found out only now: without it, or with a new agent
                lost = error
        raise lost

    def _prepare(self, restart):
        self._broken_since = None
        for link in self._links.values():
            link.broken = link.failed = ""
        here = self._here = self.reach(restart)
        self.greet(here)
        addresses = [self._sites.addresses[number] for number in here] if self.options.insecure else None
        self._where = place([self.hosts[number] for number in here], self.job, addresses)
        processes = self._agree(here, restart)
        self._connect(here, processes)
        return [spec._replace(place=here[spec.place]) for spec in processes]

    def describe(self):
        """One line for the start of an attempt."""
        names = list(dict.fromkeys(self._where.hosts[i] for i in (
            self._where.scheduler, *self._where.servers, *self._where.workers)))
        shown = ", ".join(names if len(names) <= 6 else names[:5] + [f"and {len(names) - 5} more"])
        fewer = len(self._where.workers) - self.job.num_workers
        asked = f" ({self.job.num_workers} were asked for)" if fewer else ""
        between = "" if self._sites.one else ", not protected" if self.options.insecure else ", encrypted between hosts"
        return f"{counts(self.job, len(self._where.workers))}{asked} on {shown}, scheduler port {self._ports[0]}{between}"

    def start(self, spec, output):
        """Ask an agent to start a process; returns its Role."""
        link = self._links[spec.place]
        role = RemoteRole(spec, output, link, len(link.roles))
        link.roles[role.index] = role
        if link.why:
            role.lose(f"host {link.name} lost: {link.why}")
            return role
        link.send("start", index=role.index, role=spec.role, argv=list(spec.argv), env=self.environment(spec),
                  cwd=self.options.cwd, worker=spec.role == WORKER)
        return role

    def environment(self, spec):
        """What a process gets on top of its host's environment."""
        return {**self.options.environ, **spec.env}

    def lost_its_port(self):
        """Whether another program has the scheduler's port now that the scheduler has ended."""
        if self.options.port is not None:
            return False
        link = self._links[self._here[self._where.scheduler]]
        link.ask("ports", "ports", ports=[self._ports[0]], own=[])
        deadline = time.monotonic() + PORTS_LIMIT
        while "ports" not in link.answers and not link.why and time.monotonic() < deadline:
            self._loop.pump(0.1)
        return self._ports[0] in link.answers.get("ports", {}).get("taken", [])

    def trouble(self):
        """Why the attempt cannot go on though no role has failed; "" while it can."""
        for link in self._links.values():
            if link.failed:
                return f"host {link.name}: {link.failed}"
        # A role that ends may leave broken connections behind; its end, or that of another, is what counts then.
        broken = [link for link in self._links.values() if link.broken]
        if not broken or any(role.code is not None for link in self._links.values() for role in link.roles.values()):
            return ""
        if self._broken_since is None:
            self._broken_since = time.monotonic()
        if time.monotonic() - self._broken_since < TUNNEL_PATIENCE:
            return ""
        return f"host {broken[0].name}: a connection to another host broke: {broken[0].broken}"

    def signal(self, roles, number):
        """Send a signal to roles that run, not to their children."""
        for link in self._links.values():
            indexes = [role.index for role in roles if role.link is link]
            if indexes:
                link.send("signal", indexes=indexes, number=int(number))

    def alive(self):
        """Whether a role runs anywhere."""
        return any(role.code is None for link in self._links.values() for role in link.roles.values())

    def strays(self, _roles):
        """Agents end what roles leave behind, and do not tell."""
        return []

    def end(self, grace, wait, hurry):
        """End all roles on all hosts at the same time; returns what could not be ended."""
        asked = [link for link in self._links.values() if link.there]
        for link in asked:
            link.ask("end", "ended", grace=grace)
        deadline, hurried = time.monotonic() + grace + END_MARGIN, False
        while any(not link.why and "ended" not in link.answers for link in asked):
            if time.monotonic() >= deadline:
                break
            if not hurried and hurry():
                hurried, deadline = True, min(deadline, time.monotonic() + END_MARGIN)
                for link in asked:
                    if "ended" not in link.answers:
                        link.send("end", grace=0)
            wait(0.1)
        for link in asked:
            if not link.why and "ended" not in link.answers:
                link.close(f"it did not end its processes within {grace + END_MARGIN:g} s")
        left = [process for link in asked for process in link.left_behind()]
        for link in self._links.values():
            link.answers.pop("ended", None)
            link.roles = {}
        return left

    def leave(self):
        """The job is over: say goodbye, and give the agents a moment to end."""
        if self._loop is None:
            return
        for link in self._links.values():
            link.left = True
            if not (self.options.stay and self._loop.interrupted):
                link.send("bye")
            else:
                link.close("stopped")
        deadline = time.monotonic() + LEAVE
        while any(not link.why for link in self._links.values()) and time.monotonic() < deadline:
            self._loop.pump(0.1)
        for link in self._links.values():
            link.close("over")
        self.starter.close()

    def close(self):
        """Nothing is held on this machine."""

    # ---- before the roles start ----

    def _agree(self, here, restart):
        """Find ports that are free on every host; returns the plan with them."""
        count = 1 + self.job.num_servers + len(self._where.workers)
        fixed = self.options.port
        supply = iter(port for port in ports.candidate_ports(count, self._used) if port != fixed)
        leaders, taken = self._sites.leaders(here), set()
        self._ports = ([fixed] if fixed else []) + [next(supply) for _ in range(count - bool(fixed))]
        for _ in range(ROUNDS):
            processes = plan(self.job, ordered(self._ports, self.job.num_servers), self.options.restarts + restart,
                             self._where)
            for number in leaders:
                self._links[number].ask("ports", "ports", ports=self._ports, own=[
                    port for port, node in nodes(processes) if here[node.place] == number])
            answers = self.all(leaders, "ports", "say which ports are free")
            taken = {port for answer in answers.values() for port in answer["taken"]}
            if fixed in taken:
                name = next(self.hosts[n].name for n, answer in answers.items() if fixed in answer["taken"])
                raise LaunchError(f"port {fixed} on host {name} is taken (--port); leave --port out to have a free one "
                                  "chosen")
            if not taken:
                self._used.add(self._ports[0])
                return processes
            self._ports = [next(supply, None) if port in taken else port for port in self._ports]
            if None in self._ports:
                break
        raise LaunchError(f"needed {count} ports that are free on all hosts; of those tried last, {len(taken)} were taken")

    def _connect(self, here, processes):
        """Have every host listen in the place of the roles of other hosts that its own roles talk to."""
        if self.options.insecure or self._sites.one:
            return
        leaders = self._sites.leaders(here)
        for number in here:
            routes = []
            if number in leaders:
                own = {spec.role for spec in processes if self._sites.same(here[spec.place], number)}
                for port, spec in nodes(processes):
                    there = here[spec.place]
                    if not self._sites.same(there, number) and own - {spec.role}:   # nodes of one role do not talk
                        routes.append([port, self._sites.addresses[there], self._links[there].ready["channel_port"], there])
            serve = [port for port, spec in nodes(processes) if here[spec.place] == number]
            self._links[number].ask("routes", "routed", routes=routes, serve=serve)
        self.all(here, "routed", "make its connections")

    # ---- telling ----

    def script(self):
        """What would be started, host by host, to read (--dry-run).

        Values taken over from the caller's environment are not shown: they may be secrets.
        """
        known = [address or host.name for address, host in zip(self._sites.addresses, self.hosts)]
        where = place(self.hosts, self.job, known if self.options.insecure else None)
        count = 1 + self.job.num_servers + len(where.workers)
        first = self.options.port or ports.LOWEST
        processes = plan(self.job, ordered(range(first, first + count), self.job.num_servers), 0, where)
        lines = [f"# {counts(self.job, len(where.workers))} on {len(where.hosts)} hosts; nothing was started. Ports are "
                 "chosen when all hosts have been asked for free ones:", "# those shown stand for them. Every host gets an "
                 "agent, and each agent starts its roles as the launcher tells it."]
        known, asked = sorted(self.options.environ), {*self.job.env, *self.job.env_worker, *self.job.env_server}
        for number, host in enumerate(self.hosts):
            lines += [f"# ---- host {host.name}", *self.starter.script(number)]
            if known:
                lines.append(f"# its roles get, as they are here: {' '.join(known)}")
            for spec in processes:
                if spec.place == number:
                    words = [f'{name}="${name}"' if name in asked and self.options.hidden.get(name) == value
                             else f"{name}={shlex.quote(value)}" for name, value in sorted(spec.env.items())]
                    lines += [f"# {spec.name}" + (f", in {self.options.cwd}" if self.options.cwd else ""),
                              " ".join(["env", *words, *map(shlex.quote, spec.argv)])]
        return "\n".join(lines)


def nodes(processes):
    """Each process of a plan with the port it listens on."""
    for spec in processes:
        yield int(spec.env.get("PORT", spec.env["DMLC_PS_ROOT_PORT"])), spec

