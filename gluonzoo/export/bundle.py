"""A folder that classifies images wherever there are NumPy, Pillow and onnxruntime: no MXNet, no gluonzoo."""
import json
import os
import shutil
import tempfile
from typing import NamedTuple

from .._version import __version__
from ..data import transforms
from .metadata import ExportError
from .onnx import OnnxExport, to_onnx
from .onnx_session import load_onnx

__all__ = ["FILES", "Bundle", "bundle"]

FILES = ("model.onnx", "labels.json", "preprocessing.json", "predict.py", "requirements.txt", "README.md")

_TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bundle_files")
_REQUIREMENTS = "numpy\npillow\nonnxruntime>=1.15\n"


class Bundle(NamedTuple):
    """What `bundle` wrote: the folder, and the export of its model."""
    folder: str
    model: OnnxExport


def bundle(net, folder, input_shape=None, *, opset=None, metadata=None, force=False):
    """Write a folder with the network as ONNX, its labels, how images are fitted, a short predict.py and a README.

    predict.py needs numpy, pillow and onnxruntime only, and gives what `Predictor` gives for the same image files. The model
    takes images as uint8 and gives probabilities; it is checked as every export.

    Args:
        net, input_shape, opset: as of `to_onnx`.
        metadata: fields of `Metadata` by name: mean and std, which are needed, and classes and dataset. Without classes the
            labels are numbers.
        force: replace a bundle that is there.
    Returns: Bundle.
    Raises: ExportError as `to_onnx`, or when the folder is there (with `force`: and holds other files); nothing is changed
        then. OSError when the disk fails.
    """
    folder = os.path.abspath(os.fspath(folder))
    _check_folder(folder, force)
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{os.path.basename(folder)}.tmp-", dir=parent) as beside:
        new = os.path.join(beside, "new")
        exported = to_onnx(net, os.path.join(new, "model.onnx"), input_shape, opset=opset, with_preprocess=True,
                           metadata=metadata)
        model = load_onnx(exported.path)
        count = model.session.get_outputs()[0].shape[1]
        _write(new, model.metadata, count)
        if os.path.lexists(folder):
            os.rename(folder, os.path.join(beside, "old"))
        os.rename(new, folder)
    return Bundle(folder, OnnxExport(os.path.join(folder, "model.onnx"), exported.difference, exported.opset,
                                     exported.input_shape))


def _check_folder(folder, force):
    if not os.path.lexists(folder):
        return
    if not force:
        raise ExportError(f"{folder}: already there; use force (--force) to replace it")
    if os.path.islink(folder) or not os.path.isdir(folder):
        raise ExportError(f"{folder}: expected a bundle to replace, found no folder")
    others = sorted(set(os.listdir(folder)) - {*FILES, "__pycache__"})
    if others:
        raise ExportError(f"{folder}: expected a bundle to replace, found {', '.join(others[:3])}; nothing was removed")


def _write(folder, metadata, count):
    """The files beside the model, flushed to the disk."""
    channels, height, width = metadata.input_shape
    rule = {"height": height, "width": width, "channels": channels, "centre_share": transforms.CENTRE_SHARE,
            "small": transforms.LARGEST_SMALL, "margin": transforms.LARGEST_PADDING, "tiny": transforms.TINY,
            "tiny_share": transforms.TINY_SHARE, "luma": transforms.LUMA, "mean": metadata.mean, "std": metadata.std,
            "transform": metadata.transform}
    labels = metadata.classes or [str(number) for number in range(count)]
    with open(os.path.join(_TEMPLATES, "README.md"), encoding="utf-8") as file:
        readme = file.read().format(
            title=metadata.model or "Image classifier", count=count, version=__version__, height=height, width=width,
            channels=channels, input=f"{'grey' if channels == 1 else 'RGB'} images of {height}x{width}")
    texts = {"labels.json": json.dumps(list(labels), ensure_ascii=False, indent=1) + "\n", "README.md": readme,
             "preprocessing.json": json.dumps(rule, indent=1) + "\n", "requirements.txt": _REQUIREMENTS}
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    shutil.copyfile(os.path.join(_TEMPLATES, "predict.py"), os.path.join(folder, "predict.py"))
