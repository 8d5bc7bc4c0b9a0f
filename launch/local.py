"""The local back end: every role on this machine, talking over the loopback interface."""
import os
import shlex
import signal
import socket
import subprocess
import time

from launch import ports
from launch.processes import descendants, dies_with, end_descendants
from launch.roles import Role
from launch.spec import WORKER, LaunchError, counts, is_stale, ordered, plan, progress_path

__all__ = ["LocalJob", "find_program", "check_host"]

PIPE_SIZE = 1 << 20
READ_SIZE = 1 << 18


def find_program(program, path=None, what="COMMAND"):
    """Where the kernel will find a program.

    Args: path: the PATH to search, as a string.
    Raises: LaunchError when there is no such file or it cannot be executed; the message names it.
    """
    if not program:
        raise LaunchError(f"{what} is an empty word")
    if os.sep in program:
        if os.path.isdir(program):
            raise LaunchError(f"{what} {program!r} is a folder, not a program")
        if not os.path.exists(program):
            raise LaunchError(f"{what} {program!r} not found")
        if not os.access(program, os.X_OK):
            raise LaunchError(f"{what} {program!r} is not executable{_hint(program)}")
        return program
    for folder in (path if path is not None else os.defpath).split(os.pathsep):
        candidate = os.path.join(folder or os.curdir, program)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise LaunchError(f"{what} {program!r} not found in PATH{_hint(program)}")


def _hint(program):
    """What the user may have meant by a file that does not run as it is."""
    if program.endswith(".py") and os.path.isfile(program):
        return f"; did you mean: python {program}"
    if os.sep not in program and os.path.isfile(program):
        return f"; there is a file of that name in this folder: ./{program}"
    return ""


def check_host(host, interface):
    """Raise LaunchError unless ``host`` is an IPv4 address and ``interface`` (or None) is one of this machine's."""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        raise LaunchError(f"--host wants an IPv4 address such as 127.0.0.1, got {host!r}") from None
    if interface is not None:
        known = [name for _, name in socket.if_nameindex()]
        if interface not in known:
            raise LaunchError(f"--interface: no network interface {interface!r} here (there is {', '.join(known)})")


