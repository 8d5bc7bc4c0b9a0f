"""--launcher slurm with a Slurm of our own: two nodes, both of them this machine."""
import os
import re
import signal
import subprocess
import sys
import time

from launch import sbatch, slurm
from launch.spec import JobSpec, LaunchError

import pytest
import slurm_cluster

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
needs_slurm = pytest.mark.skipif(slurm_cluster.missing() != "", reason=slurm_cluster.missing() or "it is here")
UP = "touch('up-%d-%d' % (RESTART, INDEX))\n"
SLEEP = UP + "if RESTART == 0: time.sleep(60)\nprint('again'); done()"
ODD = ("it's \"a\"; $(touch oops)\n `x` ü \\", "", "a  b", "-x", "$HOME", "*")


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster.Cluster() as made:
        yield made
        folder, pids = made.folder, [daemon.pid for daemon in made._daemons]
    assert not os.path.exists(folder) and not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.fixture
def slurm_job(job, cluster):
    """start(worker, *options, within=()) for a job on that cluster; nothing of it may be left in its queue."""
    def start(worker, *options, within=(), nodes=True, **more):
        words = ("--launcher", "slurm") + (("--nodes", "2") if nodes else ()) + options
        argv = list(within) + job.command(worker, *words, **more)
        job.popen = subprocess.Popen(argv, env=job.environ(**cluster.environ), cwd=str(job.folder),
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        job.began = 0
        return job
    yield start
    for number in cluster.ask("squeue", "-h", "-o", "%i").split():
        cluster.ask("scancel", number)
    cluster.wait(lambda: cluster.ask("squeue", "-h") == "", 20, "the end of all jobs")


def number_of(cluster, waiting):
    return waiting(lambda: cluster.ask("squeue", "-h", "-o", "%i").split(), what="the job")[0]


# ---- without Slurm ----

def written(tmp_path, *options, log_dir="logs", **more):
    job = JobSpec(("python", "train.py", *ODD), (), 5, 1, str(tmp_path / log_dir), **more)
    return slurm.script(job, slurm.SlurmOptions(*options), ["-n", "5", "--", *job.command], str(tmp_path))


def test_the_script(tmp_path):
    text = written(tmp_path, "2", "gpu", "1-00:00:00", (("--account=a b", "--mem=0"), ("--cpus-per-task=8",)))
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert [line[8:] for line in lines if line.startswith("#SBATCH ")] == [
        "--job-name=gluonzoo", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=3", "--partition=gpu",
        "--time=1-00:00:00", f"--output={tmp_path}/logs/slurm-%j.out", "--open-mode=append", "--requeue",
        "--signal=B:TERM@60", "'--account=a b' --mem=0", "--cpus-per-task=8"]
    assert f"cd {tmp_path} || exit 1" in lines and sum(line.startswith("exec ") for line in lines) == 1
    assert all(len(line) < 130 for line in lines)
    assert "--no-kill" in written(tmp_path, "2-4", min_workers=2) and "--cpus-per-task=1" in written(tmp_path, "2-4")


def test_the_script_keeps_every_argument(tmp_path):
    """bash runs it with a launcher that prints what it was given."""
    folder = tmp_path / "it's a $folder\"\n%j"
    folder.mkdir()
    job = JobSpec(("python", *ODD), (), 1, 1, str(tmp_path / "logs"))
    words = ["-n", "1", "--env", "A=" + ODD[0], "--", *job.command]
    text = slurm.script(job, slurm.SlurmOptions(), words, str(folder), 100.0)
    assert "--signal=B:TERM@130" in text
    show = tmp_path / "show"
    show.write_text(f"#!{sys.executable} -S\nimport os, sys\nprint(ascii([os.getcwd(), sys.argv[2:]]))\n")
    show.chmod(0o755)
    file = tmp_path / "script"
    file.write_text(text.replace("exec " + sys.executable, f"exec {show}"))
    done = subprocess.run(["bash", str(file)], capture_output=True, text=True, cwd="/")
    assert eval(done.stdout) == [str(folder), ["--log-dir", str(tmp_path / "logs"), *words]], done.stderr
    assert not (folder / "oops").exists()


def test_a_line_for_sbatch_cannot_be_broken(tmp_path):
    with pytest.raises(LaunchError, match="cannot hold a line break"):
        written(tmp_path, log_dir="a\nb")


def test_dry_run_and_script_only(launch, tmp_path):
    words = ("-n", "2", "-s", "1", "--launcher", "slurm", "--nodes", "2", "--env", "SECRET", "--log-dir", "logs")
    env = {"SLURM_JOB_ID": "", "SECRET": "hunter2"}
    shown = launch(*words, "--dry-run", "--", "true", "--dry-run", env=env)
    assert shown.code == 0, shown.err
    assert os.listdir(str(tmp_path)) == []
    assert re.search(r"--launcher\W+slurm\W+--nodes\W+2\W+--env\W+SECRET\W+--log-dir\W+logs\W+--\W+true\W+--dry-run\n\Z",
                     shown.out) and "hunter2" not in shown.out
    kept = launch(*words, "--slurm-script", "a job.sh", "--", "true", "--dry-run", env=env)
    assert kept.code == 0 and kept.out == "a job.sh\n"
    file = tmp_path / "a job.sh"
    assert file.read_text() == shown.out and file.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("words, message", [
    (("--launcher", "slurm", "-H", "a:1,b:1"), "-H/--hostfile is not for --launcher slurm"),
    (("--nodes", "2"), "--nodes is for --launcher slurm"),
    (("--launcher", "slurm", "--num-hosts", "2"), "--num-hosts is for --launcher join"),
    (("--launcher", "slurm", "--slurm-option", "'"), "--slurm-option \"'\": No closing quotation"),
])
def test_wrong_use(launch, words, message):
    done = launch("-n", "1", "-s", "1", *words, "true", env={"SLURM_JOB_ID": ""})
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1, done.err


def test_no_slurm(launch):
    done = launch("-n", "1", "-s", "1", "--launcher", "slurm", sys.executable, env={"SLURM_JOB_ID": "", "PATH": "/nowhere"})
    assert done.code == 2 and "error: --launcher slurm needs 'sbatch' not found in PATH" in done.err


def test_srun_names_its_nodes():
    argv = slurm.srun_argv(["n1", "n2"], "/py", ("--mem=0",))
    assert argv[:5] == ("srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--nodelist=n1,n2")
    assert "--overlap" in argv and argv[-6:-3] == ("--mem=0", "/py", "-I") and "GLUONZOO_JOIN" not in " ".join(argv)


# ---- in an allocation ----

@needs_slurm
def test_srun(slurm_job, cluster):
    job = slurm_job(UP + "print(os.environ['SLURMD_NODENAME'], 'GLUONZOO_JOIN' in os.environ, RESTART)\n"
                    "if RESTART == 0 and INDEX == 1: sys.exit(3)\nawait_file('go'); done()", "--max-restarts", "1", nodes=False,
                    within=("salloc", "--quiet", "--nodes=2"))
    job.await_files("up-1-0", "up-1-1")
    shown = b""
    for pid in job.running():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            shown += file.read()
    assert b"srun" in shown and b"GLUONZOO_JOIN=" not in shown
    job.file("go").touch()
    done = job.finish(30)
    assert done.code == 0, done.err
    assert set(done.out.splitlines()) >= {"[worker 0] gza False 1", "[worker 1] gzb False 0", "[worker 1] gzb False 1"}
    assert "1 scheduler, 1 server, 2 workers on gza, gzb, scheduler port" in done.err
    assert "FAILED: worker 1 exited with code 3" in done.err and "(host gzb, pid" in done.err


@needs_slurm
def test_an_agent_that_is_killed_is_started_again(slurm_job, cluster):
    job = slurm_job(SLEEP, "--max-restarts", "1", nodes=False, within=("salloc", "--quiet", "--nodes=2"))
    job.await_files("up-0-0", "up-0-1")
    for pid in job.running():       # the agent's keeper: child of slurmstepd
        with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/stat") as stat:
            with open(f"/proc/{stat.read().rpartition(')')[2].split()[1]}/comm") as parent:
                if b"SLURMD_NODENAME=gzb" in environ.read() and parent.read().strip() == "slurmstepd":
                    os.kill(pid, signal.SIGKILL)
    done = job.finish(40)
    assert done.code == 0 and "restart 1 of 1" in done.err and "gzb" in done.err, done.err


# ---- by sbatch ----

@needs_slurm
def test_sbatch(slurm_job, cluster, job, tmp_path):
    worker = "import json; print(json.dumps(sys.argv[1:])); print(os.environ['A'])\n" + \
        "if RESTART == 0 and INDEX == 1: sys.exit(3)\ndone()"
    command = job.command(worker, "--launcher", "slurm", "--nodes", "2", "--env", "A=" + ODD[0].replace("\n", ""),
                          "--max-restarts", "1", "--slurm-option=--comment='it is \"odd\"'", logs=False)
    command[4:4] = ["--log-dir", "l o'gs"]
    done = subprocess.run([*command, *ODD], env=job.environ(**cluster.environ), cwd=str(tmp_path), capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    number = re.search(r"submitted as job (\d+): (\S+/l o'gs/job.sbatch); its output goes to", done.stderr)
    # A short job may be over when it is looked at.
    assert re.search(f"job {number.group(1)} (runs|ran) on gza,gzb", done.stderr) and "ended: COMPLETED" in done.stderr
    assert '[worker 0] ["it\'s \\"a\\"; $(touch oops)\\n `x` \\u00fc \\\\", "", "a  b", "-x", "$HOME", "*"]' in done.stdout
    assert "[worker 1] " + ODD[0].replace("\n", "") in done.stdout
    assert "restart 1 of 1" in done.stdout and "finished: 2 workers" in done.stdout
    assert not (tmp_path / "oops").exists()
    text = (tmp_path / "l o'gs" / "job.sbatch").read_text()
    assert "\n#SBATCH '--comment=it is \"odd\"'\n" in text and "GLUONZOO_JOIN" not in text
    output = tmp_path / "l o'gs" / f"slurm-{number.group(1)}.out"
    assert output.read_text() == done.stdout and job.running() == []


@needs_slurm
def test_the_exit_code_is_the_jobs(slurm_job, cluster):
    done = slurm_job("if INDEX == 1: sys.exit(7)\ntime.sleep(60)").finish(40)
    assert done.code == 7 and re.search(r"ended: FAILED( \(\w+\))?, exit code 7", done.err), done.err
    assert "FAILED: worker 1 exited with code 7" in done.out


@needs_slurm
def test_ctrl_c_ends_the_job(slurm_job, cluster):
    job = slurm_job(SLEEP)
    job.await_files("up-0-0", "up-0-1")
    job.popen.send_signal(signal.SIGINT)
    done = job.finish(40)
    assert done.code == 130, done.err
    assert "received SIGTERM; ending the job" in done.out and cluster.ask("squeue", "-h") == ""


@needs_slurm
def test_sigterm_with_grace_lets_the_workers_stop(slurm_job, cluster):
    job = slurm_job("signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\nstep(5)\n" + SLEEP, "--grace", "20")
    job.await_files("up-0-0", "up-0-1")
    job.popen.terminate()
    done = job.finish(40)
    assert done.code == 143 and "stopped after a checkpoint at step 5" in done.out, done.out + done.err


@needs_slurm
def test_scancel_leaves_nothing(slurm_job, cluster, waiting):
    job = slurm_job(SLEEP)
    job.await_files("up-0-0", "up-0-1")
    cluster.ask("scancel", number_of(cluster, waiting))
    done = job.finish(40)
    assert done.code == 143 and "ended: CANCELLED" in done.err, done.err


@needs_slurm
def test_a_job_that_waits_is_cancelled_at_once(slurm_job, cluster, waiting):
    job = slurm_job("done()", "--slurm-option=--begin=now+1hour")
    number = number_of(cluster, waiting)
    waiting(lambda: number in cluster.ask("squeue", "-h", "-t", "PENDING", "-o", "%i"), what="the queue")
    job.popen.terminate()
    done = job.finish(20)
    assert done.code == 143 and f"cancelling job {number}" in done.err, done.err


@needs_slurm
def test_submitting_alone(slurm_job, cluster, job, waiting):
    popen = slurm_job(UP + "done()", "--no-wait").popen
    out, err = popen.communicate(timeout=20)
    assert popen.returncode == 0 and out == b"" and re.search(rb"submitted as job \d+: ", err)
    waiting(lambda: cluster.ask("squeue", "-h") == "", 20, "the job's end")
    assert job.file("done-0-0").exists() and job.file("done-0-1").exists()


@needs_slurm
def test_sbatch_refuses(slurm_job, cluster):
    done = slurm_job("done()", "--partition", "no-such").finish(20)
    assert done.code == 2 and re.search(r"\Aerror: sbatch ended with code 1: .*invalid partition", done.err), done.err


@needs_slurm
def test_a_requeued_training_goes_on_from_its_checkpoint(cluster, tmp_path, waiting):
    env = {**os.environ, **cluster.environ, "PYTHONPATH": ROOT}
    run = tmp_path / "run"
    popen = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "launch", "launch.py"), "--launcher", "slurm", "--nodes", "2", "-n", "2", "-s", "1",
         "--log-dir", str(tmp_path / "logs"), sys.executable, os.path.join(ROOT, "tools", "train.py"), "--model", "lenet5",
         "--dataset", "digits", "--epochs", "2", "--batch-size", "32", "--kvstore", "dist_sync", "--checkpoint-every", "5",
         "--output", str(run)], env=env, cwd=str(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)
    try:
        waiting(lambda: list(run.glob("checkpoints/step-*/manifest.json")), 60, "a checkpoint")
        number = number_of(cluster, waiting)
        cluster.ask("scontrol", "requeue", number)
        waiting(lambda: cluster.state(number).get("JobState") == "PENDING", 20, "the job in the queue")
        # Slurm would wait two minutes, so that no node takes the new start's credential for the revoked one's.
        time.sleep(3)
        cluster.ask("scontrol", "update", f"JobId={number}", "StartTime=now")
        out = popen.communicate(timeout=90)[0]
        assert popen.returncode == 0, out
        assert re.search(r"\[worker 0\] resumed from .*update \d+", out) and ", restart 1" in out, out
        assert "epoch 2/2" in out and "ended: COMPLETED" in out
    finally:
        popen.kill()
        popen.wait()
        popen.stdout.close()


