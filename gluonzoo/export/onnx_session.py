"""ONNX files read back: onnxruntime as a function of NumPy arrays, and what a file says of itself."""
import collections
import dataclasses
import importlib
import json
import os

import numpy as np

from .metadata import ExportError, Metadata

__all__ = ["OnnxNetwork", "load_onnx", "package", "to_properties"]

_FORMAT = "gluonzoo-onnx"
_TEXTS = ("model", "dataset", "gluonzoo")
#: Number types of onnxruntime's inputs that this package writes.
_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


def package(name):
    """Import onnx or onnxruntime. Raises: ExportError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"ONNX needs the package {name}, which cannot be imported ({error}): "
                          "pip install 'gluonzoo[export]'") from None


def to_properties(metadata, parameters_sha256, preprocess):
    """A file's metadata_props as {key: text}: texts as they are, all else as JSON; what is None is left out."""
    values = {name: value for name, value in dataclasses.asdict(metadata).items() if name != "files" and value is not None}
    texts = {name: value if name in _TEXTS else json.dumps(value, ensure_ascii=False, default=repr)
             for name, value in values.items()}
    return dict(texts, format=_FORMAT, parameters_sha256=parameters_sha256, preprocess=json.dumps(bool(preprocess)))


def _from_properties(properties, path):
    """(Metadata, {"parameters_sha256", "preprocess"}) of what `to_properties` gave; (None, {}) of other files."""
    if properties.get("format") != _FORMAT:
        return None, {}
    known = {item.name for item in dataclasses.fields(Metadata)} - {"files"}
    try:
        values = {name: text if name in _TEXTS else json.loads(text) for name, text in properties.items() if name in known}
        extra = {"parameters_sha256": properties["parameters_sha256"], "preprocess": json.loads(properties["preprocess"])}
        return Metadata(**values), extra
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: its metadata is damaged: {error}") from None


class OnnxNetwork:
    """An ONNX file as a function: arrays in, arrays out, by onnxruntime on the processor.

    Shape: (N, C, H, W) float32, or (N, H, W, C) uint8 of a file with its preprocessing inside -> the output, or a named
        tuple of several.
    Args:
        source: a path, or a file's content as bytes. threads: of onnxruntime; by default one for each core.
    Attributes:
        metadata: `Metadata`, None where the file is not gluonzoo's.
        parameters_sha256: `gluonzoo.arrays.digest` of the network's parameters, or None.
        preprocess: whether images go in and probabilities come out.
        input_shape: with None for what is free. outputs: names.
    Raises: ExportError when onnxruntime is missing or refuses the file.
    """

    def __init__(self, source, threads=None):
        ort = package("onnxruntime")
        options = ort.SessionOptions()
        options.log_severity_level = 3  # Errors.
        if threads:
            options.intra_op_num_threads = int(threads)
        self.path = "the model" if isinstance(source, bytes) else os.fspath(source)
        if not isinstance(source, bytes) and not os.path.isfile(self.path):
            raise ExportError(f"{self.path}: no such file")
        try:
            self.session = ort.InferenceSession(source if isinstance(source, bytes) else self.path, options,
                                                providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen classes of its own, all directly below Exception.
            raise ExportError(f"{self.path}: onnxruntime refuses it: {' '.join(str(error).split())[:300]}") from None
        properties = self.session.get_modelmeta().custom_metadata_map
        self.metadata, extra = _from_properties(properties, self.path)
        self.parameters_sha256, self.preprocess = extra.get("parameters_sha256"), extra.get("preprocess", False)
        inputs = self.session.get_inputs()
        self.inputs = tuple(item.name for item in inputs)
        self.input_shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape) if inputs else ()
        self._type = _TYPES.get(inputs[0].type) if inputs else None
        self.outputs = tuple(item.name for item in self.session.get_outputs())
        self._tuple = collections.namedtuple("Outputs", self.outputs, rename=True)

    def __call__(self, data):
        """Run one batch. Raises: ExportError when the array's type or shape is not the file's."""
        data = np.asarray(data)
        fits = data.ndim == len(self.input_shape) and all(
            size in (None, found) for size, found in zip(self.input_shape, data.shape))
        if len(self.inputs) != 1 or self._type is None or data.dtype != self._type or not fits:
            shape = ", ".join("any" if size is None else str(size) for size in self.input_shape)
            raise ExportError(f"{self.path}: expected one array ({shape}) of {np.dtype(self._type or np.float32)}, received "
                              f"{data.shape} of {data.dtype}")
        values = self.run({self.inputs[0]: data})
        return values[0] if len(values) == 1 else self._tuple(*values)

    def run(self, feed):
        """Run with {name of an input: array}: a list of arrays. Raises: ExportError when onnxruntime fails."""
        try:
            return self.session.run(None, feed)
        except Exception as error:
            raise ExportError(f"{self.path}: onnxruntime fails: {' '.join(str(error).split())[:300]}") from None


def load_onnx(path, threads=None):
    """Load an ONNX file with onnxruntime: an `OnnxNetwork`, called with a NumPy array.

    Args: threads: of onnxruntime; by default one for each core.
    Raises: ExportError when the file is missing, broken, or its metadata damaged.
    """
    return OnnxNetwork(path, threads)