class LocalRole(Role):
    """A role that is a child of this process."""

    def __init__(self, spec, output, loop, progress_file):
        super().__init__(spec, output)
        self._loop, self._progress_file = loop, progress_file
        self._popen = self._fd = None

    def start(self, argv, env):
        """Start it; raises OSError when that cannot be."""
        read_end, write_end = os.pipe()
        try:
            if self._progress_file and os.path.lexists(self._progress_file):
                os.unlink(self._progress_file)      # of an earlier attempt or job
            _widen(read_end)
            self._popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=write_end,
                                           stderr=subprocess.STDOUT, start_new_session=True,
                                           preexec_fn=dies_with(os.getpid()))
        except BaseException:
            os.close(read_end)
            self.output.finish()
            raise
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        self.pid, self._fd, self.started = self._popen.pid, read_end, time.monotonic()
        self._loop.watch(read_end, self._read)
        self._loop.child(self.pid, self._died)

    def _died(self, code, when):
        self.code = self._popen.returncode = code
        self.ended = when
        self._loop.deaths += 1
        self.drain()

    def _read(self):
        """Take in what it has printed; returns whether there may be more."""
        if self._fd is None:
            return False
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up()
            return False
        self.hear(data)
        return True

    def drain(self):
        for _ in range(4 * PIPE_SIZE // READ_SIZE):     # its children may go on filling the pipe
            if not self._read():
                return

    def _hang_up(self):
        if self._fd is not None:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = None
            self.output.finish()

    def look(self):
        if self._progress_file is None:
            return
        try:
            with open(self._progress_file, "rb") as file:
                self.report(file.read(200).strip())
        except OSError:
            return              # not written yet

    def put_away(self):
        self.drain()
        self._hang_up()
        if self._popen.returncode is None:          # could not be ended: subprocess shall not wait for it either
            self._popen.returncode = -signal.SIGKILL


def _widen(fd):
    """A larger pipe lets a role run on while we are busy; without the right to it the usual size does."""
    import fcntl
    try:
        fcntl.fcntl(fd, 1031, PIPE_SIZE)        # F_SETPIPE_SZ, which the fcntl module knows from Python 3.10 on
    except OSError:
        return


class LocalJob:
    """A job on this machine, as the supervisor wants it: see ``supervise.py``.

    Args: environ: the environment the launcher was started with.  port: of the scheduler, None for a free one.
    """

    def __init__(self, job, environ, port=None):
        self.job, self._environ, self._fixed = job, dict(environ), port
        self._reserved, self._used = None, set()
        self._loop = None

    def open(self, loop, _screen):
        """Take the event loop to be used."""
        self._loop = loop

    def prepare(self, restart):
        """Lock fresh ports and return the processes to start.

        Raises: LaunchError when there are none, or the one asked for is taken.
        """
        self.close()
        count = 1 + self.job.num_servers + self.job.num_workers
        self._reserved = ports.reserve(self.job.host, count, self._fixed, self._used)
        self._used.add(self._reserved.ports[0])
        return plan(self.job, ordered(self._reserved.ports, self.job.num_servers), restart)

    def command(self, process):
        """What to execute on this machine for a process of the plan: (argv, environment)."""
        env = {k: v for k, v in self._environ.items() if not is_stale(k)}
        env.update(process.env)
        return list(process.argv), env

    def start(self, spec, output):
        """Start a process of the plan; returns its Role. Raises: OSError."""
        role = LocalRole(spec, output, self._loop, progress_path(self.job, spec.index) if spec.role == WORKER else None)
        role.start(*self.command(spec))
        return role

    def describe(self):
        """One line for the start of the job."""
        return f"{counts(self.job)} on {self.job.host}, scheduler port {self._reserved.ports[0]}"

    def lost_its_port(self):
        """Whether a program that is not ours took the scheduler's port between our check and the scheduler's start."""
        return self._fixed is None and not ports.is_free(self.job.host, self._reserved.ports[0])

    def trouble(self):
        """Nothing goes wrong here but roles."""
        return ""

    def signal(self, roles, number):
        """Send a signal to roles that run, not to their children."""
        for role in roles:
            try:
                os.kill(role.pid, number)
            except ProcessLookupError:      # it has ended a moment ago
                continue

    def alive(self):
        """What is left of the job."""
        return descendants(os.getpid())

    def strays(self, roles):
        """Living processes that are neither a role nor a role's child."""
        mine = {role.pid for role in roles}
        return [process for process in self.alive() if process.pid not in mine and process.ppid not in mine]

    def end(self, grace, wait, hurry):
        """End all that is left; returns what could not be ended."""
        return end_descendants(os.getpid(), grace, wait, hurry)

    def leave(self):
        """Nobody waits for a goodbye."""

    def close(self):
        """Give the ports back."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def script(self):
        """The job as shell commands, one a line, to read or to paste (--dry-run)."""
        processes = self.prepare(0)
        lines = [f"# {self.describe()}; nothing was started",
                 f"mkdir -p {shlex.quote(self.job.log_dir)}"]
        self.close()
        for process in processes:
            lines += ["# " + process.name, " ".join(self._shell_words(process))]
        return "\n".join(lines)

    def _shell_words(self, process):
        words = ["env"]
        for name in sorted(self._environ):
            if is_stale(name) and name not in process.env:
                words += ["-u", shlex.quote(name)]
        for name, value in sorted(process.env.items()):
            # What the shell has already is left out: a value passed on with `--env NAME` may be a secret.
            if is_stale(name) or self._environ.get(name) != value:
                words.append(f"{name}={shlex.quote(value)}")
        return words + [shlex.quote(word) for word in process.argv]
