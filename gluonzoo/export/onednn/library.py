"""oneDNN's C library through ctypes: memory descriptors, primitives, and what runs them.

MXNet 1.9.1 has oneDNN 2.4 inside, asks it for the direct algorithm of every convolution, and lets nobody else call it. The same
library of a later version, as the wheel `onednn-cpu-gomp` has it, shares libgomp and so the threads with MXNet's.

The names are the C API's, version 2: https://oneapi-src.github.io/oneDNN/v2/, dnnl.h and dnnl_types.h.
"""
import ctypes
import ctypes.util
import os
import sys
import sysconfig

import numpy as np

from ...errors import UserError

__all__ = ["BINARY", "BLOCKED", "CLAMP", "DIRECT", "ELTWISE", "ENVIRONMENT", "Library", "Md", "NHWC", "OneDNNError", "PLAIN",
           "POOLING", "Primitive", "WINOGRAD", "load"]

#: Names a file of the library to be used, or is "0": not to use it.
ENVIRONMENT = "GLUONZOO_ONEDNN"
#: Versions whose binary interface and Winograd convolutions this module was written for; from 3 on there are neither.
VERSIONS = ((2, 4), (3, 0))

# dnnl_types.h
F32, ANY, FORWARD_INFERENCE, CPU, STREAM_DEFAULT, SCRATCHPAD_USER, UNIMPLEMENTED = 3, 1, 96, 1, 1, 1, 3
DIRECT, WINOGRAD, ACROSS_CHANNELS = 1, 2, 2815
POOLING = {"max": 511, "avg_include": 767, "avg_exclude": 1023}
BINARY = {"add": 131056, "mul": 131057, "sub": 131061}
ELTWISE = {"relu": 31, "tanh": 47, "elu": 63, "square": 79, "abs": 95, "sqrt": 111, "linear": 127, "softrelu": 159,
           "sigmoid": 175}
#: A value outside of two bounds becomes the nearer bound.
CLAMP = 255
QUERY = {"src": 129, "weights": 131, "dst": 133, "scratchpad": 136}
QUERY_IMPLEMENTATION = 8
ARGUMENTS = {"src": 1, "src1": 2, "dst": 17, "weights": 33, "bias": 41, "mean": 49, "variance": 50, "scratchpad": 80}
#: The argument of the first of many sources.
MULTIPLE_SRC = 1024
USE_GLOBAL_STATS, USE_SCALE_SHIFT, FUSE_RELU = 1, 2, 4
#: dnnl_cpu_isa_avx512_core: bits that an instruction set has which has AVX-512.
AVX512_CORE = 39

#: Orders of a map's values in memory: (N, C, H, W); channels last; channels in blocks. A tensor of two sizes is always PLAIN.
PLAIN, NHWC, BLOCKED = "nchw", "nhwc", "blocked"


class OneDNNError(RuntimeError):
    """A call of oneDNN that failed, with its status."""


class Md(ctypes.Structure):
    """dnnl_memory_desc_t: type, sizes and order of a tensor. Equal ones are equal byte for byte."""
    _fields_ = [("words", ctypes.c_uint64 * 87)]

    @property
    def key(self):
        return bytes(self)


class _Argument(ctypes.Structure):
    """dnnl_exec_arg_t"""
    _fields_ = [("arg", ctypes.c_int), ("memory", ctypes.c_void_p)]


def _dims(values):
    return (ctypes.c_int64 * 12)(*values)


