"""The registry: looking up, listing, registering, and what a built network knows of itself."""
import json

import gluonzoo
from gluonzoo import registry
from gluonzoo.errors import UserError

import numpy as np
import pytest

FIELDS = dict(task="classification", family="Test", paper="A test", year=2000, input_shape=(1, 2, 2), classes=2,
              params=1, macs=1)


@pytest.fixture
def own(monkeypatch):
    """A registry that forgets what the test enters."""
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    return registry


def make_builder(name):
    class Net:
        pass

    def builder(classes=2, in_channels=1):
        return Net()

    builder.__name__ = name
    return builder


def test_list_is_sorted_and_has_the_first_three_families():
    names = gluonzoo.list_models()
    assert names == sorted(names)
    assert {"lenet5", "lenet5_1998", "lenet_caffe", "cifar_resnet20_v1_a", "resnet50_v1b"} <= set(names)


def test_list_with_wildcards_and_task():
    assert gluonzoo.list_models("lenet*") == ["lenet5", "lenet5_1998", "lenet_caffe"]
    assert gluonzoo.list_models("resnet1[08]1_v1") == ["resnet101_v1"]
    assert gluonzoo.list_models("LENET*") == []
    assert gluonzoo.list_models("lenet5", task="classification") == ["lenet5"]


def test_list_with_unknown_task_names_the_tasks():
    with pytest.raises(UserError, match="'clasification'.*classification"):
        gluonzoo.list_models(task="clasification")


@pytest.mark.parametrize("wrong, near", [("lenet-5", "lenet5"), ("ResNet50_v1", "resnet50_v1"),
                                         ("cifar_resnet20", "cifar_resnet20_v1_a")])
def test_unknown_name_shows_the_nearest(wrong, near):
    with pytest.raises(registry.UnknownModelError, match=near) as caught:
        gluonzoo.get_model(wrong)
    assert repr(wrong) in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("wrong", ["qqqqqq", "", None, 5])
def test_a_name_near_nothing_is_still_one_clear_error(wrong):
    with pytest.raises(registry.UnknownModelError, match="list_models"):
        gluonzoo.model_spec(wrong)


def test_duplicate_name_is_refused_and_the_first_stays(own):
    own.register(**FIELDS)(make_builder("twice"))
    first = own.model_spec("twice")
    with pytest.raises(ValueError, match="two networks are called 'twice'"):
        own.register(**FIELDS)(make_builder("twice"))
    assert own.model_spec("twice") is first


def test_register_takes_a_spec_fields_or_both(own):
    spec = own.ModelSpec(**FIELDS)
    own.register(spec)(make_builder("plain"))
    own.register(spec, params=7)(make_builder("changed"))
    assert own.model_spec("plain").params == 1 and own.model_spec("changed").params == 7
    assert own.model_spec("plain").name == "plain"
    with pytest.raises(TypeError):
        own.register(colour="red")


def test_new_task_can_be_listed(own):
    own.register(**dict(FIELDS, task="detection"))(make_builder("finder"))
    assert own.list_models(task="detection") == ["finder"]
    assert "finder" not in own.list_models(task="classification")


def test_unknown_way_of_counting_is_refused():
    with pytest.raises(ValueError, match="'flops'.*'macs'"):
        registry.ModelSpec(**dict(FIELDS, counting="flops"))


def test_spec_cannot_be_changed():
    with pytest.raises(AttributeError):
        gluonzoo.model_spec("lenet5").params = 1


def test_net_knows_its_name_and_every_argument():
    net = gluonzoo.get_model("lenet5", classes=np.int64(7))
    assert net.model_name == "lenet5"
    assert json.loads(json.dumps(net.model_kwargs)) == {"classes": 7, "in_channels": 1}
    from gluonzoo.classification.lenet import lenet5
    assert lenet5(7).model_kwargs == net.model_kwargs
    again = gluonzoo.get_model(net.model_name, **net.model_kwargs)
    assert again.output.weight.shape == (7, 84)
