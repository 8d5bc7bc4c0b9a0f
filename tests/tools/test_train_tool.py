"""tools/train.py as a person types it: every mistake is one clear line and exit code 2, before anything is written."""
import json
import os
import socket
import subprocess
import sys

import pytest


def test_help_names_every_flag(run_program):
    result = run_program("tools/train.py", "--help")
    assert result.returncode == 0
    for flag in ("--model --dataset --data-dir --epochs --batch-size --lr --kvstore --devices --gpus --output --resume "
                 "--weights --seed --config").split():
        assert flag in result.stdout


@pytest.mark.parametrize("arguments, words", [
    (["--model", "lenet6"], ["lenet6", "lenet5"]), (["--model", "resnet50_v1d"], ["resnet50_v1b"]),
    (["--dataset", "mnits"], ["mnits", "mnist"]),
    (["--dataset", "mnist", "--data-dir", "nowhere"], ["nowhere"]),
    (["--kvstore", "dist_sync"], ["launch/launch.py"]), (["--epochs", "0"], ["--epochs is 0"]),
    (["--epochs", "many"], ["--epochs is 'many'"]), (["--batch-size", "-3"], ["--batch-size is -3"]),
    (["--lr", "nan"], ["--lr is 'nan'"]), (["--gpus", "0"], ["--gpus 0", "0 GPUs"]), (["--gpus", "a"], ["--gpus is 'a'"]),
    (["--devices", "2", "--gpus", "0"], ["exclude"]), (["--weights", "no.params"], ["no.params"]),
    (["--resume", "no-folder"], ["no-folder"]), (["--resume", "--output", "no-folder"], ["nothing to resume", "no-folder"]),
    (["--config", "no.json"], ["no.json"]), (["--optimizer", "sgdd"], ["sgdd"]), (["--accumulate", "100"], ["--accumulate 100"])])
def test_mistakes_are_one_line(run_program, tmp_path, arguments, words):
    base = [] if "--dataset" in arguments else ["--dataset", "digits"]
    # No data set of this machine may be found in place of the missing one.
    elsewhere = {"GLUONZOO_DATA": "", "HOME": str(tmp_path / "home"), "MXNET_HOME": str(tmp_path / "home")}
    result = run_program("tools/train.py", *base, *arguments, env=elsewhere)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert os.listdir(tmp_path) == []


def test_unknown_flags_and_choices_exit_2(run_program):
    for arguments in (["--modle", "lenet5"], ["--kvstore", "dist"], ["--schedule", "linear"]):
        result = run_program("tools/train.py", *arguments)
        assert result.returncode == 2 and "Traceback" not in result.stderr


def test_a_configuration_file_and_flags_over_it(run_program, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"model": "lenet5", "dataset": "digits", "epochs": 5, "batch-size": 100}))
    result = run_program("tools/train.py", "--config", "c.json", "--epochs", "1")
    assert result.returncode == 0, result.stderr
    config = json.loads(next((tmp_path / "runs" / "lenet5-digits" / "checkpoints").glob("*/config.json")).read_text())
    assert (config["epochs"], config["batch_size"]) == (1, 100)
    for text, words in (('{"modle": 1}', ["unknown setting 'modle'", "model"]), ("[1]", ["expected an object"]),
                        ("{", ["not JSON"])):
        (tmp_path / "c.json").write_text(text)
        result = run_program("tools/train.py", "--config", "c.json")
        assert result.returncode == 2 and result.stderr.count("\n") == 1
        assert all(word in result.stderr for word in words), result.stderr


