"""What a preflight has found out about hosts, what is wrong with it, and both as text or JSON."""
import json

from launch.spec import ROLES

__all__ = ["Findings", "Problem", "judge", "table", "as_json"]

CLOCK = 2.0                 # seconds two clocks may differ before it is worth a word
MEMORY = 512 << 20          # bytes a worker needs at least
DISK = 1 << 30              # bytes a checkpoint and logs may take
GIB = 1 << 30
# What ssh says, and what helps.
SSH_HINTS = (("Host key verification failed", "log in by hand once ({ssh}) and compare its key, or add it to "
              "known_hosts"),
             ("Permission denied", "it must let you in without a password: ssh-copy-id, or a key in ssh-agent"),
             ("Could not resolve hostname", "correct the name, or give it a HostName in ~/.ssh/config"),
             ("Name or service not known", "correct the name, or give it a HostName in ~/.ssh/config"),
             ("Connection refused", "start sshd there, or give its port= in the hostfile"),
             ("No route to host", "is it up, and is the name the right one?"),
             ("timed out", "is it up, and does a firewall let ssh through?"))
PORT_HINTS = (("timed out", "open the port in the firewall there, or choose one that is open with --channel-port"),
              ("refused", "something on the way refuses, or address= names another machine"),
              ("No route", "address= in the hostfile must name an address the other hosts can reach"),
              ("unreachable", "address= in the hostfile must name an address the other hosts can reach"),
              ("closed", "does another program answer there?"))


class Problem:
    """One line about a host; ``fatal``: no job can start with this host."""

    def __init__(self, host, text, fatal=True):
        self.host, self.text, self.fatal = host, text, fatal

    def __str__(self):
        return f"{self.host}: {self.text}"


class Findings:
    """What is known of one host; None where nothing is."""

    def __init__(self, host):
        self.host, self.name = host, host.name
        self.why = ""               # why it cannot be reached
        self.facts = None           # ``facts.py``, from its agent
        self.skew = self.round_trip = None      # its clock against ours, and what measuring that took, in seconds
        self.address = self.interface = self.channel_port = None
        self.folder = None          # {"free": bytes, "writable": bool, "program": path or None} or why there is none
        self.python = None          # {"python", "gluonzoo", "mxnet"} of the roles' Python, or why there is none
        self.channel = ""           # why its channel cannot be used
        self.reached = {}           # by name of a host that tried: milliseconds there and back, or why not

    @property
    def gluonzoo(self):
        """The version its roles would import."""
        if isinstance(self.python, dict):
            return self.python["gluonzoo"]
        return self.facts["gluonzoo"] if self.facts else None


def judge(found, wanted):
    """Everything that is wrong with a host.

    Args: wanted: has version (gluonzoo's here), cwd, python (the roles'), program (COMMAND or None), remote_python.
    """
    if found.why:
        return [Problem(found.name, _unreached(found, wanted))]
    problems = []

    def add(text, fatal=True):
        problems.append(Problem(found.name, text, fatal))
    _judge_software(found, wanted, add)
    _judge_network(found, add)
    _judge_machine(found, add)
    return problems


def _unreached(found, wanted):
    if "(--remote-python)" in found.why:
        return f"{found.why}: install Python 3.8 or newer there, or name it with --remote-python"
    if "Python 3.8 or newer" in found.why:
        return f"{found.why}: name another one with --remote-python (now {wanted.remote_python})"
    login = " ".join(["ssh", *(["-p", str(found.host.port)] if found.host.port else []),
                      (found.host.user + "@" if found.host.user else "") + found.name])
    hint = next((hint.format(ssh=login) for words, hint in SSH_HINTS if words in found.why), "")
    return f"{found.why.rstrip('.')}: {hint}" if hint else found.why


def _judge_software(found, wanted, add):
    cwd = wanted.cwd or "the home folder"
    if isinstance(found.folder, str):
        add(f"the folder {cwd} cannot be used ({found.folder}): make it, or name another with --remote-dir, or have it "
            "copied with --sync-dst-dir")
    elif found.folder:
        if not found.folder["writable"]:
            add(f"the folder {cwd} cannot be written by {found.facts['user']}", False)
        if found.folder["free"] < DISK:
            add(f"{_size(found.folder['free'])} are free in {cwd}", False)
        if wanted.program and not found.folder["program"]:
            add(f"COMMAND {wanted.program!r} is not found there: install it, or correct PATH or --remote-dir")
    if isinstance(found.python, str):
        if isinstance(found.folder, dict):      # without the folder it could not be asked
            add(f"the roles' Python, {wanted.python}, does not do: {found.python}: name another with --server-python")
        return
    if found.gluonzoo is None:
        add(f"{wanted.python} has no gluonzoo there: pip install it, or start in a folder that holds it (--remote-dir, "
            "--sync-dst-dir)")
    elif found.gluonzoo != wanted.version:
        add(f"gluonzoo is {found.gluonzoo} there and {wanted.version} here: install the same, or copy this one "
            "(--sync-dst-dir)")
    if found.python and not found.python["mxnet"]:
        add(f"{wanted.python} has no mxnet there: pip install mxnet, or name another Python with --server-python")


