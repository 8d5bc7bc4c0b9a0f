"""Every registered network as ONNX: the export itself compares it with the live network on three batches, two of another size
of image where the network takes any; what is tested here is that it passes, what is free, and that parameters come back."""
import os
import tempfile

import gluonzoo
from gluonzoo.export import load_onnx, to_onnx
from gluonzoo.interop import load_weights

import numpy as np
import pytest
from onnx_nets import prepared, small_shape

pytest.importorskip("onnx", reason="ONNX export needs onnx")
pytest.importorskip("onnxruntime", reason="ONNX export is checked by onnxruntime")

#: Networks of the default run: of each family that has small ones, and all that have operators of their own.
RUN = ("lenet5", "lenet5_1998", "nin_cifar10", "googlenet", "bn_inception", "resnet18_v1", "resnet18_v2", "cifar_resnet20_v1_a",
       "cifar_resnext29_32x4d", "cifar_densenet_l40_k12", "se_resnet18", "squeezenet1_1", "mobilenet_v1_0_25",
       "mobilenet_v2_0_5", "shufflenet_v1_g3_0_25", "shufflenet_v2_0_5", "xnor_resnet18", "stn_mnist")
JOBS = [(name, False) for name in gluonzoo.list_models()] + [(name, True) for name in ("googlenet", "googlenet_bn",
                                                                                     "inception_v3")]
#: Families of which every network has tens of millions of parameters or hundreds of layers.
SLOW_FAMILIES = {"AlexNet", "DPN", "DenseNet", "MSRA-net", "PVANet", "PolyNet", "VGG", "Xception", "YOLO", "ZFNet"}


@pytest.mark.parametrize("name, aux", [
    pytest.param(name, aux, id=name + "-aux" * aux,
                 marks=[] if name in RUN and not aux else [pytest.mark.slow])
    for name, aux in JOBS])
def test_network(name, aux):
    net = prepared(name, **({"aux": True} if aux else {}))
    shape = gluonzoo.model_spec(name).input_shape if aux else small_shape(net, name)
    with tempfile.TemporaryDirectory() as folder:  # Not tmp_path: pytest keeps those, and files have hundreds of megabytes.
        path = os.path.join(folder, "net.onnx")
        exported = to_onnx(net, path, shape)
        assert os.listdir(folder) == ["net.onnx"]
        free = (None, shape[0]) + (shape[1:] if net.fixed_size else (None, None))
        assert exported.input_shape == free and exported.difference.relative <= 1e-5
        assert exported.opset == (16 if name.startswith("stn") else 13)
        assert load_onnx(path).outputs == ("output",) + tuple(net.auxiliary)
        other = gluonzoo.get_model(name, **({"aux": True} if aux else {}))
        report = load_weights(other, path)
    assert report.format == "onnx" and not report.unused and not report.missing
    mine, theirs = (block._collect_params_with_prefix() for block in (net, other))
    for key, parameter in mine.items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), theirs[key].data().asnumpy(), err_msg=key)


def test_every_family_is_run():
    families = {gluonzoo.model_spec(name).family for name in gluonzoo.list_models()}
    run = {gluonzoo.model_spec(name).family for name in RUN}
    assert run | SLOW_FAMILIES == families and not run & SLOW_FAMILIES, families - run
