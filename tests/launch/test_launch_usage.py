"""The command line: wrong use is one line and exit code 2, and nothing is started or written."""
import os
import shlex
import socket
import subprocess
import sys

from launch import launch as program
from launch import processes

import pytest

TRUE = "true"


@pytest.mark.parametrize("arguments, words", [
    ("", "-n/--num-workers"),
    ("-n 0 true", "at least 1 worker, got 0"),
    ("-n -3 true", "at least 1 worker, got -3"),
    ("-n two true", "expected a whole number, got 'two'"),
    ("-n 2", "no COMMAND given"),
    ("-n 2 --", "no COMMAND given"),
    ("-n 2 ''", "COMMAND is an empty word"),
    ("-n 2 -s 0 true", "at least 1 server, got 0"),
    ("-n 2 -s -1 true", "negative, got -1"),
    ("-n 2 no-such-program-xyz", "'no-such-program-xyz' not found in PATH"),
    ("-n 2 ./no-such-program", "'./no-such-program' not found"),
    ("-n 2 /", "'/' is a folder"),
    ("-n 2 ./plain.txt", "'./plain.txt' is not executable"),
    ("-n 2 train.py --lr 1", "did you mean: python train.py"),
    ("-n 2 ./train.py", "did you mean: python ./train.py"),
    ("-n 2 plain.txt", "there is a file of that name in this folder: ./plain.txt"),
    ("-n 2 -H hosts true", "-H/--hostfile"),
    ("-n 2 --launcher local -H hosts true", "-H/--hostfile is for launchers that reach other hosts"),
    ("-n 2 --launcher ssh -H hosts true", "there is no file 'hosts'"),
    ("-n 2 --launcher ssh true", "--launcher ssh needs the hosts: -H FILE or -H host1:2,host2"),
    ("-n 3 -H a:1,b:1 true", "3 workers (-n), but 2 slots on a, b; give slots= in the hostfile, or --oversubscribe"),
    ("-n 2 -H a:1,b:1 --ssh no-such-ssh true", "--ssh 'no-such-ssh' not found in PATH"),
    ("-n 2 -H a:1,b:1 --ssh 'a \"b' true", "--ssh 'a \"b': No closing quotation"),
    ("-n 2 -H a:1,b:1 --ssh '' true", "--ssh is empty"),
    ("-n 2 -H a:1,b:1 --host 10.0.0.1 true", "--host is for local jobs"),
    ("-n 2 -H a:1,b:1 --interface eth0 true", "--interface is of no use here"),
    ("-n 2 -H a:1,b:1 --remote-dir /x --sync-dst-dir /y true", "name two folders to start in"),
    ("-n 2 -H a:1,b:1 --min-workers 3 true", "--min-workers is from 1 to the number of workers, 2 (-n), got 3"),
    ("-n 2 -H a:1,b:1 --max-workers 1 true", "--max-workers is at least the number of workers, 2 (-n), got 1"),
    ("-n 4 -H a:1,b:1 --min-workers 3 true", "at least 3 workers (--min-workers), but 2 slots on a, b"),
    ("-n 2 -H a:1,b:1 --connect-timeout 0 true", "a number of seconds above 0, got '0'"),
    ("-n 1 -H localhost true", "a single host is written with its slots: -H localhost:1"),
    ("-n 2 -H 127.0.0.1:1,10.0.0.2 true", "host 127.0.0.1 is 127.0.0.1, which host 10.0.0.2 (10.0.0.2) cannot reach"),
    ("-n 1 -H [::1]:1 --insecure-network true", "--insecure-network needs the IPv4 address of host ::1"),
    ("-n 2 --min-workers 1 true", "--min-workers is for jobs on several hosts (-H)"),
    ("-n 2 --tolerate-workers 2 true", "--tolerate-workers is from 0 to 1"),
    ("-n 2 --restart-window x true", "got 'x'"),
    ("-n 2 --launcher mpi true", "--launcher mpi"),
    ("-n 2 --launcher slurm -H a:1,b:1 true", "-H/--hostfile is not for --launcher slurm"),
    ("-n 2 --launcher kubernetes true", "--launcher kubernetes"),
    ("-n 2 --launcher yarn true", "--launcher yarn"),
    ("-n 2 --launcher nosuch true", "unknown launcher 'nosuch'"),
    ("-n 2 --sync-dst-dir /x true", "--sync-dst-dir is for jobs on several hosts"),
    ("-n 2 -SH file true", "--server-hostfile is not supported"),
    ("-n 2 --byteps-launch true", "--byteps-launch is not supported"),
    ("-n 2 --scheduler-port 9 true", "--scheduler-port is not supported"),
    ("-n 2 --p3 true", "--p3 is not supported"),
    ("-n 2 --env 9A=1 true", "'9A' is not a name"),
    ("-n 2 --env =1 true", "'' is not a name"),
    ("-n 2 --env GZ_SURELY_NOT_SET true", "GZ_SURELY_NOT_SET: the variable is not set here"),
    ("-n 2 --env DMLC_ROLE=worker true", "DMLC_ROLE is set by the launcher"),
    ("-n 2 --env-worker PORT:1 true", "PORT is set by the launcher"),
    ("-n 2 --port 0 true", "from 1 to 65535, got 0"),
    ("-n 2 --port 70000 true", "from 1 to 65535, got 70000"),
    ("-n 2 --host localhost true", "IPv4 address such as 127.0.0.1, got 'localhost'"),
    ("-n 2 --interface nosuch0 true", "no network interface 'nosuch0'"),
    ("-n 2 --grace soon true", "number of seconds, 0 or more, got 'soon'"),
    ("-n 2 --timeout -5 true", "got '-5'"),
    ("-n 2 --timeout nan true", "got 'nan'"),
    ("-n 2 --stall-timeout inf true", "got 'inf'"),
    ("-n 2 --max-restarts -1 true", "expected 0 or more, got -1"),
    ("-n 2 --server-python no-such-python true", "--server-python 'no-such-python' not found"),
    ("-n 2 --unknown true", "unrecognized arguments: --unknown"),
])
def test_wrong_use(monkeypatch, capfd, tmp_path, arguments, words):
    def start(_body):
        raise AssertionError("started")
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "keep", start)
    assert program.main(shlex.split(arguments)) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert words in err
    assert sorted(os.listdir(str(tmp_path))) == ["plain.txt", "train.py"]


