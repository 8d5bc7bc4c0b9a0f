"""Finding the processes of a test's job."""
from pathlib import Path

__all__ = ["marked_processes", "roles"]


def marked_processes(mark):
    """Ids of the live processes whose environment holds GLUONZOO_TEST_MARK=mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and f"GLUONZOO_TEST_MARK={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _variable(pid, name):
    """One variable of a process's environment; "" when there is none, or no such process."""
    try:
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(name.encode() + b"="):
                return entry.decode().partition("=")[2]
    except OSError:
        pass
    return ""


def roles(mark):
    """{name: process id} of a job's live roles: "scheduler", "server 0", "worker 0" ..."""
    found = {}
    for pid in marked_processes(mark):
        role = _variable(pid, "DMLC_ROLE")
        if role:
            found[role if role == "scheduler" else f"{role} {_variable(pid, 'GLUONZOO_ROLE_INDEX')}"] = pid
    return found
