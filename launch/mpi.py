"""Agents started by Open MPI's mpirun, one on each host.

The processes of the job are no MPI processes; mpirun is what a cluster has for starting something on every host of an
allocation, over ssh or through the scheduler.
"""
from typing import NamedTuple, Tuple

from launch.carrier import Call, ProgramStarter, agent_argv
from launch.dialer import INVITATION
from launch.spec import LaunchError

__all__ = ["MpiOptions", "mpi_starter", "mpirun_argv"]

RANK = "OMPI_COMM_WORLD_RANK"


class MpiOptions(NamedTuple):
    """How mpirun is run.

    Args: program: its words.  options: more words for it.  as_root: whether this user is root, which mpirun refuses.
    """
    program: Tuple[str, ...] = ("mpirun",)
    options: Tuple[str, ...] = ()
    as_root: bool = False


def mpirun_argv(names, python, options):
    """The words of one mpirun that starts an agent on each of these hosts, rank by rank.

    ``--map-by seq``: rank i is on the host with number i.  ``--bind-to none``: an agent's roles inherit its processors.
    ``--enable-recovery``: an agent that dies takes no other with it.
    """
    return (*options.program, *(("--allow-run-as-root",) if options.as_root else ()), "-n", str(len(names)),
            "-H", ",".join(names), "--map-by", "seq", "--bind-to", "none", "--enable-recovery", "-x", INVITATION,
            *options.options, *agent_argv(python))


def mpi_starter(hosts, join, options, environ):
    """The Starter. Raises: LaunchError for hosts that mpirun cannot be told.

    Args: hosts: list of Host.  join: JoinOptions.
    """
    for host in hosts:
        if host.user is not None or host.port is not None:
            raise LaunchError(f"host {host.name}: mpirun takes neither user= nor port=; put them into ~/.ssh/config")

    def call(places):
        names = [hosts[place].name for place in places]
        return Call(mpirun_argv(names, join.python, options), RANK, {str(i): place for i, place in enumerate(places)})
    return ProgramStarter(hosts, join, "mpirun", call, environ)
