"""Caffe's own files: parameters (``.caffemodel``) and descriptions of networks (``.prototxt``), through Google's protobuf.

Only the fields that are needed are declared; the rest of a file is skipped. Files of all three generations of Caffe are
read: layers of `LayerParameter`, of `V1LayerParameter` (2014) and those with a `V0LayerParameter` inside (2013).

Source: BVLC/caffe, src/caffe/proto/caffe.proto (numbers and names of the fields). Differences: the numbers of a blob are
declared as bytes, which are the same on the wire as packed floats and need no Python object each.
"""
import functools
import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from ..arrays import FormatError
from ..errors import UserError

__all__ = ["read", "read_prototxt", "Layer"]

_OPTIONAL, _REPEATED = 1, 3
#: Numbers of protobuf's types in a descriptor.
_TYPES = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "message": 11, "bytes": 12, "uint32": 13,
          "enum": 14}
#: V1LayerParameter.LayerType.
_LAYER_TYPES = (
    "NONE 0 ABSVAL 35 ACCURACY 1 ARGMAX 30 BNLL 2 CONCAT 3 CONTRASTIVE_LOSS 37 CONVOLUTION 4 DATA 5 DECONVOLUTION 39 DROPOUT 6 "
    "DUMMY_DATA 32 EUCLIDEAN_LOSS 7 ELTWISE 25 EXP 38 FLATTEN 8 HDF5_DATA 9 HDF5_OUTPUT 10 HINGE_LOSS 28 IM2COL 11 IMAGE_DATA 12 "
    "INFOGAIN_LOSS 13 INNER_PRODUCT 14 LRN 15 MEMORY_DATA 29 MULTINOMIAL_LOGISTIC_LOSS 16 MVN 34 POOLING 17 POWER 26 RELU 18 "
    "SIGMOID 19 SIGMOID_CROSS_ENTROPY_LOSS 27 SILENCE 36 SOFTMAX 20 SOFTMAX_LOSS 21 SPLIT 22 SLICE 33 TANH 23 WINDOW_DATA 24 "
    "THRESHOLD 31").split()
#: Message -> (field, number, type, repeated); a type that is no scalar is a message or the enumeration.
_MESSAGES = {
    "BlobShape": [("dim", 1, "int64", True)],
    "BlobProto": [("num", 1, "int32", False), ("channels", 2, "int32", False), ("height", 3, "int32", False),
                  ("width", 4, "int32", False), ("data", 5, "bytes", True), ("shape", 7, "BlobShape", False),
                  ("double_data", 8, "bytes", True)],
    "ConvolutionParameter": [
        ("num_output", 1, "uint32", False), ("bias_term", 2, "bool", False), ("pad", 3, "uint32", True),
        ("kernel_size", 4, "uint32", True), ("group", 5, "uint32", False), ("stride", 6, "uint32", True),
        ("pad_h", 9, "uint32", False), ("pad_w", 10, "uint32", False), ("kernel_h", 11, "uint32", False),
        ("kernel_w", 12, "uint32", False), ("stride_h", 13, "uint32", False), ("stride_w", 14, "uint32", False)],
    "InnerProductParameter": [("num_output", 1, "uint32", False), ("bias_term", 2, "bool", False)],
    "LayerParameter": [
        ("name", 1, "string", False), ("type", 2, "string", False), ("bottom", 3, "string", True), ("top", 4, "string", True),
        ("blobs", 7, "BlobProto", True), ("convolution_param", 106, "ConvolutionParameter", False),
        ("inner_product_param", 117, "InnerProductParameter", False)],
    "V0LayerParameter": [("name", 1, "string", False), ("type", 2, "string", False), ("blobs", 50, "BlobProto", True)],
    "V1LayerParameter": [
        ("layer", 1, "V0LayerParameter", False), ("bottom", 2, "string", True), ("top", 3, "string", True),
        ("name", 4, "string", False), ("type", 5, "LayerType", False), ("blobs", 6, "BlobProto", True),
        ("convolution_param", 10, "ConvolutionParameter", False), ("inner_product_param", 17, "InnerProductParameter", False)],
    "NetParameter": [("name", 1, "string", False), ("layers", 2, "V1LayerParameter", True),
                     ("layer", 100, "LayerParameter", True)],
}
#: Blobs of Caffe's layers that are no filters have one dimension, however a file spells their shape.
_VECTORS = ("batchnorm", "scale", "bias", "prelu")


@functools.lru_cache(maxsize=None)
def _net_parameter():
    """The message class of a whole network."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise UserError("Caffe's files need protobuf: pip install gluonzoo[caffe]") from None
    file = descriptor_pb2.FileDescriptorProto(name="gluonzoo_caffe.proto", package="gluonzoo_caffe", syntax="proto2")
    kinds = file.enum_type.add(name="LayerType")
    for name, number in zip(_LAYER_TYPES[::2], _LAYER_TYPES[1::2]):
        kinds.value.add(name=name, number=int(number))
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = declared.field.add(name=name, number=number, label=_REPEATED if repeated else _OPTIONAL)
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type = _TYPES["enum" if kind == "LayerType" else "message"]
                field.type_name = f".gluonzoo_caffe.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName("gluonzoo_caffe.NetParameter")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def _kind(layer):
    """A layer's type in lower case without underscores: "innerproduct", "convolution"."""
    kind = layer.type
    if isinstance(kind, int):
        kind = next((name for name, number in zip(_LAYER_TYPES[::2], _LAYER_TYPES[1::2]) if int(number) == kind), "")
    return kind.replace("_", "").lower()


