"""--launcher kubernetes: the manifests against Kubernetes' own schemas, and their commands as processes on this machine."""
import base64
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

from launch import pod
from launch.cluster import Cluster
from launch.kubernetes import manifests
from launch.manifest import document, quoted
from launch.spec import JobSpec

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAUNCH = os.path.join(ROOT, "launch", "launch.py")
ODD = ["a b", "$(HOME)", "$$(HOME)", "$", "$$", "it's", 'say "x"', "# no", "- a", "a: b", "{x}", "yes", "null", "1e3", "0x1f",
       "~", "", " ", "\ttab", "line\nline", "é ü 漢", "\U0001f600", "\u2028\u0085\x07\x7f", "\\n", "%s", "*", "&a", "!x", "| ",
       "> ", "---", "\ufeffx", "@", "`date`", ": ", "a #b", "2026-01-01", "1:30", "=", "<<", "N", "Off", ".inf", "0o17"]

yaml = pytest.importorskip("yaml", reason="PyYAML reads the manifests (pip install kubernetes-validate brings it)")


def written(launch, *options, command=("python", "train.py"), **more):
    """What launch.py writes to standard output, as objects by kind and component."""
    done = launch("-n", "3", "-s", "2", "--launcher", "kubernetes", "--image", "reg.example/gz:1", "--output", "-", *options,
                  *command, **more)
    assert done.code == 0, done.err
    return parsed(done.out), done


def parsed(text):
    found = {}
    for one in yaml.safe_load_all(text):
        if one is not None:
            component = one["metadata"]["labels"].get("app.kubernetes.io/component", "")
            found[(one["kind"] + " " + component).strip()] = one
    return found


def pod_of(found, component):
    return found["Job " + component]["spec"]["template"]["spec"]


def expanded(word, variables):
    """A word as the kubelet makes it: third_party/forked/golang/expansion of Kubernetes, in a few lines."""
    def one(match):
        text = match.group(0)
        return "$" if text == "$$" else variables.get(text[2:-1], text)
    return re.sub(r"\$\$|\$\([^)]*\)", one, word)


# ---- the schemas ----

ASKED = {
    "plain": [],
    "everything": ["--name", "job-7", "--namespace", "team-a", "--cpus", "1500m", "--memory", "2.5Gi", "--gpus", "2", "--volume",
                   "data.x:/data/ckpt", "--volume-size", "100Gi", "--grace", "120", "--max-restarts", "5", "--restart-window",
                   "3600", "--timeout", "86400", "--run-as", "4711", "--env", "A=1", "--channel-port", "1234", "--join-port",
                   "4321", "--remote-dir", "/srv/gz", "--min-workers", "2", "--server-python", "/usr/bin/python3"],
    "own secret": ["--secret-name", "my.key", "--volume", "claim:/data"],
}


@pytest.mark.parametrize("asked", sorted(ASKED))
def test_against_the_schemas(launch, asked):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    folder = os.path.join(os.path.dirname(validate.__file__), "kubernetes-json-schema")
    versions = sorted({re.match(r"v(1\.\d+)", name).group(1) for name in os.listdir(folder)}, key=lambda v: int(v[2:]))
    assert len(versions) >= 3
    found, done = written(launch, *ASKED[asked])
    for version in dict.fromkeys([versions[0], "1.29", "1.31", versions[-1]]):
        for one in yaml.safe_load_all(done.out):
            if one is not None:
                validate.validate(one, version, strict=True)
    with pytest.raises(validate.ValidationError):       # it does look
        broken = json.loads(json.dumps(found["Job worker"]))
        broken["spec"]["completions"] = "three"
        validate.validate(broken, versions[-1], strict=True)


