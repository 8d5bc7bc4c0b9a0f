"""The table's operators that move, join and cut arrays without computing."""
import numpy as np

from .onnx_builder import axes_of, into

__all__ = ["TABLE"]

TABLE = {}
_translates = into(TABLE)
_FARTHEST = np.iinfo(np.int64).max


@_translates("Flatten", "flatten")
def _flatten(b, node, x):
    return x if len(b.sizes_of(node)) == 2 else b.emit("Flatten", x, axis=1)


@_translates("Concat", "concat")
def _concat(b, node, *parts):
    return b.emit("Concat", *parts, axis=int(node.attrs.get("dim", 1)))


@_translates("stack")
def _stack(b, node, *parts):
    axis = int(node.attrs.get("axis", 0)) % (len(b.sizes_of(node)) + 1)
    return b.emit("Concat", *(b.emit("Unsqueeze", part, b.whole(axis)) for part in parts), axis=axis)


@_translates("SliceChannel", "split")
def _split(b, node, x):
    count, axis = int(node.attrs["num_outputs"]), int(node.attrs.get("axis", 1))
    size = b.sizes_of(node)[axis]
    if size is None:
        b.refuse("along an axis whose size depends on the input")
    parts = b.emit("Split", x, b.whole(*(size // count,) * count), outputs=count, axis=axis)
    parts = parts if isinstance(parts, list) else [parts]
    return [b.emit("Squeeze", part, b.whole(axis)) for part in parts] if node.attrs.get("squeeze_axis", False) else parts


@_translates("slice_axis")
def _slice_axis(b, node, x):
    axis = int(node.attrs["axis"]) % len(b.sizes_of(node))
    begin, end = int(node.attrs["begin"]), node.attrs.get("end")
    if begin == 0 and end in (None, b.sizes_of(node)[axis]):
        return x  # MXNet needs it for the memory's layout; see layers/concat.py.
    return b.emit("Slice", x, b.whole(begin), b.whole(_FARTHEST if end is None else int(end)), b.whole(axis))


@_translates("slice")
def _slice(b, node, x):
    begins, ends = node.attrs["begin"], node.attrs["end"]
    steps = node.attrs.get("step") or (1,) * len(begins)
    steps = [1 if step is None else step for step in steps]
    if min(steps) < 1:
        b.refuse("with a negative step")
    begins = [0 if begin is None else begin for begin in begins]
    ends = [_FARTHEST if end is None else end for end in ends]
    return b.emit("Slice", x, b.whole(*begins), b.whole(*ends), b.whole(*range(len(begins))), b.whole(*steps))


@_translates("transpose")
def _transpose(b, node, x):
    axes = node.attrs.get("axes") or tuple(reversed(range(len(b.sizes_of(node)))))
    return b.emit("Transpose", x, perm=list(axes))


@_translates("expand_dims")
def _expand_dims(b, node, x):
    return b.emit("Unsqueeze", x, b.whole(int(node.attrs["axis"])))


@_translates("squeeze")
def _squeeze(b, node, x):
    axes = axes_of(node.attrs.get("axis"), len(b.sizes_of(node)))
    return b.emit("Squeeze", x, *([] if axes is None else [b.whole(*axes)]))


@_translates("broadcast_axis", "broadcast_axes")
def _broadcast_axis(b, node, x):
    pair = [value if isinstance(value, (tuple, list)) else (value,) for value in (node.attrs["axis"], node.attrs["size"])]
    target = [1] * len(b.sizes_of(node))
    for axis, size in zip(*pair):
        target[axis] = size
    return b.emit("Expand", x, b.whole(*target))


@_translates("broadcast_like")
def _broadcast_like(b, node, x, like):
    if node.attrs.get("lhs_axes") is not None or node.attrs.get("rhs_axes") is not None:
        b.refuse("with axes")
    return b.emit("Expand", x, b.emit("Shape", like))


@_translates("zeros_like", "ones_like")
def _filled_like(b, node, x):
    from onnx import helper
    value = helper.make_tensor("value", 1, [1], [float(node.op == "ones_like")])  # 1 is float32.
    return b.emit("ConstantOfShape", b.emit("Shape", x), value=value)


@_translates("_contrib_arange_like")
def _arange_like(b, node, x):
    attrs = node.attrs
    if int(attrs.get("repeat", 1)) != 1 or attrs.get("ctx") not in (None, "", "None"):
        b.refuse("with repeat")
    rank, axis = len(b.sizes_of(node)), attrs.get("axis")
    if axis is None and rank != 1:
        b.refuse("of several axes at once")
    count = b.emit("Squeeze", b.size(x, 0 if axis is None else int(axis) % rank), b.whole(0))
    steps = b.emit("Cast", b.emit("Range", b.scalar(0), count, b.scalar(1)), to=1)
    step, start = float(attrs.get("step", 1)), float(attrs.get("start", 0))
    if step != 1:
        steps = b.emit("Mul", steps, b.constant(step))
    return b.emit("Add", steps, b.constant(start)) if start else steps


@_translates("take")
def _take(b, node, x, places):
    axis, mode = int(node.attrs.get("axis", 0)), node.attrs.get("mode", "clip")
    size = b.sizes_of(node)[axis]
    if mode != "clip" or size is None:
        b.refuse(f"mode={mode!r}" if mode != "clip" else "along an axis whose size depends on the input")
    # Places are numbers of float32 in MXNet.
    places = b.emit("Cast", b.emit("Clip", places, b.constant(0.0), b.constant(float(size - 1))), to=7)
    return b.emit("Gather", x, places, axis=axis)


@_translates("reshape_like")
def _reshape_like(b, node, x, like):
    if any(node.attrs.get(key) is not None for key in ("lhs_begin", "lhs_end", "rhs_begin", "rhs_end")):
        b.refuse("of a part of the axes")
    return b.emit("Reshape", x, b.emit("Shape", like))


@_translates("Reshape", "reshape")
def _reshape(b, node, x):
    """The codes of MXNet's shape, which knows more than ONNX's 0 (the same axis) and -1 (what remains)."""
    sizes, reverse = b.sizes_of(node), bool(node.attrs.get("reverse", False))
    target = _targets(b, node.attrs["shape"], len(sizes), reverse)
    # An axis's number, or a product of several; numbers where they are known.
    target = [_known(term, sizes) for term in target]
    open_terms = [place for place, term in enumerate(target) if not isinstance(term, int)]
    plain = [0 if term == (place,) else term for place, term in enumerate(target)]
    if -1 not in target and len(open_terms) == 1:
        plain[open_terms[0]] = -1
    if all(isinstance(term, int) for term in plain):
        return b.emit("Reshape", x, b.whole(*plain))
    shape, parts = b.emit("Shape", x), []
    for term in target:
        if isinstance(term, int):
            parts.append(b.whole(term))
            continue
        part = b.emit("Gather", shape, b.whole(*term), axis=0)
        parts.append(part if len(term) == 1 else b.emit("ReduceProd", part, keepdims=1))
    return b.emit("Reshape", x, b.emit("Concat", *parts, axis=0))


def _targets(b, codes, rank, reverse):
    """For each axis of the result: a number, -1 for what remains, or a tuple of axes of the input to multiply."""
    axes = list(range(rank))
    codes = list(codes)
    if reverse:
        axes.reverse()
        codes.reverse()
    target, position = [], 0
    for code in codes:
        if code == -4:
            b.refuse("shape with -4")
        elif code == -2:
            target += [(axis,) for axis in axes[position:]]
            position = rank
        elif code == -3:
            target.append(tuple(sorted(axes[position:position + 2])))
            position += 2
        else:
            target.append((axes[position],) if code == 0 else int(code))
            position += 1
    return target[::-1] if reverse else target


def _known(term, sizes):
    if isinstance(term, int) or any(sizes[axis] is None for axis in term):
        return term
    return int(np.prod([sizes[axis] for axis in term]))