class Library:
    """The library, an engine and a stream of the processor.

    Args: path: of the library's file.
    Raises: OSError when it cannot be loaded, OneDNNError when it is none of `VERSIONS`.
    """

    def __init__(self, path):
        self.path = path
        self.c = ctypes.CDLL(path, ctypes.RTLD_LOCAL)
        self.c.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)
        self.version = tuple(self.c.dnnl_version()[index] for index in range(3))
        if not VERSIONS[0] <= self.version < VERSIONS[1]:
            raise OneDNNError(f"{path} is oneDNN {'.'.join(map(str, self.version))}; expected at least 2.4 and below 3: "
                              "pip install onednn-cpu-gomp==2022.2.1")
        self.c.dnnl_primitive_desc_query_md.restype = ctypes.POINTER(Md)
        self.c.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        self.c.dnnl_get_effective_cpu_isa.restype = ctypes.c_int
        self.block = 16 if self.c.dnnl_get_effective_cpu_isa() & AVX512_CORE == AVX512_CORE else 8
        self._tags = {PLAIN: 5, NHWC: 20, BLOCKED: 69 if self.block == 16 else 93}
        self.engine, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.c.dnnl_engine_create(ctypes.byref(self.engine), CPU, ctypes.c_size_t(0)))
        self.check(self.c.dnnl_stream_create(ctypes.byref(self.stream), self.engine, STREAM_DEFAULT))

    @staticmethod
    def check(status):
        if status:
            raise OneDNNError(f"oneDNN returned status {status}")

    # Descriptors

    def desc(self, dims, layout=PLAIN):
        """Of a float32 tensor of two or four sizes in one of the orders of this module."""
        md = Md()
        tag = self._tags[layout] if len(dims) == 4 else {1: 2, 2: 3}[len(dims)]
        self.check(self.c.dnnl_memory_desc_init_by_tag(ctypes.byref(md), len(dims), _dims(dims), F32, tag))
        return md

    def any(self, dims):
        """Of a tensor whose order the primitive may choose."""
        md = Md()
        self.check(self.c.dnnl_memory_desc_init_by_tag(ctypes.byref(md), len(dims), _dims(dims), F32, ANY))
        return md

    def dense(self, dims):
        """Of a tensor as NumPy has it."""
        strides = [int(np.prod(dims[index + 1:], dtype=np.int64)) for index in range(len(dims))]
        md = Md()
        self.check(self.c.dnnl_memory_desc_init_by_strides(ctypes.byref(md), len(dims), _dims(dims), F32, _dims(strides)))
        return md

    def first(self, md, dims):
        """Of the beginning of a tensor along each axis, in the same memory; None where the order of its values forbids it."""
        made = Md()
        status = self.c.dnnl_memory_desc_init_submemory(ctypes.byref(made), ctypes.byref(md), _dims(dims), _dims([0] * len(dims)))
        return None if status else made

    def size(self, md):
        """Bytes that a tensor takes."""
        return self.c.dnnl_memory_desc_get_size(ctypes.byref(md))

    def memory(self, md, address):
        """A handle of a tensor at an address. `destroy_memory` frees it, never the values."""
        memory = ctypes.c_void_p()
        self.check(self.c.dnnl_memory_create(ctypes.byref(memory), ctypes.byref(md), self.engine, ctypes.c_void_p(address)))
        return memory

    def destroy_memory(self, memory):
        self.c.dnnl_memory_destroy(memory)

    def move(self, memory, address):
        """Let a handle stand for the same tensor at another address."""
        self.check(self.c.dnnl_memory_set_data_handle(memory, ctypes.c_void_p(address)))

    # Primitives: each of these returns a Primitive, or None where oneDNN has none for such arguments

    def convolution(self, algorithm, src, weights, bias, dst, strides, dilates, pads, posts=()):
        """Of descriptors (`weights` of five sizes with groups; `bias` may be None) and pairs (rows, columns).

        Args:
            dilates: zero is no gap.
            pads: ((above, left), (below, right)).
        """
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_dilated_convolution_forward_desc_init(
            desc, FORWARD_INFERENCE, algorithm, ctypes.byref(src), ctypes.byref(weights), self._optional(bias), ctypes.byref(dst),
            _dims(strides), _dims(dilates), _dims(pads[0]), _dims(pads[1]))
        return self._primitive(status, desc, posts)

    def inner_product(self, src, weights, bias, dst, posts=()):
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_inner_product_forward_desc_init(desc, FORWARD_INFERENCE, ctypes.byref(src), ctypes.byref(weights),
                                                             self._optional(bias), ctypes.byref(dst))
        return self._primitive(status, desc, posts)

    def pooling(self, algorithm, src, dst, strides, kernel, pads, posts=()):
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_pooling_v2_forward_desc_init(
            desc, FORWARD_INFERENCE, algorithm, ctypes.byref(src), ctypes.byref(dst), _dims(strides), _dims(kernel),
            _dims((0, 0)), _dims(pads[0]), _dims(pads[1]))
        return self._primitive(status, desc, posts)

    def eltwise(self, algorithm, md, alpha, beta, posts=()):
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_eltwise_forward_desc_init(desc, FORWARD_INFERENCE, algorithm, ctypes.byref(md),
                                                       ctypes.c_float(alpha), ctypes.c_float(beta))
        return self._primitive(status, desc, posts)

    def binary(self, algorithm, first, second, dst, posts=()):
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_binary_desc_init(desc, algorithm, ctypes.byref(first), ctypes.byref(second), ctypes.byref(dst))
        return self._primitive(status, desc, posts)

    def normalization(self, md, relu):
        """BatchNorm by given statistics (epsilon 0), with ReLU or without."""
        desc = ctypes.create_string_buffer(8192)
        flags = USE_GLOBAL_STATS | USE_SCALE_SHIFT | (FUSE_RELU if relu else 0)
        status = self.c.dnnl_batch_normalization_forward_desc_init(desc, FORWARD_INFERENCE, ctypes.byref(md), ctypes.c_float(0),
                                                                   ctypes.c_uint(flags))
        return self._primitive(status, desc, ())

    def response_normalization(self, md, size, alpha, beta, k):
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_lrn_forward_desc_init(
            desc, FORWARD_INFERENCE, ACROSS_CHANNELS, ctypes.byref(md), ctypes.c_int64(size), ctypes.c_float(alpha),
            ctypes.c_float(beta), ctypes.c_float(k))
        return self._primitive(status, desc, ())

    def shuffle(self, md, size):
        """Channels seen as rows of `size` are written column by column."""
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_shuffle_forward_desc_init(desc, FORWARD_INFERENCE, ctypes.byref(md), 1, ctypes.c_int64(size))
        return self._primitive(status, desc, ())

    def softmax(self, md, axis):
        desc = ctypes.create_string_buffer(8192)
        status = self.c.dnnl_softmax_forward_desc_init(desc, FORWARD_INFERENCE, ctypes.byref(md), axis)
        return self._primitive(status, desc, ())

    def reorder(self, src, dst):
        def create(made, attributes):
            return self.c.dnnl_reorder_primitive_desc_create(ctypes.byref(made), ctypes.byref(src), self.engine,
                                                             ctypes.byref(dst), self.engine, attributes)
        return self._created(create, ())

    def concat(self, dst, axis, sources):
        together = (Md * len(sources))(*sources)

        def create(made, attributes):
            return self.c.dnnl_concat_primitive_desc_create(ctypes.byref(made), ctypes.byref(dst), len(sources), axis, together,
                                                            attributes, self.engine)
        return self._created(create, ())

    @staticmethod
    def _optional(md):
        return ctypes.c_void_p() if md is None else ctypes.byref(md)

    def _primitive(self, status, desc, posts):
        if status:
            return None

        def create(made, attributes):
            return self.c.dnnl_primitive_desc_create(ctypes.byref(made), desc, attributes, self.engine, ctypes.c_void_p())
        return self._created(create, posts)

    def _created(self, create, posts):
        attributes = self._attributes(posts)
        try:
            made = ctypes.c_void_p()
            status = create(made, attributes)
            if status in (UNIMPLEMENTED, 2):  # 2: invalid arguments, which the next candidate may not have.
                return None
            self.check(status)
            return Primitive(self, made)
        finally:
            self.c.dnnl_primitive_attr_destroy(attributes)

    def _attributes(self, posts):
        """Of a primitive with what is done to its result: "sum" (added to what is in its place), or (algorithm, alpha, beta)."""
        attributes, chain = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.c.dnnl_primitive_attr_create(ctypes.byref(attributes)))
        self.check(self.c.dnnl_primitive_attr_set_scratchpad_mode(attributes, SCRATCHPAD_USER))
        if posts:
            self.check(self.c.dnnl_post_ops_create(ctypes.byref(chain)))
            for post in posts:
                if post == "sum":
                    self.check(self.c.dnnl_post_ops_append_sum(chain, ctypes.c_float(1)))
                else:
                    algorithm, alpha, beta = post
                    self.check(self.c.dnnl_post_ops_append_eltwise(chain, ctypes.c_float(1), algorithm, ctypes.c_float(alpha),
                                                                   ctypes.c_float(beta)))
            self.check(self.c.dnnl_primitive_attr_set_post_ops(attributes, chain))
            self.c.dnnl_post_ops_destroy(chain)
        return attributes


