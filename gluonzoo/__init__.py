"""gluonzoo: classic vision networks as Gluon blocks, a trainer over MXNet's KVStore, and ways to leave MXNet."""
from . import runtime

runtime.prepare()

from ._version import __version__  # noqa: E402
from .layers import features, to_fully_convolutional  # noqa: E402
from .registry import get_model, list_models, list_pretrained, model_spec  # noqa: E402

__all__ = ["get_model", "list_models", "list_pretrained", "model_spec", "features", "to_fully_convolutional", "__version__"]
