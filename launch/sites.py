"""Where hosts are: how others reach each of them, and which of them are one machine."""
import socket

from launch.spec import LaunchError

__all__ = ["Sites"]


class Sites:
    """The addresses of the hosts of a job. Hosts that share a loopback interface are one *site*.

    An address is what the hostfile says, or what the host's name means here, or else, once its agent has told, the
    only one that machine has.
    Args: hosts: list of Host.  resolve: finds a name's addresses.
    Raises: LaunchError when an address cannot be right.
    """

    def __init__(self, hosts, resolve=None):
        self._hosts = hosts
        self.addresses = [_resolve(host, resolve or _addresses) for host in hosts]
        self._sites = list(self.addresses)
        self._join()

    def _join(self):
        """What is loopback here is one site, if all is; a mixture cannot work."""
        local = [i for i, address in enumerate(self.addresses) if address is not None and is_loopback(address)]
        others = [i for i, address in enumerate(self.addresses) if address is not None and i not in local]
        if local and others:
            one, other = self._hosts[local[0]], self._hosts[others[0]]
            raise LaunchError(f"host {one.name} is {self.addresses[local[0]]}, which host {other.name} "
                              f"({self.addresses[others[0]]}) cannot reach; name the address it has in the network with "
                              "address= in the hostfile")
        for i in local:
            self._sites[i] = "loopback"

    def settle(self, ready):
        """Take in what agents say of their machines.

        Args: ready: by number of the host, its ``ready`` message.
        """
        for number, facts in ready.items():
            host = self._hosts[number]
            if self.addresses[number] is None or (host.dials and not host.address):     # it may have moved
                self.addresses[number] = self._sites[number] = self._only(number, facts)
            machine = facts.get("loopback")         # which loopback interface it is, where the agent can tell
            if machine:
                self._sites[number] = str(machine)
        self._here = list(ready)
        self._check()

    def _check(self):
        bad = [i for i in self._here if not self.one and is_loopback(self.addresses[i])]
        if bad:
            raise LaunchError(f"host {self._hosts[bad[0]].name} is {self.addresses[bad[0]]}, which other hosts cannot "
                              "reach; name the address it has in the network with address= in the hostfile")

    def _only(self, number, facts):
        """The address of a host whose name means nothing here."""
        if facts.get("peer"):           # it has dialled the launcher, which saw from where
            return facts["peer"]
        found = [address for some in dict(facts.get("addresses") or {}).values() for address in some
                 if not is_loopback(address)]
        name = self._hosts[number].name
        if len(found) == 1 or (found and len(self._hosts) == 1):
            return found[0]
        raise LaunchError(f"the name {name} has no address here, and the host has {', '.join(found) or 'none'}; say with "
                          "address= in the hostfile how the other hosts reach it")

    @property
    def one(self):
        """Whether all hosts are one site."""
        here = getattr(self, "_here", range(len(self._hosts)))
        return len({self._sites[i] if self._sites[i] is not None else i for i in here}) <= 1

    @property
    def listen(self):
        """The address on which a channel listens for all of them."""
        return "::" if any(address and ":" in address for address in self.addresses) else "0.0.0.0"

    def same(self, one, other):
        """Whether two hosts, by number, are one site."""
        return one == other or (self._sites[one] is not None and self._sites[one] == self._sites[other])

    def leaders(self, numbers):
        """The first host of each site."""
        return [n for i, n in enumerate(numbers) if not any(self.same(n, other) for other in numbers[:i])]

    def check_ipv4(self):
        """Raise LaunchError when ps-lite itself cannot use one of the addresses."""
        for host, address in zip(self._hosts, self.addresses):
            if address is not None and ":" in address:
                raise LaunchError(f"--insecure-network needs the IPv4 address of host {host.name} (address= in the "
                                  f"hostfile), got {address}")


def is_loopback(address):
    """Whether an address means whoever uses it."""
    return address.startswith("127.") or address == "::1"


def _resolve(host, resolve):
    """The address of a host, None when its name means nothing here."""
    if host.dials and not host.address:
        return None
    name = host.address or host.name
    found = resolve(name)
    if not found:
        if host.address:
            raise LaunchError(f"host {host.name}: address={host.address} means nothing on this machine")
        return None
    return next((address for address in found if ":" not in address), found[0])


def _addresses(name):
    try:
        return [entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []
