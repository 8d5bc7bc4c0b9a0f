"""Slurm: agents started by srun in an allocation, and the script that makes one with sbatch and runs launch.py in it.

The same command line works on both sides: outside of an allocation it is written into a script, inside it starts the
job. Nothing here talks to Slurm but ``allocated``; ``sbatch.py`` submits the script and follows the job.
"""
import os
import shlex
import subprocess
import sys
from typing import NamedTuple, Optional, Tuple

from launch.carrier import Call, ProgramStarter, agent_argv
from launch.spec import LaunchError

__all__ = ["SlurmOptions", "slurm_starter", "srun_argv", "script", "allocated", "inside"]

NODE = "SLURMD_NODENAME"
SCONTROL_LIMIT = 30     # seconds
WARNING = 60            # seconds before the time limit at which the launcher gets SIGTERM, at least
MARGIN = 30             # seconds it needs then beside --grace
WIDTH = 110             # of the script's lines, where its words allow


class SlurmOptions(NamedTuple):
    """What to ask of Slurm.

    Args: nodes: how many, as sbatch understands it.  options: more options for sbatch, lists of words.
    """
    nodes: Optional[str] = None
    partition: Optional[str] = None
    time: Optional[str] = None
    options: Tuple[Tuple[str, ...], ...] = ()


def inside(environ):
    """Whether this is an allocation of Slurm's."""
    return bool(environ.get("SLURM_JOB_ID"))


# ---- inside an allocation ----

def srun_argv(names, python, options=()):
    """The words of one srun that starts an agent on each of these nodes.

    Agents share their nodes with those of an srun before (--overlap), may use all processors of the job
    (--cpu-bind), and one that ends takes no other with it (--kill-on-bad-exit=0, --wait=0, --no-kill).
    """
    count = str(len(names))
    return ("srun", "--nodes=" + count, "--ntasks=" + count, "--ntasks-per-node=1", "--nodelist=" + ",".join(names),
            "--overlap", "--cpu-bind=quiet,none", "--mpi=none", "--export=ALL", "--input=none", "--unbuffered",
            "--kill-on-bad-exit=0", "--wait=0", "--no-kill", "--job-name=gluonzoo-agents", *options,
            *agent_argv(python))


def slurm_starter(hosts, join, options, environ):
    """The Starter.

    Args: hosts: list of Host, named as Slurm does.  join: JoinOptions.  options: more words for srun.
    """
    def call(places):
        names = [hosts[place].name for place in places]
        return Call(srun_argv(names, join.python, options), NODE, {hosts[place].name: place for place in places})
    return ProgramStarter(hosts, join, "srun", call, environ)


def allocated(environ):
    """Names of the hosts a scheduler (Slurm, PBS) has given us; None outside of an allocation.

    Raises: LaunchError.
    """
    if environ.get("SLURM_JOB_NODELIST"):
        return _expand(environ["SLURM_JOB_NODELIST"])
    if not environ.get("PBS_NODEFILE"):
        return None
    try:
        with open(environ["PBS_NODEFILE"], encoding="utf-8") as file:
            return list(dict.fromkeys(file.read().split()))
    except OSError as error:
        raise LaunchError(f"cannot read PBS_NODEFILE {environ['PBS_NODEFILE']}: {error.strerror}") from None


def _expand(listed):
    """``node[1-3,7]`` as names."""
    argv = ["scontrol", "show", "hostnames", listed]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=SCONTROL_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"cannot ask scontrol for the nodes of this job: {error}") from None
    names = done.stdout.decode().split()
    if done.returncode or not names:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise LaunchError(f"{' '.join(map(shlex.quote, argv))} ended with code {done.returncode}: {said}")
    return names


# ---- the script ----

def script(job, options, words, here, grace=None):
    """The text of a script for sbatch that starts this job, and starts it again where it was when it is requeued.

    Args: job: JobSpec.  options: SlurmOptions.  words: launch.py's own command line.  here: folder to start in.
        grace: seconds for a checkpoint, None for none.
    Raises: LaunchError when a line for sbatch cannot hold a value.
    """
    nodes = options.nodes if options.nodes is not None else "1"
    asked = [("job-name", "gluonzoo"), ("nodes", nodes), ("ntasks-per-node", "1"),
             ("cpus-per-task", _share(job.num_workers, nodes))]
    asked += [(name, value) for name, value in (("partition", options.partition), ("time", options.time))
              if value is not None]
    asked += [("output", os.path.join(job.log_dir, "slurm-").replace("%", "%%") + "%j.out"), ("open-mode", "append"),
              ("requeue", None), ("signal", f"B:TERM@{max(WARNING, round((grace or 0) + MARGIN))}")]
    if job.min_workers is not None:
        asked.append(("no-kill", None))
    lines = [_asking(f"--{name}" + ("" if value is None else f"={_word(value)}")) for name, value in asked]
    lines += [_asking(" ".join(map(_word, line))) for line in options.options]
    launcher = [sys.executable, os.path.join(os.path.dirname(os.path.realpath(__file__)), "launch.py")]
    return "\n".join([
        "#!/bin/bash", *lines, "",
        "# The command line as it was typed: in an allocation it starts the job, always with the same log folder.",
        "# exec: the batch shell is launch.py then, which gets Slurm's SIGTERM before the time is over.",
        f"cd {shlex.quote(here)} || exit 1",
        "exec " + _wrapped([*launcher, "--log-dir", job.log_dir, *words]), ""])


def _share(workers, nodes):
    """Processors for each node's task: one for each worker, where the number of nodes is one number."""
    return str(-(-workers // int(nodes)) if nodes.isdigit() and int(nodes) else 1)


def _asking(text):
    if "\n" in text:
        raise LaunchError(f"a line for sbatch cannot hold a line break: {text!r}")
    return "#SBATCH " + text


def _word(text):
    """As sbatch reads its lines: like a shell."""
    return text if text and not set(text) & set(" \t'\"\\#;") else shlex.quote(text)


def _wrapped(words):
    """A command over several lines."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1] and len(lines[-1]) + len(word) >= WIDTH:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return " \\\n    ".join(lines)
