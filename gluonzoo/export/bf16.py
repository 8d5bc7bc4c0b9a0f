"""Inference in bfloat16: sums in float32, products of numbers of 8 significant bits.

MXNet's automatic mixed precision does the rewriting. It is offered only where it was seen to hold: on a processor with bfloat16
instructions (others go through emulation in float32, slower and no more exact), and for plain networks. Training in bfloat16 is
not offered: MXNet's ``amp.init("bfloat16")`` patches its operators for the whole process, for good, and MobileNet v2 then trained
at 0.4 times the speed.
"""
import mxnet as mx
import numpy as np

from .check import compare
from .fuse_fold import drop_identities
from .fusion import FusedBlock, inference_source
from .metadata import ExportError
from .symbol import _layouts_restored

__all__ = ["BOUND", "native_instructions", "to_bf16"]

#: The largest difference relative to the largest output (see `check.Difference`) that is let through. bfloat16 rounds to
#: one part in 256; ResNet-50 was seen at 0.6 percent, VGG-11 at 0.8, MobileNet v2 at 0.9.
BOUND = 0.03
#: What MXNet 1.9.1 can do in bfloat16 or does in float32 between casts.
_KNOWN = {"null", "Convolution", "FullyConnected", "Activation", "Pooling", "BatchNorm", "elemwise_add", "Concat", "Flatten",
          "mean", "clip", "Dropout"}


def native_instructions(path="/proc/cpuinfo"):
    """The processor's bfloat16 instruction sets, a sorted tuple; empty where there are none, or nobody says."""
    try:
        with open(path) as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        flags = ()
    return tuple(sorted({"avx512_bf16", "amx_bf16"}.intersection(flags)))


def to_bf16(net, input_shape=None, *, force=False):
    """A copy of a network that computes in bfloat16, for inference on the processor; inputs and outputs are float32.

    Measure before you choose it: MXNet joins no operators in bfloat16, and a network by `fuse` in float32 can be faster (on the
    machine this was written on, ResNet-50 was).

    Args:
        net: an initialised HybridBlock of one input, in float32. input_shape: (C, H, W); from the registry by default.
        force: go on without native instructions, or with depthwise convolutions.
    Returns: a hybridized block; the network itself is not changed.
    Raises: ExportError with the reason: no native instructions, a fused or 8-bit network, an operator that is not known to work,
        depthwise convolutions (15 times as slow as fused float32), or outputs farther than `BOUND` from float32's.
    """
    if isinstance(net, FusedBlock):
        raise ExportError("the network is fused or in 8 bits; its operators are wrong by percents in bfloat16: convert the "
                          "network that it was made from")
    if not native_instructions() and not force:
        raise ExportError("this processor has neither avx512_bf16 nor amx_bf16: bfloat16 would be emulated, slower than float32; "
                          "use force to have it nevertheless")
    graph, ctx, details = inference_source(net, input_shape)
    graph = drop_identities(graph.copy())
    unknown = sorted({node.op for node in graph.nodes.values()} - _KNOWN)
    if unknown:
        raise ExportError(f"the network has the operators {', '.join(unknown)}, which are not known to work between bfloat16 "
                          "layers; expected some of " + ", ".join(sorted(_KNOWN - {"null"})))
    depthwise = [node.name for node in graph.operators if node.op == "Convolution"
                 and node.attrs.get("num_group", 1) == node.attrs["num_filter"] > 1]
    if depthwise and not force:
        raise ExportError(f"{depthwise[0]} and {len(depthwise) - 1} more are depthwise convolutions, for which oneDNN has no "
                          "bfloat16 kernel: many times as slow as in float32; use force to have it nevertheless")
    from mxnet.contrib import amp

    shape = details["input_shape"]
    plain = graph.to_block(ctx)
    plain.hybridize()
    with mx.autograd.pause(train_mode=False):
        plain(mx.nd.zeros((1,) + tuple(shape), ctx=ctx)).wait_to_read() if len(graph.outputs) == 1 else plain(
            mx.nd.zeros((1,) + tuple(shape), ctx=ctx))
        block = amp.convert_hybrid_block(plain, target_dtype="bfloat16", ctx=ctx)
    block.collect_params().setattr("grad_req", "null")
    block.hybridize(static_alloc=True)
    with _layouts_restored(net):
        difference = compare(net, block, shape, ctx=ctx)
    if not np.isfinite(difference.relative) or difference.relative > BOUND:
        raise ExportError(f"in bfloat16 the outputs differ by {difference.relative:.3g} of the largest from float32's; at most "
                          f"{BOUND:g} passes")
    return block