def test_what_is_asked_for_is_there(launch):
    found, done = written(launch, *ASKED["everything"])
    assert sorted(found) == ["ConfigMap", "Job head", "Job server", "Job worker", "NetworkPolicy", "PersistentVolumeClaim",
                             "Secret", "Service"]
    assert {one["metadata"]["namespace"] for one in found.values()} == {"team-a"}
    for component, count, first in (("worker", 3, "0"), ("server", 2, "3")):
        spec = found["Job " + component]["spec"]
        assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == count
        argv = pod_of(found, component)["containers"][0]["command"]
        assert argv[:3] == ["python3", "/srv/gz/launch/pod.py", "agent"] and argv[argv.index("--first") + 1] == first
        assert argv[-1] == "job-7-head.job-7:4321"
        resources = pod_of(found, component)["containers"][0]["resources"]
        assert resources["requests"] == {"cpu": "1500m", "memory": "2.5Gi"}
        assert resources["limits"].get("nvidia.com/gpu") == (2 if component == "worker" else None)
        assert {"name": "OMP_NUM_THREADS", "value": "1"} in pod_of(found, component)["containers"][0]["env"]
    hosts = found["ConfigMap"]["data"]["hosts"].splitlines()
    assert hosts == ["job-7-worker-0 role=worker", "job-7-worker-1 role=worker", "job-7-worker-2 role=worker",
                     "job-7-server-0 role=server,scheduler", "job-7-server-1 role=server"]
    head = pod_of(found, "head")
    words = head["containers"][0]["command"]
    assert head["hostname"] + "." + head["subdomain"] == "job-7-head.job-7"
    assert head["terminationGracePeriodSeconds"] == 150 and words[words.index("--grace") + 1] == "120"
    assert words[-3:] == ["--", "python", "train.py"] and words[words.index("--log-dir") + 1] == "/data/ckpt/job-7-logs"
    for flag, value in (("--max-restarts", "5"), ("--restart-window", "3600"), ("--timeout", "86400"), ("--min-workers", "2"),
                        ("--channel-port", "1234"), ("--server-python", "/usr/bin/python3")):
        assert words[words.index(flag) + 1] == value
    assert found["PersistentVolumeClaim"]["metadata"]["name"] == "data.x"


