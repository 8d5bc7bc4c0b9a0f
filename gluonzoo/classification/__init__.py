"""Classifiers, one file a family. Importing this package imports every file in it, which registers the networks."""
import importlib
import pkgutil

__all__ = sorted(module.name for module in pkgutil.iter_modules(__path__))

for _name in __all__:
    importlib.import_module(f"{__name__}.{_name}")
