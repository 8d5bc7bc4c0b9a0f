"""Hostfiles and lists of hosts, as data."""
from launch.hostfile import parse_hostfile, parse_list, read_hosts
from launch.spec import ROLES, Host, LaunchError

import pytest


def hosts(text):
    return parse_hostfile(text, "hosts")[0]


@pytest.mark.parametrize("line, expected", [
    ("node1", Host("node1")),
    ("10.0.0.1", Host("10.0.0.1")),
    ("node1 slots=4", Host("node1", slots=4)),
    ("node1 slots = 4", Host("node1", slots=4)),
    ("  node1\tslots=4  # the big one", Host("node1", slots=4)),
    ("me@node1", Host("node1", user="me")),
    ("DOM\\me@node1", Host("node1", user="DOM\\me")),
    ("node1:2222", Host("node1", port=2222)),
    ("me@node1:2222 slots=2", Host("node1", "me", 2222, 2)),
    ("node1 port=2222 user=me", Host("node1", "me", 2222)),
    ("node1:2222 port=2222", Host("node1", None, 2222)),
    ("fd00::3", Host("fd00::3")),
    ("[fd00::3]", Host("fd00::3")),
    ("[fd00::3]:2222", Host("fd00::3", port=2222)),
    ("me@[fe80::1%eth0]:2222", Host("fe80::1%eth0", "me", 2222)),
    ("node1 address=10.0.0.1", Host("node1", address="10.0.0.1")),
    ("node1 address=[fd00::3]", Host("node1", address="fd00::3")),
    ("node1 role=worker", Host("node1", roles=("worker",), chosen=True)),
    ("node1 role=worker,Server slots=3", Host("node1", slots=3, roles=("server", "worker"), chosen=True)),
    ("node1 role=scheduler", Host("node1", slots=0, roles=("scheduler",), chosen=True)),
    ("node1 ROLE=server SLOTS=1", Host("node1", slots=0, roles=("server",), chosen=True)),
    ("node1 max_slots=8 slots=2", Host("node1", slots=2)),
])
def test_a_line(line, expected):
    assert hosts(line + "\n") == [expected]


def test_a_file():
    text = "\ufeff# ours\r\n\r\na slots=2\r\n   # b is broken\nc\na\nc role=worker slots=3\n".replace("\ufeff", "")
    assert hosts(text) == [Host("a", slots=3), Host("c", slots=4)]
    assert hosts("a\nme@a\na:23\n") == [Host("a"), Host("a", "me"), Host("a", None, 23)]


def test_a_repeated_host_adds_slots_and_roles():
    both = hosts("a role=scheduler\na role=worker slots=2\n")
    assert both == [Host("a", slots=2, roles=("scheduler", "worker"), chosen=True)]
    assert hosts("a address=10.0.0.1\na\n") == [Host("a", slots=2, address="10.0.0.1")]
    with pytest.raises(LaunchError, match="line 2: a has address=10.0.0.1 on an earlier line, found address=10.0.0.2"):
        hosts("a address=10.0.0.1\na address=10.0.0.2\n")


def test_what_is_ignored_is_told():
    assert parse_hostfile("a\nb max-slots=4\nc role=server slots=2\n", "f")[1] == [
        "f line 2: max-slots= has no meaning here and is ignored",
        "f line 3: slots= is the number of workers, and role= allows none here: ignored"]


@pytest.mark.parametrize("line, words", [
    ("node1 slots=two", "expected slots= a whole number from 1 to 1048576, found 'two'"),
    ("node1 slots=0", "found '0'"),
    ("node1 slots=", "found ''"),
    ("node1 slots=-1", "found '-1'"),
    ("node1 slots=2 slots=3", "slots= comes twice"),
    ("node1 4", "expected slots=N, role=, port=, user= or address=, found '4'"),
    ("node1 cpu=4", "found 'cpu=4'"),
    ("node1 role=wroker", "expected role= scheduler, server, worker or several of them with commas, found 'wroker'"),
    ("node1 role=", "found ''"),
    ("node1 port=0", "expected port= a whole number from 1 to 65535, found '0'"),
    ("node1:70000", "expected a port from 1 to 65535, found 70000"),
    ("node1:abc", "expected host:PORT with a whole number, found 'node1:abc'"),
    ("node1:", "found 'node1:'"),
    ("node1:22 port=23", "two ports, 22 and 23"),
    ("a@node1 user=b", "two users, 'a' and 'b'"),
    ("-oProxyCommand=x", "found '-oProxyCommand=x'"),
    ("-l@node1", "expected a user's name, found '-l'"),
    ("node1 user=-x", "expected a user's name, found '-x'"),
    ("node1 address=-x", "expected address="),
    ("@node1", "found ''"),
    ("[node1]:22", "an IPv6 address between [ and ]"),
    ("node;1", "found 'node;1'"),
    ("node$(x)", "found"),
])
def test_lines_that_mean_nothing(line, words):
    with pytest.raises(LaunchError) as error:
        hosts("good\n" + line + "\n")
    assert str(error.value).startswith("hosts line 2: ") and words in str(error.value)


def test_a_list():
    assert parse_list("a:2,me@b,[fd00::3]:4,[fd00::4]") == [
        Host("a", slots=2), Host("b", "me"), Host("fd00::3", slots=4), Host("fd00::4")]
    assert parse_list("a,a:2") == [Host("a", slots=3)]
    assert all(host.roles == ROLES and not host.chosen for host in parse_list("a:2,b"))


@pytest.mark.parametrize("text, words", [
    ("a:0,b", "at least 1 slot, found 'a:0'"),
    ("a,,b", "found ''"),
    ("a:x,b", "host:SLOTS with a whole number, found 'a:x'"),
    ("fd00::3,b", "an IPv6 address stands between [ and ], found 'fd00::3'"),
    ("a b,c", "found 'a b'"),
    ("-x,c", "found '-x'"),
])
def test_lists_that_mean_nothing(text, words):
    with pytest.raises(LaunchError) as error:
        parse_list(text)
    assert str(error.value).startswith(f"-H {text}: ") and words in str(error.value)


def test_a_file_or_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_bytes(b"\xef\xbb\xbfa\nb # caf\xe9\n")
    (tmp_path / "empty").write_text("# nobody\n")
    (tmp_path / "a:2").write_text("c\n")
    assert read_hosts("hosts") == ([Host("a"), Host("b")], [])
    assert read_hosts("b:2") == ([Host("b", slots=2)], [])
    assert read_hosts("b,c") == ([Host("b"), Host("c")], [])
    assert read_hosts("./a:2") == ([Host("c")], [])
    for value, words in (("a:2", "is a file here, and could be a list of hosts; write ./a:2"),
                         ("nosuch", "there is no file 'nosuch' (a single host is written with its slots: -H nosuch:1)"),
                         ("x/nosuch:1", "there is no file 'x/nosuch:1'"), ("empty", "empty names no host"),
                         (str(tmp_path), "cannot read the hostfile")):
        with pytest.raises(LaunchError) as error:
            read_hosts(value)
        assert words in str(error.value)
