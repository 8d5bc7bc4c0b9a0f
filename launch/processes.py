"""Processes on Linux: whose child is whose, ending a whole tree, and a pair of processes that outlive each other.

A job's processes may start others, which may start others and detach (``setsid``, ``nohup ... &``, a double fork).
Process groups do not hold those together, parenthood does: the supervisor is a *child subreaper*, so that every
orphan among its descendants becomes its child, and ``/proc`` shows them all.

Nothing can clean up after its own SIGKILL. So there are two processes: the *front*, whose pid the caller knows, and
its child, the *supervisor*, in a session of its own. When the front dies, the supervisor's pipe to it ends and it
ends the job; when the supervisor dies, the front inherits the job's processes and ends them.
"""
import collections
import errno
import functools
import os
import select
import signal
import struct
import sys
import time
import traceback
from typing import NamedTuple

__all__ = ["Process", "Signals", "DeathOrder", "descendants", "end_descendants", "become_subreaper", "dies_with", "keep",
           "FORWARDED"]

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PIDFD_OPEN = 434        # the number of the system call, the same on every architecture
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KILL_LIMIT = 2.5        # seconds for the kernel to carry out SIGKILL before we give up and say so
ORPHAN_GRACE = 1.0      # for what a killed supervisor leaves (the kernel has ended the roles themselves already)
LOOK = 0.5              # seconds between two looks at a supervisor's silence
POLL = 0.1              # seconds between two looks at /proc while a tree is being ended (and only then)

_libc = None


class Signals:
    """What signals brought, for an event loop: a context that installs handlers and puts the old ones back.

    received: (signal number, time) of those in FORWARDED.  deaths: (pid, exit code or -signal, time) of children.
    Children are reaped in the handler itself, so that two that die shortly after one another are seen in that order
    even while the loop is busy. ``wakeup_fd`` becomes readable at each signal.
    """

    def __init__(self):
        self.received, self.deaths = collections.deque(), collections.deque()
        self.wakeup_fd, self._write_fd = -1, -1
        self._old = {}

    def __enter__(self):
        self.wakeup_fd, self._write_fd = os.pipe()
        os.set_blocking(self.wakeup_fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._child)
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self.wakeup_fd)
        os.close(self._write_fd)

    def drain(self):
        """Empty wakeup_fd."""
        try:
            while os.read(self.wakeup_fd, 4096):
                continue
        except BlockingIOError:
            return

    def _note(self, number, _frame):
        self.received.append((number, time.monotonic()))

    def _child(self, _number, _frame):
        now = time.monotonic()
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self.deaths.append((pid, decode_status(status), now))
        except ChildProcessError:
            return


class DeathOrder:
    """In which order processes have died, as the kernel saw it, however busy we were meanwhile.

    A process's pidfd becomes readable when it dies, and epoll hands descriptors out in the order in which they became
    readable. Kernels before 5.3 have no pidfds; then nothing is known.
    """

    def __init__(self):
        self._epoll, self._pids, self._ranks = select.epoll(), {}, {}
        self._count = 0

    def add(self, pid):
        """Watch a child that has not been reaped yet."""
        try:
            fd = _call("syscall", PIDFD_OPEN, pid, 0)       # os.pidfd_open from Python 3.9 on
        except OSError:
            return
        os.set_inheritable(fd, False)
        self._epoll.register(fd, select.EPOLLIN)
        self._pids[fd] = pid

    def rank(self, pid):
        """A number that grows from death to death; 0 when nothing is known of this one. To be asked once."""
        for fd, _ in self._epoll.poll(0):
            self._count += 1
            self._ranks[self._pids.pop(fd)] = self._count
            self._epoll.unregister(fd)
            os.close(fd)
        return self._ranks.pop(pid, 0)

    def close(self):
        """Stop watching."""
        for fd in self._pids:
            os.close(fd)
        self._pids.clear()
        self._epoll.close()


class Process(NamedTuple):
    """A line of ``/proc/PID/stat``."""
    pid: int
    ppid: int
    state: str
    command: str


def _prctl(option, value):
    """prctl(2), which Python does not offer."""
    _call("prctl", option, value, 0, 0, 0)


def _call(name, *numbers):
    """A function of the C library by name, with whole numbers as arguments."""
    global _libc
    import ctypes  # not at the top: --dry-run and wrong use do without it
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    result = getattr(_libc, name)(*[ctypes.c_long(number) for number in numbers])
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}{numbers}: {os.strerror(ctypes.get_errno())}")
    return result


def become_subreaper():
    """From now on orphaned descendants become children of this process, not of init."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def dies_with(parent):
    """A function for the child between fork and exec: SIGKILL for it when ``parent`` (a pid) dies.

    The kernel ties this to the thread that forked; the supervisor has only one. SIGUSR1, by which we ask for a checkpoint,
    means there what it means to a new program, also when whoever started us had it ignored.
    """
    def between():
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:          # it died before the call above
            os._exit(1)
    return between


def _all_processes():
    """Every process of this machine that can be read."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                text = file.read()
        except OSError:                     # ended since listdir
            continue
        start, end = text.find(b"("), text.rfind(b")")      # the name may hold spaces and brackets itself
        fields = text[end + 2:].split(None, 2)
        yield Process(int(entry), int(fields[1]), fields[0].decode(), text[start + 1:end].decode("utf-8", "replace"))


