"""Without any process: addresses of hosts, and the words ssh and rsync are given."""
import shlex
from collections import namedtuple

from launch.links import Link
from launch.sites import Sites
from launch.spec import Host, LaunchError
from launch.ssh import SshOptions, agent_argv, home_relative, rsync_argv, ssh_argv

import pytest

NAMES = {"a": ["10.0.0.1"], "b": ["10.0.0.2", "fd00::2"], "six": ["fd00::6", "fd00::7"], "me": ["127.0.1.1"],
         "localhost": ["::1", "127.0.0.1"], "10.0.0.9": ["10.0.0.9"], "127.0.0.1": ["127.0.0.1"]}


def sites(names, **address):
    return Sites([Host(name, address=address.get(name)) for name in names.split()], lambda name: NAMES.get(name, []))


def test_addresses():
    assert sites("a b six").addresses == ["10.0.0.1", "10.0.0.2", "fd00::6"]
    assert sites("a b", a="10.0.0.9").addresses == ["10.0.0.9", "10.0.0.2"]
    assert sites("a unknown").addresses == ["10.0.0.1", None]
    assert sites("a b").listen == "0.0.0.0" and sites("a six").listen == "::"


@pytest.mark.parametrize("names, one", [
    ("a b", False), ("a", True), ("unknown", True), ("unknown other", False), ("localhost 127.0.0.1 me", True), ("a a", True)])
def test_one_machine(names, one):
    assert sites(names).one == one


def test_an_address_nobody_else_can_reach():
    with pytest.raises(LaunchError, match=r"host me is 127.0.1.1, which host b \(10.0.0.2\) cannot reach; name the address"):
        sites("b me")
    with pytest.raises(LaunchError, match="host a: address=nowhere means nothing on this machine"):
        sites("a", a="nowhere")


def test_what_agents_tell():
    both = sites("a unknown")
    both.settle({0: {"addresses": {}}, 1: {"addresses": {"lo": ["127.0.0.1"], "eth0": ["10.0.0.7"]}}})
    assert both.addresses == ["10.0.0.1", "10.0.0.7"] and not both.one and both.leaders([0, 1]) == [0, 1]
    with pytest.raises(LaunchError, match="the name unknown has no address here, and the host has 10.0.0.7, 10.1.0.7; say"):
        sites("a unknown").settle({0: {}, 1: {"addresses": {"eth0": ["10.0.0.7"], "eth1": ["10.1.0.7"]}}})


def test_hosts_that_are_one_machine_in_truth():
    """Two names and two addresses, one loopback interface: tunnels from one to the other would meet themselves."""
    three = sites("a b six")
    three.settle({0: {"loopback": "boot:1"}, 1: {"loopback": "boot:1"}, 2: {"loopback": "boot:2"}})
    assert three.same(0, 1) and not three.same(1, 2) and three.leaders([0, 1, 2]) == [0, 2] and not three.one
    with pytest.raises(LaunchError, match="host localhost is 127.0.0.1, which other hosts cannot reach"):
        sites("localhost me").settle({0: {"loopback": "boot:1"}, 1: {"loopback": "other:1"}})


# ---- ssh ----

def test_the_words_of_ssh():
    options = SshOptions(("ip", "netns", "exec", "x", "ssh", "-F", "none"), ("Port=7", "User=x y"), "/opt/py thon", 7.6)
    argv = agent_argv(Host("fd00::3", "me", 2222), options)
    assert argv[:11] == ["ip", "netns", "exec", "x", "ssh", "-F", "none", "-T", "-o", "Port=7", "-o"]
    assert argv[-6:-1] == ["-p", "2222", "-l", "me", "fd00::3"]
    given = dict(word.split("=", 1) for flag, word in zip(argv, argv[1:]) if flag == "-o")
    assert given["BatchMode"] == "yes" and given["ConnectTimeout"] == "8" and given["ServerAliveInterval"] == "5"
    assert given["ServerAliveCountMax"] == "3" and "StrictHostKeyChecking" not in given
    assert argv.index("Port=7") < argv.index("BatchMode=yes"), "ssh heeds the first of each"
    words = shlex.split(argv[-1])
    assert words[:3] == ["/opt/py thon", "-I", "-c"] and len(words) == 4
    assert "-p" not in ssh_argv(Host("a"), SshOptions()) and "-l" not in ssh_argv(Host("a"), SshOptions())


def test_the_words_of_rsync():
    options = SshOptions(("ssh", "-i", "my key's"), sync=("/home/me/work", "~/a b"), skip=("runs/x", "logs"))
    argv = rsync_argv(Host("fd00::3", "me"), options)
    assert argv[0] == "rsync" and "--delete" not in " ".join(argv)
    assert argv[-2:] == ["/home/me/work/", "[fd00::3]:a b/"]
    assert "--rsync-path=mkdir -p 'a b' && rsync" in argv
    shell = argv[argv.index("-e") + 1]
    assert shell.startswith("ssh -i 'my key''s' -T -o BatchMode=yes") and shell.endswith("-l me")
    assert {"--exclude=.git", "--exclude=.venv", "--exclude=runs", "--exclude=/logs"} <= set(argv)


@pytest.mark.parametrize("folder, expected", [
    ("/x", "/x"), ("~/x", "x"), ("~", "."), ("~/", "."), ("x/y", "x/y"), ("~//x", "x")])
def test_folders_below_home(folder, expected):
    assert home_relative(folder) == expected


def test_a_link_believes_only_what_an_agent_may_say(monkeypatch):
    import os

    from launch import wire
    for message in (b"nonsense", wire.message("exit", index=0, code="3", ago=0), wire.message("started", index=0),
                    wire.message("hello"), wire.pack(wire.OUTPUT, 7, b"x") + b"\xff"):
        ours, theirs = os.pipe()
        link = Link(0, "a", _Loop(), 20, ours, os.open(os.devnull, os.O_WRONLY))
        os.write(theirs, message)
        link._read()
        assert link.why.startswith("its link broke: ") and not link.there
        os.close(theirs)


class _Loop(namedtuple("Loop", "")):
    def watch(self, *_):
        """Nothing."""
    unwatch = watch_write = every = watch