class Primitive:
    """Something that oneDNN compiled for tensors of certain descriptors."""

    def __init__(self, library, description):
        self._library, self._description, self.handle = library, description, ctypes.c_void_p()
        library.check(library.c.dnnl_primitive_create(ctypes.byref(self.handle), description))

    def __del__(self):
        c = self._library.c
        if self.handle:
            c.dnnl_primitive_destroy(self.handle)
        c.dnnl_primitive_desc_destroy(self._description)

    def md(self, name):
        """A copy of a descriptor that oneDNN chose: "src", "weights", "dst" or "scratchpad"."""
        found = self._library.c.dnnl_primitive_desc_query_md(self._description, QUERY[name], 0)
        return Md.from_buffer_copy(found.contents)

    @property
    def implementation(self):
        """oneDNN's name of it, as its verbose mode prints."""
        text = ctypes.c_char_p()
        self._library.check(self._library.c.dnnl_primitive_desc_query(self._description, QUERY_IMPLEMENTATION, 0,
                                                                      ctypes.byref(text)))
        return text.value.decode()

    @property
    def scratchpad(self):
        """Bytes of memory that it needs while it runs."""
        return self._library.size(self.md("scratchpad"))

    def arguments(self, memories):
        """What `execute` takes, of {argument: memory}; names as in ARGUMENTS, or numbers."""
        packed = (_Argument * len(memories))()
        for place, (name, memory) in zip(packed, memories.items()):
            place.arg, place.memory = ARGUMENTS.get(name, name), memory
        return self.handle, self._library.stream, len(memories), packed

    def execute(self, arguments):
        self._library.check(self._library.c.dnnl_primitive_execute(*arguments))