def descendants(root, ignore=()):
    """All living processes below ``root``; zombies do not count, nor do the trees below the pids in ``ignore``."""
    children = {}
    for process in _all_processes():
        children.setdefault(process.ppid, []).append(process)
    found, queue = [], [root]
    while queue:
        for process in children.get(queue.pop(), ()):
            if process.pid not in ignore:
                queue.append(process.pid)
                if process.state not in "ZX":
                    found.append(process)
    return found


def _signal(processes, number):
    for process in processes:
        try:
            os.kill(process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass        # ended already, or not ours any more (setuid): what stays alive is returned to the caller


def end_descendants(root, grace, wait, hurry=None, ignore=()):
    """SIGTERM to everything below ``root``, SIGKILL after ``grace`` seconds to what is left.

    Args: wait: called with seconds; sleeps about as long and reaps.  hurry: when it returns True grace is over.
    Returns: processes that SIGKILL did not end (another user's, or stuck in the kernel); normally none.
    """
    alive = descendants(root, ignore)
    if grace > 0:
        _signal(alive, signal.SIGTERM)
        _signal(alive, signal.SIGCONT)      # a stopped process must run to take it
        deadline = time.monotonic() + grace
        while alive and not (hurry and hurry()) and time.monotonic() < deadline:
            wait(min(POLL, max(0.0, deadline - time.monotonic())))
            alive = descendants(root, ignore)
    deadline = time.monotonic() + KILL_LIMIT
    while alive and time.monotonic() < deadline:
        _signal(alive, signal.SIGKILL)
        wait(POLL / 4)
        alive = descendants(root, ignore)   # again and again: what was forked meanwhile is found too
    return alive


def _sleep_and_reap(seconds):
    """``wait`` for end_descendants in a process without an event loop."""
    time.sleep(seconds)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def keep(body):
    """Run ``body(front_fd, pulse)`` in a child process (the supervisor) and stay in front of it.

    Signals in FORWARDED are passed on to it. ``front_fd`` becomes readable (end of file) when this process dies. The
    child starts with FORWARDED blocked: it unblocks them when its handlers stand. Once it has called ``pulse(seconds)``
    it is killed when it does not do so again for that long: stopped or stuck, it is as good as dead.
    Returns: the exit code of body, or 128 + signal when the supervisor was killed.
    """
    before = {process.pid for process in descendants(os.getpid())}      # of the program that became us by exec
    become_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    pulse_read, pulse_write = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.close(pulse_read)
        os.set_blocking(pulse_write, False)
        _supervisor(body, read_end, functools.partial(_pulse, pulse_write))
    os.close(read_end)
    os.close(pulse_write)
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:      # nohup and friends keep their word
            signal.signal(number, lambda received, _frame: os.kill(pid, received))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _attend(pid, pulse_read)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)       # not reaped yet: a late signal must not hit a reused pid
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal_name(os.WTERMSIG(status))
        _tell(f"launch: the supervisor (pid {pid}) was killed by {name}; ending the job")
    left = end_descendants(os.getpid(), ORPHAN_GRACE, _sleep_and_reap, ignore=before)
    for process in left:
        _tell(f"launch: could not end pid {process.pid} ({process.command})")
    os.close(write_end)
    os.close(pulse_read)
    return exit_code(decode_status(status))


def _pulse(fd, seconds):
    """The supervisor is alive, and will say so again within so many seconds."""
    try:
        os.write(fd, struct.pack("d", seconds))
    except OSError:             # full: the front is stopped; or gone, which front_fd tells
        return


def _attend(pid, fd):
    """Stay until the supervisor has ended, or has missed its time and was killed."""
    patience, silent = None, 0.0
    while True:
        if select.select([fd], [], [], LOOK)[0]:
            data = os.read(fd, 4096)
            if not data:
                return
            patience, silent = struct.unpack("d", data[-8:])[0], 0.0
            continue
        silent += LOOK          # only while we run ourselves: a machine that was suspended has silenced both
        if patience is not None and silent >= patience:
            _tell(f"launch: the supervisor (pid {pid}) did nothing for {silent:.0f} s")
            os.kill(pid, signal.SIGKILL)
            return


def _tell(text):
    """A line for whoever still reads standard error; a closed one must not keep us from ending what is left."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _supervisor(body, front_fd, pulse):
    """The child's side of ``keep``; never returns."""
    code = 70
    try:
        os.setsid()             # Ctrl-C and kill -9 of the front's group reach the front only
        become_subreaper()
        code = body(front_fd, pulse)
    except BaseException:       # also SystemExit: nothing may unwind into the caller's frames
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def decode_status(status):
    """The exit code of a wait status; the negative signal number when a signal ended it."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def exit_code(code):
    """What a shell would call it: 128 + signal for a signal."""
    return 128 - code if code < 0 else code


def signal_name(number):
    """``SIGKILL`` for 9; also for numbers without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def start_error(error):
    """What to tell about a program that could not be executed, and the exit code a shell would give."""
    hint = " (has it a #! line?)" if error.errno == errno.ENOEXEC else ""
    return f"{error.strerror}{hint}", 127 if error.errno == errno.ENOENT else 126
