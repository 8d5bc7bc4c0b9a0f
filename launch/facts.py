"""What a machine has, for the launcher to choose by and to check beforehand; nothing heavy is imported or run."""
import array
import fcntl
import importlib.machinery
import importlib.util
import os
import re
import socket
import struct
import sys
import time

__all__ = ["facts"]

SIOCGIFCONF = 0x8912        # all interfaces with an IPv4 address, aliases too
MOST_INTERFACES = 1024


def facts(cwd=None, path=()):
    """This machine and this Python as plain values.

    Args: cwd: folder the roles will start in.  path: folders that come before this Python's own, as in PYTHONPATH.
    Returns: a dict; memory in bytes, time in seconds of this machine's clock, addresses by interface, loopback: equal
        where 127.0.0.1 is the same, gluonzoo's version or None.
    """
    return {"hostname": socket.gethostname(), "user": _user(), "python": sys.version.split()[0],
            "executable": sys.executable, "cpus": len(os.sched_getaffinity(0)), "memory": _memory(),
            "addresses": _addresses(), "interfaces": [name for _, name in socket.if_nameindex()],
            "loopback": _loopback(), "gluonzoo": _gluonzoo(cwd, path), "time": time.time()}


def _user():
    import pwd
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:            # a container may run under a number without a name
        return str(os.getuid())


def _memory(file="/proc/meminfo"):
    """Total and available memory in bytes; None where the kernel does not tell."""
    with open(file) as lines:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", lines.read(), re.MULTILINE))
    return {name: int(found[key]) * 1024 if key in found else None
            for name, key in (("total", "MemTotal"), ("available", "MemAvailable"))}


def _addresses():
    """Lists of addresses by interface: IPv4, then IPv6 that are not link-local."""
    found = {}
    for name, address in _ipv4() + _ipv6():
        found.setdefault(name, []).append(address)
    return found


def _ipv4():
    size = 40 if struct.calcsize("P") == 8 else 32      # struct ifreq: 16 bytes of name, then a sockaddr or more
    room = array.array("B", bytes(MOST_INTERFACES * size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, SIOCGIFCONF, struct.pack("iP", len(room), room.buffer_info()[0]))
    length, data = struct.unpack("iP", answer)[0], room.tobytes()
    return [(data[at:at + 16].split(b"\0")[0].decode(), socket.inet_ntoa(data[at + 20:at + 24]))
            for at in range(0, length, size)]


def _ipv6(file="/proc/net/if_inet6"):
    found = []
    try:
        with open(file) as lines:
            for line in lines:
                digits, _, _, scope, _, name = line.split()
                if scope != "20":
                    found.append((name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))))
    except OSError:             # a kernel without IPv6
        pass
    return found


def _loopback():
    """Which loopback interface is ours: machine and network namespace; None where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}:{os.stat('/proc/self/ns/net').st_ino}"
    except OSError:
        return None


def _gluonzoo(cwd, path):
    """The version of the gluonzoo that a program started in ``cwd`` would import; None when there is none."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [folder for folder in [cwd, *path, *given] if folder] + sys.path
    try:        # find_spec of util: what an editable installation has hooked in; neither imports it
        spec = importlib.machinery.PathFinder.find_spec("gluonzoo", folders) or importlib.util.find_spec("gluonzoo")
        for folder in spec.submodule_search_locations if spec else ():
            with open(os.path.join(folder, "_version.py"), encoding="utf-8") as file:
                return re.search(r"^__version__ = [\"'](.+)[\"']", file.read(), re.MULTILINE).group(1)
    except (OSError, ValueError, ImportError, AttributeError, TypeError):     # one that is broken, or not ours
        pass
    return None
