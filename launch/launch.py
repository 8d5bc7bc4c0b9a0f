#!/usr/bin/env python3
"""Start a distributed MXNet job: one scheduler, servers and workers, watched until all of them are gone.

    python launch/launch.py -n 2 -s 1 python tools/train.py --model lenet5 --dataset mnist --kvstore dist_sync
    python launch/launch.py -n 8 -s 2 -H hosts python tools/train.py ...      # on the machines named in the file hosts
"""
import fcntl
import os
import re
import shlex
import sys
import time

if not __package__:     # run as a file: import the package this file is in, not its files one by one
    _HERE = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [os.path.dirname(_HERE)] + [entry for entry in sys.path if os.path.realpath(entry or ".") != _HERE]

from launch import schedulers  # noqa: E402 (the path is set first)
from launch.local import LocalJob, check_host, find_program  # noqa: E402
from launch.options import build_parser  # noqa: E402
from launch.spec import JobSpec, LaunchError, check, check_name  # noqa: E402

__all__ = ["main"]

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
SERVER_MODULE = "gluonzoo.distributed.server"
MXNETS_OWN = ("sge", "yarn")
GRACE = 5.0


def _launcher(options):
    """The launcher to be used."""
    name = options.launcher or ("local" if options.hostfile is None else "ssh")
    if name in MXNETS_OWN:
        raise LaunchError(f"--launcher {name} is not supported; there are: local, ssh, mpi, slurm, join, kubernetes")
    if name not in ("local", "ssh") + schedulers.DIALLING:
        raise LaunchError(f"unknown launcher {name!r}; there are: local, ssh, mpi, slurm, join, kubernetes")
    if options.foreign:
        raise LaunchError(f"{options.foreign[0]} is not supported")
    schedulers.check_options(name, options)
    if name in schedulers.DIALLING:
        return name
    if name == "local":
        if options.hostfile is not None:
            raise LaunchError("-H/--hostfile is for launchers that reach other hosts; --launcher local runs every role "
                              "on this machine")
        for flag in ("min_workers", "max_workers", "remote_dir", "sync_dst_dir", "channel_port"):
            if getattr(options, flag) is not None:
                raise LaunchError(f"--{flag.replace('_', '-')} is for jobs on several hosts (-H)")
    elif options.hostfile is None:
        raise LaunchError("--launcher ssh needs the hosts: -H FILE or -H host1:2,host2")
    elif options.host is not None:
        raise LaunchError("--host is for local jobs; give address= in the hostfile for a host on several networks")
    elif options.interface is not None and not options.insecure_network:
        raise LaunchError("--interface is of no use here: ps-lite listens on each host's loopback interface only "
                          "(--insecure-network)")
    return name


def _variables(words, flag, environ, separators):
    """``K=V`` and ``K`` words as a dictionary."""
    found = {}
    for word in words:
        match = re.match(rf"([^{separators}]*)(?:[{separators}](.*))?\Z", word, re.DOTALL)
        name, value = match.group(1), match.group(2)
        try:
            check_name(name)
        except LaunchError as error:
            raise LaunchError(f"{flag} {word!r}: {error}") from None
        if value is None and name not in environ:
            raise LaunchError(f"{flag} {name}: the variable is not set here; give its value: {flag} {name}=VALUE")
        found[name] = environ[name] if value is None else value
    return found


