"""Data tests see no data set of this machine and no proxy, and leave no thread behind."""
import os
import threading

import pytest

REAL_DATA = os.environ.get("GLUONZOO_DATA", "")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty MXNet folder and none of our variables."""
    for name in ("GLUONZOO_DATA", "GLUONZOO_DATA_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "mxnet-home"))
    return tmp_path / "mxnet-home" / "datasets"


@pytest.fixture(autouse=True)
def no_thread_left():
    """Every loader of a test has ended its threads when the test ends."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("gluonzoo-loader")]
    assert not left


@pytest.fixture
def real():
    """The folder of real data, or a skip that says so."""
    if not os.path.isdir(REAL_DATA):
        pytest.skip("GLUONZOO_DATA names no folder: the real data sets were not read")
    return REAL_DATA
