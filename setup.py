"""Packaging. NumPy's version follows Python's, because MXNet 1.9.1 needs another cure for each (see gluonzoo/runtime.py)."""
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "gluonzoo" / "_version.py").read_text()).group(1)

REQUIRED = [
    "numpy>=1.19,<1.24; python_version < '3.12'",
    "numpy>=1.26,<2; python_version == '3.12'",
    "numpy>=2.1,<3; python_version >= '3.13'",
    # On 3.13 MXNet's metadata refuses NumPy 2, so it is installed by a command of its own: pip install --no-deps mxnet==1.9.1
    "mxnet==1.9.1; python_version < '3.13'",
    "requests>=2.20",
    "graphviz<0.9",
    "setuptools>=65; python_version >= '3.12'",  # distutils
    "tqdm>=4.60",
    # What `export.fuse` runs networks with: oneDNN 2.6, which MXNet's own 2.4 does not let anybody call.
    "onednn-cpu-gomp==2022.2.1; sys_platform == 'linux' and platform_machine == 'x86_64'",
]
VISUAL = ["matplotlib>=3.5", "tensorboardX>=2.5", "pillow>=9"]
DEMO = ["scikit-learn>=1.0", *VISUAL]
# Both have wheels for every Python from 3.8 to 3.13.
EXPORT = ["onnx>=1.17", "onnxruntime>=1.15"]
EXTRAS = {
    "demo": DEMO,
    "visual": VISUAL,
    # Pillow packs images and reads all kinds; OpenCV decodes and resizes JPEGs in half of its time.
    "data": ["opencv-python-headless>=4.5", "pillow>=9"],
    "export": EXPORT,
    "vision": ["gluoncv==0.10.5.post0", "opencv-python-headless>=4.5", "pillow>=9"],
    "interop": ["safetensors>=0.4"],
    "caffe": ["protobuf>=3.20"],
    "torch": ["torch>=2", "safetensors>=0.4"],
    # OpenCV reads Caffe's networks too, up to version 4: what it computes is compared with ours.
    "test": ["pytest>=7", "pytest-xdist>=3", "kubernetes-validate>=1.29", "safetensors>=0.4", "protobuf>=3.20",
             "opencv-python-headless>=4.5,<5", *EXPORT, *DEMO],
}

setup(
    name="gluonzoo",
    version=VERSION,
    description="Classic vision networks, a KVStore trainer, launchers and export for MXNet/Gluon",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.8,<3.14",
    packages=find_packages(include=["gluonzoo", "gluonzoo.*"]),
    package_data={"gluonzoo.export": ["bundle_files/*"], "gluonzoo.visual": ["report_files/*"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
