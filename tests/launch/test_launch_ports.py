"""Ports: free, outside the kernel's range, kept from other launchers."""
import os
import socket
import subprocess
import sys

from launch import ports
from launch.local import LocalJob
from launch.spec import JobSpec, LaunchError

import pytest

HOST = "127.0.0.1"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(ports.__file__)))


def listener(port=0):
    sock = socket.socket()
    sock.bind((HOST, port))
    sock.listen(1)
    return sock


def test_free_distinct_and_outside_the_kernels_range():
    low, high = ports.ephemeral_range()
    with ports.reserve(HOST, 40) as found:
        assert len(set(found.ports)) == 40
        assert all(1024 < port < 65536 and not low <= port <= high for port in found.ports)
        for port in found.ports:
            listener(port).close()


def test_a_port_that_is_listened_on_is_not_free():
    with listener() as sock:
        port = sock.getsockname()[1]
        assert not ports.is_free(HOST, port)
        with pytest.raises(LaunchError, match=f"port {port} on 127.0.0.1 is taken"):
            ports.reserve(HOST, 3, fixed=port)
    assert ports.is_free(HOST, port)


def test_a_listener_on_all_addresses_counts():
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen(1)
        assert not ports.is_free(HOST, sock.getsockname()[1])


def test_taken_ports_are_passed_over(monkeypatch):
    with ports.reserve(HOST, 3) as some:
        free = list(some.ports)
    with listener(free[1]):
        monkeypatch.setattr(ports, "candidate_ports", lambda count, avoid: free)
        with ports.reserve(HOST, 2) as found:
            assert found.ports == [free[0], free[2]]
        with pytest.raises(LaunchError, match="needed 3 free ports on 127.0.0.1, found 2"):
            ports.reserve(HOST, 3)
        with ports.reserve(HOST, 2) as found:       # a failed try keeps nothing locked
            assert found.ports == [free[0], free[2]]


def test_the_asked_port_comes_first():
    with ports.reserve(HOST, 1) as one:
        port = one.ports[0]
    with ports.reserve(HOST, 5, fixed=port) as found:
        assert found.ports[0] == port and len(set(found.ports)) == 5
        with pytest.raises(LaunchError, match="held by another"):
            ports.reserve(HOST, 1, fixed=port)
    with ports.reserve(HOST, 1, fixed=port) as again:
        assert again.ports == [port]


def test_ports_to_avoid():
    with ports.reserve(HOST, 1) as one:
        port = one.ports[0]
    assert port not in ports.candidate_ports(1, {port})
    assert port in ports.candidate_ports(1, set())


def test_a_restart_gets_another_scheduler_port(monkeypatch):
    monkeypatch.setattr(ports.os, "urandom", bytes)         # always the same place to start from
    job = LocalJob(JobSpec(("true",), ("true",), 1, 1, "/logs"), {})
    try:
        first = job.prepare(0)[0].env["DMLC_PS_ROOT_PORT"]
        assert not job.lost_its_port()
        with listener(int(first)):
            assert job.lost_its_port()
        assert job.prepare(1)[0].env["DMLC_PS_ROOT_PORT"] != first
    finally:
        job.close()


def test_a_port_that_was_asked_for_is_not_lost():
    job = LocalJob(JobSpec(("true",), ("true",), 1, 1, "/logs"), {}, port=free_port())
    try:
        port = int(job.prepare(0)[0].env["DMLC_PS_ROOT_PORT"])
        with listener(port):
            assert not job.lost_its_port()
    finally:
        job.close()


def free_port():
    with ports.reserve(HOST, 1) as one:
        return one.ports[0]


def test_reserved_by_the_administrator(tmp_path):
    file = tmp_path / "reserved"
    file.write_text("10000,10002-10004\n")
    assert ports._reserved(str(file)) == {10000, 10002, 10003, 10004}
    file.write_text("\n")
    assert ports._reserved(str(file)) == set()
    assert ports._reserved(str(tmp_path / "none")) == set()


def test_kernel_range_is_read(tmp_path):
    file = tmp_path / "range"
    file.write_text("1024\t65000\n")
    assert ports.ephemeral_range(str(file)) == (1024, 65000)
    assert ports.ephemeral_range(str(tmp_path / "none")) == (32768, 60999)


def test_when_the_kernel_takes_everything(monkeypatch):
    monkeypatch.setattr(ports, "ephemeral_range", lambda: (1024, 65535))
    with ports.reserve(HOST, 3) as found:
        assert len(set(found.ports)) == 3


def test_an_address_that_is_not_ours():
    with pytest.raises(LaunchError, match="203.0.113.9 is not an address of this machine"):
        ports.reserve("203.0.113.9", 1)


def test_ten_processes_at_once_get_different_ports(monkeypatch):
    # All start from the same port, so that they really compete.
    code = ("import sys; from launch import ports; ports.os.urandom = lambda n: bytes(n)\n"
            "sys.stdin.readline(); r = ports.reserve('127.0.0.1', 8); print(*r.ports, flush=True); sys.stdin.read()")
    many = [subprocess.Popen([sys.executable, "-S", "-c", code], cwd=ROOT, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE) for _ in range(10)]
    try:
        for one in many:
            one.stdin.write(b"go\n")
            one.stdin.flush()
        chosen = [one.stdout.readline().split() for one in many]
    finally:
        for one in many:
            one.kill()
            one.communicate()
    assert [len(ports_of_one) for ports_of_one in chosen] == [8] * 10
    assert len({port for ports_of_one in chosen for port in ports_of_one}) == 80


def test_locks_are_not_inherited():
    with ports.reserve(HOST, 1) as found:
        port = found.ports[0]
        child = subprocess.Popen(["sleep", "20"], close_fds=False)
    try:
        with ports.reserve(HOST, 1, fixed=port) as again:
            assert again.ports == [port]
    finally:
        child.kill()
        child.wait()
