"""The commands a server takes, and the environment it reads, without a job."""
import json
import os
import pickle
import subprocess
import sys

from gluonzoo.distributed.cluster import Cluster, ClusterError
from gluonzoo.distributed.server import check_command

import pytest

GOOD = {"op": "optimizer", "name": "sgd", "arguments": {"learning_rate": 0.1, "momentum": None}, "lr_mult": {},
        "wd_mult": {"3": 0.0}}


def test_known_commands_pass(tmp_path):
    for command in (GOOD, {"op": "learning_rate", "value": 0.5}, {"op": "save", "folder": str(tmp_path)}):
        assert check_command(json.dumps(command)) == command


@pytest.mark.parametrize("text, message", [
    (pickle.dumps({"op": "optimizer"}, protocol=0).decode("latin-1"), "not JSON"), ("[]", "unknown command"),
    ('{"op": "shell"}', "unknown command"), ('{"op": "learning_rate"}', "has fields"),
    ('{"op": "learning_rate", "value": "fast"}', "expected a finite number"),
    ('{"op": "learning_rate", "value": Infinity}', "expected a finite number"),
    (json.dumps({**GOOD, "name": "test"}), "'test' is not allowed"), (json.dumps({**GOOD, "name": "../x"}), "not allowed"),
    (json.dumps({**GOOD, "arguments": {"learning_rate": [1]}}), "expected a finite number"),
    (json.dumps({**GOOD, "arguments": 3}), "expected a JSON object"), (json.dumps({**GOOD, "more": 1}), "has fields"),
    ('{"op": "save", "folder": "/no/such/folder"}', "does not exist"),
    ('{"op": "load", "folder": 5, "bound": 1}', "does not exist"),
    ('{"op": "load", "folder": "/tmp", "bound": 0}', "bound is 0"), ('{"op": "load", "folder": "/tmp"}', "has fields")])
def test_everything_else_is_refused_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        check_command(text)


ENVIRONMENT = {"DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "9000", "DMLC_NUM_WORKER": "2",
               "DMLC_NUM_SERVER": "1"}


def test_a_loopback_job_listens_on_loopback_only():
    values = Cluster.from_environment(ENVIRONMENT).environment()
    assert (values["DMLC_NODE_HOST"], values["DMLC_INTERFACE"]) == ("127.0.0.1", "lo")
    remote = Cluster.from_environment({**ENVIRONMENT, "DMLC_PS_ROOT_URI": "10.0.0.7"}).environment()
    assert "DMLC_NODE_HOST" not in remote and "DMLC_INTERFACE" not in remote


@pytest.mark.parametrize("change, message", [
    ({"DMLC_ROLE": ""}, "DMLC_ROLE not set"), ({"DMLC_ROLE": "chief"}, "'chief'"), ({"DMLC_NUM_WORKER": "0"}, "'0'"),
    ({"DMLC_PS_ROOT_PORT": "70000"}, "'70000'"), ({"DMLC_NUM_SERVER": "one"}, "'one'")])
def test_a_wrong_environment_is_named(change, message):
    with pytest.raises(ClusterError, match=message):
        Cluster.from_environment({**ENVIRONMENT, **change})


@pytest.mark.parametrize("environment, message", [
    ({}, "not part of a distributed job"), (ENVIRONMENT, "runs as scheduler or server")])
def test_the_program_explains_a_wrong_start(root, environment, message):
    result = subprocess.run([sys.executable, "-m", "gluonzoo.distributed.server"], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(root), **environment})
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and message in result.stderr


def test_a_server_of_the_launchers_does_without_mxnets_python_package(root):
    code = "import gluonzoo.distributed.server, gluonzoo.runtime, sys; assert gluonzoo.runtime.load_library() is not None\n" \
           "assert 'mxnet' not in sys.modules\nassert gluonzoo.list_models('lenet5') == ['lenet5'] and 'mxnet' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "GLUONZOO_LIGHT_SERVER": "1",
                                                                            "PYTHONPATH": str(root)})
