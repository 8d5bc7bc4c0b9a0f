"""Ports for a job: free ones, kept from other launchers for as long as this one lives.

A port that was found free can be taken a moment later, by the kernel for some outgoing connection or by a second
launcher. Ports are therefore taken from outside the kernel's own range, and each is locked by an abstract unix
socket (``\\0gluonzoo-port-N``): it belongs to the network namespace as the port does, and it vanishes with its owner.
"""
import errno
import os
import socket

from launch.spec import LaunchError

__all__ = ["Reservation", "reserve", "is_free", "lock_of", "candidate_ports", "ephemeral_range"]

LOWEST, HIGHEST = 10000, 65535


class Reservation:
    """Locked ports, in the order in which they were asked for; ``close`` gives them back."""

    def __init__(self):
        self.ports = []
        self._locks = []

    def add(self, port, lock):
        self.ports.append(port)
        self._locks.append(lock)

    def close(self):
        """Give the ports back."""
        while self._locks:
            self._locks.pop().close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def ephemeral_range(path="/proc/sys/net/ipv4/ip_local_port_range"):
    """First and last port the kernel hands out to outgoing connections."""
    try:
        with open(path) as file:
            low, high = file.read().split()
            return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999


def _reserved(path="/proc/sys/net/ipv4/ip_local_reserved_ports"):
    """Ports an administrator has set aside for something else."""
    found = set()
    try:
        with open(path) as file:
            for part in file.read().strip().split(","):
                if part:
                    low, _, high = part.partition("-")
                    found.update(range(int(low), int(high or low) + 1))
    except (OSError, ValueError):
        pass        # not known: the test bind still finds those in use
    return found


def lock_of(port):
    """The lock of a port, or None when another launcher holds it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(f"\0gluonzoo-port-{port}")
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return sock


def is_free(host, port):
    """Whether a server could listen on the port now.

    Raises: LaunchError when no port of this host can be listened on, or not this one by this user.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        # As ps-lite's own sockets: connections that linger in TIME_WAIT do not count, a listener does.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EADDRNOTAVAIL:
                raise LaunchError(f"{host} is not an address of this machine (--host)") from None
            raise LaunchError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return True


def candidate_ports(count, avoid):
    """Ports to try, ascending from a random one."""
    low, high = ephemeral_range()
    reserved = _reserved()
    usable = [p for p in range(LOWEST, HIGHEST + 1) if not low <= p <= high and p not in reserved]
    if len(usable) < 4 * count:     # the kernel's range covers nearly everything: then the test bind must do
        usable = [p for p in range(LOWEST, HIGHEST + 1) if p not in reserved]
    start = int.from_bytes(os.urandom(4), "big") % max(1, len(usable))
    return [p for p in usable[start:] + usable[:start] if p not in avoid]


def reserve(host, count, fixed=None, avoid=()):
    """Lock ``count`` free ports of ``host``.

    Args: fixed: the port that must be the first of them.  avoid: ports not to take.
    Raises: LaunchError when ``fixed`` is taken or there are not enough; nothing stays locked then.
    """
    found = Reservation()
    try:
        if fixed is not None:
            if not is_free(host, fixed):
                raise LaunchError(f"port {fixed} on {host} is taken (--port); leave --port out to have a free one "
                                  "chosen")
            lock = lock_of(fixed)
            if lock is None:
                raise LaunchError(f"port {fixed} is held by another launch.py (--port)")
            found.add(fixed, lock)
        candidates = candidate_ports(count, avoid)
        if count > len(candidates):
            raise LaunchError(f"needed {count} free ports on {host}, there are {len(candidates)} at most")
        for port in candidates:
            if len(found.ports) == count:
                break
            if port == fixed:
                continue
            lock = lock_of(port)
            if lock is None:
                continue
            if is_free(host, port):
                found.add(port, lock)
            else:
                lock.close()
        if len(found.ports) < count:
            raise LaunchError(f"needed {count} free ports on {host}, found {len(found.ports)}")
    except OSError as error:        # one open file a port
        locked = len(found.ports)
        found.close()
        raise LaunchError(f"needed {count} ports, locked {locked}, then: {error.strerror} (ulimit -n)") from None
    except BaseException:
        found.close()
        raise
    return found
