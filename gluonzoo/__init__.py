"""gluonzoo: classic vision networks as Gluon blocks, a trainer over MXNet's KVStore, and ways to leave MXNet."""
import os as _os

from ._version import __version__

__all__ = ["get_model", "list_models", "list_pretrained", "model_spec", "features", "to_fully_convolutional", "sync_batch_norm",
           "stochastic_depth", "__version__"]


def _import_all():
    from . import runtime
    runtime.prepare()

    from .layers import features, stochastic_depth, sync_batch_norm, to_fully_convolutional
    from .registry import get_model, list_models, list_pretrained, model_spec
    globals().update(get_model=get_model, list_models=list_models, list_pretrained=list_pretrained, model_spec=model_spec,
                     features=features, to_fully_convolutional=to_fully_convolutional, sync_batch_norm=sync_batch_norm,
                     stochastic_depth=stochastic_depth)


def __getattr__(name):
    if name in __all__:
        _import_all()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The launcher's schedulers and servers do with MXNet's library (distributed/server.py): its Python package, which is most of what
# they would otherwise do until a job begins, waits there until a job wants an optimizer on its servers.
if _os.environ.get("GLUONZOO_LIGHT_SERVER") != "1":
    _import_all()
