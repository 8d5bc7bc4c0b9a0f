"""Image files: decoding, and folders of them by class."""
import io
import re
import warnings

import numpy as np

from ..errors import UserError
from .planes import opencv
from .transforms import to_grey

__all__ = ["EXTENSIONS", "decode", "read", "find_split", "split_beside", "list_classes", "list_images", "shortened"]

#: File names that are read, in lower case; any case is accepted.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm")
#: Images that are not read, so that a folder of them is not passed over silently.
_OTHER_IMAGES = (".gif", ".webp", ".tif", ".tiff", ".avif", ".heic", ".jp2")
#: Folders below a class folder that are still searched.
_DEEPEST = 4


def _pillow():
    """Pillow's Image module, or None where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image


def _decode_pillow(image_module, data):
    with image_module.open(io.BytesIO(data)) as image:
        if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # 16-bit grey; Pillow's own conversion clips it.
            grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if "transparency" in image.info:  # Dropped, as MXNet drops it; converting straight to RGB would warn.
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))


def _jpeg_is_whole(data):
    """Whether the scan of a JPEG ends with its end marker. Embedded previews have one of their own, so skip them."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2:at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def _decode_opencv(cv2, data):
    """A whole JPEG of one or three components by OpenCV, in half of Pillow's time; None where it is anything else.

    Pillow and OpenCV both decode with libjpeg-turbo; four components (CMYK) they turn into RGB in ways of their own.
    """
    at, components = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if 0xC0 <= data[at + 1] <= 0xC2:  # The header of a frame, Huffman-coded as OpenCV reads it.
            components = data[at + 9]
        at += 2 + int.from_bytes(data[at + 2:at + 4], "big")
    if components not in (1, 3) or data.rfind(b"\xff\xd9") < at:
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)


def _png_is_whole(data):
    """Whether the chunks of a PNG lead to its end chunk."""
    at = 8
    while at + 12 <= len(data):
        if data[at + 4:at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at:at + 4], "big")
    return False


def _decode_mxnet(data):
    """Decode with the OpenCV inside MXNet's library, which does not always notice that data is missing."""
    import mxnet as mx
    for kind, start, is_whole in (("JPEG", b"\xff\xd8", _jpeg_is_whole), ("PNG", b"\x89PNG", _png_is_whole)):
        if data.startswith(start) and not is_whole(data):
            raise ValueError(f"the {kind} data is cut short")
    return mx.image.imdecode(data, flag=1).asnumpy()


_PNM = re.compile(rb"(P[2356])" + rb"(?:\s+|#[^\n]*\n)+(\d+)" * 3 + rb"(?:[ \t]*#[^\n]*\n|\s)")