def test_reading_slurm_s_words(monkeypatch, capsys):
    job = sbatch.Job("7", "/no/such/output", 0.0)
    monkeypatch.setattr(sbatch, "QUIET", 0.0)
    answers = []
    monkeypatch.setattr(sbatch, "_command", lambda *argv: answers.pop(0))
    text = "JobId=7 JobName=x\n   JobState={} Reason={} ExitCode={}\n   NodeList=n[1-2]\n   Restarts={}\n"
    answers[:] = [(0, text.format("PENDING", "Resources", "0:0", 0), ""), (1, "", "Unable to contact slurm controller"),
                  (0, text.format("COMPLETING", "None", "0:0", 0), ""), (0, text.format("RUNNING", "None", "0:0", 2), ""),
                  (0, text.format("FAILED", "None", "0:9", 0), "")]
    assert [job._look() for _ in range(5)] == [False, False, False, False, True]
    assert job._end() == 137
    assert capsys.readouterr().err.splitlines() == [
        "launch: job 7 waits (Resources)", "launch: job 7 runs on n[1-2], restart 2",
        "launch: there is no /no/such/output; the log folder must be on a file system that all hosts share (--log-dir)",
        "launch: job 7 ended: FAILED, exit code 137"]
    job._state = {"JobState": "FAILED", "Reason": "JobLaunchFailure", "ExitCode": "0:0"}
    assert job._end() == 1 and "ended: FAILED (JobLaunchFailure), exit code 1" in capsys.readouterr().err
    for state, code in (("COMPLETED", 0), ("TIMEOUT", 124), ("NODE_FAIL", 1), ("CANCELLED", 143)):
        job._state = {"JobState": state}
        assert job._end() == code


def test_a_job_that_was_over_when_it_was_looked_at(monkeypatch, capsys):
    monkeypatch.setattr(sbatch, "QUIET", 0.0)
    text = "JobId=7 JobName=x\n   JobState=COMPLETED Reason=None ExitCode=0:0\n   NodeList={}\n   Restarts=0\n"
    for nodes, told in (("n[1-2]", ["launch: job 7 ran on n[1-2]"]), ("(null)", [])):
        monkeypatch.setattr(sbatch, "_command", lambda *argv, nodes=nodes: (0, text.format(nodes), ""))
        job = sbatch.Job("7", os.devnull, 0.0)
        assert job._look() and job._end() == 0
        assert capsys.readouterr().err.splitlines() == told + ["launch: job 7 ended: COMPLETED"]
