"""What a job is, as data: how many processes of each role, where, with which arguments and environment.

Nothing here touches a process, a file, a socket or ``os.environ``. A back end (``local.py``, ``remote.py``) chooses
ports, ``place`` deals the roles out to hosts, ``plan`` turns the job into one ``ProcessSpec`` a process, and
``supervise.py`` runs what the back end makes of it.
"""
import os
import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

__all__ = ["LaunchError", "JobSpec", "Host", "Placement", "Ports", "ProcessSpec", "check", "check_name", "place", "plan",
           "variables", "OWNED", "ROLES", "is_stale"]

SCHEDULER, SERVER, WORKER = ROLES = "scheduler", "server", "worker"

# The variables this launcher sets itself. A caller's values for them are stale and are taken out first; asking for
# one of them with --env is an error.
OWNED = frozenset((
    "DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER", "DMLC_NODE_HOST",
    "DMLC_INTERFACE", "PORT", "GLUONZOO_LOCAL_WORKERS", "GLUONZOO_ROLE_INDEX", "GLUONZOO_PROGRESS_FILE",
    "GLUONZOO_BAR", "GLUONZOO_LIGHT_SERVER", "GLUONZOO_RESTART", "GLUONZOO_JOB_ID", "GLUONZOO_JOB_WORKERS",
    "GLUONZOO_TOLERATE_WORKERS", "GLUONZOO_JOIN", "GLUONZOO_JOIN_KEY", "GLUONZOO_AGENT_KEY"))


def is_stale(name):
    """Whether a variable of the caller's must not reach the job: left over from another job, it would misdirect it."""
    return name in OWNED or name.startswith("DMLC_")


class LaunchError(Exception):
    """A mistake of the person at the keyboard: shown as one line ``error: ...``, exit code 2, nothing started."""


class JobSpec(NamedTuple):
    """A job before it has ports.

    Args: command: what every worker runs.  server_argv: what scheduler and servers run.  log_dir: absolute folder.
        interface: network interface named to ps-lite, None when ``host`` alone decides.  env: for every role;
        env_worker, env_server (scheduler too): on top of it.  python_path: the caller's PYTHONPATH.  import_root:
        folder put before it for scheduler and servers, "" for none.  bar: worker 0 may draw a progress bar.
        tolerate: so many workers may fail.  min_workers, max_workers: how many workers may run when a host is missing
        or there is room for more, None for num_workers.  oversubscribe: a host may hold more workers than its slots.
        job_id: the same in every attempt at this job and in no other job.
    """
    command: Tuple[str, ...]
    server_argv: Tuple[str, ...]
    num_workers: int
    num_servers: int
    log_dir: str
    host: str = "127.0.0.1"
    interface: Optional[str] = "lo"
    env: Mapping[str, str] = {}
    env_worker: Mapping[str, str] = {}
    env_server: Mapping[str, str] = {}
    python_path: str = ""
    import_root: str = ""
    bar: bool = False
    tolerate: int = 0
    min_workers: Optional[int] = None
    max_workers: Optional[int] = None
    oversubscribe: bool = False
    job_id: str = ""

    @property
    def elastic(self):
        """Whether another number of workers than num_workers may run."""
        return self.min_workers is not None or self.max_workers is not None


class Host(NamedTuple):
    """A machine that may run roles.

    Args: name: what ssh is told.  slots: workers it may hold.  chosen: the user named its roles.  address: what the
        other hosts reach it by, None for its name.  dials: its agent comes by itself, and shows by that where it is.
    """
    name: str
    user: Optional[str] = None
    port: Optional[int] = None
    slots: int = 1
    roles: Tuple[str, ...] = ROLES
    chosen: bool = False
    address: Optional[str] = None
    dials: bool = False


class Placement(NamedTuple):
    """Who runs where: ``hosts`` by name, and for each role the number of its host in that list.

    addresses: what ps-lite itself listens on, host by host; None when that is each host's loopback.
    """
    hosts: Tuple[str, ...]
    scheduler: int
    servers: Tuple[int, ...]
    workers: Tuple[int, ...]
    addresses: Optional[Tuple[str, ...]] = None


class Ports(NamedTuple):
    """Ports of one attempt. Those of a role ascend with its index: ps-lite numbers its nodes by port."""
    scheduler: int
    servers: Tuple[int, ...]
    workers: Tuple[int, ...]