@pytest.mark.parametrize("arguments, words", [
    ("-n 0 true", "at least 1 worker, got 0"),
    ("-n 2 --unknown true", "unrecognized arguments: --unknown"),
    ("-n 2 --host 203.0.113.9 true", "203.0.113.9 is not an address of this machine"),
    ("-n 2 --log-dir plain.txt/logs true", "cannot write logs to"),
    ("-n 2 --log-dir plain.txt true", "cannot write logs to"),
    ("-n 1000000 true", "needed 2000001 free ports"),
])
def test_wrong_use_of_the_program(launch, tmp_path, arguments, words):
    fill(tmp_path)
    done = launch(*shlex.split(arguments))
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1 and done.err.endswith("\n")
    assert words in done.err
    assert sorted(os.listdir(str(tmp_path))) == ["plain.txt", "train.py"]


def fill(folder):
    (folder / "plain.txt").write_text("text\n")
    (folder / "train.py").write_text("print('no')\n")


def test_a_taken_port_is_named(launch):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        port = sock.getsockname()[1]
        done = launch("-n", "1", "--port", str(port), TRUE)
    assert done.code == 2 and done.err.count("\n") == 1
    assert done.err.startswith(f"error: port {port} on 127.0.0.1 is taken")


def test_more_ports_than_open_files(launch):
    import resource
    done = launch("-n", "200", TRUE, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    assert done.code == 2 and done.err.startswith("error: needed 401 ports, locked ") and "(ulimit -n)" in done.err
    assert done.err.count("\n") == 1


def test_a_name_with_a_newline_is_still_one_line(launch):
    done = launch("-n", "1", "--env", "A\nB=1", TRUE)
    assert done.code == 2 and done.err.count("\n") == 1


def test_ctrl_c_before_anything_has_started(monkeypatch, capfd):
    def interrupted():
        raise KeyboardInterrupt
    monkeypatch.setattr(program, "build_parser", interrupted)
    assert program.main(["-n", "1", TRUE]) == 130
    assert capfd.readouterr() == ("", "")


def test_help_and_version(launch):
    done = launch("--help")
    assert done.code == 0 and done.err == ""
    for flag in ("--num-workers", "--num-servers", "--hostfile", "--launcher", "--env", "--port", "--log-dir",
                 "--timeout", "--stall-timeout", "--grace", "--max-restarts", "--dry-run", "--min-workers", "--ssh",
                 "--insecure-network", "GLUONZOO_*, MXNET_*", "exit codes"):
        assert flag in done.out
    for arguments in (("--version",), ("-n", "2", "--version")):
        done = launch(*arguments)
        assert done.code == 0 and done.out.startswith("gluonzoo launch ") and done.err == ""


def parse(text):
    """The commands of a dry run: {role: (unset names, environment, argv)}, and the mkdir line."""
    found, role, first = {}, None, None
    for line in text.splitlines():
        if line.startswith("#"):
            role = line[2:]
        elif line.startswith("mkdir"):
            first = shlex.split(line)
        else:
            words = shlex.split(line)
            assert words.pop(0) == "env"
            unset, env = [], {}
            while words[0] == "-u":
                unset.append(words[1])
                del words[:2]
            while "=" in words[0]:
                name, _, value = words.pop(0).partition("=")
                env[name] = value
            found[role] = (unset, env, words)
    return found, first


def test_dry_run_can_be_parsed(launch, tmp_path):
    secret = {"GZ_SECRET": "hunter2", "DMLC_PS_VAN_TYPE": "zmq", "DMLC_OLD": "1", "PORT": "8080"}
    done = launch("-n", "2", "-s", "1", "--dry-run", "--env", "A=it's a; $(test)", "--env", "GZ_SECRET", "--env",
                  "DMLC_PS_VAN_TYPE", "--env-server", "OMP_NUM_THREADS:3", sys.executable, "train.py", "--lr", "0.1",
                  "a b", "--", "-n", "7", env=secret)
    assert done.code == 0 and done.err == "" and "hunter2" not in done.out
    roles, first = parse(done.out)
    assert sorted(roles) == ["scheduler", "server 0", "worker 0", "worker 1"]
    assert first[:2] == ["mkdir", "-p"] and os.path.dirname(roles["worker 1"][1]["GLUONZOO_PROGRESS_FILE"]) == first[2]
    for role, (unset, env, argv) in roles.items():
        assert env["A"] == "it's a; $(test)" and env["DMLC_ROLE"] == role.split()[0]
        assert env["DMLC_PS_VAN_TYPE"] == "zmq" and "DMLC_OLD" in unset
        assert ("PORT" in unset) == (role == "scheduler")
        if role.startswith("worker"):
            assert argv == [sys.executable, "train.py", "--lr", "0.1", "a b", "--", "-n", "7"]
            assert "OMP_NUM_THREADS" not in env and "PYTHONPATH" not in env
        else:
            assert argv == [sys.executable, "-m", "gluonzoo.distributed.server"]
            assert env["OMP_NUM_THREADS"] == "3"
            assert os.path.isdir(os.path.join(env["PYTHONPATH"].split(":")[0], "gluonzoo"))
    assert int(roles["worker 0"][1]["PORT"]) < int(roles["worker 1"][1]["PORT"])
    assert os.listdir(str(tmp_path)) == []


def test_dry_run_can_be_pasted(launch, tmp_path):
    show = 'echo "$A/$DMLC_ROLE/$DMLC_OLD/$1"'
    done = launch("-n", "1", "--dry-run", "--env", "A=x  y", "sh", "-c", show, "sh", "q q", env={"DMLC_OLD": "1"})
    line = [line for line in done.out.splitlines() if "DMLC_ROLE=worker" in line][0]
    out = subprocess.run(["sh"], input=line.encode(), stdout=subprocess.PIPE, env={**os.environ, "DMLC_OLD": "1"})
    assert out.stdout.decode() == "x  y/worker//q q\n"


def test_as_many_servers_as_workers_by_default(launch):
    roles, _ = parse(launch("-n", "3", "--dry-run", TRUE).out)
    assert sum(role.startswith("server") for role in roles) == 3


@pytest.mark.parametrize("where", ["file", "module", "link"])
def test_from_any_folder(launch, tmp_path, where):
    if where == "link":
        done = subprocess.run([sys.executable, link_to_launch(tmp_path), "-n", "1", "--dry-run", TRUE], cwd="/",
                              capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        return
    done = launch("-n", "1", "--dry-run", TRUE, module=where == "module", cwd="/")
    assert (done.code, done.err) == (0, "")


def link_to_launch(folder):
    import launch.launch
    link = folder / "mylaunch.py"
    link.symlink_to(launch.launch.__file__)
    return str(link)


def test_servers_run_the_commands_python(launch, tmp_path):
    other = tmp_path / "bin"
    other.mkdir()
    for name in ("python3", "mine"):
        (other / name).write_text("#!/bin/sh\n")
        (other / name).chmod(0o755)
    path = str(other) + ":" + os.environ["PATH"]

    def server(*arguments):
        roles, _ = parse(launch("-n", "1", "--dry-run", *arguments, env={"PATH": path}).out)
        return roles["server 0"][2][0]

    assert server("python3", "x.py") == str(other / "python3")
    assert server("mine", "x.py") == sys.executable
    assert server("--server-python", "mine", "python3", "x.py") == str(other / "mine")


def test_it_imports_neither_mxnet_nor_gluonzoo():
    import launch.launch
    code = ("import sys; sys.argv[0] = 'x'; import launch.launch, launch.supervise, launch.processes; "
            "print(sorted({m.split('.')[0] for m in sys.modules} & {'mxnet', 'gluonzoo', 'numpy', 'requests'}))")
    root = os.path.dirname(os.path.dirname(launch.launch.__file__))
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root).strip() == b"[]"
