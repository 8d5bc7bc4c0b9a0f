"""The table's operators about places in a map: pooling of regions and to a size, spatial transformers, resizing."""
import numpy as np

from .onnx_builder import into

__all__ = ["TABLE"]

TABLE = {}
_translates = into(TABLE)


@_translates("ROIPooling")
def _roi_pooling(b, node, x, regions):
    # The same rounding of a region's edges and of its bins' on both sides.
    return b.emit("MaxRoiPool", x, regions, pooled_shape=list(node.attrs["pooled_size"]),
                  spatial_scale=float(node.attrs["spatial_scale"]))


@_translates("_contrib_AdaptiveAvgPooling2D")
def _adaptive_pooling(b, node, x):
    """Bin i of n over H rows is the mean from floor(i H / n) to ceil((i + 1) H / n): a matrix (n, H) from each side."""
    size = node.attrs.get("output_size") or (1, 1)
    size = tuple(size) * (2 if len(size) == 1 else 1) if isinstance(size, (tuple, list)) else (size, size)
    if size == (1, 1):
        return b.emit("GlobalAveragePool", x)
    sizes = b.sizes_of(node)[2:]
    if None not in sizes and not any(old % new for old, new in zip(sizes, size)):
        kernel = [old // new for old, new in zip(sizes, size)]
        return b.emit("AveragePool", x, kernel_shape=kernel, strides=kernel)
    rows, columns = (_means(b, x, axis, new) for axis, new in zip((2, 3), size))
    return b.emit("MatMul", b.emit("MatMul", rows, x), b.emit("Transpose", columns, perm=[1, 0]))


def _means(b, x, axis, bins):
    """The matrix (bins, size of the axis), made while the graph runs."""
    start = np.arange(bins, dtype=np.int64)[:, None]
    size = b.size(x, axis)
    first = b.emit("Div", b.emit("Mul", b.constant(start), size), b.scalar(bins))
    end = b.emit("Div", b.emit("Add", b.emit("Mul", b.constant(start + 1), size), b.scalar(bins - 1)), b.scalar(bins))
    places = b.emit("Range", b.scalar(0), b.emit("Squeeze", size, b.whole(0)), b.scalar(1))
    outside = b.emit("Or", b.emit("Less", places, first), b.emit("Not", b.emit("Less", places, end)))
    share = b.emit("Reciprocal", b.emit("Cast", b.emit("Sub", end, first), to=1))
    return b.emit("Where", outside, b.constant(0.0), share)


@_translates("GridGenerator")
def _grid(b, node, x):
    """Points (x, y) in [-1, 1] to sample at: (N, 2, H, W)."""
    if node.attrs["transform_type"] == "affine":
        height, width = node.attrs["target_shape"]
        down, across = (np.linspace(-1, 1, size, dtype=np.float64) for size in (height, width))
        grid = np.stack([np.tile(across, height), np.repeat(down, width), np.ones(height * width)]).astype(np.float32)
        points = b.emit("MatMul", b.emit("Reshape", x, b.whole(-1, 2, 3)), b.constant(grid))
        return b.emit("Reshape", points, b.whole(-1, 2, height, width))
    # A flow in pixels is added to every pixel's own place.
    places, scales = [], []
    for axis in (3, 2):
        size = b.size(x, axis)
        place = b.emit("Cast", b.emit("Range", b.scalar(0), b.emit("Squeeze", size, b.whole(0)), b.scalar(1)), to=1)
        places.append(b.emit("Unsqueeze", place, b.whole(*((0, 1, 2) if axis == 3 else (0, 1, 3)))))
        half = b.emit("Mul", b.emit("Cast", b.emit("Sub", size, b.scalar(1)), to=1), b.constant(0.5))
        scales.append(b.emit("Reshape", half, b.whole(1, 1, 1, 1)))
    parts = []
    for channel, (place, scale) in enumerate(zip(places, scales)):
        flow = b.emit("Slice", x, b.whole(channel), b.whole(channel + 1), b.whole(1))
        parts.append(b.emit("Sub", b.emit("Div", b.emit("Add", flow, place), scale), b.constant(1.0)))
    return b.emit("Concat", *parts, axis=1)


@_translates("BilinearSampler")
def _sampler(b, node, x, grid):
    """-1 and 1 are the centres of the first and the last pixel, and outside the map there are zeros."""
    b.need(16, "GridSample")
    points = b.emit("Transpose", grid, perm=[0, 2, 3, 1])
    return b.emit("GridSample", x, points, mode="linear" if b.opset >= 20 else "bilinear", padding_mode="zeros",
                  align_corners=1)


@_translates("UpSampling")
def _upsampling(b, node, x, *weights):
    scale = float(node.attrs["scale"])
    if node.attrs["sample_type"] != "nearest" or weights:
        b.refuse(f"sample_type={node.attrs['sample_type']!r}")
    return b.emit("Resize", x, "", b.constant([1.0, 1.0, scale, scale]), mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")
