"""The processes of a job on an agent's host: started, read, watched and ended for the launcher on the link."""
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import time

from launch import wire
from launch.local import find_program
from launch.processes import dies_with, end_descendants, start_error
from launch.spec import LaunchError, is_stale

__all__ = ["Roles", "PREFIX"]

PREFIX = "gluonzoo-agent-"      # of the folders' names

PIPE_SIZE, READ_SIZE = 1 << 20, 1 << 18
FULL = 8 << 20              # bytes of output that wait for the link before the roles have to
CANNOT = 126                # a shell's exit code for a program that is there and cannot be executed


class Role:
    """A process the launcher has asked for."""

    def __init__(self, index, popen, fd, progress_file):
        self.index, self.popen, self.fd, self.progress_file = index, popen, fd, progress_file
        self.progress, self.watched = b"", False

    @property
    def running(self):
        return self.popen.returncode is None


class Roles:
    """All of them, by the numbers the launcher has given them.

    Output that the link does not take stays in the roles' pipes, so that they wait; once ``unheard`` is set nobody
    waits any more and what there is no room for is dropped.
    Args: sender: a wire.Sender.  folder: for progress files, made when there is need.
    """

    def __init__(self, loop, sender, folder):
        self.unheard = False
        self._loop, self._sender, self._folder, self._lock = loop, sender, folder, None
        self._roles, self._full = {}, False

    def _tell(self, op, **fields):
        self._sender.send(wire.message(op, **fields))

    # ---- starting ----

    def start(self, index, argv, env, cwd, worker):
        """Start a process and tell the launcher how that went."""
        old = self._roles.get(index)
        if old is not None and old.running:
            self._tell("failed", index=index, why=f"there is a process with number {index} already", code=CANNOT)
            return
        if old is not None:
            self._put_away(old)
        full = {name: value for name, value in os.environ.items() if not is_stale(name)}
        full.update(env)
        progress_file = None
        what = f"cannot work in the folder {cwd!r}"
        try:
            if cwd is not None:
                os.stat(os.path.join(cwd, "."))         # Popen's error would not tell it from the program's
            what = f"cannot make a file for its steps in {os.path.dirname(self._folder)} (TMPDIR)"
            if worker:
                full["GLUONZOO_PROGRESS_FILE"] = progress_file = self._progress_file(index)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._tell("failed", index=index, why=f"{what}: {why}", code=CANNOT)
            return
        try:
            self._start(index, argv, full, cwd, progress_file)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why, code = _explain(error, argv[0], full, cwd)
            self._tell("failed", index=index, why=why, code=code)

    def _progress_file(self, index):
        """Where this worker shall report its steps; nothing is there yet."""
        if self._lock is None:
            _sweep(os.path.dirname(self._folder))
            self._lock = _make_folder(self._folder)
        path = os.path.join(self._folder, f"{index}.progress")
        if os.path.lexists(path):           # of an earlier attempt
            os.unlink(path)
        return path

    def _start(self, index, argv, env, cwd, progress_file):
        read_end, write_end = os.pipe()
        try:
            _widen(read_end)
            popen = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=write_end,
                                     stderr=subprocess.STDOUT, start_new_session=True,
                                     preexec_fn=dies_with(os.getpid()))
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        role = self._roles[index] = Role(index, popen, read_end, progress_file)
        self._watch(role)
        self._loop.child(popen.pid, functools.partial(self._died, role))
        self._tell("started", index=index, pid=popen.pid)

    # ---- output ----

    def flushed(self):
        """To be called when the link has taken something, or nobody waits for it any more."""
        if self._full and (self.unheard or self._sender.waiting < FULL // 2):
            self._full = False
            for role in self._roles.values():
                self._watch(role)

    def _watch(self, role):
        """Take in a role's output as it comes, or, while too much is waiting, leave it in the pipe."""
        wanted = role.fd is not None and not self._full
        if wanted and not role.watched:
            self._loop.watch(role.fd, functools.partial(self._read, role))
        elif role.watched and not wanted:
            self._loop.unwatch(role.fd)
        role.watched = wanted

    def _read(self, role):
        """Take in what a role has printed; returns whether there may be more."""
        if role.fd is None:
            return False
        try:
            data = os.read(role.fd, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up(role)
            return False
        if not self.unheard or self._sender.waiting < FULL:
            self._sender.output(role.index, data)
        if self._sender.waiting >= FULL and not self.unheard and not self._full:
            self._full = True
            for other in self._roles.values():
                self._watch(other)
        return True

    def _drain(self, role):
        """Take in what is in the pipe of a role that has died; its children may go on filling it."""
        for _ in range(4 * PIPE_SIZE // READ_SIZE):
            if not self._read(role):
                return

    def _hang_up(self, role):
        if role.fd is not None:
            if role.watched:
                self._loop.unwatch(role.fd)
            os.close(role.fd)
            role.fd, role.watched = None, False

    # ---- steps, signals, deaths ----

    def look(self):
        """See how far the workers are."""
        for role in self._roles.values():
            if role.running:
                self._look_at(role)

    def _look_at(self, role):
        if role.progress_file is None:
            return
        try:
            with open(role.progress_file, "rb") as file:
                text = file.read(200).strip()
        except OSError:
            return                  # not written yet
        if text and text != role.progress:      # empty: just being rewritten
            role.progress = text
            self._tell("progress", index=role.index, text=text.decode("utf-8", "replace"))

    def signal(self, indexes, number):
        """Send a signal to those processes that are still there; returns what to complain about."""
        dead = [pid for pid, _, _ in self._loop.signals.deaths]
        for index in indexes:
            role = self._roles.get(index)
            if role is not None and role.running and role.popen.pid not in dead:
                try:
                    os.kill(role.popen.pid, number)
                except OSError as error:
                    return f"cannot send signal {number} to pid {role.popen.pid}: {error.strerror}"
        return None

    def _died(self, role, code, when):
        role.popen.returncode = code
        self._loop.deaths += 1
        self._drain(role)
        self._look_at(role)

        def frame():                # made when it leaves, so that ``ago`` is right behind much output too
            return wire.message("exit", index=role.index, code=code, ago=round(time.monotonic() - when, 6))
        self._sender.send(frame, after=role.index)

    # ---- ending ----

    def end(self, grace, hurry, spare):
        """End everything below this process.

        Args: hurry: when it returns True grace is over.  spare: pids that stay.
        Returns: [pid, command] of what could not be ended.
        """
        left = end_descendants(os.getpid(), grace, self._loop.wait, hurry, ignore=spare)
        self._loop.pump(0)
        for role in self._roles.values():
            self._put_away(role)
        self._roles.clear()
        return [[process.pid, process.command] for process in left]

    def _put_away(self, role):
        self._drain(role)
        self._hang_up(role)
        if role.running:                    # could not be ended: subprocess shall not wait for it either
            role.popen.returncode = -signal.SIGKILL


def _make_folder(path):
    """Make a folder of our own; returns a descriptor whose lock tells others that it is in use."""
    while True:
        os.mkdir(path, 0o700)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:       # another agent, seeing no lock, has swept it away; or does so before ours stands
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.isdir(path):
            return fd
        os.close(fd)


def _sweep(parent):
    """Remove the folders of our user's agents that were killed together with their keepers."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        try:
            if name.startswith(PREFIX) and os.lstat(path).st_uid == os.geteuid():
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(fd)
        except OSError:         # in use, or gone by now
            continue


def _widen(fd):
    """A larger pipe lets a role run on while we are busy; without the right to it the usual size does."""
    try:
        fcntl.fcntl(fd, 1031, PIPE_SIZE)        # F_SETPIPE_SZ, which the fcntl module knows from Python 3.10 on
    except OSError:
        return


def _explain(error, program, env, cwd):
    """Why a program could not be started, and a shell's exit code for that."""
    if not isinstance(error, OSError):          # a null byte in a word, say
        return f"{program!r} could not be started: {error}", CANNOT
    why, code = start_error(error)
    try:
        find_program(os.path.join(cwd or "", program) if os.sep in program else program, env.get("PATH"))
    except LaunchError as precise:
        return str(precise), code
    return f"{error.filename or program}: {why}", code