def _layers(net):
    """Layers of any generation: (name, type, message)."""
    for layer in net.layers:
        inner = layer.layer if layer.HasField("layer") else layer
        yield inner.name, _kind(inner), inner
    for layer in net.layer:
        yield layer.name, _kind(layer), layer


def read(path):
    """The numbers of a ``.caffemodel`` or ``.binaryproto``.

    Shape: {"conv1/0": weights, "conv1/1": biases, ...} float32, layer's name and the blob's number. Weights of inner products
        are (outputs, inputs), biases and the blobs of BatchNorm and Scale layers (C,), also where an old file writes 1x1x1xC.
    Raises: FormatError for a file that is no such message, or a blob whose shape and numbers do not agree.
    """
    with open(path, "rb") as file:
        raw = file.read()
    net = _net_parameter()()
    try:
        net.ParseFromString(raw)
        layers = list(_layers(net))
    except Exception as error:  # DecodeError, or what else one of protobuf's three backends raises instead.
        raise FormatError(path, 0, "a Caffe network", f"something else ({type(error).__name__})") from None
    arrays = {}
    for name, kind, layer in layers:
        for number, blob in enumerate(layer.blobs):
            key = f"{name}/{number}"
            if key in arrays:
                raise FormatError(path, 0, "a name for each layer", f"two layers called {name!r}")
            arrays[key] = _array(path, key, blob, flat=number > 0 or kind in _VECTORS, matrix=kind == "innerproduct")
    if not arrays:
        raise FormatError(path, 0, "layers with parameters", f"{len(layers)} layers without any")
    return arrays


def _array(path, key, blob, flat, matrix):
    raw, dtype = (blob.data, "<f4") if blob.data or not blob.double_data else (blob.double_data, "<f8")
    raw = b"".join(raw)
    if len(raw) % np.dtype(dtype).itemsize:
        raise FormatError(path, 0, f"whole numbers of {dtype[1:]} in {key}", f"{len(raw)} bytes")
    values = np.frombuffer(raw, dtype).astype(np.float32)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    if any(size < 0 for size in shape) or math.prod(shape) != values.size:
        raise FormatError(path, 0, f"{'x'.join(map(str, shape))} numbers in {key}", f"{values.size}")
    if flat and max(shape, default=1) == values.size:
        shape = (values.size,)
    elif matrix and len(shape) == 4 and shape[:2] == (1, 1):
        shape = shape[2:]
    return values.reshape(shape)


@dataclass(frozen=True)
class Layer:
    """One layer of a prototxt; sizes are (height, width), and None where the file gives none."""
    name: str
    type: str
    bottoms: Tuple[str, ...] = ()
    tops: Tuple[str, ...] = ()
    channels: int = 0
    kernel_size: Tuple[int, int] = None
    strides: Tuple[int, int] = None
    padding: Tuple[int, int] = None
    groups: int = 1
    bias: bool = True


def _pair(parameter, name, default):
    """Height and width of a size that Caffe writes as `kernel_size: 3`, twice, or as `kernel_h` and `kernel_w`."""
    stem = name.split("_")[0]
    height, width = getattr(parameter, f"{stem}_h"), getattr(parameter, f"{stem}_w")
    if height or width:
        return (height, width)
    values = list(getattr(parameter, name)) or [default]
    return (values[0], values[-1])


def read_prototxt(path):
    """The layers of a ``.prototxt`` in its order; settings that `Layer` does not hold are skipped.

    Raises: FormatError naming the line when it is no text of a Caffe network.
    """
    message = _net_parameter()()
    from google.protobuf import text_format
    try:
        with open(path, encoding="utf-8") as file:
            text_format.Parse(file.read(), message, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(path, 0, "a Caffe network's text", f"line:column {error}") from None
    found = []
    for name, kind, layer in _layers(message):
        fields = {}
        if kind == "convolution":
            parameter = layer.convolution_param
            fields = dict(kernel_size=_pair(parameter, "kernel_size", 1), strides=_pair(parameter, "stride", 1),
                          padding=_pair(parameter, "pad", 0), groups=parameter.group or 1)
        if kind in ("convolution", "innerproduct"):
            parameter = layer.convolution_param if kind == "convolution" else layer.inner_product_param
            fields.update(channels=parameter.num_output, bias=parameter.bias_term if parameter.HasField("bias_term") else True)
        found.append(Layer(name, kind, tuple(layer.bottom), tuple(layer.top), **fields))
    if not found:
        raise FormatError(path, 0, "layers", "none")
    return found
