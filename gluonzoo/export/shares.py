"""How many processes a machine carries for a batch job, on which processors, with how many threads, and in what pieces."""
import os

from .. import runtime
from ..errors import UserError

__all__ = ["available_memory", "check_jobs", "choose_jobs", "own_memory", "pieces", "processor_shares"]

#: Share of the free memory that processes may take.
MEMORY_SHARE = 0.8
#: The smallest piece into which the end of a job is cut, so that processes end together.
SMALLEST = 4


def check_jobs(jobs):
    """A number of processes, or None for "auto". Raises: UserError for anything else."""
    if jobs == "auto":
        return None
    try:
        number = int(jobs)
        if number < 1 or number != float(jobs) or isinstance(jobs, bool):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(f"jobs is {jobs!r}; expected a whole number of at least 1, or auto") from None
    return number


def _topology(cpu, root):
    """What orders processors so that threads of one core, and cores of one socket, are neighbours."""
    values = []
    for name in ("physical_package_id", "core_id"):
        try:
            with open(os.path.join(root, f"cpu{cpu}", "topology", name)) as file:
                values.append(int(file.read()))
        except (OSError, ValueError):
            values.append(0)
    return (*values, cpu)


def processor_shares(jobs, cpus=None, quota=None, root="/sys/devices/system/cpu"):
    """[(set of processors, OpenMP threads)] for so many processes.

    Each process gets neighbouring processors of its own, all as near equal as can be; with more processes than processors
    several share one. A control group's quota below the number of processors limits the threads. OMP_NUM_THREADS is heeded
    where it asks for fewer.

    Args: cpus: processors to share; default: those this process may use. quota: processors granted; default:
        `runtime.available_cpus`.
    """
    cpus = sorted(os.sched_getaffinity(0) if cpus is None else cpus, key=lambda cpu: _topology(cpu, root))
    granted = min(len(cpus), runtime.available_cpus() if quota is None else quota)
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    most = int(asked) if asked.isdigit() and int(asked) > 0 else granted
    found = []
    for number in range(jobs):
        if jobs > len(cpus):
            own = [cpus[number % len(cpus)]]
        else:
            own = cpus[number * len(cpus) // jobs:(number + 1) * len(cpus) // jobs]
        found.append((set(own), max(1, min(len(own), granted // jobs, most))))
    return found


def own_memory():
    """Bytes of this process that another one of its kind would not share with it."""
    try:
        with open("/proc/self/statm") as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available_memory(meminfo="/proc/meminfo", groups="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """Bytes that new processes can have: what the machine has free, cut to what the control group grants; None where unknown."""
    def number(path):
        try:
            with open(path) as file:
                return int(file.read())
        except (OSError, ValueError):  # "max" among them.
            return None

    found = []
    try:
        with open(meminfo) as file:
            found += [int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:")]
        with open(groups) as file:
            lines = file.read().split("\n")
    except (OSError, ValueError, IndexError):
        lines = []
    for line in filter(None, lines):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, limit, used = "", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in group.split("/") if part and part != ".."]
        for depth in range(len(parts) + 1):  # A limit on any ancestor holds for this process too.
            folder = os.path.join(root, mount, *parts[:depth])
            granted, taken = number(os.path.join(folder, limit)), number(os.path.join(folder, used))
            if granted is not None and taken is not None:
                found.append(max(0, granted - taken))
    return min(found) if found else None


def choose_jobs(images, serial, threaded, start, processors, worker=0, free=None):
    """How many processes to start, 1 for none but this one.

    As many as processors, each with one thread. What that gains is what one process does with one thread, reading, decoding and
    fitting images: this then runs on all processors. The network itself uses them all in one process too. Fewer where the memory
    is not enough; none where this process alone is done before they would be.

    Args: images: that are left; serial, threaded: seconds that this process takes for an image, with one thread and with all;
        start: seconds that a process takes to get ready; processors: there are; worker: bytes of memory of one process; free:
        bytes of free memory, None where not known.
    """
    most = processors
    if free is not None and worker > 0:
        most = min(most, int(MEMORY_SHARE * free / worker))
    # With fewer processes than processors each has several threads, so the network still has them all.
    return most if most > 1 and images * (serial + threaded) > start + images * (serial / most + threaded) else 1


def pieces(items, size, jobs):
    """Cut a list into pieces of `size`, towards its end smaller ones, so that `jobs` processes end at about the same time."""
    at = 0
    while at < len(items):
        now = size
        while jobs > 1 and now > SMALLEST and len(items) - at < 2 * jobs * now:
            now = max(SMALLEST, now // 2)
        yield items[at:at + now]
        at += now
