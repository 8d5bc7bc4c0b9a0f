"""One network of every family learns from real photographs: from its own initial weights, the loss comes down.

Four batches of CIFAR-10 are shown again and again. What a network knows by chance costs ln 10 = 2.3.
"""
import os

import gluonzoo
from gluonzoo import data
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

pytestmark = pytest.mark.slow

#: Images in a step, where they are small and where they are large.
BATCH, LARGE_BATCH, LARGE = 16, 4, 192
#: Networks without BatchNorm, or with binary weights, want thousands of steps of SGD from the initial weights of their papers:
#: rates of Adam, which shows in some dozens that all gradients are there.
ADAM = {"alexnet": 2e-4, "zfnet": 1e-4, "vgg11": 1e-4, "nin_cifar10": 1e-3, "googlenet": 3e-4, "squeezenet1_1": 1e-4,
        "msra_net_a": 1e-4, "pvanet_cls": 1e-3, "xnor_alexnet": 1e-3, "bwn_alexnet": 1e-3, "inception_v4": 3e-4}
#: Network -> (size of its images, steps, learning rate of SGD with momentum 0.9; by default the network's own).
RUNS = {
    "lenet5": (32, 200, 0.05), "alexnet": (227, 150, None), "zfnet": (224, 100, None), "vgg11": (224, 60, None),
    "msra_net_a": (64, 150, None), "nin_cifar10": (32, 200, None),
    "googlenet": (64, 150, 0.01), "googlenet_bn": (64, 100, 0.01), "bn_inception": (64, 60, None),
    "inception_v2": (107, 60, 0.01), "inception_v3": (107, 60, 0.01), "inception_v4": (107, 50, 0.01),
    "inception_resnet_v1": (107, 50, 0.01), "inception_resnet_v2": (107, 50, 0.01), "resnet18_v1": (64, 60, None),
    "resnet18_v2": (64, 60, None), "cifar_resnet20_v1_a": (32, 100, None), "cifar_resnet20_v2": (32, 100, None),
    "resnext50_32x4d": (64, 50, 0.005), "cifar_resnext29_32x4d": (32, 50, 0.01), "densenet121": (64, 50, 0.01),
    "cifar_densenet_l40_k12": (32, 60, None), "se_resnet18": (64, 60, None), "se_resnext50_32x4d": (64, 50, 0.005),
    "se_bn_inception": (64, 60, 0.01), "squeezenet1_1": (64, 200, None), "mobilenet_v1_0_5": (64, 100, None),
    "mobilenet_v2_0_5": (64, 100, None), "shufflenet_v1_g3_0_5": (64, 100, None),
    "shufflenet_v2_0_5": (64, 100, None), "xception": (107, 50, 0.01), "dpn68": (64, 100, 0.01),
    "polynet": (107, 50, None), "pvanet_cls": (192, 50, None), "bwn_alexnet": (224, 60, None),
    "xnor_alexnet": (224, 60, None), "xnor_resnet18": (64, 60, None), "stn_mnist": (28, 200, None),
    "darknet19": (64, 60, None),
}
GREY = ("lenet5", "stn_mnist")


def photographs(shape, count):
    """Images (count, C, H, W) and labels, of all classes."""
    if not os.environ.get("GLUONZOO_DATA"):
        pytest.skip("set GLUONZOO_DATA to a folder that holds CIFAR-10")
    images = data.load("cifar10", train=True)
    chosen = np.arange(count) * (len(images) // count)
    transform = data.Transform(shape, images.mean, images.std, train=False)
    return transform(images.images(chosen), chosen, 0), images.labels[chosen]


def test_a_network_of_every_family_is_here():
    families = {gluonzoo.model_spec(name).family for name in gluonzoo.list_models(task="classification")}
    assert {gluonzoo.model_spec(name).family for name in RUNS} == families


@pytest.mark.parametrize("name", RUNS)
def test_loss_comes_down(name):
    size, steps, rate = RUNS[name]
    spec = gluonzoo.model_spec(name)
    batch = LARGE_BATCH if size >= LARGE else BATCH
    images, labels = photographs((1 if name in GREY else 3, size, size), 4 * batch)
    mx.random.seed(1)
    net = gluonzoo.get_model(name, classes=10, in_channels=images.shape[1])
    net.initialize()
    net.hybridize()
    if name in ADAM:
        trainer = Trainer(net, "adam", {"learning_rate": ADAM[name]})
    else:
        trainer = Trainer(net, "sgd", {"learning_rate": rate or spec.learning_rate or 0.05, "momentum": 0.9})
    cross_entropy, losses = gluon.loss.SoftmaxCrossEntropyLoss(), []
    for step in range(steps):
        part = slice(step % 4 * batch, step % 4 * batch + batch)
        with autograd.record():
            loss = cross_entropy(net(mx.nd.array(images[part])), mx.nd.array(labels[part]))
        loss.backward()
        trainer.step(batch)
        losses.append(float(loss.mean().asscalar()))
    assert np.isfinite(losses).all()
    first, last = np.mean(losses[:4]), np.mean(losses[-8:])
    print(f"{name}: {first:.3f} -> {last:.3f}")
    assert last < 0.85 * first and last < 1.9, losses
