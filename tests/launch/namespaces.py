"""Several hosts on this machine: network namespaces joined by a bridge, an sshd in each. Needs root.

The bridge lives in a namespace of its own, so that nothing of this machine's own network changes; names and addresses
are of this process. What a link can be made to do: carry so many bits a second, take so long, or nothing at all.
"""
import os
import shutil
import signal
import subprocess
import sys
import time

__all__ = ["Network", "missing"]

SSHD = "/usr/sbin/sshd"
DELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "delay.py")


def missing():
    """Why there can be no such network here, "" when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "tc", "ssh", "ssh-keygen", SSHD):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    name = f"gzt{os.getpid()}x"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return ""


class Network:
    """Hosts 1 to ``count``, each with one link to the others; ``close`` removes everything, whatever happened."""
    _number = 0

    def __init__(self, folder, count):
        Network._number += 1
        self.folder, self.count = folder, count
        self._prefix = f"gzt{os.getpid()}n{Network._number}"
        self._net = f"10.{77 + os.getpid() % 100}.{Network._number % 250}"
        self._names, self._servers, self._delays = [], [], []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def name(self, host):
        """The namespace of a host; 0 is the bridge's."""
        return f"{self._prefix}{host}"

    def address(self, host):
        return f"{self._net}.{host}"

    def run(self, host, *argv):
        """Run a program on a host to its end; returns its output. Raises AssertionError when it fails."""
        return _run("ip", "netns", "exec", self.name(host), *argv)

    def processes(self, host):
        """Pids of the living processes on a host, without its sshd (which waits long for a client that fell silent)."""
        found = []
        for pid in _run("ip", "netns", "pids", self.name(host)).split():
            try:
                with open(f"/proc/{pid}/comm") as file:
                    if file.read().strip() != "sshd":
                        found.append(int(pid))
            except OSError:
                continue
        return found

    @property
    def ssh(self):
        """The value of --ssh for a launcher outside: it reaches the hosts from host 0's namespace."""
        return (f"ip netns exec {self.name(0)} ssh -F none -i {self.folder}/user_key -o UserKnownHostsFile="
                f"{self.folder}/known_hosts -o StrictHostKeyChecking=yes")

    # ---- what links do ----

    def cut(self, host):
        """The host's link carries nothing any more; nobody is told."""
        _run("ip", "-n", self.name(0), "link", "set", f"p{host}", "nomaster")

    def mend(self, host):
        """Undo cut."""
        _run("ip", "-n", self.name(0), "link", "set", f"p{host}", "master", "br0")

    def limit(self, host, rate, queue="50ms"):
        """So many bits a second both ways (``100mbit``); what waits longer than ``queue`` is dropped."""
        for where, device in ((host, "eth0"), (0, f"p{host}")):
            _run("tc", "-n", self.name(where), "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst",
                 "64kb", "latency", queue)

    def delay(self, host, seconds):
        """Everything takes so long on its way to the host and from it (this kernel has no netem: see delay.py)."""
        if not self._delays:        # the program that carries frames wants them as they would be on a wire
            for other in range(1, self.count + 1):
                self.run(other, sys.executable, DELAY, "eth0")
            self.run(0, sys.executable, DELAY, "br0")
        switch, ready = self.name(0), self.folder / f"delay-{host}"
        _run("ip", "-n", switch, "link", "add", f"q{host}", "type", "veth", "peer", "name", f"r{host}")
        _run("ip", "-n", switch, "link", "set", f"p{host}", "nomaster")
        _run("ip", "-n", switch, "link", "set", f"r{host}", "master", "br0", "up")
        _run("ip", "-n", switch, "link", "set", f"q{host}", "up")
        self._delays.append(subprocess.Popen(["ip", "netns", "exec", switch, sys.executable, "-S", DELAY, f"p{host}",
                                              f"q{host}", f"{seconds:g}", str(ready)]))
        _wait(ready.exists, "the delay")

    # ---- making and removing ----

    def _build(self):
        switch = self._add(0)
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        _run("ip", "-n", switch, "addr", "add", f"{self._net}.254/24", "dev", "br0")
        self._keys()
        for host in range(1, self.count + 1):
            name = self._add(host)
            _run("ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", f"p{host}", "netns", switch)
            _run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", switch, "link", "set", f"p{host}", "master", "br0", "up")
            self._servers.append(self._sshd(host))
        for host in range(1, self.count + 1):
            _wait(lambda host=host: self._answers(host), f"sshd of host {host}")

    def _add(self, host):
        name = self.name(host)
        _run("ip", "netns", "add", name)
        self._names.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _keys(self):
        for key in ("host_key", "user_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(self.folder / key))
        words = (self.folder / "host_key.pub").read_text().split()[:2]
        (self.folder / "known_hosts").write_text("".join(
            f"{self.address(host)} {' '.join(words)}\n" for host in range(1, self.count + 1)))
        (self.folder / "authorized").write_text((self.folder / "user_key.pub").read_text())

    def _sshd(self, host):
        os.makedirs("/run/sshd", exist_ok=True)
        settings = {"ListenAddress": self.address(host), "HostKey": self.folder / "host_key",
                    "AuthorizedKeysFile": self.folder / "authorized", "StrictModes": "no",
                    "PermitRootLogin": "prohibit-password", "PasswordAuthentication": "no", "UsePAM": "no",
                    "PidFile": "none", "MaxStartups": "100",
                    # Else bash runs the .bashrc of whoever runs the tests, and what a killed one leaves locked stops the next.
                    "SetEnv": f"HOME={self.folder}"}
        argv = ["ip", "netns", "exec", self.name(host), SSHD, "-D", "-e", "-f", "/dev/null", "-p", "22"]
        for key, value in settings.items():
            argv += ["-o", f"{key}={value}"]
        with open(self.folder / f"sshd-{host}.log", "wb") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _answers(self, host):
        argv = ["ip", "netns", "exec", self.name(0), "ssh-keyscan", "-T", "2", "-t", "ed25519", self.address(host)]
        return b"ssh-ed25519" in subprocess.run(argv, capture_output=True).stdout

    def remove(self, host):
        """The host is gone for good, with all that ran there."""
        name = self.name(host)
        for _ in range(50):
            listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            if not listed:
                break
            for pid in listed:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for server in self._servers:
                server.poll()
            time.sleep(0.02)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        if name in self._names:
            self._names.remove(name)

    def close(self):
        """Remove all hosts and the bridge."""
        for delay in self._delays:
            _end(delay)
        for host in range(self.count, -1, -1):
            if self.name(host) in self._names:
                self.remove(host)
        for server in self._servers:
            _end(server)


def _run(*argv):
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stdout}{done.stderr}"
    return done.stdout


def _end(popen):
    popen.kill()
    popen.wait()


def _wait(condition, what, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