class ProcessSpec(NamedTuple):
    """One process: ``env`` holds only what is added to, or replaced in, the environment it starts from.

    place: the number of its host in the Placement.
    """
    role: str
    index: int
    host: str
    argv: Tuple[str, ...]
    env: Dict[str, str]
    place: int = 0

    @property
    def name(self):
        """How people read it: ``worker 0``, ``server 1``, ``scheduler``."""
        return self.role if self.role == SCHEDULER else f"{self.role} {self.index}"

    @property
    def file_stem(self):
        """How its files begin: ``worker-0``, ``server-1``, ``scheduler``."""
        return self.name.replace(" ", "-")


def check(job):
    """Raise LaunchError when the job cannot be a distributed job at all."""
    if job.num_workers < 1:
        raise LaunchError(f"a job needs at least 1 worker, got {job.num_workers} (-n/--num-workers)")
    if job.num_servers < 0:
        raise LaunchError(f"the number of servers cannot be negative, got {job.num_servers} (-s/--num-servers)")
    if job.num_servers == 0:
        raise LaunchError("a distributed job needs at least 1 server, got 0 (-s/--num-servers); without servers "
                          "(--kvstore local or device) run the command itself, no launcher is needed")
    if not job.command:
        raise LaunchError("no COMMAND given: what shall the workers run? "
                          "(example: launch.py -n 2 -s 1 python tools/train.py --model lenet5)")
    low, high = job.min_workers, job.max_workers
    if low is not None and not 1 <= low <= job.num_workers:
        raise LaunchError(f"--min-workers is from 1 to the number of workers, {job.num_workers} (-n), got {low}")
    if high is not None and high < job.num_workers:
        raise LaunchError(f"--max-workers is at least the number of workers, {job.num_workers} (-n), got {high}")
    if not 0 <= job.tolerate < job.num_workers:
        raise LaunchError(f"--tolerate-workers is from 0 to {job.num_workers - 1}, as worker 0 must live, "
                          f"got {job.tolerate}")
    for env in (job.env, job.env_worker, job.env_server):
        for name in env:
            check_name(name)


def check_name(name):
    """Raise LaunchError unless ``name`` may be set by the user."""
    if not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name):
        raise LaunchError(f"{name!r} is not a name for an environment variable (letters, digits and _ are)")
    if name in OWNED:
        raise LaunchError(f"{name} is set by the launcher itself and cannot be given with --env")


def progress_path(job, index):
    """The file in which worker ``index`` keeps its step number."""
    return os.path.join(job.log_dir, f"worker-{index}.progress")


def place(hosts, job, addresses=None):
    """Deal the roles out to hosts.

    - The scheduler goes to the first host that may have it, servers in turn to those that may; for both, hosts whose
      role= names them come before hosts without role=.
    - Workers fill the slots host by host, so that the ranks on one host are consecutive. More than there are slots
      are dealt in turn on top of that, if ``job.oversubscribe``.
    - Elastic jobs get as many workers as there is room for, from job.min_workers to job.max_workers.

    Args: addresses: what ps-lite listens on, host by host, when it is not the loopback interface.
    Raises: LaunchError when there is not room for all.
    """
    may = {}
    for role in ROLES:
        may[role] = [i for i, host in enumerate(hosts) if role in host.roles]
        if not may[role]:
            raise LaunchError(f"no {role}: role= allows it on none of {_names(hosts)}")
    chosen = {role: [i for i in may[role] if hosts[i].chosen] or may[role] for role in ROLES}
    counts = [host.slots if WORKER in host.roles else 0 for host in hosts]
    room = sum(counts)
    slots = f"{room} {'slot' if room == 1 else 'slots'} on {_names(hosts)}"
    wanted = job.num_workers
    if job.elastic and not job.oversubscribe:
        wanted, least = min(job.max_workers or job.num_workers, room), job.min_workers or job.num_workers
        if wanted < least:
            raise LaunchError(f"at least {least} workers ({'--min-workers' if job.min_workers else '-n'}), but {slots}")
    if wanted > room and not job.oversubscribe:
        raise LaunchError(f"{wanted} workers (-n), but {slots}; give slots= in the hostfile, or --oversubscribe")
    for number in range(room, wanted):
        counts[may[WORKER][(number - room) % len(may[WORKER])]] += 1
    dealt = [i for i, count in enumerate(counts) for _ in range(count)][:wanted]
    servers = [chosen[SERVER][i % len(chosen[SERVER])] for i in range(job.num_servers)]
    order = list(range(len(hosts)))
    if addresses is not None:       # ps-lite numbers nodes by address, the highest first, and then by port
        order.sort(key=lambda i: addresses[i], reverse=True)
    return Placement(tuple(host.name for host in hosts), chosen[SCHEDULER][0], tuple(sorted(servers, key=order.index)),
                     tuple(sorted(dealt, key=order.index)), None if addresses is None else tuple(addresses))


