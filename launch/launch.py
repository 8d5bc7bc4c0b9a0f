#!/usr/bin/env python3
"""Start a distributed MXNet job: one scheduler, servers and workers, watched until all of them are gone.

    python launch/launch.py -n 2 -s 1 python tools/train.py --model lenet5 --dataset mnist --kvstore dist_sync
"""
import argparse
import fcntl
import os
import re
import sys
import time

if not __package__:     # run as a file: import the package this file is in, not its files one by one
    _HERE = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [os.path.dirname(_HERE)] + [entry for entry in sys.path if os.path.realpath(entry or ".") != _HERE]

from launch.local import LocalJob, check_host, find_program  # noqa: E402 (the path is set first)
from launch.spec import JobSpec, LaunchError, check, check_name  # noqa: E402

__all__ = ["main"]

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
SERVER_MODULE = "gluonzoo.distributed.server"
PLANNED = ("ssh", "mpi", "slurm", "kubernetes")
MXNETS_OWN = ("sge", "yarn")

EPILOG = """\
Every line of output is shown with its role; all of it is kept in the log folder, one file a role. The first failure
is named and everything else is ended.

exit codes:  0 all workers ended with 0;  2 wrong use, nothing was started;  124 a deadline passed;  126, 127 COMMAND
could not be executed;  129, 130, 143 ended by SIGHUP, Ctrl-C, SIGTERM;  141 standard output was closed;  else that of
the role that failed first (128 + signal number when a signal killed it, 1 when it was 0).
"""


class _Parser(argparse.ArgumentParser):
    """Errors as one line, without the usage."""

    def error(self, message):
        raise LaunchError(message)


def _whole(text):
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def _seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, 0 or more, got {text!r}")
    return value


def _restarts(text):
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value}")
    return value


