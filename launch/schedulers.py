"""From the command line to a job whose agents dial in: --launcher mpi, slurm and join."""
import os
import shlex
import sys

from launch.local import find_program
from launch.spec import Host, LaunchError

__all__ = ["DIALLING", "add_options", "check_options", "defaults", "back_end", "submits", "submit"]

DIALLING = ("mpi", "slurm", "join")
SLURM_ONLY = ("nodes", "partition", "time", "slurm_option", "slurm_script", "no_wait")
MPI_ONLY = ("mpirun", "mpi_option")
JOIN_ONLY = ("num_hosts", "join_key_file", "agents_stay")


def add_options(add, whole, port):
    """What these launchers need on the command line.

    Args: add: add_argument of a group.  whole, port: types.
    """
    add("--mpirun", metavar="PROGRAM", help="Open MPI's mpirun, with options if need be (default: mpirun)")
    add("--mpi-option", action="append", default=[], metavar="WORDS",
        help="more words for mpirun, or several with spaces between them")
    add("--nodes", metavar="N", help="slurm, outside of an allocation: nodes to ask for (default: 1)")
    add("--partition", metavar="NAME", help="slurm: partition to ask for")
    add("--time", metavar="T", help="slurm: time limit to ask for, as sbatch understands it")
    add("--slurm-option", action="append", default=[], metavar="WORDS",
        help="slurm: more options for sbatch, such as --account=mine")
    add("--slurm-script", metavar="FILE", help="slurm: write the script for sbatch there and stop")
    add("--no-wait", action="store_true", help="slurm: stop when the script is submitted")
    add("--num-hosts", type=whole, metavar="K", help="join: how many agents will come")
    add("--join-port", type=port, metavar="P",
        help="mpi, slurm, join: where agents dial this machine (default: a free one)")
    add("--join-key-file", metavar="FILE",
        help="join: the job's key, made before (default: a new one, put into join.key in the log folder)")
    add("--agents-stay", action="store_true",
        help="join: when a signal stops this program, agents are not sent home, but wait for the next one")


def defaults(options):
    """Fill in what depends on the launcher."""
    if options.connect_timeout is None:
        awaited = options.launcher in ("join", "kubernetes")       # somebody has to come first
        options.connect_timeout = 600.0 if awaited else 30.0
    if options.remote_python is None:
        here = options.launcher in ("mpi", "slurm") and sys.executable      # the hosts share a file system
        options.remote_python = here or "python3"
    return options


def check_options(launcher, options):
    """Raise LaunchError for options that belong to another launcher, or do not go together."""
    for names, owners in ((SLURM_ONLY, ("slurm",)), (MPI_ONLY, ("mpi",)), (JOIN_ONLY, ("join",)),
                          (("join_port",), DIALLING)):
        for name in names:
            if getattr(options, name) and launcher not in owners:
                raise LaunchError(f"--{name.replace('_', '-')} is for --launcher {' or '.join(owners)}")
    if launcher not in DIALLING:
        return
    if options.sync_dst_dir is not None:
        raise LaunchError(f"--sync-dst-dir is for --launcher ssh; with --launcher {launcher} hosts have a copy already")
    if launcher == "slurm" and options.hostfile is not None:
        raise LaunchError("-H/--hostfile is not for --launcher slurm: Slurm chooses the hosts (--nodes)")
    if launcher == "join" and (options.hostfile is None) == (options.num_hosts is None):
        raise LaunchError("--launcher join needs either --num-hosts K or the hosts (-H)")
    if options.num_hosts is not None and options.num_hosts < 1:
        raise LaunchError(f"--num-hosts is 1 or more, got {options.num_hosts}")
    if options.interface is not None and not options.insecure_network:
        raise LaunchError("--interface is of no use here: ps-lite listens on each host's loopback interface only "
                          "(--insecure-network)")


def back_end(launcher, job, options, grace, version):
    """The back end, and notes for the user.

    Raises: LaunchError.
    """
    from launch.remote import RemoteJob, RemoteOptions, passed_on
    environ, notes = os.environ, []
    hosts = _hosts(launcher, job, options, environ, notes)
    starter = _starter(launcher, job, options, environ, hosts)
    if options.insecure_network:
        notes.append("WARNING: --insecure-network: nothing between hosts is encrypted, and whoever reaches a port of "
                     "the job can read, change or end it")
    cwd = options.remote_dir or (None if launcher == "join" else os.getcwd())
    return RemoteJob(job, hosts, starter, RemoteOptions(
        environ=passed_on(environ), hidden=environ, cwd=cwd, port=options.port, channel_port=options.channel_port or 0,
        connect_timeout=options.connect_timeout, host_timeout=options.host_timeout, grace=grace,
        insecure=options.insecure_network, version=version, restarts=_restarts(environ),
        stay=options.agents_stay)), notes


