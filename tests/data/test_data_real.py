"""The real data sets, where $GLUONZOO_DATA has them."""
import hashlib
import http.server
import os
import threading

from gluonzoo import data
from gluonzoo.data import catalog, images
from gluonzoo.errors import UserError

import numpy as np
import pytest


def load_real(name, train, folder, file):
    if not os.path.exists(os.path.join(folder, file)):
        pytest.skip(f"{folder} has no {file}: the real {name} was not read")
    return data.load(name, train=train, data_dir=folder, download=False)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_idx_sets(real, name):
    train, test = (load_real(name, split, real, name) for split in (True, False))
    assert (len(train), len(test)) == (60000, 10000) and train.published and test.published
    if name == "fashion_mnist":
        assert np.bincount(train.labels).tolist() == [6000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
    else:
        assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = train.data[::7].astype(np.float64) / 255
    assert train.mean == pytest.approx((pixels.mean(),), abs=2e-3)
    assert train.std == pytest.approx((pixels.std(),), abs=2e-3)
    # The digests of the catalog are those of what is unpacked here.
    for dataset, resources in zip((train, test), catalog.PUBLISHED[name].resources):
        size = len(dataset).to_bytes(4, "big")
        parts = (b"\0\0\x08\x03" + size + (28).to_bytes(4, "big") * 2 + dataset.data.tobytes(),
                 b"\0\0\x08\x01" + size + dataset.labels.astype(np.uint8).tobytes())
        assert [hashlib.sha256(part).hexdigest() for part in parts] == [resource.plain for resource in resources]


def test_real_fashion_is_not_taken_for_mnist(real):
    with pytest.raises(UserError, match="expected the labels of MNIST, found those of Fashion-MNIST"):
        load_real("mnist", True, os.path.join(real, "fashion_mnist"), "train-labels-idx1-ubyte.gz")


def test_real_download_over_http(real, tmp_path, monkeypatch):
    """The real files through the whole way of a download, digests included."""
    load_real("mnist", False, real, "mnist")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            return os.path.join(real, *path.strip("/").split("/"))

        def log_message(self, *arguments):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("GLUONZOO_DATA_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("mnist", "fashion_mnist"):
            assert len(data.load(name, train=False, data_dir=tmp_path)) == 10000
            assert len(os.listdir(str(tmp_path / name))) == 2
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_real_cifar10_as_images(real):
    train, test = (load_real("cifar10", split, real, "cifar10_jpg_7500.zip") for split in (True, False))
    assert np.bincount(train.labels).tolist() == [600] * 10 and np.bincount(test.labels).tolist() == [150] * 10
    assert train.data.shape == (6000, 32, 32, 3) and not train.published and "cifar10_jpg_7500.zip" in repr(train)
    np.testing.assert_allclose((train.data / 255).mean((0, 1, 2)), train.mean, atol=0.01)  # A sample of the set.
    np.testing.assert_allclose((train.data / 255).std((0, 1, 2)), train.std, atol=0.01)


def test_real_photographs_by_both_decoders(real):
    pytest.importorskip("PIL.Image", reason="Pillow is not installed: the decoders were not compared")
    compared = 0
    for folder, ending in (("coco_mini", ".jpg"), ("raccoon_voc", ".jpg"), ("orl_faces", ".pgm"), ("sr_sets", ".png")):
        found = [os.path.join(root, name) for root, _, names in os.walk(os.path.join(real, folder))
                 for name in sorted(names) if name.lower().endswith(ending)]
        for path in sorted(found)[:6]:
            with open(path, "rb") as file:
                packed = file.read()
            by_pillow, by_mxnet = (images.decode(packed, path, decoder=decoder) for decoder in ("pillow", "mxnet"))
            np.testing.assert_array_equal(by_pillow, by_mxnet)
            compared += 1
    if not compared:
        pytest.skip(f"{real} has no photographs: the decoders were not compared on them")
