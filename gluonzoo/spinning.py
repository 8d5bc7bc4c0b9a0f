"""How long OpenMP's threads wait awake for the next operator: long on processors that are free, hardly at all on busy ones.

An operator's threads meet at its beginning and end, thousands of times a second. A thread that waits awake is there at once; one
that sleeps has to be woken, which takes longer than a small operator. But where something else runs on the same processors,
a thread that waits awake keeps from running what it waits for. libgomp's time of waiting is fixed when it is loaded, but for
one thing: while the threads of all teams are more than the processors, it waits a three-thousandth of that time. So a team that
does nothing, of a thread that does nothing, is the switch: it exists while others are seen to use this process's processors.
Nothing breaks where libgomp does not do so; only the time of waiting is then the same always.
"""
import ctypes
import os
import threading

__all__ = ["Watch", "crowded"]

#: Seconds between looks.
INTERVAL = 0.25
#: Processors that others may use beside this process's threads before these stop waiting awake.
TOLERATED = 0.25


def crowded(processors, threads, others):
    """Whether `threads` of ours and what others use, in processors, are more than there are."""
    return threads > 1 and threads + others > processors + TOLERATED


class Watch:
    """Looks at the use of this process's processors and switches the waiting of OpenMP's threads.

    Others are other processes, and the Python threads of this one beside its main thread (loaders of data). Where /proc says
    nothing, nothing is switched.

    Args: threads: of OpenMP, that the engine's thread has.
    """

    def __init__(self, threads):
        self._threads = threads
        self._tick = os.sysconf("SC_CLK_TCK")
        self._team = self._release = None
        self._before = None
        self._thread = None

    def start(self):
        """Watch from now on, in a daemon thread, which also a fork does not take along."""
        self._before = self._look()
        if self._before is not None:
            self._thread = threading.Thread(target=self._run, name="gluonzoo-spinning", daemon=True)
            self._thread.start()
        return self

    def _run(self):
        pause = threading.Event()
        while True:
            pause.wait(INTERVAL)
            now = self._look()
            if now is None:
                return
            if now[0] - self._before[0] >= INTERVAL / 2:
                self.switch(crowded(now[3], self._threads, self.others(self._before, now)))
                self._before = now

    @staticmethod
    def others(before, now):
        """Processors that others used between two looks."""
        seconds, used, own = (now[i] - before[i] for i in range(3))
        return max(0.0, (used - own) / seconds) if seconds > 0 else 0.0

    def _look(self):
        """(seconds, processor seconds used by all on our processors, those of our computing threads, our processors)."""
        try:
            ours = os.sched_getaffinity(0)
            used = 0
            with open("/proc/stat") as file:
                for line in file:
                    name, *fields = line.split()
                    if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in ours:
                        fields = list(map(int, fields))
                        used += sum(fields[:3]) + sum(fields[5:8])  # But for idle time and waiting for disks.
                    elif not name.startswith("cpu"):
                        break
            with open("/proc/uptime") as file:
                seconds = float(file.read().split()[0])
            times = os.times()
            own = times.user + times.system - self._python_threads()
        except (OSError, ValueError, IndexError, AttributeError):
            return None
        return seconds, used / self._tick, own, len(ours)

    def _python_threads(self):
        """Processor seconds of Python's threads but the main one; of those that live."""
        main, total = threading.main_thread(), 0
        for thread in threading.enumerate():
            if thread is main or thread.native_id is None:
                continue
            try:
                with open(f"/proc/self/task/{thread.native_id}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / self._tick

    def switch(self, sleepy):
        """Let waiting threads sleep at once, or wait awake."""
        if sleepy == (self._team is not None):
            return
        if sleepy:
            self._release, ready = threading.Event(), threading.Event()
            self._team = threading.Thread(target=_hold_team, args=(ready, self._release), name="gluonzoo-team", daemon=True)
            self._team.start()
            ready.wait()
        else:
            self._release.set()
            self._team.join()  # libgomp forgets a team when its thread has ended.
            self._team = None

    @property
    def sleepy(self):
        """Whether waiting threads sleep at once."""
        return self._team is not None


def _hold_team(ready, release):
    """Have a team of two threads until told otherwise."""
    try:
        openmp, c = ctypes.CDLL("libgomp.so.1"), ctypes.CDLL(None)
        # The region's function: free(NULL), which does nothing, and needs no interpreter in the team's other thread.
        openmp.GOMP_parallel(ctypes.cast(c.free, ctypes.c_void_p), None, ctypes.c_uint(2), ctypes.c_uint(0))
    except (OSError, AttributeError):
        pass
    ready.set()
    release.wait()
