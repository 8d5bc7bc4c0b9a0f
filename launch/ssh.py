"""Agents started by ssh: one ``ssh`` program a host, whose standard input and output are the link to the agent.

It is the user's own ssh with the user's own configuration and known_hosts; it asks nothing (BatchMode) and lets in no
host whose key it does not know. The command it is given holds nothing but a few lines of Python: the agent's sources,
environments, arguments and keys go through standard input.
"""
import os
import shlex
import subprocess
from typing import NamedTuple, Optional, Tuple

from launch import bundle
from launch.links import Link, Starting
from launch.processes import dies_with, start_error
from launch.spec import LaunchError

__all__ = ["SshOptions", "SshStarter", "ssh_argv", "rsync_argv", "home_relative"]

COPY_LIMIT = 3600.0     # seconds
LEFT_OUT = (".git", ".venv", "runs", "__pycache__")     # of the folder that is copied to the hosts


class SshOptions(NamedTuple):
    """How hosts are reached.

    Args: program: words before ssh's own options.  options: values of ``-o``.  python: of the agent.  sync: (this
        machine's folder, folder there) to be copied first, None for none.  skip: paths in it not to be copied.
    """
    program: Tuple[str, ...] = ("ssh",)
    options: Tuple[str, ...] = ()
    python: str = "python3"
    connect_timeout: float = 30.0
    host_timeout: float = 20.0
    sync: Optional[Tuple[str, str]] = None
    skip: Tuple[str, ...] = ()


def ssh_argv(host, options):
    """The words of ssh up to the command: the user's options first, as ssh heeds the first of each."""
    argv = [*options.program, "-T"]
    for option in options.options:
        argv += ["-o", option]
    # A master connection the user keeps open is used, but none is made that would outlive the job.
    for option in ("BatchMode=yes", f"ConnectTimeout={max(1, round(options.connect_timeout))}", "ServerAliveInterval=5",
                   "ServerAliveCountMax=3", "ControlMaster=no", "ClearAllForwardings=yes", "ForwardX11=no",
                   "ForwardAgent=no"):
        argv += ["-o", option]
    if host.port is not None:
        argv += ["-p", str(host.port)]
    if host.user is not None:
        argv += ["-l", host.user]
    return argv


def agent_argv(host, options):
    """The whole ssh command that starts an agent. A shell there takes the command apart, whence the quotes."""
    command = " ".join(shlex.quote(word) for word in bundle.command(options.python))
    return ssh_argv(host, options) + [host.name, command]


def rsync_argv(host, options):
    """The rsync command that copies the folder; nothing is deleted there."""
    source, folder = options.sync
    name = f"[{host.name}]" if ":" in host.name else host.name
    shell = " ".join(_for_rsync(word) for word in ssh_argv(host, options))
    skip = [f"--exclude={entry}" for entry in LEFT_OUT] + [f"--exclude=/{path}" for path in options.skip]
    target = home_relative(folder)
    return ["rsync", "-a", "-z", "-s", *skip, "-e", shell, f"--rsync-path=mkdir -p {shlex.quote(target)} && rsync",
            os.path.join(source, ""), f"{name}:{os.path.join(target, '')}"]


def _for_rsync(word):
    """A word of ``rsync -e``, which knows quotes, and within them a doubled quote, but no backslashes."""
    if word and not set(word) & set(" \t'\""):
        return word
    return "'" + word.replace("'", "''") + "'"


def home_relative(folder):
    """A folder without the ~/ that only a shell understands: ssh, rsync and agents start in the home folder."""
    if folder in ("~", "~/"):
        return "."
    return folder[2:].lstrip("/") if folder.startswith("~/") else folder


class SshStarter:
    """Starts agents by ssh: see ``remote.py``.

    Args: hosts: list of Host.  environ: environment of the ssh programs.
    """
    again, silent = True, ""

    def __init__(self, hosts, options, environ):
        self._hosts, self._options, self._environ = hosts, options, environ
        self._loop = self._say = None
        self._failures, self._copied, self._told = {}, set(), set()

    def open(self, loop, say):
        """Take the event loop, and the way to show lines about hosts."""
        self._loop, self._say = loop, say

    def start(self, places, welcome):
        """Start the hosts' agents, all at the same time; copies the folder first where that was not done yet."""
        for place in places:
            self._failures.pop(place, None)
        if self._options.sync:
            self._copy([place for place in places if place not in self._copied])
        for place in places:
            if place not in self._failures:
                self._start(place, welcome)

    def missing(self, place):
        """Why a host has no link, "" when it may get one."""
        return self._failures.get(place, "")

    def script(self, place):
        """The commands for a host."""
        host, lines = self._hosts[place], []
        if self._options.sync:
            lines.append(" ".join(map(shlex.quote, rsync_argv(host, self._options))))
        return lines + [" ".join(map(shlex.quote, agent_argv(host, self._options)))]

    def close(self):
        """The programs end with their links."""

    def _start(self, place, welcome):
        started = self._run(place, agent_argv(self._hosts[place], self._options), subprocess.PIPE)
        if started is None:
            return
        starting, ends = started
        link = Link(place, self._hosts[place].name, self._loop, self._options.host_timeout, ends[1], ends[0], starting,
                    lambda text: self._tell(place, text))
        link.raw(bundle.payload())
        welcome(link)

    def _copy(self, places):
        """Copy the folder to these hosts, once in the life of a job: it runs the same code from its start to its end."""
        copies = {}
        for place in places:
            started = self._run(place, rsync_argv(self._hosts[place], self._options), subprocess.DEVNULL)
            if started is not None:
                copies[place] = started[0]
        self._loop.until(lambda: all(copy.code is not None for copy in copies.values()), COPY_LIMIT)
        for place, copy in copies.items():
            if copy.code == 0:
                self._copied.add(place)
            elif copy.code is None:
                copy.kill()
                self._failures[place] = f"rsync was not done after {COPY_LIMIT:g} s"
            else:
                self._failures[place] = f"rsync failed with code {copy.code}: {copy.last}"

    def _run(self, place, argv, stream):
        """Start a program; returns its Starting and the ends of its standard input and output, None when it fails."""
        try:
            popen = subprocess.Popen(argv, stdin=stream, stdout=stream, stderr=subprocess.PIPE, bufsize=0,
                                     env=self._environ, start_new_session=True, preexec_fn=dies_with(os.getpid()))
        except OSError as error:
            self._failures[place] = f"{argv[0]} could not be started: {start_error(error)[0]}"
            return None
        ends = []
        if stream == subprocess.PIPE:
            for end in (popen.stdin, popen.stdout):
                ends.append(os.dup(end.fileno()))
                end.close()
        return Starting(popen, self._loop, lambda text: self._tell(place, text)), ends

    def _tell(self, place, text):
        """Show a line about a host, once though the host is tried again and again."""
        if (place, text) not in self._told:
            self._told.add((place, text))
            self._say(place, text)


def check_programs(options, find_program, path):
    """Raise LaunchError when ssh, or rsync where it is needed, is not there."""
    if not options.program:
        raise LaunchError("--ssh is empty")
    find_program(options.program[0], path, "--ssh")
    if options.sync:
        find_program("rsync", path, "--sync-dst-dir needs rsync:")
