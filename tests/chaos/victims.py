"""The processes of a trial's job, and what is left when it is over."""
import os
import signal
import subprocess

from plan import ROLES

__all__ = ["MARK", "marked", "roles", "carriers", "hit", "listening", "unix_sockets"]

MARK = "GLUONZOO_TEST_MARK"     # the launcher passes variables that begin with GLUONZOO_ on to every host


def _read(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _parent(pid):
    """(state, parent); ("", 0) when it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (fields[0].decode(), int(fields[1])) if fields else ("", 0)


def _environment(pid):
    return dict(entry.split("=", 1) for entry in _read(pid, "environ").decode("utf-8", "replace").split("\0") if "=" in entry)


def marked(mark):
    """{pid: environment} of the living processes that carry the mark."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and wanted in _read(entry, "environ").split(b"\0") and _parent(entry)[0] not in ("Z", "X", ""):
            found[int(entry)] = _environment(entry)
    return found


def roles(processes):
    """[(name, pid)] of the job's roles among `marked` processes: "scheduler", "server 0", "worker 1" ..."""
    found = []
    for pid, environment in processes.items():
        role = environment.get("DMLC_ROLE")
        # (A role's own children have its environment too.)
        if role in ROLES and "DMLC_ROLE" not in processes.get(_parent(pid)[1], {}):
            found.append((role if role == "scheduler" else f"{role} {environment.get('GLUONZOO_ROLE_INDEX')}", pid))
    return sorted(found)


def carriers(network, processes):
    """[(name, pid)] of what carries the job on each host: "agent 2" is host 2's. See launch/agent.py, launch/channel.py."""
    found = []
    for host in range(1, network.count + 1):
        here = {pid: _read(pid, "cmdline").split(b"\0") for pid in network.processes(host)
                if pid in processes and "DMLC_ROLE" not in processes[pid]}
        programs = {pid: words for pid, words in here.items() if any(b"gluonzoo=" in word for word in words)}
        for pid, words in programs.items():
            parent = _parent(pid)[1]
            if parent not in programs:
                kind = "keeper"
            elif _parent(parent)[1] not in programs:
                kind = "agent"
            elif words != programs[parent]:     # not a role between fork and exec
                kind = "channel"
            else:
                continue
            found.append((f"{kind} {host}", pid))
    return sorted(found)


def hit(pid, number, mark):
    """Send a signal to a process of this job; returns whether it was there. Its number may have another owner by now."""
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None      # not before Python 3.9
        try:
            if f"{MARK}={mark}".encode() not in _read(pid, "environ").split(b"\0"):
                return False
            if handle is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
            return True
        finally:
            if handle is not None:
                os.close(handle)
    except OSError:
        return False


def listening(network, host):
    """Addresses on which something listens in a namespace, but for its sshd."""
    lines = subprocess.run(["ip", "netns", "exec", network.name(host), "ss", "-ltnH"], capture_output=True,
                           text=True).stdout.splitlines()
    own = f"{network.address(host)}:22"
    return [address for address in (line.split()[3] for line in lines) if address != own]


def unix_sockets(network, host):
    """Names of unix sockets in a namespace."""
    text = network.run(host, "cat", "/proc/net/unix")
    return [words[7] for words in (line.split() for line in text.splitlines()[1:]) if len(words) > 7]