def _port(text):
    value = _whole(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {value}")
    return value


def build_parser():
    """The command line: MXNet's own launch.py, and more."""
    parser = _Parser(prog="launch.py", usage="launch.py -n WORKERS [-s SERVERS] [options] COMMAND ...",
                     description=__doc__.split("\n")[0], epilog=EPILOG, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-n", "--num-workers", type=_whole, required=True, metavar="N", help="number of workers; each runs COMMAND")
    add("-s", "--num-servers", type=_whole, metavar="N", help="number of servers (default: as many as workers)")
    add("-H", "--hostfile", metavar="FILE", help="hosts, for launchers that reach other hosts (none is built yet)")
    add("--launcher", default="local", metavar="NAME", help="how processes are started: local (default)")
    add("--env", action="append", default=[], metavar="K=V",
        help="set an environment variable for every role; K alone passes the caller's value on (needed for DMLC_* "
             "only: all others are passed on anyway, without showing in a process list)")
    add("--env-worker", action="append", default=[], metavar="K=V", help="for workers only; MXNet's K:V works too")
    add("--env-server", action="append", default=[], metavar="K=V", help="for servers and the scheduler only")
    add("--host", default="127.0.0.1", metavar="IP", help="address all roles use (default: %(default)s)")
    add("--interface", metavar="NAME", help="network interface for ps-lite (default: lo for a loopback address)")
    add("--port", type=_port, metavar="P", help="the scheduler's port (default: a free one)")
    add("--log-dir", metavar="DIR", help="where logs go (default: a fresh folder runs/launch-DATE-TIME-PID)")
    add("--timeout", type=_seconds, metavar="S", help="end the job after so many seconds")
    add("--stall-timeout", type=_seconds, metavar="S",
        help="fail when no worker makes progress for so long: reports another step or, if none reports steps, prints "
             "anything (default: 600, for jobs that report steps; 0 for never)")
    add("--startup-timeout", type=_seconds, metavar="S",
        help="fail when no worker prints or reports anything for so long after the start")
    add("--grace", type=_seconds, default=5.0, metavar="S", help="from SIGTERM to SIGKILL (default: 5)")
    add("--max-restarts", type=_restarts, default=0, metavar="N",
        help="start the whole job again up to N times after a failure; roles see GLUONZOO_RESTART=1, 2 ...")
    add("--server-python", metavar="PY",
        help="Python for scheduler and servers (default: COMMAND's, when that is python, else this one)")
    add("--dry-run", action="store_true", help="print what would be started, as shell commands, and stop")
    add("--version", action="store_true", help="print the version and stop")
    for flag in ("-SH --server-hostfile", "--sync-dst-dir", "--scheduler-ip", "--scheduler-port"):
        add(*flag.split(), dest="foreign", action="append", help=argparse.SUPPRESS,
            type=lambda _, flag=flag: flag.split()[-1])
    for flag in ("--byteps-launch", "--p3"):
        add(flag, dest="foreign", action="append_const", const=flag, help=argparse.SUPPRESS)
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what every worker runs, with its arguments")
    return parser


def _check_launcher(options):
    if options.launcher in PLANNED + MXNETS_OWN:
        raise LaunchError(f"--launcher {options.launcher} is not supported; only local is, for now")
    if options.launcher != "local":
        raise LaunchError(f"unknown launcher {options.launcher!r}; there is: local")
    if options.hostfile is not None:
        raise LaunchError("-H/--hostfile is for launchers that reach other hosts; --launcher local runs every role on "
                          "this machine")
    if options.foreign:
        raise LaunchError(f"{options.foreign[0]} is not supported by --launcher local")


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
    _check_launcher(options)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    servers = options.num_workers if options.num_servers is None else options.num_servers
    env = _variables(options.env, "--env", environ, "=")
    interface = options.interface
    if interface is None and options.host.startswith("127."):
        interface = "lo"
    try:
        os.getcwd()
    except OSError:
        raise LaunchError("the current folder does not exist any more") from None
    log_dir = options.log_dir
    if log_dir is None:
        log_dir = os.path.join("runs", time.strftime("launch-%Y%m%d-%H%M%S-") + str(os.getpid()))
    job = JobSpec(
        command=tuple(command), server_argv=(), num_workers=options.num_workers, num_servers=servers,
        log_dir=os.path.abspath(log_dir), host=options.host, interface=interface, env=env,
        env_worker=_variables(options.env_worker, "--env-worker", environ, "=:"),
        env_server=_variables(options.env_server, "--env-server", environ, "=:"),
        python_path=environ.get("PYTHONPATH", ""), import_root=_import_root(), bar=bar)
    check(job)
    check_host(job.host, job.interface)
    path = {**environ, **env, **job.env_worker}.get("PATH")
    program = find_program(command[0], path)
    python = _server_python(options.server_python, command[0], program, environ.get("PATH"))
    return job._replace(server_argv=(python, "-m", SERVER_MODULE))


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


def _run(job, limits, port, front_fd):
    """In the supervisor process: run the job."""
    from launch.output import Screen
    from launch.supervise import Supervisor
    back_end = LocalJob(job, os.environ, port)
    processes = back_end.prepare(0)     # a taken port is found before anything is written
    log = open_log_dir(job.log_dir)
    here = os.getcwd() + os.sep
    shown = job.log_dir[len(here):] if job.log_dir.startswith(here) else job.log_dir
    screen = Screen(log=log, spill_dir=job.log_dir)
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
    options = build_parser().parse_args(argv)
    if options.version:
        print(_version())
        return 0
    job = build_job(options, os.environ, os.isatty(1))
    if options.dry_run:
        print(LocalJob(job, os.environ, options.port).script())
        return 0
    from launch.processes import keep
    from launch.supervise import Limits
    limits = Limits(options.timeout, options.stall_timeout, options.startup_timeout, options.grace,
                    options.max_restarts)
    return keep(lambda front_fd: _guarded(_run, job, limits, options.port, front_fd))


def main(argv=None):
    """The program; returns the exit code."""
    _open_standard_files()
    return _guarded(_main, sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    sys.exit(main())