def _paths():
    """Where the library may be: beside this Python, as the wheel puts it there, then where the system looks."""
    prefixes = dict.fromkeys([sysconfig.get_paths()["data"], sys.prefix, sys.exec_prefix, os.path.dirname(os.path.dirname(
        sysconfig.get_paths()["purelib"]))])
    if hasattr(sys, "real_prefix") or sys.prefix == sys.base_prefix:
        import site
        prefixes[site.getuserbase()] = None
    for prefix in prefixes:
        path = os.path.join(prefix, "lib", "libdnnl.so.2")
        if os.path.isfile(path):
            yield path
    found = ctypes.util.find_library("dnnl")
    if found:
        yield found


_loaded = {}


def load():
    """The library, or None where there is none that fits (or the environment variable GLUONZOO_ONEDNN is "0").

    Raises: UserError when GLUONZOO_ONEDNN names a file that is no oneDNN of a version that fits.
    """
    told = os.environ.get(ENVIRONMENT, "")
    if told == "0":
        return None
    if told not in _loaded:
        _loaded[told] = None
        for path in [told] if told else _paths():
            try:
                _loaded[told] = Library(path)
                break
            except (OSError, OneDNNError, AttributeError) as error:
                if told:
                    del _loaded[told]
                    raise UserError(f"{ENVIRONMENT} is {told!r}: {error}; expected a file of oneDNN 2, such as libdnnl.so.2, "
                                    "or 0") from None
    return _loaded[told]