def test_a_run_leaves_what_a_person_looks_for_and_is_not_overwritten(run_program, tmp_path):
    first = run_program("tools/train.py", "--dataset", "digits", "--epochs", "1", "--output", "run")
    assert first.returncode == 0, first.stderr
    run = tmp_path / "run"
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").iterdir())
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [0]
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    again = run_program("tools/train.py", "--dataset", "digits", "--epochs", "1", "--output", "run")
    assert again.returncode == 2 and "--resume" in again.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before
    # More epochs: the run goes on where it was, and takes every other setting from its checkpoint.
    more = run_program("tools/train.py", "--resume", "--output", "run", "--epochs", "2")
    assert more.returncode == 0, more.stderr
    assert "resumed from run" in more.stdout and "epoch 2/2" in more.stdout and "epoch 1/2" not in more.stdout
    other = run_program("tools/train.py", "--resume", "--output", "run", "--model", "lenet_caffe")
    assert other.returncode == 2 and "is of model 'lenet5'" in other.stderr


def test_a_larger_batch_continues_in_another_folder(run_program):
    """Its updates have lower numbers, and the newest checkpoint of a folder is the one with the highest."""
    assert run_program("tools/train.py", "--dataset", "digits", "--epochs", "1", "--output", "a").returncode == 0
    larger = ("tools/train.py", "--epochs", "2", "--batch-size", "128")
    refused = run_program(*larger, "--resume", "--output", "a")
    assert refused.returncode == 2 and "another --output" in refused.stderr and refused.stderr.count("\n") == 1
    done = run_program(*larger, "--resume", "a", "--output", "b")
    assert done.returncode == 0 and "epoch 2/2" in done.stdout, done.stderr


def test_weights_start_a_run(run_program, tmp_path):
    assert run_program("tools/train.py", "--dataset", "digits", "--epochs", "3", "--output", "a").returncode == 0
    weights = sorted((tmp_path / "a" / "checkpoints").iterdir())[-1] / "parameters.params"
    result = run_program("tools/train.py", "--dataset", "digits", "--epochs", "1", "--output", "b", "--weights", weights)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "b" / "log.jsonl").read_text().splitlines()[-1])
    assert record["train_accuracy"] > 0.9
    wrong = run_program("tools/train.py", "--model", "lenet_caffe", "--dataset", "digits", "--weights", weights)
    assert wrong.returncode == 2 and "parameters.params" in wrong.stderr and wrong.stderr.count("\n") == 1


def launch(root, tmp_path, *arguments):
    return subprocess.run([sys.executable, str(root / "launch" / "launch.py"), *arguments], capture_output=True, text=True,
                          timeout=120, cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": str(root)})


def test_a_mistake_under_the_launcher_is_shown_and_exits_2(root, tmp_path):
    result = launch(root, tmp_path, "-n", "2", "-s", "1", sys.executable, str(root / "tools" / "train.py"), "--model", "lenet6",
                    "--dataset", "digits", "--kvstore", "dist_sync")
    assert result.returncode == 2
    assert "error: " in result.stdout + result.stderr and "Traceback" not in result.stdout + result.stderr


def test_zero_workers_and_a_taken_port(root, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, word in ((["-n", "0", "-s", "1"], "0"), (["-n", "1", "-s", "1", "--port", port], port)):
            result = launch(root, tmp_path, *arguments, sys.executable, "-c", "pass")
            assert result.returncode == 2 and result.stderr.count("\n") == 1 and word in result.stderr, result.stderr


def test_stock_launchers_start_servers_with_the_same_command(root, tmp_path):
    """MXNet's own tracker runs the user's command in every role; tools/train.py then serves instead of training."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    base = {**os.environ, "PYTHONPATH": str(root), "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": port,
            "DMLC_NUM_WORKER": "1", "DMLC_NUM_SERVER": "1"}
    command = [sys.executable, str(root / "tools" / "train.py"), "--dataset", "digits", "--epochs", "1", "--kvstore", "dist_sync"]
    processes = [subprocess.Popen(command, env={**base, "DMLC_ROLE": role}, cwd=str(tmp_path), stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) for role in ("scheduler", "server", "worker")]
    try:
        outputs = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert "epoch 1/1" in outputs[2]
