"""What a job is, as data: how many processes of each role, where, with which arguments and environment.

Nothing here touches a process, a file, a socket or ``os.environ``. A back end (``local.py``) chooses hosts and ports,
``plan`` turns the job into one ``ProcessSpec`` a process, and ``supervise.py`` runs what the back end makes of it.
"""
import os
import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

__all__ = ["LaunchError", "JobSpec", "Ports", "ProcessSpec", "check", "check_name", "plan", "OWNED"]

SCHEDULER, SERVER, WORKER = "scheduler", "server", "worker"

# The variables this launcher sets itself. A caller's values for them are stale and are taken out first; asking for
# one of them with --env is an error.
OWNED = frozenset((
    "DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER", "DMLC_NODE_HOST",
    "DMLC_INTERFACE", "PORT", "GLUONZOO_LOCAL_WORKERS", "GLUONZOO_ROLE_INDEX", "GLUONZOO_PROGRESS_FILE",
    "GLUONZOO_BAR", "GLUONZOO_RESTART"))


class LaunchError(Exception):
    """A mistake of the person at the keyboard: shown as one line ``error: ...``, exit code 2, nothing started."""


class JobSpec(NamedTuple):
    """A job before it has ports.

    Args: command: what every worker runs.  server_argv: what scheduler and servers run.  log_dir: absolute folder.
        interface: network interface named to ps-lite, None when ``host`` alone decides.  env: for every role;
        env_worker, env_server (scheduler too): on top of it.  python_path: the caller's PYTHONPATH.  import_root:
        folder put before it for scheduler and servers, "" for none.  bar: worker 0 may draw a progress bar.
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


class Ports(NamedTuple):
    """Ports of one attempt. Those of a role ascend with its index: ps-lite numbers its nodes by port."""
    scheduler: int
    servers: Tuple[int, ...]
    workers: Tuple[int, ...]


class ProcessSpec(NamedTuple):
    """One process: ``env`` holds only what is added to, or replaced in, the environment it starts from."""
    role: str
    index: int
    host: str
    argv: Tuple[str, ...]
    env: Dict[str, str]

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


def plan(job, ports, restart=0):
    """Spell a job out, process by process: scheduler, servers, workers.

    Args: ports: one for the scheduler and one for each server and worker.  restart: how often the job was restarted.
    Raises: ValueError when the number of ports does not fit, or they do not ascend.
    """
    for role, have, want in ((SERVER, ports.servers, job.num_servers), (WORKER, ports.workers, job.num_workers)):
        if len(have) != want or list(have) != sorted(set(have)):
            raise ValueError(f"expected {want} ascending {role} ports, got {have!r}")
    processes = [_process(job, ports, SCHEDULER, 0, None, restart)]
    processes += [_process(job, ports, SERVER, i, port, restart) for i, port in enumerate(ports.servers)]
    processes += [_process(job, ports, WORKER, i, port, restart) for i, port in enumerate(ports.workers)]
    return processes


def _process(job, ports, role, index, port, restart):
    """One process of the plan, with everything ps-lite and gluonzoo read from the environment."""
    env = dict(job.env)
    env.update(job.env_worker if role == WORKER else job.env_server)
    if role != WORKER and job.import_root:
        behind = env.get("PYTHONPATH", job.python_path)
        env["PYTHONPATH"] = job.import_root + (os.pathsep + behind if behind else "")
    env.update({
        "DMLC_ROLE": role,
        "DMLC_PS_ROOT_URI": job.host,
        "DMLC_PS_ROOT_PORT": str(ports.scheduler),
        "DMLC_NUM_WORKER": str(job.num_workers),
        "DMLC_NUM_SERVER": str(job.num_servers),
        "DMLC_NODE_HOST": job.host,
        "GLUONZOO_LOCAL_WORKERS": str(job.num_workers),
        "GLUONZOO_ROLE_INDEX": str(index),
        "GLUONZOO_RESTART": str(restart),
    })
    env.setdefault("PYTHONUNBUFFERED", "1")
    if job.interface:
        env["DMLC_INTERFACE"] = job.interface
    if port is not None:
        env["PORT"] = str(port)
    if role == WORKER:
        env["GLUONZOO_PROGRESS_FILE"] = progress_path(job, index)
        if index == 0 and job.bar:
            env["GLUONZOO_BAR"] = "1"
    return ProcessSpec(role, index, job.host, tuple(job.command if role == WORKER else job.server_argv), env)


def counts(job):
    """``1 scheduler, 2 servers, 1 worker``."""
    def many(number, word):
        return f"{number} {word}" + ("" if number == 1 else "s")
    return f"1 scheduler, {many(job.num_servers, SERVER)}, {many(job.num_workers, WORKER)}"


def ordered(ports, num_servers) -> Ports:
    """Deal ``ports`` (first: the scheduler's) out to the roles, ascending within a role."""
    rest: List[int] = sorted(ports[1:])
    return Ports(ports[0], tuple(rest[:num_servers]), tuple(rest[num_servers:]))
