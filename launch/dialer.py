#!/usr/bin/env python3
"""An agent that comes by itself: it dials the launcher through the launcher's channel, and serves it from then on.

mpirun, srun and other schedulers start this program on every host; so can a person:

    python3 launch/dialer.py --key-file runs/NAME/join.key 192.0.2.2:41000

Where the launcher is and what proves that we belong to the job comes in the environment variable GLUONZOO_JOIN (an
Invitation), or is given as above; the key alone also in GLUONZOO_JOIN_KEY. Nothing of it stays in the environment of
what the agent starts.
"""
import argparse
import base64
import json
import os
import socket
import stat
import sys
import time
from typing import Dict, NamedTuple, Optional, Tuple

if not __package__:     # run as a file: import the package this file is in, not its files one by one
    _HERE = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [os.path.dirname(_HERE)] + [entry for entry in sys.path if os.path.realpath(entry or ".") != _HERE]

from launch.secure import JobKey  # noqa: E402 (the path is set first)
from launch.spec import LaunchError  # noqa: E402

__all__ = ["Invitation", "main", "read_key", "target", "INVITATION", "KEY"]

INVITATION, KEY = "GLUONZOO_JOIN", "GLUONZOO_JOIN_KEY"
TIMEOUT = 60.0          # seconds to reach the launcher
TRY, PAUSE = 3.0, 0.5   # for one look whether somebody listens at an address, and between two rounds
# What mpirun tells its own processes, which the roles are not: an MPI library in them must not believe it.
MPI = ("OMPI_", "PMIX_", "PMI_", "ORTE_", "PRTE_")


class Invitation(NamedTuple):
    """What an agent has to know to join a job.

    Args: addresses: [host, port] of the launcher's channel, the best first.  key: JobKey.pack's text.  timeout: seconds
        to reach it.  variable, places: which host of the job this is stands under the value of that variable; without
        them the launcher chooses.
    """
    addresses: Tuple[Tuple[str, int], ...]
    key: str
    timeout: float = TIMEOUT
    variable: Optional[str] = None
    places: Dict[str, int] = {}

    def pack(self):
        """As one line of text, for an environment variable."""
        return base64.b64encode(json.dumps(self._asdict()).encode("ascii")).decode("ascii")

    @classmethod
    def unpack(cls, text):
        """The Invitation of ``pack``'s text. Raises: LaunchError, which does not show it."""
        try:
            fields = json.loads(base64.b64decode(text.encode("ascii"), validate=True).decode("ascii"))
            made = cls(**fields)
            return made._replace(addresses=tuple((str(host), int(port)) for host, port in made.addresses))
        except (ValueError, TypeError, RecursionError):
            raise LaunchError(f"{INVITATION} holds {len(text)} characters that no launcher of this version wrote"
                              ) from None

    def place(self, environ):
        """Which host of the job this is; None when the launcher may choose. Raises: LaunchError."""
        if self.variable is None:
            return None
        value = environ.get(self.variable)
        if value not in self.places:
            known = ", ".join(list(self.places)[:6]) + (" ..." if len(self.places) > 6 else "")
            raise LaunchError(f"{self.variable} tells which host this is; expected one of {known}, got "
                              f"{'nothing' if value is None else repr(value)}")
        return self.places[value]


def target(place):
    """What an agent knocks for: its place among the hosts, or any (None)."""
    return "agent" if place is None else f"agent-{place}"


def read_key(path, flag):
    """The text of a key file that nobody else can read.

    Raises: LaunchError.
    """
    try:
        with open(path, encoding="ascii") as file:
            status = os.fstat(file.fileno())
            others = 0o077 if status.st_uid == os.getuid() else 0o007     # ssh's rule: another owner knows what he does
            if stat.S_ISREG(status.st_mode) and status.st_mode & others:
                raise LaunchError(f"{flag} {path}: others may read or change it (mode "
                                  f"{stat.S_IMODE(status.st_mode):04o}), expected 0600 or 0400")
            text = file.read(1 << 16).strip()
        JobKey.unpack(text)
        return text
    except OSError as error:
        raise LaunchError(f"{flag} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LaunchError(f"{flag} {path} holds no key: it is not text") from None
    except ValueError as error:
        raise LaunchError(f"{flag} {path} holds no key: {error}") from None


class _Parser(argparse.ArgumentParser):
    """Errors as one line, without the usage."""

    def error(self, message):
        raise LaunchError(message)


def _parser():
    parser = _Parser(prog="dialer.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("launcher", nargs="?", metavar="HOST:PORT", help=f"where the launcher waits; not needed with {INVITATION}")
    add("--key-file", metavar="FILE", help=f"the job's key, readable for its owner only; or give it in {KEY}")
    add("--index", type=int, metavar="N", help="which host of the job this is, from 0 on (default: any)")
    add("--index-from", metavar="VARIABLE", help="environment variable that holds it (JOB_COMPLETION_INDEX)")
    add("--connect-timeout", type=float, metavar="S", help=f"to reach the launcher (default: {TIMEOUT:g})")
    return parser


def _address(text):
    """``host:port`` or ``[fd00::1]:port`` as a pair."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise LaunchError(f"expected HOST:PORT of the launcher, got {text!r}")
    return host, int(port)


def _invitation(options, environ):
    """The Invitation, and which host this is, from the command line and the environment."""
    text, key = environ.pop(INVITATION, None), environ.pop(KEY, None)
    if options.launcher is not None:
        if options.key_file is not None:
            key = read_key(options.key_file, "--key-file")
        if key is None:
            raise LaunchError(f"the job's key is needed: --key-file FILE, or {KEY} in the environment")
        join = Invitation((_address(options.launcher),), key.strip())
    elif text is None:
        raise LaunchError(f"where is the launcher? expected HOST:PORT, or {INVITATION} in the environment")
    else:
        join = Invitation.unpack(text)
    if options.connect_timeout is not None:
        join = join._replace(timeout=options.connect_timeout)
    if options.index is not None:
        return join, options.index
    if options.index_from is not None:
        value = environ.get(options.index_from, "")
        if not value.isdigit():
            raise LaunchError(f"--index-from {options.index_from}: expected a whole number in it, got {value!r}")
        return join, int(value)
    return join, join.place(environ)


def _reachable(addresses, deadline):
    """The first of the launcher's addresses at which somebody listens.

    Raises: LaunchError.
    """
    if len(addresses) == 1:
        return addresses[0]
    while True:
        for host, port in addresses:
            try:
                socket.create_connection((host, port), TRY).close()
                return host, port
            except OSError as error:
                why = error.strerror or str(error)
        if time.monotonic() + PAUSE >= deadline:
            tried = ", ".join(f"{host} port {port}" for host, port in addresses)
            raise LaunchError(f"cannot reach the launcher at {tried}: {why}")
        time.sleep(PAUSE)


def main(argv=()):
    """Join the job and serve it to its end; returns the exit code."""
    try:
        join, place = _invitation(_parser().parse_args(list(argv)), os.environ)
        deadline = time.monotonic() + join.timeout
        JobKey.unpack(join.key)
        address = _reachable(join.addresses, deadline)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except LaunchError as error:
        sys.stderr.write(f"error: {socket.gethostname()}: {error}\n")
        return 2
    for name in [name for name in os.environ if name.startswith(MPI)]:
        del os.environ[name]
    from launch import agent
    os.environ[agent.KEY_VARIABLE] = join.key
    return agent.main((), {"address": list(address), "target": target(place),
                           "timeout": max(1.0, deadline - time.monotonic())})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
