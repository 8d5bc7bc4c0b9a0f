"""What gluonzoo does before MXNet is imported; most of it in fresh processes, because it happens once."""
import json
import os
import subprocess
import sys
import textwrap

from gluonzoo import runtime

import numpy as np
import pytest


def fresh(code, root, env=None, check=True):
    """Run code in a fresh interpreter; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment.update({"PYTHONPATH": str(root), **(env or {})})
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment,
                            timeout=120)
    assert not check or result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_opencv_is_there_when_mxnet_uses_it(root):
    pytest.importorskip("cv2", reason="opencv-python-headless is in the extra test")
    code = """
        import sys, gluonzoo
        import mxnet as mx, numpy as np
        assert "cv2" not in sys.modules
        packed = mx.recordio.pack_img(mx.recordio.IRHeader(0, 1.0, 2, 0), np.full((4, 4, 3), 7, "uint8"), img_fmt=".png")
        print(mx.recordio.unpack_img(packed)[1].tolist() == np.full((4, 4, 3), 7).tolist(), "cv2" in sys.modules)
    """
    assert fresh(code, root) == "True True"


@pytest.mark.smoke
def test_import_brings_in_nothing_optional(root):
    heavy = ["gluoncv", "torch", "onnx", "matplotlib", "sklearn", "scipy", "cv2", "PIL", "tensorboardX", "pandas"]
    code = f"import sys, json, gluonzoo; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    assert json.loads(fresh(code, root)) == []


def test_optional_packages_import_normally_afterwards(root):
    assert fresh("import gluonzoo, sklearn, scipy.stats; print(sklearn.__name__, scipy.stats.norm.cdf(0))",
                 root) == "sklearn 0.5"


@pytest.mark.parametrize("use", ["mx.onnx.get_operator_support(13)", "MXNetGraph.registry_[12]"])
def test_mxnets_onnx_exporter_knows_its_operators(root, use):
    pytest.importorskip("onnx", reason="onnx is in the extra export")
    first = "import mxnet as mx" if use.startswith("mx") else "from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph"
    assert int(fresh(f"import gluonzoo, sys; assert 'onnx' not in sys.modules\n{first}\nprint(len({use}))", root)) > 100


def test_entropy_calibration_finds_scipy_after_all(root):
    code = "import gluonzoo, mxnet.contrib.quantization as q; print(q.stats.entropy([0.5, 0.5], [0.5, 0.5]))"
    assert float(fresh(code, root)) == 0.0


@pytest.mark.smoke
def test_numpy_keeps_everything_but_the_documented_aliases(root):
    code = """
        import json, numpy as np
        before = dict(vars(np)); options = np.get_printoptions()
        import gluonzoo
        from gluonzoo import runtime
        added = sorted(set(vars(np)) - set(before) - {"distutils"})
        changed = [k for k in before if vars(np).get(k) is not before[k]]
        print(json.dumps([added, changed, options == np.get_printoptions(), str((np.float64(1.5),))]))
    """
    added, changed, same_options, shown = json.loads(fresh(code, root))
    # NumPy itself loads some of its submodules on first use.
    import types
    assert [name for name in added if name not in runtime.NUMPY_ALIASES
            and not isinstance(getattr(np, name, None), types.ModuleType)] == []
    assert changed == [] and same_options
    assert shown == str((np.float64(1.5),))


@pytest.mark.smoke
def test_numpy_scalars_reach_operators_as_numbers():
    import mxnet as mx
    one, two, three = np.int64(1), np.int32(2), np.int64(3)
    assert mx.nd.zeros((two, three)).shape == (2, 3)
    assert mx.nd.transpose(mx.nd.zeros((2, 3)), axes=(one, np.int64(0))).shape == (3, 2)
    assert mx.nd.zeros((2, 3, 4)).sum(axis=(np.int64(0), two)).shape == (3,)
    out = mx.nd.Pooling(mx.nd.ones((1, 1, 4, 4)), kernel=(two, two), stride=(two, two), pool_type="max")
    assert out.shape == (1, 1, 2, 2)
    symbol = mx.sym.Convolution(mx.sym.var("data"), kernel=(three, three), num_filter=np.int64(4), pad=(one, one))
    assert symbol.infer_shape(data=(1, 2, 5, 5))[1] == [(1, 4, 5, 5)]
    np.testing.assert_allclose(mx.nd.clip(mx.nd.array([5.0]), np.float32(0), np.float64(2.5)).asnumpy(), [2.5])


@pytest.mark.smoke
@pytest.mark.parametrize("label", [3.0, np.float32(3), [1.0, 2.0], np.array([4.0, 5.0, 6.0])])
def test_recordio_pack_and_unpack(label):
    from mxnet import recordio
    header, body = recordio.unpack(recordio.pack(recordio.IRHeader(0, label, 7, 0), b"pixels"))
    np.testing.assert_array_equal(header.label, label)
    assert (header.id, body) == (7, b"pixels")


@pytest.mark.smoke
def test_train_hybridize_and_export_a_gluon_model_zoo_network(tmp_path):
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision
    net = vision.resnet18_v1(classes=5)
    net.initialize()
    net.hybridize()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    images = mx.nd.random.uniform(shape=(2, 3, 32, 32))
    with mx.autograd.record():
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(images), mx.nd.array([1, 2]))
    loss.backward()
    trainer.step(2)
    net.export(str(tmp_path / "net"))
    again = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    np.testing.assert_array_equal(again(images).asnumpy(), net(images).asnumpy())


@pytest.mark.smoke
def test_threads_follow_the_processors(root):
    code = "import gluonzoo; print(gluonzoo.runtime.threads_in_use())"
    cpus = runtime.available_cpus()
    assert int(fresh(code, root)) == cpus
    assert int(fresh(code, root, {"OMP_NUM_THREADS": "3"})) == 3
    assert int(fresh(code, root, {"GLUONZOO_LOCAL_WORKERS": str(cpus)})) == 1
    assert int(fresh(code, root, {"GLUONZOO_LOCAL_WORKERS": str(10 * cpus)})) == 1


def test_threads_follow_the_affinity_mask(root):
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import gluonzoo; " \
           "print(gluonzoo.runtime.threads_in_use())"
    assert int(fresh(code, root)) == 1


def test_threads_are_set_when_mxnet_was_imported_first(root):
    code = """
        from gluonzoo_aliases import add
        add()
        import mxnet as mx
        mx.nd.dot(mx.nd.ones((64, 64)), mx.nd.ones((64, 64))).asnumpy()
        import gluonzoo
        print(gluonzoo.runtime.threads_in_use())
    """.replace("from gluonzoo_aliases import add", ALIASES)
    assert int(fresh(code, root, {"OMP_NUM_THREADS": ""})) == runtime.available_cpus()


# What a user with an own cure for NumPy does before importing MXNet.
ALIASES = """import importlib.util, os, setuptools
        spec = importlib.util.spec_from_file_location("runtime", os.path.join(os.environ["PYTHONPATH"], "gluonzoo", "runtime.py"))
        module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); add = module._add_numpy_aliases"""


def test_the_environment_is_left_as_it_was(root):
    code = "import os; b = dict(os.environ); import gluonzoo; " \
           "print(sorted(k for k in {**b, **os.environ} if b.get(k) != os.environ.get(k)))"
    assert fresh(code, root) == "[]"
    assert fresh(code, root, {"DMLC_ROLE": "server"}) == "[]"


def test_import_in_a_servers_process_returns(root):
    assert fresh("import gluonzoo; print('returned')", root, {"DMLC_ROLE": "server"}) == "returned"


def test_wrong_number_of_local_workers_is_named(root):
    result = subprocess.run([sys.executable, "-c", "import gluonzoo"], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(root), "GLUONZOO_LOCAL_WORKERS": "many"})
    assert result.returncode != 0 and "GLUONZOO_LOCAL_WORKERS is 'many'" in result.stderr


@pytest.mark.parametrize("layout, files, expected", [
    ("0::/jobs/a\n", {"jobs/a/cpu.max": "150000 100000", "jobs/cpu.max": "max 100000"}, 1.5),
    ("0::/jobs/a\n", {"jobs/a/cpu.max": "max 100000", "jobs/cpu.max": "50000 100000"}, 0.5),
    ("4:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "300000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 3.0),
    ("4:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, None),
    ("0::/\n", {}, None)])
def test_cgroup_quota(tmp_path, layout, files, expected):
    proc = tmp_path / "self_cgroup"
    proc.write_text(layout)
    for name, text in files.items():
        place = tmp_path / "cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert runtime.cgroup_quota(str(proc), str(tmp_path / "cgroup")) == expected


def test_import_time_beside_mxnet(root):
    """At most 1.3 times `import mxnet`: the median of 5 interleaved pairs, with a margin for a busy machine."""
    times = {"mxnet": [], "gluonzoo": []}
    for _ in range(5):
        for name in times:
            prelude = ALIASES.replace("\n        ", "\n") + "; add()"
            code = f"{prelude}\nimport time\nt = time.perf_counter()\nimport {name}\nprint(time.perf_counter() - t)"
            times[name].append(float(fresh(code, root)))
    medians = {name: sorted(values)[2] for name, values in times.items()}
    assert medians["gluonzoo"] <= 1.3 * medians["mxnet"] * 1.15, medians