def _restarts(environ):
    """How often Slurm has started this job before; 0 elsewhere."""
    text = environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdigit() else 0


def _hosts(launcher, job, options, environ, notes):
    from launch.slurm import allocated
    if launcher == "join" and options.hostfile is None:
        # No names: they tell theirs. A space, so that no host of a hostfile is called like that.
        return _equal([f"agent {number}" for number in range(options.num_hosts)], job.num_workers)
    if options.hostfile is not None:
        from launch.hostfile import read_hosts
        hosts, more = read_hosts(options.hostfile)
        notes += more
        return [host._replace(dials=True) for host in hosts]
    names = allocated(environ)
    if names is None and launcher == "slurm":       # only --dry-run gets here
        raise LaunchError("--launcher slurm: this is no allocation of Slurm's")
    if names is None:
        raise LaunchError("--launcher mpi needs the hosts, -H FILE or -H host1:2,host2, outside of an allocation of "
                          "Slurm's or PBS's")
    return _equal(names, job.num_workers)


def _equal(names, workers):
    """Hosts with slots for so many workers, the first ones with one more where they do not divide."""
    return [Host(name, slots=workers // len(names) + (number < workers % len(names)), dials=True)
            for number, name in enumerate(names)]


def _starter(launcher, job, options, environ, hosts):
    from launch.dialer import read_key
    from launch.join import JoinOptions, JoinStarter, own_addresses
    key = read_key(options.join_key_file, "--join-key-file") if options.join_key_file else None
    made = os.path.join(job.log_dir, "join.key") if launcher == "join" and key is None else None
    join = JoinOptions((options.host,) if options.host else _local(hosts) or own_addresses(), options.join_port or 0,
                       key, made, options.remote_python, options.connect_timeout, options.host_timeout)
    if launcher == "mpi":
        from launch.mpi import MpiOptions, mpi_starter
        program = _words(["mpirun" if options.mpirun is None else options.mpirun], "--mpirun")
        if not program:
            raise LaunchError("--mpirun is empty")
        find_program(program[0], environ.get("PATH"), "--mpirun")
        return mpi_starter(hosts, join, MpiOptions(program, _words(options.mpi_option, "--mpi-option"),
                                                   os.geteuid() == 0), environ)
    if launcher == "slurm":
        from launch.slurm import slurm_starter
        find_program("srun", environ.get("PATH"), "--launcher slurm needs")
        return slurm_starter(hosts, join, (), environ)
    return JoinStarter(hosts, join)


def _local(hosts):
    """The loopback address, when a hostfile names this machine only: then nobody else can even knock."""
    return ("127.0.0.1",) if {host.name for host in hosts} <= {"localhost", "127.0.0.1"} else None


def _words(texts, flag):
    """Command-line words in option values."""
    words = []
    for text in texts:
        try:
            words += shlex.split(text)
        except ValueError as error:
            raise LaunchError(f"{flag} {text!r}: {error}") from None
    return tuple(words)


# ---- sbatch ----

def submits(launcher, environ):
    """Whether this command line is to be handed to Slurm as a script."""
    from launch.slurm import inside
    return launcher == "slurm" and not inside(environ)


def submit(job, options, argv):
    """Write the script and, unless it is wanted alone, have Slurm run it; returns the exit code.

    Args: argv: launch.py's own command line.
    Raises: LaunchError.
    """
    from launch import sbatch
    from launch.slurm import SlurmOptions, script
    asked = SlurmOptions(options.nodes, options.partition, options.time, _lines(options.slurm_option))
    text = script(job, asked, _repeated(argv, len(options.command)), os.getcwd(), options.grace)
    if options.dry_run:
        sys.stdout.write(text)
        return 0
    path = options.slurm_script or os.path.join(job.log_dir, "job.sbatch")
    if options.slurm_script is None:
        find_program("sbatch", os.environ.get("PATH"), "--launcher slurm needs")
    try:
        os.makedirs(job.log_dir, exist_ok=True)     # where the output goes; Slurm does not make it
    except OSError as error:
        raise LaunchError(f"cannot write logs to {job.log_dir}: {error.strerror} (--log-dir)") from None
    sbatch.write(path, text)
    if options.slurm_script is not None:
        print(path)
        return 0
    return sbatch.run(path, job.log_dir, options.grace or 0.0, not options.no_wait)


def _lines(texts):
    return tuple(tuple(_words([text], "--slurm-option")) for text in texts)


def _repeated(argv, rest):
    """The command line without what is for this side only: the last ``rest`` words are COMMAND's."""
    words, kept = list(argv[:len(argv) - rest]), []
    while words:
        word = words.pop(0)
        if word == "--slurm-script":
            words.pop(0)
        elif word not in ("--dry-run", "--no-wait") and not word.startswith("--slurm-script="):
            kept.append(word)
    return kept + list(argv[len(argv) - rest:])
