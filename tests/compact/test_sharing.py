"""k-means by hand, against scikit-learn, and what sharing keeps."""
from gluonzoo.compact import share
from gluonzoo.compact.sharing import kmeans
from gluonzoo.errors import UserError

import numpy as np
import pytest


def test_two_clusters_by_hand():
    # Linear: centres 0 and 10. 0, 1, 2 are nearer to 0; 9 and 10 to 10: centres 1 and 9.5, at which nothing moves.
    np.testing.assert_array_equal(kmeans(np.array([10, 0, 1, 9, 2.0]), 2), [1, 9.5])


def test_initialisations_by_hand():
    values = np.array([1, 2, 3, 4, 5, 6, 7, 100.0])
    # Linear keeps the large one alone: centres 1 and 100. Density: 2.75 and 6.25 ends at the same.
    np.testing.assert_array_equal(kmeans(values, 2), [4, 100])
    # Four clusters from density's quantiles 1.875, 3.625, 5.375, 17.625 -> {1, 2}, {3, 4}, {5, 6, 7}, {100}.
    np.testing.assert_allclose(kmeans(values, 4, "density"), [1.5, 3.5, 6, 100])
    # Linear: 1, 34, 67, 100; nothing is near 34 and 67, and clusters without values are gone.
    np.testing.assert_array_equal(kmeans(values, 4), [4, 100])
    np.testing.assert_array_equal(kmeans(values, 8, "random"), values)


@pytest.mark.parametrize("init", ["linear", "density", "random"])
def test_it_is_lloyds_algorithm(init):
    cluster = pytest.importorskip("sklearn.cluster")
    values = np.random.RandomState(3).randn(2000)
    centres = kmeans(values, 8, init, seed=5)
    model = cluster.KMeans(len(centres), init=centres.reshape((-1, 1)), n_init=1, max_iter=1000, tol=0)
    model.fit(values.reshape((-1, 1)))
    np.testing.assert_allclose(np.sort(model.cluster_centers_[:, 0]), centres, rtol=1e-9)
    assert model.n_iter_ <= 2  # Began where it ends.


def test_shared_weights():
    random = np.random.RandomState(0)
    weight = np.where(random.rand(8, 5, 3, 3) < 0.4, random.randn(8, 5, 3, 3), 0).astype(np.float32)
    found = share(weight, 3)
    assert found.codes.dtype == np.float32 and found.codes[0] == 0 and len(found.codes) <= 9
    np.testing.assert_array_equal(found.array() == 0, weight == 0)
    for code in range(1, len(found.codes)):
        np.testing.assert_allclose(found.codes[code], weight[found.indices == code].astype(np.float64).mean(), rtol=1e-6)
    nearest = np.abs(weight[..., None].astype(np.float64) - found.codes[1:]).argmin(axis=-1) + 1
    np.testing.assert_array_equal(found.indices, np.where(weight == 0, 0, nearest))


def test_without_zeros_there_is_no_code_for_them():
    found = share(np.array([[1, 1.5], [-3, -3]], np.float32), 1)
    np.testing.assert_array_equal(found.array(), [[1.25, 1.25], [-3, -3]])
    np.testing.assert_array_equal(found.codes, [-3, 1.25])


def test_edges():
    assert share(np.zeros((3, 2), np.float32), 4).array().tolist() == [[0, 0]] * 3
    np.testing.assert_array_equal(share(np.full((2, 2), 7, np.float32), 4).array(), np.full((2, 2), 7))
    tiny = np.array([1e-45, -1e-45, 0], np.float32)  # Their mean would be 0, which is for pruned weights.
    assert ((share(tiny, 1).array() == 0) == (tiny == 0)).all()
    random = np.random.RandomState(1).randn(500).astype(np.float32)
    for bits in (1, 8):
        for init in ("linear", "density", "random"):
            found = share(random, bits, init)
            assert np.bincount(found.indices).all() and len(found.codes) <= 2 ** bits
    np.testing.assert_array_equal(share(random, 4, "random", 3).indices, share(random, 4, "random", 3).indices)


@pytest.mark.parametrize("arguments, message", [
    ({"bits": 9}, "with 9 bits"), ({"bits": 0}, "with 0 bits"), ({"bits": 2.5}, "2.5 bits"),
    ({"init": "kmeans++"}, "'kmeans\\+\\+'")])
def test_bad_settings(arguments, message):
    with pytest.raises(UserError, match=message):
        share(np.ones(4, np.float32), **{"bits": 4, **arguments})
    with pytest.raises(UserError, match="not finite"):
        share(np.array([np.nan], np.float32), 2)
