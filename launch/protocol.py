"""What launcher and agents say to one another: the messages of the link, their fields, and what these may hold.

A message with anything else is nonsense from somewhere, and the link is given up. Fields with "?" may be missing.

To an agent:
    hello   the first word, and again when the key changes; answered by ready, or by trouble
    ports   keep these ports of 127.0.0.1 from others until the next ports or end; answered by ports {taken}
    routes  tunnels: [port here, address, channel's port, host's number] and ports of roles here that others may reach
    start   a process: answered by started or failed;  env is added to the agent's own;  worker: it reports its steps
    signal  to the processes themselves, not to what they have started
    end     SIGTERM, and SIGKILL after grace seconds, to everything below the agent; answered by ended
    bye     the same, and the agent ends too
To the launcher:
    ready   facts about the host (``facts.py``), the port of its channel or null
    exit    behind what the process has printed, but what it has left behind may go on printing;  code: negative for
            a signal;  ago: seconds since its death
    ended   behind all output;  left: [pid, command] of what could not be ended
    broken  a connection between hosts ended by an error, which its roles cannot mend
    trouble about: the message that could not be carried out, or "tunnel", "channel" and "link";  fatal: the attempt
            cannot succeed
"""
from launch.wire import WireError

__all__ = ["TO_AGENT", "TO_LAUNCHER", "checked"]


def _is_whole(value, low=0, high=(1 << 32) - 1):
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_port(value):
    return _is_whole(value, 1, 65535)


def _is_text(value):
    return isinstance(value, str)


def _is_bool(value):
    return isinstance(value, bool)


def _is_number(value, low=0.0):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= 1e12


def _is_code(value):
    return _is_whole(value, -255, 255)


def _list_of(check, least=0):
    return lambda value: isinstance(value, list) and len(value) >= least and all(check(item) for item in value)


def _row(*checks):
    return lambda value: (isinstance(value, list) and len(value) == len(checks)
                          and all(check(item) for check, item in zip(checks, value)))


def _map_of(check):
    return lambda value: isinstance(value, dict) and all(check(item) for item in value.values())


def _or_null(check):
    return lambda value: value is None or check(value)


TO_AGENT = {
    "hello": {"version": _or_null(_is_text), "host": _is_whole, "timeout": lambda value: _is_number(value, 0.1),
              "key": _or_null(_is_text), "listen": _or_null(_row(_is_text, lambda value: _is_whole(value, 0, 65535))),
              "grace?": _is_number, "cwd?": _or_null(_is_text), "path?": _list_of(_is_text)},
    "ports": {"ports": _list_of(_is_port), "own": _list_of(_is_port)},
    "routes": {"routes": _list_of(_row(_is_port, _is_text, _is_port, _is_whole)), "serve": _list_of(_is_port)},
    "start": {"index": _is_whole, "role": _is_text, "argv": _list_of(_is_text, 1), "env": _map_of(_is_text),
              "cwd": _or_null(_is_text), "worker": _is_bool},
    "signal": {"indexes": _list_of(_is_whole), "number": lambda value: _is_whole(value, 0, 64)},
    "end": {"grace": _is_number},
    "beat": {},
    "bye": {},
}
TO_LAUNCHER = {
    "ready": {"version": _or_null(_is_text), "channel_port": _or_null(_is_port), "pid": _is_whole,
              "hostname": _is_text, "user": _is_text, "python": _is_text, "executable": _is_text, "cpus": _is_whole,
              "memory": _map_of(_or_null(_is_number)), "addresses": _map_of(_list_of(_is_text)),
              "interfaces": _list_of(_is_text), "loopback": _or_null(_is_text), "gluonzoo": _or_null(_is_text),
              "time": _is_number},
    "ports": {"taken": _list_of(_is_port)},
    "routed": {},
    "started": {"index": _is_whole, "pid": _is_whole},
    "failed": {"index": _is_whole, "why": _is_text, "code": _is_code},
    "exit": {"index": _is_whole, "code": _is_code, "ago": _is_number},
    "progress": {"index": _is_whole, "text": _is_text},
    "ended": {"left": _list_of(_row(_is_whole, _is_text))},
    "beat": {},
    "broken": {"text": _is_text, "port": _is_port},
    "trouble": {"text": _is_text, "about": _is_text, "fatal": _is_bool, "port?": _is_port},
}


def checked(message, known):
    """A message as (op, the other fields).

    Args: message: payload of a MESSAGE frame.  known: TO_AGENT or TO_LAUNCHER.
    Raises: WireError unless it is one of those, with the fields it needs.
    """
    fields = dict(message)
    op = fields.pop("op")
    if op not in known:
        raise WireError(f"received a message {op[:40]!r}, which is unknown here")
    checks = {name.rstrip("?"): check for name, check in known[op].items()}
    for name in known[op]:
        if name not in fields and not name.endswith("?"):
            raise WireError(f"received a message {op!r} without {name!r}")
    for name, value in fields.items():
        if name not in checks:
            raise WireError(f"received a message {op!r} with {name[:40]!r}, which is unknown here")
        if not checks[name](value):
            raise WireError(f"received a message {op!r} whose {name!r} cannot be {_short(value)}")
    return op, fields


def _short(value):
    if isinstance(value, str):
        return "a text" if len(value) > 60 else repr(value)     # a key that is damaged is still not to be shown
    return type(value).__name__ if isinstance(value, (dict, list)) else repr(value)