def _judge_network(found, add):
    if found.channel:
        taken = ": end the program that uses the port, or choose another with --channel-port"
        hint = taken if "in use" in found.channel else ""
        add(f"its channel cannot be used: {found.channel}{hint}")
    if found.address and found.interface is None and not found.address.startswith("127."):
        add(f"{found.address} is on none of its interfaces ({_interfaces(found.facts)}): right behind a NAT, else "
            "correct address= in the hostfile", False)
    failed = {}
    for name, result in found.reached.items():
        if isinstance(result, str):
            failed.setdefault(result, []).append(name)
    for why, names in failed.items():
        hint = next((hint for words, hint in PORT_HINTS if words in why), "look at its firewall and at address=")
        add(f"port {found.channel_port} of {found.address} cannot be reached from {_names(names)} ({why}): {hint}")


def _judge_machine(found, add):
    host, facts = found.host, found.facts
    if found.skew is not None and abs(found.skew) - found.round_trip / 2 > CLOCK:
        add(f"its clock is {abs(found.skew):.1f} s {'ahead of' if found.skew > 0 else 'behind'} ours: start chrony or "
            "systemd-timesyncd there", False)
    if host.slots > facts["cpus"]:
        add(f"{host.slots} slots, but {facts['cpus']} CPUs: workers will take turns", False)
    available = facts["memory"]["available"]
    if available is not None and available < MEMORY * max(1, host.slots):
        add(f"{_size(available)} of memory are available for {max(1, host.slots)} workers", False)


# ---- telling ----

def table(found):
    """Lines for people: a row a host."""
    rows = [("host", "ssh", "python", "gluonzoo", "mxnet", "CPUs/slots", "memory", "disk", "clock", "address",
             "reached from")]
    for one in found:
        if one.why:
            rows.append((one.name, "no") + ("-",) * 9)
            continue
        deep = one.python if isinstance(one.python, dict) else {}
        memory = one.facts["memory"]
        disk = _size(one.folder["free"]) if isinstance(one.folder, dict) else "no folder"
        rows.append((one.name, "yes", deep.get("python") or one.facts["python"], one.gluonzoo or "no",
                     _yes(deep.get("mxnet")), f"{one.facts['cpus']}/{one.host.slots}",
                     f"{_size(memory['available'])} of {_size(memory['total'])}", disk,
                     "?" if one.skew is None else f"{one.skew:+.3f} s", _address(one), _reached(one)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def as_json(found, problems, ok, wanted):
    """The same for programs."""
    hosts = []
    for one in found:
        hosts.append({
            "host": one.name, "slots": one.host.slots, "roles": [role for role in ROLES if role in one.host.roles],
            "ssh": one.why or True, "facts": one.facts, "clock_difference": one.skew, "round_trip": one.round_trip,
            "address": one.address, "interface": one.interface, "channel_port": one.channel_port,
            "channel": one.channel or None, "folder": one.folder, "python": one.python, "gluonzoo": one.gluonzoo,
            "reached_from": one.reached,
            "ok": not any(problem.fatal for problem in problems if problem.host == one.name)})
    told = {kind: [{"host": problem.host, "text": problem.text} for problem in problems if problem.fatal == fatal]
            for kind, fatal in (("problems", True), ("notes", False))}
    return json.dumps({"ok": ok, "gluonzoo": wanted.version, "cwd": wanted.cwd, "hosts": hosts, **told}, indent=1)


def _yes(value):
    return "?" if value is None else value if isinstance(value, str) else "yes" if value else "no"


def _size(count):
    return "?" if count is None else f"{count / GIB:.1f} GiB"


def _address(one):
    return (one.address or "?") + (f" ({one.interface})" if one.interface else "")


def _reached(one):
    if not one.reached:
        return "-"
    times = [result for result in one.reached.values() if not isinstance(result, str)]
    slowest = f", {max(times):.1f} ms" if times else ""
    return f"{len(times)} of {len(one.reached)}{slowest}"


def _interfaces(facts):
    return ", ".join(f"{name} {address}" for name, some in sorted(facts["addresses"].items()) for address in some)


def _names(names):
    return ", ".join(names if len(names) <= 6 else names[:5] + [f"and {len(names) - 5} more"])