def build_job(options, environ, bar):
    """The JobSpec of a command line.

    Raises: LaunchError for anything in it that cannot work.
    """
    launcher = _launcher(options)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    servers = options.num_workers if options.num_servers is None else options.num_servers
    env = _variables(options.env, "--env", environ, "=")
    host, interface = options.host or "127.0.0.1", options.interface
    if interface is None and host.startswith("127.") and not (launcher != "local" and options.insecure_network):
        interface = "lo"
    try:
        here = os.getcwd()
    except OSError:
        raise LaunchError("the current folder does not exist any more") from None
    log_dir = options.log_dir
    if log_dir is None:
        log_dir = os.path.join("runs", time.strftime("launch-%Y%m%d-%H%M%S-") + str(os.getpid()))
    job = JobSpec(
        command=tuple(command), server_argv=(), num_workers=options.num_workers, num_servers=servers,
        log_dir=os.path.abspath(log_dir), host=host, interface=interface, env=env,
        env_worker=_variables(options.env_worker, "--env-worker", environ, "=:"),
        env_server=_variables(options.env_server, "--env-server", environ, "=:"),
        python_path=environ.get("PYTHONPATH", ""), import_root=_import_root(), bar=bar,
        tolerate=options.tolerate_workers, min_workers=options.min_workers, max_workers=options.max_workers,
        oversubscribe=options.oversubscribe, job_id=_job_id(environ, command))
    check(job)
    if launcher != "local":
        return _on_hosts(job, options, here)
    check_host(job.host, job.interface)
    path = {**environ, **env, **job.env_worker}.get("PATH")
    program = find_program(command[0], path)
    python = _server_python(options.server_python, command[0], program, environ.get("PATH"))
    return job._replace(server_argv=(python, "-m", SERVER_MODULE))