def test_nobody_runs_as_root_and_the_key_is_in_one_place(launch):
    found, done = written(launch)
    key = found["Secret"]["stringData"]["join.key"]
    assert done.out.count(key) == 1 and key not in done.err
    inside = json.loads(base64.b64decode(key))["mac_key"]
    assert inside not in done.out
    for component in ("head", "worker", "server"):
        spec = pod_of(found, component)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        container, = spec["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        volume, = [volume for volume in spec["volumes"] if volume["name"] == "key"]
        assert volume["secret"]["defaultMode"] == 0o400
        mount, = [mount for mount in container["volumeMounts"] if mount["name"] == "key"]
        assert mount["readOnly"]
        assert "limits" in container["resources"] and "exec" in container["readinessProbe"]
    rule, = found["NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [29500, 29501]
    assert rule["from"] == [{"podSelector": found["NetworkPolicy"]["spec"]["podSelector"]}]
    labels = found["Job worker"]["spec"]["template"]["metadata"]["labels"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_lost_launcher_begins_again_and_one_that_gave_up_does_not(launch):
    found, _ = written(launch)
    rules = found["Job head"]["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"] == {"containerName": "launcher", "operator": "NotIn", "values": [137, 143]}
    assert pod_of(found, "head")["restartPolicy"] == "Never"        # Kubernetes wants it for a podFailurePolicy
    assert pod_of(found, "worker")["restartPolicy"] == "OnFailure" and found["Job worker"]["spec"]["backoffLimit"] > 3
    assert "--agents-stay" in pod_of(found, "head")["containers"][0]["command"]


# ---- writing ----

@pytest.mark.parametrize("word", ODD)
def test_any_string_survives(word):
    assert yaml.safe_load(document({"a": word, "b": [word, {"c": word}], word or "k": 1})) == {
        "a": word, "b": [word, {"c": word}], word or "k": 1}
    assert "\n" not in quoted(word)


def test_any_argument_reaches_the_worker(launch):
    found, _ = written(launch, "--env", "ODD=" + ODD[1], command=("python", "-c", "pass", *ODD))
    container = pod_of(found, "head")["containers"][0]
    words = [expanded(word, {"HOME": "/tmp"}) for word in container["command"]]
    assert words[words.index("--") + 1:] == ["python", "-c", "pass", *ODD]
    assert {"name": "ODD", "value": "$$(HOME)"} in container["env"]
    assert "ODD" in words and not any("ODD=" in word for word in words)


def test_bytes_that_are_not_text_are_refused(launch):
    done = launch("-n", "1", "--launcher", "kubernetes", "--image", "i", "--output", "-", "python", b"\xff\xfe")
    assert done.code == 2 and "not UTF-8" in done.err and done.out == ""


def test_the_file_is_for_its_owner_only(launch, tmp_path):
    argv = ["-n", "1", "-s", "1", "--launcher", "kubernetes", "--image", "i:1"]
    done = launch(*argv, "true")
    assert done.code == 0 and done.out == "gluonzoo.yaml\n"
    assert "WARNING: gluonzoo.yaml holds the job's key (Secret gluonzoo-key)" in done.err
    assert oct((tmp_path / "gluonzoo.yaml").stat().st_mode)[-3:] == "600"
    before = (tmp_path / "gluonzoo.yaml").read_text()
    assert launch(*argv, "true").code == 0 and (tmp_path / "gluonzoo.yaml").read_text() != before, "another key"
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    done = launch(*argv, "--output", "mine.yaml", "true")
    assert done.code == 2 and "which launch.py has not written" in done.err and (tmp_path / "mine.yaml").read_text() == "a: 1\n"
    assert sorted(os.listdir(str(tmp_path))) == ["gluonzoo.yaml", "mine.yaml"]


def test_dry_run_shows_no_key_and_writes_nothing(launch, tmp_path):
    done = launch("-n", "1", "--launcher", "kubernetes", "--image", "i:1", "--dry-run", "true")
    assert done.code == 0 and "BEGIN" not in done.out and os.listdir(str(tmp_path)) == []
    assert parsed(done.out)["Secret"]["stringData"] == {"join.key": "(left out: --dry-run)"}


def test_a_secret_of_ones_own(launch):
    found, done = written(launch, "--secret-name", "mine")
    assert "Secret" not in found and "WARNING" not in done.err
    assert pod_of(found, "worker")["volumes"][0]["secret"]["secretName"] == "mine"


@pytest.mark.parametrize("options, words", [
    ("", "needs --image"),
    ("--image i --name Big", "--name 'Big': expected small letters"),
    ("--image i --name 1st", "--name '1st'"),
    ("--image i --name a_b", "--name 'a_b'"),
    ("--image i --name a-", "--name 'a-'"),
    ("--image i --name " + "a" * 60, "60 characters, 54 at most"),
    ("--image i --namespace A", "--namespace 'A'"),
    ("--image i --secret-name a..b", "--secret-name 'a..b'"),
    ("--image a,b", "--image 'a,b'"),
    ("--image i --cpus four", "--cpus 'four'"),
    ("--image i --cpus 0", "--cpus '0'"),
    ("--image i --memory 8GB", "--memory '8GB'"),
    ("--image i --gpus -1", "--gpus is 0 or more"),
    ("--image i --run-as 0", "nothing needs to run as root"),
    ("--image i --volume data", "expected CLAIM:/PATH"),
    ("--image i --volume data:rel", "expected CLAIM:/PATH"),
    ("--image i --volume data:/a/../b", "expected CLAIM:/PATH"),
    ("--image i --volume Data:/x", "--volume 'Data'"),
    ("--image i --volume-size 1Gi", "--volume-size is the size of a claim"),
    ("--image i --remote-dir rel", "--remote-dir is the checkout's folder"),
    ("--image i --join-port 29501", "both 29501"),
    ("--image i -H hosts", "-H/--hostfile is not for --launcher kubernetes"),
    ("--image i --insecure-network", "--insecure-network is not for --launcher kubernetes"),
    ("--image i --max-workers 9", "--max-workers is not for --launcher kubernetes"),
    ("--image i --env A=1 --env-worker A=2", "A is given two values"),
    ("--image i --output /no/such/f.yaml", "cannot write /no/such/f.yaml"),
])
def test_wrong_use(launch, tmp_path, options, words):
    done = launch("-n", "2", "--launcher", "kubernetes", *options.split(), "true")
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1 and done.out == "", done.err
    assert os.listdir(str(tmp_path)) == []


def test_names_are_checked_before_anything_is_made():
    job = JobSpec(("true",), (), 1, 1, "")
    with pytest.raises(Exception, match="--name"):
        manifests(job, Cluster("i", name="A"), ["--grace", "5"], None)


# ---- the commands of the pods ----

class Pods:
    """The pods of manifests as processes here; what the cluster would put elsewhere is replaced."""

    def __init__(self, job, launch):
        self.job, self.folder, self.popens = job, job.folder, {}
        (self.folder / "key").mkdir()
        with socket.socket() as one, socket.socket() as other:
            for sock in (one, other):
                sock.bind(("127.0.0.1", 0))
            self.ports = [one.getsockname()[1], other.getsockname()[1]]
        self._launch = launch

    def write(self, worker, *options, command=None):
        """Have the manifests written for a job of 2 workers and 1 server: worker's lines and a stand-in, or a command."""
        server = self.job.script("server", SERVER + "wait_for_workers()\n", first=f"#!{sys.executable} -S\n")
        fake = [] if command else ["--server-python", server]
        command = command or [sys.executable, "-S", self.job.script("worker.py", worker)]
        done = self._launch(
            "-n", "2", "-s", "1", "--launcher", "kubernetes", "--image", "i", "--output", "-", "--remote-dir", ROOT,
            "--remote-python", sys.executable, "--join-port", str(self.ports[0]), "--channel-port", str(self.ports[1]), "--env",
            "GZ_TEST_JOB", "--env", "GZ_TEST_DIR", "--log-dir", str(self.folder / "logs"), *fake, *options, *command,
            env=self.job.environ())
        assert done.code == 0, done.err
        self.found = parsed(done.out)
        key = self.folder / "key" / "join.key"
        key.write_text(self.found["Secret"]["stringData"]["join.key"])
        key.chmod(0o400)
        (self.folder / "hosts").write_text(self.found["ConfigMap"]["data"]["hosts"])
        return self

    def start(self, component, index=0):
        container, = pod_of(self.found, component)["containers"]
        env = {one["name"]: expanded(one["value"], {}) for one in container["env"]}
        tmp = self.folder / f"tmp-{component}-{index}"
        tmp.mkdir(exist_ok=True)
        env = {**self.job.environ(), **env, "TMPDIR": str(tmp), "JOB_COMPLETION_INDEX": str(index)}
        self.popens[component, index] = subprocess.Popen(
            self.words(container["command"]), env=env, cwd=container["workingDir"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        return self.popens[component, index]

    def words(self, command):
        places = {"/etc/gluonzoo/key": str(self.folder / "key"), "/etc/gluonzoo/hosts": str(self.folder),
                  "gluonzoo-head.gluonzoo": "127.0.0.1"}
        words = [expanded(word, {}) for word in command]
        for name, place in places.items():
            words = [word.replace(name, place) for word in words]
        return words

    def ready(self, component, index=0):
        """What the readiness probe says."""
        container, = pod_of(self.found, component)["containers"]
        argv = self.words(container["readinessProbe"]["exec"]["command"])
        env = {**self.job.environ(), "TMPDIR": str(self.folder / f"tmp-{component}-{index}")}
        return subprocess.run(argv, env=env, capture_output=True).returncode == 0

    def start_all(self):
        for component, index in (("worker", 0), ("head", 0), ("server", 0), ("worker", 1)):     # in any order
            self.start(component, index)
        return self

    def finish(self, seconds=40, leave=()):
        """Wait for the pods; returns their exit codes and output."""
        codes, said, deadline = {}, {}, time.monotonic() + seconds
        for name, popen in self.popens.items():
            if name not in leave:
                try:
                    out, _ = popen.communicate(timeout=max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"{name} still runs") from None
                codes[name], said[name] = popen.returncode, out.decode()
        return codes, said

    def close(self):
        for popen in self.popens.values():
            popen.kill()
            popen.wait()
            popen.stdout.close()


SERVER = """\
import atexit
ROLE = os.environ["DMLC_ROLE"]
touch("%s-%d-%d-up" % (ROLE, RESTART, INDEX))
def wait_for_workers():
    while not all(os.path.exists(path("done-%d-%d" % (RESTART, i))) for i in range(int(os.environ["DMLC_NUM_WORKER"]))):
        time.sleep(0.02)
"""
ALL = {("head", 0): 0, ("worker", 0): 0, ("worker", 1): 0, ("server", 0): 0}


@pytest.fixture
def pods(job, launch):
    if shutil.which("openssl") is None and importlib.util.find_spec("cryptography") is None:
        pytest.skip("the job's key is made by openssl, which is not here")
    made = Pods(job, launch)
    yield made
    made.close()


def test_the_job_runs(pods, waiting):
    pods.write("print('worker', INDEX, 'of', os.environ['DMLC_NUM_WORKER'], os.environ['A'], os.environ.get('HOME'))\n"
               "touch('up-%d' % INDEX)\nawait_file('go')\ndone()", "--env", "A=$(B) $x", "--min-workers", "2")
    assert not pods.ready("worker", 0) and not pods.ready("head")
    pods.start_all()
    pods.job.await_files("up-0", "up-1")
    for component, index in ALL:
        waiting(lambda component=component, index=index: pods.ready(component, index), what="readiness")
    for popen in pods.popens.values():
        with open(f"/proc/{popen.pid}/cmdline") as cmdline, open(f"/proc/{popen.pid}/environ") as environ:
            secret = pods.found["Secret"]["stringData"]["join.key"]
            assert secret not in cmdline.read() and secret not in environ.read()
    (pods.folder / "go").touch()
    codes, said = pods.finish()
    assert codes == ALL, said
    assert f"[worker 0] worker 0 of 2 $(B) $x {os.path.expanduser('/tmp')}" in said["head", 0], said
    assert "launch: finished: 2 workers ended with code 0" in said["head", 0]
    assert not pods.ready("worker", 0), "the link is over"
    assert pods.job.running() == []


def test_a_real_training(pods):
    for module in ("mxnet", "sklearn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    run = pods.folder / "run"
    pods.write("", command=[sys.executable, "tools/train.py", "--model", "lenet5", "--dataset", "digits", "--kvstore",
                            "dist_sync", "--epochs", "1", "--output", str(run)])
    codes, said = pods.start_all().finish(120)
    assert codes == ALL, said
    assert "[worker 0]" in said["head", 0] and "2 workers ended with code 0" in said["head", 0], said
    assert os.listdir(str(run / "checkpoints")), "nothing was learnt"


def test_a_worker_that_fails_ends_all_pods(pods):
    pods.write("if INDEX == 1: sys.exit(7)\ntime.sleep(60)")
    codes, said = pods.start_all().finish()
    assert codes == {**ALL, ("head", 0): 7}, said       # agents are not needed any more; the head's Job has failed
    assert "FAILED: worker 1 exited with code 7" in said["head", 0]


def test_a_pod_that_is_lost_comes_back_under_its_number(pods, waiting):
    pods.write("touch('up-%d-%d' % (RESTART, INDEX))\nif RESTART == 0: time.sleep(60)\nprint('restart', RESTART)\ndone()",
               "--max-restarts", "2", "--host-timeout", "5")
    pods.start_all()
    pods.job.await_files("up-0-0", "up-0-1")
    lost = pods.popens.pop(("worker", 0))
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait()
    lost.stdout.close()
    waiting(lambda: not pods.ready("worker", 0), seconds=20, what="the probe to notice")
    pods.start("worker", 0)         # what its Job does
    codes, said = pods.finish()
    assert codes == ALL, said
    assert "restart 1 of 2" in said["head", 0] and "[worker 0] restart 1" in said["head", 0], said["head", 0]
    assert re.search(r"FAILED: .*host gluonzoo-worker-0", said["head", 0]), said["head", 0]


def test_a_launcher_that_is_stopped_begins_again(pods, waiting):
    pods.write("again = os.path.exists(path('stopped'))\ntouch('up-%s-%d' % (again, INDEX))\nif again: done(); sys.exit()\n"
               "signal.signal(signal.SIGUSR1, lambda *_: (touch('saved-%d' % INDEX), sys.exit(0)))\ntime.sleep(60)",
               "--grace", "10")
    pods.start_all()
    pods.job.await_files("up-False-0", "up-False-1")
    head = pods.popens.pop(("head", 0))
    head.terminate()                # a node that is drained
    out, _ = head.communicate(timeout=30)
    assert head.returncode == 143 and b"the workers stopped in order" in out, out
    pods.job.await_files("saved-0", "saved-1")
    for name, popen in pods.popens.items():
        assert popen.poll() is None, f"{name} has not waited"
    waiting(lambda: not any(pods.ready(*name) for name in pods.popens), what="the probes to notice")
    (pods.folder / "stopped").touch()
    pods.start("head")
    codes, said = pods.finish()
    assert codes == ALL, said
    assert "launch: finished: 2 workers ended with code 0" in said["head", 0]


def test_sigterm_ends_an_agents_pod(pods, waiting):
    pods.write("touch('up-%d' % INDEX)\ntime.sleep(60)").start_all()
    pods.job.await_files("up-0", "up-1")
    pods.popens["worker", 1].terminate()
    codes, said = pods.finish()
    assert codes == {**ALL, ("worker", 1): 143, ("head", 0): 1}, "the head was not told to stop: the job has failed"
    assert re.search(r"FAILED: worker 1 was .* \(host gluonzoo-worker-1, pid \d+\)", said["head", 0]), said["head", 0]


# ---- pod.py alone ----

@pytest.mark.parametrize("text, code", [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("sys.exit(137)", 1), ("sys.exit(143)", 1),
                                        ("os.kill(os.getpid(), 9)", 1), ("os.kill(os.getppid(), 15); time.sleep(9)", 143)])
def test_only_a_signal_to_the_pod_itself_means_that_it_shall_begin_again(text, code):
    words = [sys.executable, "-S", "-c", "import os, sys, time; " + text]
    assert subprocess.run([sys.executable, pod.__file__, "run", *words], timeout=20).returncode == code



def test_ready_means_heard_a_moment_ago(tmp_path, capsys):
    state = tmp_path / "linked"
    argv = ["ready", "--state", str(state), "--within", "10"]
    assert pod.main(argv) == 1 and "no link" in capsys.readouterr().err
    state.touch()
    assert pod.main(argv) == 0
    os.utime(str(state), (time.time() - 60, time.time() - 60))
    assert pod.main(argv) == 1 and "nothing was heard from the launcher for 60 s" in capsys.readouterr().err


@pytest.mark.parametrize("family, address", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_listening(family, address):
    with socket.socket(family) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        argv = ["listening", str(sock.getsockname()[1])]
        assert pod.main(argv) == 1
        sock.listen(1)
        assert pod.main(argv) == 0


def test_an_agent_gives_up_when_there_is_no_launcher(pods):
    pods.write("pass")
    key = str(pods.folder / "key" / "join.key")
    argv = [sys.executable, pod.__file__, "agent", "--key-file", key, "--connect-timeout", "1", "--give-up", "2",
            f"127.0.0.1:{pods.ports[0]}"]
    began = time.monotonic()
    done = subprocess.run(argv, env=pods.job.environ(JOB_COMPLETION_INDEX="0", TMPDIR=str(pods.folder)), capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 1 and "no launcher for 2 s; giving up" in done.stderr and time.monotonic() - began < 15
    done = subprocess.run(argv, env=pods.job.environ(TMPDIR=str(pods.folder)), capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "expected the pod's number in JOB_COMPLETION_INDEX, got ''" in done.stderr
