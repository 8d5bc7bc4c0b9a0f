"""Which hosts a job may use: a hostfile's lines, or a list on the command line, as data.

    # name or address, then what differs from the default; slots= is the number of workers it may hold (1)
    node1                     slots=4
    trainer@node2:2222        slots=4 role=worker
    [fd00::3]:2222            address=10.0.0.3        # how the other hosts reach it, when not by its name
    head                      role=scheduler,server

One host a line (MXNet's form) and Open MPI's ``slots=N`` are therefore hostfiles. A host that comes again adds its
slots and roles. ``-H node1:4,node2`` says the same in one word; there the number is the slots, as for mpirun.
"""
import os
import re

from launch.spec import ROLES, Host, LaunchError

__all__ = ["read_hosts", "parse_hostfile", "parse_list"]

IGNORED = ("max_slots", "max-slots")        # Open MPI's; how many workers run is decided by -n and slots=
KNOWN = ("slots", "role", "port", "user", "address")


def read_hosts(value):
    """What ``-H VALUE`` names: a file if there is one, else a list such as ``host1:2,host2``.

    Returns: (hosts, notes), notes being lines to tell the user.
    Raises: LaunchError when it is neither, or could be both.
    """
    listed = os.sep not in value and ("," in value or re.search(r":\d+\Z", value) is not None)
    if os.path.exists(value):
        if listed:
            raise LaunchError(f"-H {value!r} is a file here, and could be a list of hosts; write ./{value} for the file")
        return parse_hostfile(_text(value), value)
    if listed:
        return parse_list(value), []
    maybe = "" if os.sep in value else f" (a single host is written with its slots: -H {value}:1)"
    raise LaunchError(f"-H/--hostfile: there is no file {value!r}{maybe}")


def _text(path):
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise LaunchError(f"cannot read the hostfile {path}: {error.strerror}") from None


def parse_hostfile(text, name="hostfile"):
    """The hosts of a hostfile's text, in order of first appearance.

    Returns: (hosts, notes).
    Raises: LaunchError that names the line, what it holds and what was expected.
    """
    hosts, notes = {}, []
    for number, line in enumerate(text.split("\n"), 1):
        words = re.sub(r"\s*=\s*", "=", re.sub(r"(\A|\s)#.*", "", line).strip()).split()
        if not words:
            continue
        try:
            host, remarks = _parse_line(words)
            _add(hosts, host)
        except ValueError as error:
            raise LaunchError(f"{name} line {number}: {error}") from None
        notes += [f"{name} line {number}: {remark}" for remark in remarks]
    if not hosts:
        raise LaunchError(f"{name} names no host")
    return list(hosts.values()), notes


def parse_list(value):
    """The hosts of ``user@host1:2,host2,[fd00::3]:4``: a number after a colon is the host's slots.

    Raises: LaunchError that names the entry.
    """
    hosts = {}
    for word in value.split(","):
        try:
            user, name, slots = _split(word.strip(), "slots")
            if slots is not None and slots < 1:
                raise ValueError(f"expected at least 1 slot, found {word!r}")
            _add(hosts, Host(name, user=user, slots=slots or 1))
        except ValueError as error:
            raise LaunchError(f"-H {value}: {error}") from None
    return list(hosts.values())


def _parse_line(words):
    """One line's host and what to tell about it. Raises ValueError."""
    user, name, port = _split(words[0], "port")
    given, remarks = {}, []
    for word in words[1:]:
        key, found, value = word.partition("=")
        key = key.lower()
        if not found or key not in KNOWN + IGNORED:
            raise ValueError(f"expected slots=N, role=, port=, user= or address=, found {word!r}")
        if key in given:
            raise ValueError(f"{key}= comes twice")
        given[key] = value
    for key in IGNORED:
        if key in given:
            remarks.append(f"{key}= has no meaning here and is ignored")
    roles = _roles(given.get("role"))
    slots = _number(given, "slots", 1, 1 << 20)
    if roles and "worker" not in roles:
        if slots is not None:
            remarks.append("slots= is the number of workers, and role= allows none here: ignored")
        slots = 0
    if "port" in given:
        asked = _number(given, "port", 1, 65535)
        if port not in (None, asked):
            raise ValueError(f"two ports, {port} and {asked}")
        port = asked
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, found {port} in {words[0]!r}")
    if "user" in given:
        if user not in (None, given["user"]):
            raise ValueError(f"two users, {user!r} and {given['user']!r}")
        user = _user(given["user"])
    address = given.get("address")
    if address is not None:
        address = _name(address[1:-1] if re.match(r"\[.*\]\Z", address) else address, "address=")
    return Host(name, user, port, 1 if slots is None else slots, roles or ROLES, bool(roles), address), remarks


def _add(hosts, host):
    """Put a host into the dictionary, or what is new about it. Raises ValueError."""
    key = (host.user, host.name, host.port)
    old = hosts.get(key)
    if old is None:
        hosts[key] = host
        return
    if old.address and host.address and old.address != host.address:
        raise ValueError(f"{host.name} has address={old.address} on an earlier line, found address={host.address}")
    roles = tuple(role for role in ROLES if role in old.roles + host.roles)
    hosts[key] = old._replace(slots=old.slots + host.slots, roles=roles, chosen=old.chosen and host.chosen,
                              address=old.address or host.address)


def _split(word, what):
    """``user@host:number``: (user or None, host, number or None); what: the number's meaning."""
    user, at, rest = word.rpartition("@")
    user = _user(user) if at else None
    match = re.match(r"\[([^\[\]]*)\](?::(.*))?\Z", rest)
    if match:
        name, number = match.group(1), match.group(2)
        if ":" not in name:
            raise ValueError(f"expected an IPv6 address between [ and ], found {word!r}")
    elif rest.count(":") > 1:
        if what == "slots":
            raise ValueError(f"an IPv6 address stands between [ and ], found {word!r}")
        name, number = rest, None
    else:
        name, colon, number = rest.partition(":")
        number = number if colon else None
    if number is not None and not re.match(r"\d{1,7}\Z", number):
        raise ValueError(f"expected host:{what.upper()} with a whole number, found {word!r}")
    return user, _name(name, "a host"), None if number is None else int(number)


def _name(name, what):
    """A host's name or address; never one that ssh would take for an option."""
    if not re.match(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*\Z", name):
        raise ValueError(f"expected {what} (letters, digits, '.', '-', '_' or an IPv6 address), found {name!r}")
    return name


def _user(name):
    if not re.match(r"[A-Za-z0-9_.+\\][A-Za-z0-9_.+\\@$-]*\Z", name):
        raise ValueError(f"expected a user's name, found {name!r}")
    return name


def _roles(text):
    """The roles of ``role=worker,server`` in their own order; () when nothing was said."""
    if text is None:
        return ()
    asked = text.lower().split(",")
    for role in asked:
        if role not in ROLES:
            raise ValueError(f"expected role= {', '.join(ROLES)} or several of them with commas, found {text!r}")
    return tuple(role for role in ROLES if role in asked)


def _number(given, key, low, high):
    if key not in given:
        return None
    text = given[key]
    if not re.match(r"\d{1,7}\Z", text) or not low <= int(text) <= high:
        raise ValueError(f"expected {key}= a whole number from {low} to {high}, found {text!r}")
    return int(text)