def plan(job, ports, restart=0, where=None):
    """Spell a job out, process by process: scheduler, servers, workers.

    Args: ports: one for the scheduler and one for each server and worker.  restart: how often the job was restarted.
        where: the Placement of a job on several hosts; None for all on this machine.
    Raises: ValueError when the number of ports does not fit, or they do not ascend.
    """
    if where is None:
        where = Placement((job.host,), 0, (0,) * job.num_servers, (0,) * job.num_workers, (job.host,))
        files = [progress_path(job, index) for index in range(job.num_workers)]
    else:
        files = None
    for role, have, want in ((SERVER, ports.servers, len(where.servers)), (WORKER, ports.workers, len(where.workers))):
        if len(have) != want or list(have) != sorted(set(have)):
            raise ValueError(f"expected {want} ascending {role} ports, got {have!r}")
    nodes = [(SCHEDULER, 0, where.scheduler, None)]
    nodes += [(SERVER, i, where.servers[i], port) for i, port in enumerate(ports.servers)]
    nodes += [(WORKER, i, where.workers[i], port) for i, port in enumerate(ports.workers)]
    processes = []
    for role, index, host, port in nodes:
        env = variables(job, role)
        env.update(_cluster(job, where, role, index, host))
        env.update({"DMLC_PS_ROOT_PORT": str(ports.scheduler), "GLUONZOO_RESTART": str(restart)})
        if port is not None:
            env["PORT"] = str(port)
        if role == WORKER and files:
            env["GLUONZOO_PROGRESS_FILE"] = files[index]
        argv = tuple(job.command if role == WORKER else job.server_argv)
        processes.append(ProcessSpec(role, index, where.hosts[host], argv, env, host))
    return processes


def variables(job, role):
    """What the user and Python's paths put into a role's environment."""
    env = dict(job.env)
    env.update(job.env_worker if role == WORKER else job.env_server)
    if role != WORKER and job.import_root:
        behind = env.get("PYTHONPATH", job.python_path)
        env["PYTHONPATH"] = job.import_root + (os.pathsep + behind if behind else "")
    env.setdefault("PYTHONUNBUFFERED", "1")
    return env


def _cluster(job, where, role, index, host):
    """What ps-lite and gluonzoo read from the environment, but for the ports."""
    addresses = where.addresses or ("127.0.0.1",) * len(where.hosts)
    env = {
        "DMLC_ROLE": role,
        "DMLC_PS_ROOT_URI": addresses[where.scheduler],
        "DMLC_NUM_WORKER": str(len(where.workers)),
        "DMLC_NUM_SERVER": str(len(where.servers)),
        "DMLC_NODE_HOST": addresses[host],
        "GLUONZOO_LOCAL_WORKERS": str(max(1, where.workers.count(host))),
        "GLUONZOO_JOB_ID": job.job_id,
        "GLUONZOO_JOB_WORKERS": str(job.num_workers),
        "GLUONZOO_ROLE_INDEX": str(index),
    }
    if job.interface:
        env["DMLC_INTERFACE"] = job.interface
    if job.tolerate:
        env["GLUONZOO_TOLERATE_WORKERS"] = "1"
    if role != WORKER:
        env["GLUONZOO_LIGHT_SERVER"] = "1"
    elif index == 0 and job.bar:
        env["GLUONZOO_BAR"] = "1"
    return env


def counts(job, workers=None):
    """``1 scheduler, 2 servers, 1 worker``."""
    def many(number, word):
        return f"{number} {word}" + ("" if number == 1 else "s")
    return f"1 scheduler, {many(job.num_servers, SERVER)}, {many(workers or job.num_workers, WORKER)}"


def _names(hosts):
    """Hosts for a message, shortened when they are many."""
    names = [host.name for host in hosts]
    return ", ".join(names if len(names) <= 6 else names[:5] + [f"and {len(names) - 5} more"])


def ordered(ports, num_servers) -> Ports:
    """Deal ``ports`` (first: the scheduler's) out to the roles, ascending within a role."""
    rest: List[int] = sorted(ports[1:])
    return Ports(ports[0], tuple(rest[:num_servers]), tuple(rest[num_servers:]))
