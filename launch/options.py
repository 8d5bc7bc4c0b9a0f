"""The command line of launch.py: what may be written there, and what it means in one line each."""
import argparse

from launch import cluster, schedulers
from launch.spec import LaunchError

__all__ = ["build_parser"]

DESCRIPTION = "Start a distributed MXNet job: one scheduler, servers and workers, watched until all of them are gone."
EPILOG = """\
Every line of output is shown with its role; all of it is kept in the log folder, one file a role. The first failure
is named and everything else is ended.

Several hosts: -H hosts names them, a line each: NAME [slots=N] [role=worker,server,scheduler] [port=] [user=]
[address=]; slots is the number of workers a host may hold (1), # begins a comment. Each needs ssh without a password,
Python 3.8 or newer, and gluonzoo and COMMAND in the same folder as here (or --remote-dir, --sync-dst-dir). Roles there
get the variables of --env, --env-worker and --env-server, and of this machine's GLUONZOO_*, MXNET_*, OMP_*, KMP_*,
PYTHONPATH, LANG and LC_*. What goes between hosts is encrypted, and hosts are let in by a key made for each start.

launch.py check -H hosts [the same options and COMMAND] looks at the hosts first and says what is missing there.

exit codes:  0 all workers ended with 0;  2 wrong use, nothing was started;  124 a deadline passed;  126, 127 COMMAND
could not be executed;  129, 130, 143 ended by SIGHUP, Ctrl-C, SIGTERM;  141 standard output was closed;  else that of
the role that failed first (128 + signal number when a signal killed it, 1 when it was 0). A worker that ends with 65
says that it would do so again: --max-restarts does not apply (tools/train.py, when a loss is not finite).
"""


class _Parser(argparse.ArgumentParser):
    """Errors as one line, without the usage."""

    def error(self, message):
        raise LaunchError(message)

    def parse_args(self, *args):
        return schedulers.defaults(super().parse_args(*args))


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


def _positive(text):
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


def _count(text):
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
    parser = _parser()
    _add_job(parser.add_argument)
    _add_survival(parser.add_argument_group("failures, deadlines and the end").add_argument)
    _add_hosts(parser.add_argument_group("several hosts").add_argument)
    schedulers.add_options(parser.add_argument_group("mpirun, Slurm and agents that dial in").add_argument, _whole, _port)
    cluster.add_options(parser.add_argument_group("kubernetes").add_argument, _whole)
    add = parser.add_argument
    for flag in ("-SH --server-hostfile", "--scheduler-ip", "--scheduler-port"):
        add(*flag.split(), dest="foreign", action="append", help=argparse.SUPPRESS,
            type=lambda _, flag=flag: flag.split()[-1])
    for flag in ("--byteps-launch", "--p3"):
        add(flag, dest="foreign", action="append_const", const=flag, help=argparse.SUPPRESS)
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what every worker runs, with its arguments")
    return parser


def _parser():
    parser = _Parser(prog="launch.py", usage="launch.py -n WORKERS [-s SERVERS] [options] COMMAND ...",
                     description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    return parser


def _add_job(add):
    add("-n", "--num-workers", type=_whole, required=True, metavar="N", help="number of workers; each runs COMMAND")
    add("-s", "--num-servers", type=_whole, metavar="N", help="number of servers (default: as many as workers)")
    add("-H", "--hostfile", metavar="FILE", help="the hosts: a hostfile, or a list such as host1:2,host2 (see below)")
    add("--launcher", metavar="NAME",
        help="how processes are started: local (default), ssh (default with -H), mpi, slurm, join (agents come by "
             "themselves), or kubernetes (writes manifests)")
    add("--env", action="append", default=[], metavar="K=V",
        help="set an environment variable for every role; K alone passes the caller's value on (here needed for DMLC_* "
             "only: all others are passed on anyway, without showing in a process list)")
    add("--env-worker", action="append", default=[], metavar="K=V", help="for workers only; MXNet's K:V works too")
    add("--env-server", action="append", default=[], metavar="K=V", help="for servers and the scheduler only")
    add("--host", metavar="IP",
        help="address all roles of a local job use (default: 127.0.0.1); mpi, slurm, join: this machine's, for the hosts")
    add("--interface", metavar="NAME", help="network interface for ps-lite (default: lo for a loopback address)")
    add("--port", type=_port, metavar="P", help="the scheduler's port (default: a free one)")
    add("--log-dir", metavar="DIR", help="where logs go (default: a fresh folder runs/launch-DATE-TIME-PID)")
    add("--server-python", metavar="PY",
        help="Python for scheduler and servers (default: COMMAND's, when that is python, else this one, or that of "
             "--remote-python)")
    add("--dry-run", action="store_true", help="print what would be started, as shell commands, and stop")
    add("--version", action="store_true", help="print the version and stop")


def _add_survival(add):
    add("--timeout", type=_seconds, metavar="S", help="end the job after so many seconds")
    add("--stall-timeout", type=_seconds, metavar="S",
        help="fail when no worker makes progress for so long: reports another step or, if none reports steps, prints "
             "anything (default: 600, for jobs that report steps; 0 for never)")
    add("--startup-timeout", type=_seconds, metavar="S",
        help="fail when no worker prints or reports anything for so long after the start")
    add("--grace", type=_seconds, metavar="S",
        help="from SIGTERM to SIGKILL (default: 5). When given, the workers get so long for a checkpoint when launch.py "
             "gets SIGTERM: they are sent SIGUSR1")
    add("--max-restarts", type=_count, default=0, metavar="N",
        help="start the whole job again up to N times after a failure; roles see GLUONZOO_RESTART=1, 2 ...")
    add("--restart-window", type=_positive, metavar="S", help="count only the restarts of the last S seconds")
    add("--tolerate-workers", type=_count, default=0, metavar="K",
        help="go on when up to K workers fail (not worker 0); for --kvstore dist_async")


def _add_hosts(add):
    add("--min-workers", type=_whole, metavar="N",
        help="start with fewer workers, at least N, when hosts cannot be reached; the workers see the number that was "
             "asked for (-n) as GLUONZOO_JOB_WORKERS")
    add("--max-workers", type=_whole, metavar="N", help="start with more workers than -n, at most N, where there are slots")
    add("--oversubscribe", action="store_true", help="let hosts hold more workers than slots")
    add("--connect-timeout", type=_positive, metavar="S", help="for reaching a host (default: 30, or 600 for join)")
    add("--host-timeout", type=_positive, default=20.0, metavar="S",
        help="a host that is silent for so long is lost (default: 20)")
    add("--insecure-network", action="store_true",
        help="no encryption between hosts: ps-lite itself listens on the hosts' addresses and believes everybody")
    add("--channel-port", type=_port, metavar="P", help="each host's port for the others (default: a free one)")
    add("--ssh", default="ssh", metavar="PROGRAM", help="the ssh program, with options if need be (default: ssh)")
    add("--ssh-option", action="append", default=[], metavar="K=V", help="passed on to ssh as -o K=V")
    add("--remote-python", metavar="PY",
        help="Python of the hosts' agents (default: python3; for mpi and slurm this one)")
    add("--remote-dir", metavar="DIR", help="folder roles start in (default: the current one, which must exist there)")
    add("--sync-dst-dir", metavar="DIR",
        help="copy the current folder to DIR on each host with rsync first (without .git, .venv and runs; nothing is "
             "deleted there), and start roles in DIR")