def _decode_pnm(data):
    """Portable grey and colour maps (PGM, PPM), which MXNet's OpenCV was built without.

    Source: Netpbm, "ppm" and "pgm" format specifications.
    """
    header = _PNM.match(data)
    if not header:
        raise ValueError("the header of a PGM or PPM file was expected")
    kind, (columns, rows, most) = header.group(1), map(int, header.groups()[1:])
    channels = 3 if kind in (b"P3", b"P6") else 1
    count = rows * columns * channels
    if count == 0 or not 0 < most < 65536:
        raise ValueError(f"size {columns}x{rows} and maximum {most} are not possible")
    if kind in (b"P2", b"P3"):
        values = np.array(data[header.end():].split()[:count], dtype=np.int64)
    else:
        values = np.frombuffer(data, dtype=np.uint8 if most < 256 else ">u2",
                               count=min(count, (len(data) - header.end()) // (1 if most < 256 else 2)),
                               offset=header.end())
    if len(values) < count:
        raise ValueError(f"{count} values were expected, {len(values)} found")
    if most != 255:
        values = (values.astype(np.int64) * 510 + most) // (2 * most)
    return np.repeat(values.clip(0, 255).astype(np.uint8).reshape(rows, columns, channels), 3 // channels, axis=2)


def decode(data, name, channels=3, decoder=None):
    """An image file's bytes as pixels: jpg, png, bmp, ppm or pgm; grey, RGBA, palette and CMYK are converted.

    Shape: -> (h, w, channels) uint8. Transparency is dropped and EXIF rotation is not applied, as in MXNet.
    Args: name: the file's name, for messages.
        channels: 3 for RGB, 1 for grey.
        decoder: "opencv", "pillow" or "mxnet"; by default OpenCV for JPEGs and Pillow for the rest, where they are
            installed: they decode in several threads at once. All give the same pixels (CMYK: within 1).
    Raises: UserError that names the file when it cannot be decoded.
    """
    try:
        image = None
        if data[:1] == b"P" and data[1:2] in b"2356":
            image = _decode_pnm(data)
        elif decoder in (None, "opencv") and data[:2] == b"\xff\xd8" and opencv() is not None:
            image = _decode_opencv(opencv(), data)
        if image is None:  # Of another kind, or damaged: what is wrong the others tell.
            pillow = _pillow() if decoder != "mxnet" else None
            image = _decode_pillow(pillow, data) if pillow else _decode_mxnet(data)
    except Exception as error:  # Decoders raise whatever they like; a damaged file must be named in any case.
        reason = " ".join(str(error).split()).split("Stack trace")[0]
        raise UserError(f"{name}: cannot be read as an image ({len(data)} bytes): {reason[:160]}") from error
    return image if channels == 3 else to_grey(image)


def read(source, name, channels=3):
    """Decode a file of a `Folder` or `Zip`: (h, w, channels) uint8. Raises: UserError that names it."""
    return decode(source.read(name), source.label(name), channels)


def find_split(source, splits, depth=2):
    """The folder of a split (`splits`: its names, the preferred one first) at the top of a source or up to `depth`
    levels below: its path in the source, or None."""
    level = [""]
    for _ in range(depth + 1):
        following = []
        for folder in level:
            children = source.children(folder)[0]
            for split in splits:
                if split in children:
                    return f"{folder}/{split}" if folder else split
            following += [f"{folder}/{child}" if folder else child for child in children]
        level = following[:1000]
    return None


def split_beside(source, training, splits):
    """The folder of another split beside that of training: the first of `splits` that exists.

    Raises: UserError when there is none.
    """
    parent = training.rpartition("/")[0]
    beside = source.children(parent)[0]
    for name in splits:
        if name in beside:
            return f"{parent}/{name}" if parent else name
    raise UserError(f"{source.label(parent) if parent else source.path}: expected a folder {', '.join(splits[:-1])} or "
                    f"{splits[-1]} beside train, found {shortened(beside)}")


def list_classes(source, split):
    """Sorted names of the class folders in a split's folder. Raises: UserError when there are fewer than two."""
    classes = source.children(split)[0]
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"{source.label(split)}: expected a folder for each of at least two classes, found {found}")
    return classes


def _images_below(source, folder, depth=0):
    folders, files = source.children(folder)
    images = [f"{folder}/{name}" for name in files if name.lower().endswith(EXTENSIONS)]
    other = sum(name.lower().endswith(_OTHER_IMAGES) for name in files)
    for name in folders if depth < _DEEPEST else ():
        more, passed = _images_below(source, f"{folder}/{name}", depth + 1)
        images, other = images + more, other + passed
    return images, other


def list_images(source, split, classes):
    """The images of a split: paths in order of class and name, and the class number of each.

    Shape: -> list of N names, (N,) int32.
    Args: classes: names of the classes in the order of their numbers; folders of some may be absent.
    Raises: UserError when a folder has another name or holds no image.
    """
    folders = source.children(split)[0]
    extra = [name for name in folders if name not in classes]
    if extra:
        raise UserError(f"{source.label(split)}: expected classes among those of the training images "
                        f"({shortened(classes)}), found {shortened(extra)}")
    names, labels, passed = [], [], 0
    for number, name in enumerate(classes):
        if name not in folders:
            continue
        images, other = _images_below(source, f"{split}/{name}")
        if not images:
            raise UserError(f"{source.label(split + '/' + name)}: expected images ({', '.join(EXTENSIONS)}), found "
                            + (f"{other} of other kinds" if other else "none"))
        names, labels, passed = names + images, labels + [number] * len(images), passed + other
    if not names:
        raise UserError(f"{source.label(split)}: expected images by class, found none")
    if passed:
        warnings.warn(f"{source.label(split)}: {passed} images of kinds that are not read were left out "
                      f"(read are {', '.join(EXTENSIONS)})", stacklevel=2)
    return names, np.asarray(labels, dtype=np.int32)


def shortened(names, most=5):
    """The first few names of many, for a message."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