def _job_id(environ, command):
    """What the attempts at a job have in common; a job that Slurm starts again is the same job."""
    slurm = environ.get("SLURM_JOB_ID")
    if not slurm:
        return os.urandom(16).hex()
    import hashlib  # not at the top: only here
    return f"slurm-{slurm}-" + hashlib.sha256("\0".join(command).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _on_hosts(job, options, here):
    """What differs when the roles run elsewhere: nothing of the command can be looked at here."""
    python = options.server_python
    if python is None:
        word = job.command[0]
        python = word if os.path.basename(word).startswith("python") else options.remote_python
    there = options.sync_dst_dir or options.remote_dir
    root = job.import_root
    if there is not None and root and (root + os.sep).startswith(here + os.sep):    # the checkout, where it is there
        inside = os.path.relpath(root, here)        # a relative PYTHONPATH is taken from the folder they start in
        root = os.path.normpath(os.path.join(there, inside)) if os.path.isabs(there) else inside
    return job._replace(server_argv=(python, "-m", SERVER_MODULE), import_root=root)


def _server_python(asked, word, program, path):
    if asked is not None:
        return find_program(asked, path, "--server-python")
    if os.path.basename(word).startswith("python"):
        return os.path.abspath(program)
    if not sys.executable:
        raise LaunchError("cannot tell which Python is to run scheduler and servers; name it with --server-python")
    return sys.executable


def _import_root():
    """The checkout, so that servers find gluonzoo when it is not installed; "" when this is an installed copy."""
    in_checkout = os.path.isdir(os.path.join(ROOT, "gluonzoo")) and not ROOT.endswith("-packages")
    return ROOT if in_checkout else ""


def open_log_dir(path):
    """Make the folder and open ``launch.log`` in it, locked: two jobs in one folder would mix their reports.

    Raises: LaunchError when it cannot be made or written, or another launcher uses it.
    """
    try:
        os.makedirs(path, exist_ok=True)
        log = open(os.path.join(path, "launch.log"), "ab", buffering=0)
    except OSError as error:
        raise LaunchError(f"cannot write logs to {path}: {error.strerror} (--log-dir)") from None
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        raise LaunchError(f"another launch.py is using the log folder {path} (--log-dir)") from None
    except OSError:
        return log      # a file system without locks
    return log


def _back_end(job, options):
    """The back end for a command line, and notes for the user."""
    if _launcher(options) == "local":
        return LocalJob(job, os.environ, options.port), []
    if _launcher(options) in schedulers.DIALLING:
        return schedulers.back_end(_launcher(options), job, options, _grace(options), _version())
    from launch.hostfile import read_hosts
    from launch.remote import RemoteJob, RemoteOptions, passed_on
    from launch.ssh import SshOptions, SshStarter, check_programs, home_relative
    hosts, notes = read_hosts(options.hostfile)
    here, sync = os.getcwd(), None
    if options.sync_dst_dir is not None:
        if options.remote_dir is not None:
            raise LaunchError("--sync-dst-dir and --remote-dir name two folders to start in; give one of them")
        sync = here, options.sync_dst_dir
    cwd = options.sync_dst_dir or options.remote_dir
    logs = os.path.relpath(job.log_dir, here)
    try:
        words = tuple(shlex.split(options.ssh))
    except ValueError as error:
        raise LaunchError(f"--ssh {options.ssh!r}: {error}") from None
    reach = SshOptions(words, tuple(options.ssh_option), options.remote_python, options.connect_timeout,
                       options.host_timeout, sync, () if logs.startswith("..") else (logs,))
    check_programs(reach, find_program, os.environ.get("PATH"))
    if options.insecure_network:
        notes.append("WARNING: --insecure-network: nothing between hosts is encrypted, and whoever reaches a port of the "
                     "job can read, change or end it")
    return RemoteJob(job, hosts, SshStarter(hosts, reach, os.environ), RemoteOptions(
        environ=passed_on(os.environ), hidden=os.environ, cwd=here if cwd is None else home_relative(cwd),
        port=options.port, channel_port=options.channel_port or 0, connect_timeout=options.connect_timeout,
        host_timeout=options.host_timeout, grace=_grace(options), insecure=options.insecure_network,
        version=_version())), notes


def _grace(options):
    return GRACE if options.grace is None else options.grace


def _run(job, limits, back_end, notes, front_fd):
    """In the supervisor process: run the job."""
    from launch.output import Screen
    from launch.supervise import Supervisor
    # On this machine a taken port is found before anything is written; other hosts are asked later.
    processes = back_end.prepare(0) if isinstance(back_end, LocalJob) else None
    log = open_log_dir(job.log_dir)
    here = os.getcwd() + os.sep
    shown = job.log_dir[len(here):] if job.log_dir.startswith(here) else job.log_dir
    screen = Screen(log=log, spill_dir=job.log_dir)
    for note in notes:
        screen.say(note)
    return Supervisor(back_end, limits, screen, shown, front_fd).run(processes)


def _version():
    """gluonzoo's version, read without importing it."""
    try:
        with open(os.path.join(ROOT, "gluonzoo", "_version.py"), encoding="utf-8") as file:
            match = re.search(r"^__version__\s*=\s*[\"']([^\"']+)", file.read(), re.MULTILINE)
    except OSError:
        match = None
    return "gluonzoo launch " + (match.group(1) if match else "(version unknown)")


def _one_line(text):
    return "error: " + " ".join(str(text).split("\n")) + "\n"


def _guarded(body, *args):
    """Run body; a LaunchError becomes one line and exit code 2."""
    try:
        return body(*args)
    except LaunchError as error:
        sys.stderr.write(_one_line(error))
        return 2
    except KeyboardInterrupt:       # before the handlers stood, and so before anything was started
        return 130


def _open_standard_files():
    """Descriptors 0, 1, 2 must exist, or the first file we open becomes somebody's standard output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _main(argv):
    if "--version" in argv[:1]:
        print(_version())
        return 0
    if not sys.platform.startswith("linux"):
        raise LaunchError(f"launch.py needs Linux (it relies on /proc and prctl), this is {sys.platform}")
    if argv[:1] == ["check"]:
        from launch.check import check as look
        return look(argv[1:], build_parser(), lambda options: build_job(options, os.environ, False), _back_end,
                    ROOT)
    options = build_parser().parse_args(argv)
    if options.version:
        print(_version())
        return 0
    if options.launcher == "kubernetes":
        from launch import kubernetes
        return kubernetes.write(options, lambda words, flag, separators: _variables(words, flag, os.environ, separators))
    job = build_job(options, os.environ, os.isatty(1))
    if schedulers.submits(options.launcher, os.environ):
        return schedulers.submit(job, options, argv)
    back_end, notes = _back_end(job, options)
    if options.dry_run:
        print("\n".join([f"# {note}" for note in notes] + [back_end.script()]))
        return 0
    from launch.processes import keep
    from launch.supervise import Limits
    limits = Limits(options.timeout, options.stall_timeout, options.startup_timeout, _grace(options),
                    options.max_restarts, options.restart_window, options.grace, options.tolerate_workers)
    return keep(lambda front_fd, _: _guarded(_run, job, limits, back_end, notes, front_fd))


def main(argv=None):
    """The program; returns the exit code."""
    _open_standard_files()
    return _guarded(_main, sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    sys.exit(main())
