"""tools/predict.py with networks, crops, labels, pictures and features."""
import importlib.util
import json
import os
import sys
from types import SimpleNamespace

import gluonzoo
from gluonzoo import arrays, errors
from gluonzoo.data import Transform
from gluonzoo.export import Metadata, to_symbol
from gluonzoo.export.crops import ten_crops, whole_images
from gluonzoo.export.predictor import Predictor
from gluonzoo.training import checkpoint
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def pixels(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape).astype("uint8")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A network of 1000 classes for images of any size, and its weights."""
    mx.random.seed(4)
    net = gluonzoo.get_model("resnet18_v1")
    net.initialize()
    path = str(tmp_path_factory.mktemp("weights") / "resnet18.params")
    arrays.save(path, get_parameters(net))
    return net, path


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    mx.random.seed(5)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    path = str(tmp_path_factory.mktemp("weights") / "lenet.params")
    arrays.save(path, get_parameters(net))
    return net, path


@pytest.fixture
def call(root, tmp_path, monkeypatch, capsys):
    """call("a.npy", "--model", ...) as a person runs tools/predict.py, in this process."""
    spec = importlib.util.spec_from_file_location("predict_program", str(root / "tools" / "predict.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict.py"] + [str(argument) for argument in arguments])
        capsys.readouterr()
        try:
            code = module.main()
        except errors.UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=output.out, stderr=output.err)
    return run


def refused(result, *words):
    assert result.returncode == 2, result.stdout
    line = result.stderr.strip().splitlines()[-1]
    assert "error: " in line and "Traceback" not in result.stderr
    assert all(word in line for word in words), line


def found(result):
    assert result.returncode == 0, result.stderr
    return [[guess["probability"] for guess in sorted(entry["predictions"], key=lambda guess: guess["index"])]
            for entry in json.loads(result.stdout)]


def test_a_registered_network_with_weights_and_labels(call, tmp_path, resnet):
    net, path = resnet
    np.save(str(tmp_path / "a.npy"), pixels(2, 200, 300, 3))
    (tmp_path / "names.txt").write_text("".join(f"class {number}\n" for number in range(1000)))
    (tmp_path / "names.json").write_text(json.dumps([f"class {number}" for number in range(1000)]))
    expected = softmax(net(mx.nd.array(Transform((3, 224, 224), MEAN, STD)(list(pixels(2, 200, 300, 3))))).asnumpy())
    for labels in ("names.txt", "names.json"):
        result = call("a.npy", "--model", "resnet18_v1", "--weights", path, "--labels", labels, "--json")
        assert "ImageNet's, mean 0.485,0.456,0.406" in result.stderr
        for row, entry in zip(expected, json.loads(result.stdout)):
            order = np.argsort(-row, kind="stable")[:5]
            assert [guess["class"] for guess in entry["predictions"]] == [f"class {number}" for number in order]
            np.testing.assert_allclose([guess["probability"] for guess in entry["predictions"]], row[order], rtol=1e-4)
    result = call("a.npy", "--model", "resnet18_v1", "--weights", path, "--top", 1)
    assert result.stdout.startswith("normalisation: ImageNet's, mean 0.485,0.456,0.406, std 0.229,0.224,0.225")
    other = call("a.npy", "--model", "resnet18_v1", "--weights", path, "--mean", "0.5", "--std", "0.5", "--top", 1)
    assert "normalisation" not in other.stdout and other.stdout != result.stdout


def test_a_checkpoint_knows_its_classes_and_normalisation(call, tmp_path, lenet):
    net, _ = lenet
    config = {"model": "lenet_caffe", "model_arguments": {}, "classes": list("abcdefghij"), "mean": [0.3], "std": [0.2],
              "input_shape": [1, 28, 28], "dataset": "mnist"}
    checkpoint.save(str(tmp_path / "run" / "checkpoints"), parameters=get_parameters(net), optimizer=None, state={"step": 1},
                    config=config)
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    expected = softmax(net(mx.nd.array(Transform((1, 28, 28), (0.3,), (0.2,))(pixels(1, 28, 28, 1)))).asnumpy())[0]
    for model in ("run", "run/checkpoints/step-0000000001"):
        result = call("a.npy", "--model", model, "--json", "--top", 10)
        np.testing.assert_allclose(found(result)[0], expected, rtol=1e-4)
        assert {guess["class"] for guess in json.loads(result.stdout)[0]["predictions"]} == set("abcdefghij")
    refused(call("a.npy", "--model", "run", "--weights", "w"), "--weights", "run is a checkpoint")


def test_ten_crops_are_corners_and_centre_and_their_mirror_images():
    transform = Transform((3, 7, 14), (0.5,), (0.25,))
    image = pixels(8, 16, 3)  # As large as the frame from which crops are taken.
    crops = ten_crops([image], transform)[0]
    planes = (image.transpose(2, 0, 1) / 255 - 0.5) / 0.25
    for crop, (top, left) in zip(crops, [(0, 0), (0, 2), (1, 0), (1, 2), (0, 1)]):
        np.testing.assert_allclose(crop, planes[:, top:top + 7, left:left + 14], atol=1e-5)
    np.testing.assert_array_equal(crops[5:], crops[:5, ..., ::-1])


@pytest.mark.parametrize("shape, framed", [((60, 100, 3), (64, 107)), ((100, 60, 1), (107, 64)), ((16, 16, 3), (64, 64))])
def test_images_keep_their_aspect(shape, framed):
    transform = Transform((1, 56, 56), (0.5,), (0.25,))
    whole, = whole_images([pixels(*shape)], transform)
    assert whole.shape == (1, 1) + framed
    assert ten_crops([pixels(*shape)], transform).shape == (1, 10, 1, 56, 56)


def test_ten_crops_average_the_softmax(call, tmp_path, lenet):
    net, path = lenet
    np.save(str(tmp_path / "a.npy"), pixels(2, 64, 48, 1))
    crops = ten_crops(list(pixels(2, 64, 48, 1)), Transform((1, 28, 28), (0.4,), (0.3,)))
    expected = [softmax(net(mx.nd.array(stack)).asnumpy()).mean(axis=0) for stack in crops]
    result = call("a.npy", "--model", "lenet_caffe", "--weights", path, "--mean", 0.4, "--std", 0.3, "--crops", 10, "--json",
                  "--top", 10)
    np.testing.assert_allclose(found(result), expected, rtol=1e-4)
    to_symbol(net, str(tmp_path / "export"), metadata={"mean": (0.4,), "std": (0.3,)})
    exported = call("a.npy", "--model", "export", "--crops", 10, "--json", "--top", 10)
    np.testing.assert_allclose(found(exported), expected, rtol=1e-4)


def test_dense_evaluation_of_a_network_with_dense_layers(lenet):
    net, _ = lenet
    predictor = Predictor.of(net, Metadata((1, 28, 28), mean=(0.4,), std=(0.3,)))
    image = pixels(40, 50, 1)
    whole, = whole_images([image], predictor.transform)  # 32 x 40: windows at 2 x 4 places, 4 pixels apart.
    assert whole.shape == (1, 1, 32, 40)
    windows = [whole[:, :, top:top + 28, left:left + 28] for top in (0, 4) for left in (0, 4, 8, 12)]
    scores = [np.mean([net(mx.nd.array(np.ascontiguousarray(window[..., ::way]))).asnumpy() for window in windows], axis=0)
              for way in (1, -1)]
    np.testing.assert_allclose(predictor.probabilities([image], "dense"), softmax(scores[0]), rtol=1e-4)
    # Mirrored windows are windows of the mirror image, as the places are symmetric.
    both = (softmax(scores[0]) + softmax(scores[1])) / 2
    np.testing.assert_allclose(predictor.probabilities([image], "dense", mirror=True), both, rtol=1e-4)
    with pytest.raises(errors.UserError, match="'12'.*1, 10, dense"):
        predictor.probabilities([image], "12")


def test_dense_evaluation_of_a_network_for_any_size(tmp_path):
    mx.random.seed(6)
    net = gluonzoo.get_model("cifar_resnet20_v1_b")
    net.initialize()
    metadata = {"mean": MEAN, "std": STD}
    image = pixels(50, 70, 3)
    whole, = whole_images([image], Transform((3, 32, 32), MEAN, STD))
    expected = softmax(net(mx.nd.array(whole)).asnumpy())
    found = Predictor.of(net, Metadata((3, 32, 32), **metadata)).probabilities([image], "dense")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    to_symbol(net, str(tmp_path / "x"), metadata=metadata)
    np.testing.assert_allclose(Predictor(str(tmp_path / "x")).probabilities([image], "dense"), expected, rtol=1e-4)


def test_dense_evaluation_of_an_export_for_one_size_is_refused(call, tmp_path, lenet):
    to_symbol(lenet[0], str(tmp_path / "x"), metadata={"mean": (0.4,), "std": (0.3,)})
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    refused(call("a.npy", "--model", "x", "--crops", "dense"), "the export of lenet_caffe takes 28x28 only")


def test_pictures(call, tmp_path, lenet):
    pytest.importorskip("matplotlib")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.save(str(tmp_path / folder / "a.npy"), pixels(28, 28))
    np.save(str(tmp_path / "b.npy"), pixels(2, 28, 28, 3))
    result = call("one", "two", "b.npy", "--model", "lenet_caffe", "--weights", lenet[1], "--mean", 0.4, "--std", 0.3,
                  "--pictures", "out")
    assert result.returncode == 0 and "wrote 4 pictures to out" in result.stdout
    assert sorted(os.listdir("out")) == ["a.npy-2.png", "a.npy.png", "b.npy-0.png", "b.npy-1.png"]


@pytest.mark.parametrize("pool", [False, True])
def test_features(call, tmp_path, resnet, pool):
    net, path = resnet
    images = pixels(3, 224, 224, 3)
    np.save(str(tmp_path / "a.npy"), images[:2])
    np.save(str(tmp_path / "b.npy"), images[2])
    options = ["--pool"] if pool else []
    result = call("a.npy", "b.npy", "--model", "resnet18_v1", "--weights", path, "--batch-size", 2, "--features",
                  "stage4,stage2", "-o", "f", *options)
    assert result.returncode == 0, result.stderr
    assert sorted(os.listdir(".")) == ["a.npy", "b.npy", "f"]
    with np.load("f") as saved:
        assert sorted(saved.files) == ["files", "stage2", "stage4"]
        assert saved["files"].tolist() == ["a.npy[0]", "a.npy[1]", "b.npy"]
        inputs = mx.nd.array(Transform((3, 224, 224), MEAN, STD)(images))
        for stage, value in zip(("stage2", "stage4"), gluonzoo.features(net, ("stage2", "stage4"))(inputs)):
            value = value.asnumpy()
            np.testing.assert_allclose(saved[stage], value.mean(axis=(2, 3)) if pool else value, rtol=1e-3, atol=1e-4)


def test_features_refuses(call, tmp_path, lenet):
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    net = ("--model", "lenet_caffe", "--weights", lenet[1], "--mean", 0.4, "--std", 0.3)
    refused(call("a.npy", *net, "--features", "conv1,stage9", "-o", "f.npz"), "'stage9'", "conv1, pool1, conv2, pool2")
    refused(call("a.npy", *net, "--features", "conv1"), "-o FILE")
    refused(call("a.npy", *net, "--pool"), "--features")
    refused(call("a.npy", *net, "--features", "conv1", "-o", "f.npz", "--crops", "10"), "--crops")
    refused(call("a.npy", *net, "--features", "conv1", "-o", "no/f.npz"), "cannot write no/f.npz")
    to_symbol(lenet[0], str(tmp_path / "x"), metadata={"mean": (0.4,), "std": (0.3,)})
    refused(call("a.npy", "--model", "x", "--features", "conv1", "-o", "f.npz"), "x is an export", "--weights")
    assert "f.npz" not in os.listdir(".")


def test_a_failed_write_of_features_keeps_the_old_file(call, tmp_path, lenet, monkeypatch):
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    (tmp_path / "f.npz").write_bytes(b"old")

    def fail(*args, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    refused(call("a.npy", "--model", "lenet_caffe", "--weights", lenet[1], "--mean", 0.4, "--std", 0.3, "--features", "conv1",
                 "-o", "f.npz"), "cannot write f.npz: No space left")
    assert sorted(os.listdir(".")) == ["a.npy", "f.npz"] and (tmp_path / "f.npz").read_bytes() == b"old"


def test_weights_by_name(call, tmp_path, lenet, monkeypatch):
    from gluonzoo.interop import add_to_index
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    (tmp_path / "zoo").mkdir()
    arrays.save(str(tmp_path / "zoo" / "l.params"), get_parameters(lenet[0]))
    add_to_index(str(tmp_path / "zoo"), "lenet_caffe", str(tmp_path / "zoo" / "l.params"), classes=10)
    monkeypatch.setenv("GLUONZOO_WEIGHTS", str(tmp_path / "zoo"))
    options = ("--mean", 0.4, "--std", 0.3, "--json")
    by_name = call("a.npy", "--model", "lenet_caffe", "--pretrained", *options)
    by_file = call("a.npy", "--model", "lenet_caffe", "--weights", lenet[1], *options)
    assert by_name.returncode == 0 and by_name.stdout == by_file.stdout
    refused(call("a.npy", "--model", "lenet_caffe", "--pretrained", "--classes", 5, *options), "5", "--classes")
    refused(call("a.npy", "--model", "lenet5", "--pretrained", *options), "lenet5")


@pytest.mark.parametrize("arguments, words", [
    (["--model", "resnet18_v1"], ["resnet18_v1 is a network without weights", "--weights", "--pretrained", "checkpoint"]),
    (["--model", "resnet18_v9"], ["resnet18_v9", "no such export", "resnet18_v1"]),
    (["--model", "no/where"], ["no/where"]), (["--model", "."], ["."]),
    (["--model", "lenet_caffe", "--weights", "absent.params"], ["absent.params"]),
    (["--model", "lenet_caffe", "--weights", "LENET"], ["lenet_caffe", "--mean", "--std"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--mean", "0.5"], ["--mean was given alone"]),
    (["--model", "lenet5", "--weights", "LENET", "--mean", "0.5", "--std", "0.5"], ["lenet5"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--pretrained"], ["exclude"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--mean", "0.5", "--std", "0.5", "--labels", "nine"],
     ["nine", "9 names", "10"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--labels", "absent"], ["--labels absent"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--labels", "dict"], ["--labels dict", "JSON list"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--crops", "5"], ["--crops"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--mean", "a"], ["--mean"]),
    (["--model", "lenet_caffe", "--weights", "LENET", "--classes", "0"], ["--classes is 0"])])
def test_mistakes_are_one_line(call, tmp_path, lenet, arguments, words):
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    (tmp_path / "nine").write_text("\n".join("abcdefghi") + "\n\n")
    (tmp_path / "dict").write_text('{"0": "a"}')
    refused(call("a.npy", *[lenet[1] if argument == "LENET" else argument for argument in arguments]), *words)


def test_an_export_takes_no_options_of_networks(call, tmp_path, lenet):
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    to_symbol(lenet[0], str(tmp_path / "x"), metadata={"mean": (0.4,), "std": (0.3,)})
    refused(call("a.npy", "--model", "x", "--mean", "0.5", "--std", "0.5"), "--mean", "x is an export")


def test_real_photographs(call, tmp_path, resnet):
    """Images of different sizes, grey and colour, in every protocol."""
    folder = os.path.join(os.environ.get("GLUONZOO_DATA", ""), "coco_mini", "val2017")
    if not os.path.isdir(folder):
        pytest.skip("no photographs: set GLUONZOO_DATA")
    names = sorted(os.listdir(folder))[:2]
    for crops in ("1", "10", "dense"):
        result = call(*[os.path.join(folder, name) for name in names], "--model", "resnet18_v1", "--weights", resnet[1],
                      "--crops", crops, "--json", "--top", 1000)
        assert result.returncode == 0
        np.testing.assert_allclose(np.sum(found(result), axis=1), 1, rtol=1e-4)
