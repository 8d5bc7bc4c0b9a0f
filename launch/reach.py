"""The hosts of a job and the links to their agents: reaching them, again and again, and giving them a key."""
import time
from typing import Mapping, NamedTuple, Optional

from launch.secure import JobKey
from launch.sites import Sites
from launch.spec import LaunchError, place

__all__ = ["Hosts", "HostLost", "RemoteOptions"]

BEAT = 2.0              # seconds between two heartbeats
RETRY = 2.0             # seconds between two tries to reach a host, when the job starts again


class HostLost(LaunchError):
    """A host was there, and is not any more."""


class RemoteOptions(NamedTuple):
    """What a job on several hosts needs to know beside its JobSpec.

    Args: environ: variables for every role, under those of the job.  hidden: values not to be shown.  cwd: folder the
        roles start in, there.  port: of the scheduler, None for a free one.  channel_port: of every host's channel, 0
        for free ones.  restarts: how often a scheduler has started this job before.  stay: agents
        get no goodbye when a signal ends the job, and wait for the next launcher.
    """
    environ: Mapping[str, str] = {}
    hidden: Mapping[str, str] = {}
    cwd: Optional[str] = None
    port: Optional[int] = None
    channel_port: int = 0
    connect_timeout: float = 30.0
    host_timeout: float = 20.0
    grace: float = 5.0
    insecure: bool = False
    version: str = ""
    restarts: int = 0
    stay: bool = False


class Hosts:
    """The hosts that a job may use.

    Attributes: hosts: list of Host.  starter: see ``remote.py``.  options: RemoteOptions.
    Raises: LaunchError when an address cannot be right.
    """

    def __init__(self, job, hosts, starter, options):
        self.job, self.hosts, self.starter, self.options = job, list(hosts), starter, options
        self._sites = Sites(self.hosts)
        if options.insecure:
            self._sites.check_ipv4()
        self._links = {}            # by number of the host
        self._loop = self._screen = None

    def beat(self):
        """Say that we are there, and give up agents that do not."""
        for link in self._links.values():
            if link.there:
                link.send("beat")
                link.check()

    def reach(self, restart):
        """Have a link to every host that is wanted; returns the numbers of those that are there."""
        wanted = self._wanted()
        deadline = time.monotonic() + self.options.connect_timeout
        while True:
            missing = [number for number in wanted if not self._is_there(number)]
            if missing and (restart == 0 or self.starter.again):
                self._start(missing, max(0.1, deadline - time.monotonic()))
            failed = [number for number in wanted if not self._is_there(number)]
            if not failed or restart == 0 or self.job.elastic or not self.starter.again:
                break
            left = deadline - time.monotonic()
            if left <= RETRY:
                break
            self._loop.until(lambda: False, RETRY)
        here = [number for number in wanted if self._is_there(number)]
        if failed and (not here or not (self.job.elastic or restart)):
            raise LaunchError("; ".join(f"host {self.hosts[number].name}: {self._reason(number)}" for number in failed[:4])
                              + (f"; and {len(failed) - 4} more" if len(failed) > 4 else ""))
        for number in failed:
            self._screen.say(f"host {self.hosts[number].name} is left out: {self._reason(number)}")
        return here

    def _wanted(self):
        """The hosts to reach: all when any number may do, else those that would have a role."""
        if self.job.elastic:
            return list(range(len(self.hosts)))
        where = place(self.hosts, self.job)
        return sorted({where.scheduler, *where.servers, *where.workers})

    def _is_there(self, number):
        return number in self._links and self._links[number].there

    def _reason(self, number):
        link = self._links.get(number)
        return (link.why if link is not None else self.starter.missing(number) or self.starter.silent) or "it did not answer"

    def _start(self, places, seconds):
        """Start agents and wait until each has answered or failed."""
        for number in places:
            self._links.pop(number, None)
        self.starter.start(places, self._welcome)      # copies code first, if need be, and that may take long

        def settled():
            return all(link.there or link.why if link is not None else self.starter.missing(number)
                       for number, link in ((number, self._links.get(number)) for number in places))
        self._loop.until(settled, seconds)
        for number in places:
            link = self._links.get(number)
            if link is not None and not link.there:
                link.close(f"no answer within {self.options.connect_timeout:g} s (--connect-timeout)")

    def _welcome(self, link):
        """A link has come: see what is at its other end. Keys come later, when all are there."""
        self._links[link.place] = link
        self._hello(link, None)

    def _hello(self, link, key):
        listen = None
        if key is not None:
            listen = [self._sites.listen, self.options.channel_port]
        link.ask("hello", "ready", version=self.options.version, host=link.place, timeout=self.options.host_timeout,
                 grace=self.options.grace, key=key, listen=listen, cwd=self.options.cwd)

    def all(self, here, answer, what):
        """Wait until these hosts have answered."""
        links = [self._links[number] for number in here]
        ok = self._loop.until(lambda: all(answer in link.answers or link.why or link.trouble for link in links),
                              self.options.connect_timeout)
        for link in links:
            if link.why:
                raise HostLost(f"host {link.name} lost: {link.why}")
            if link.trouble:
                raise LaunchError(f"host {link.name}: {link.trouble}")
            if not ok and answer not in link.answers:
                raise LaunchError(f"host {link.name} did not {what} within {self.options.connect_timeout:g} s "
                                  "(--connect-timeout)")
        return {link.place: link.answers[answer] for link in links}

    def greet(self, here):
        """Tell the hosts the key of this attempt, and find out how they reach one another."""
        for number in here:
            version = self._links[number].ready.get("version")
            if version != self.options.version:
                raise LaunchError(f"host {self.hosts[number].name}: its agent is of version {version!r}, this is "
                                  f"{self.options.version!r}")
            if self.hosts[number].dials:       # it has told its name
                self.hosts[number] = self.hosts[number]._replace(name=self._links[number].name)
        self._sites.settle({number: self._links[number].ready for number in here})
        if self.options.insecure:
            self._sites.check_ipv4()
        if self.options.insecure or self._sites.one:
            return
        key = JobKey.create().pack()        # a new one for each attempt: nothing of the last can come in
        for number in here:
            self._hello(self._links[number], key)
        self.all(here, "ready", "open its channel")
