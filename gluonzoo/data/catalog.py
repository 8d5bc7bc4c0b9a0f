"""The published data sets: their classes, files, digests, and where they are published.

SHA-256 digests. Of the unpacked idx files (`plain`): computed from the files. Of the published `.gz` and `.tar.gz`
files (`sha256`): those that TensorFlow Datasets and many other public projects check against. The authors publish only
MD5: CIFAR-10 c32a1d4ab5d03f1284b67883e8d87530 and CIFAR-100 03b5dce01913d631647c71ecec9e9cb8 (binary versions), which
those projects list beside the same SHA-256.
"""
from dataclasses import dataclass
from typing import Tuple

__all__ = ["Resource", "Published", "PUBLISHED"]


@dataclass(frozen=True)
class Resource:
    """A published file. `size` in bytes; `plain`: SHA-256 of what a .gz file unpacks to, or "" where there is none."""

    file: str
    size: int
    sha256: str
    plain: str = ""


@dataclass(frozen=True)
class Published:
    """A published data set.

    mean, std: of the training pixels in [0, 1]. folders: names of its folder, ours first, MXNet's own second.
    zips: regular expression of a zip file's name. mirrors: base addresses. resources: the published files of
    (train, test). cifar: (label name, classes) of every label byte, the last one being the label; empty for idx.
    files: names in the tar file for (train, test). records: images in (train, test). pickled: what the Python version,
    which is never read, is called.
    """

    name: str
    title: str
    classes: Tuple[str, ...]
    image_shape: Tuple[int, int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    augment: str
    folders: Tuple[str, ...]
    zips: str
    mirrors: Tuple[str, ...]
    resources: Tuple[Tuple[Resource, ...], Tuple[Resource, ...]]
    cifar: Tuple[Tuple[str, int], ...] = ()
    files: Tuple[Tuple[str, ...], Tuple[str, ...]] = ((), ())
    records: Tuple[int, int] = (0, 0)
    pickled: Tuple[str, ...] = ()


_DIGITS = tuple("0123456789")

_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CIFAR100 = tuple("""
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
""".split())

_MXNET_MIRROR = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/"

_CIFAR10_FILES = (Resource("cifar-10-binary.tar.gz", 170052171,
                           "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),)
_CIFAR100_FILES = (Resource("cifar-100-binary.tar.gz", 168513733,
                            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),)

PUBLISHED = {
    "mnist": Published(
        "mnist", "MNIST", _DIGITS, (1, 28, 28), (0.1307,), (0.3081,), "none",
        ("mnist", "MNIST", "MNIST/raw"), r"mnist.*\.zip",
        ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/",
         _MXNET_MIRROR + "mnist/"),
        ((Resource("train-images-idx3-ubyte.gz", 9912422,
                   "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                   "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
          Resource("train-labels-idx1-ubyte.gz", 28881,
                   "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                   "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5")),
         (Resource("t10k-images-idx3-ubyte.gz", 1648877,
                   "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                   "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
          Resource("t10k-labels-idx1-ubyte.gz", 4542,
                   "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                   "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2")))),
    "fashion_mnist": Published(
        "fashion_mnist", "Fashion-MNIST", _FASHION, (1, 28, 28), (0.2860,), (0.3530,), "crop+flip",
        ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"), r"fashion[-_]?mnist.*\.zip",
        ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
         "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _MXNET_MIRROR + "fashion-mnist/"),
        ((Resource("train-images-idx3-ubyte.gz", 26421880,
                   "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                   "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
          Resource("train-labels-idx1-ubyte.gz", 29515,
                   "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                   "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9")),
         (Resource("t10k-images-idx3-ubyte.gz", 4422102,
                   "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                   "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
          Resource("t10k-labels-idx1-ubyte.gz", 5148,
                   "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                   "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34")))),
    "cifar10": Published(
        "cifar10", "CIFAR-10", _CIFAR10, (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "crop+flip",
        ("cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"), r"cifar[-_]?10(?!0).*\.zip",
        ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        (_CIFAR10_FILES, _CIFAR10_FILES), (("label", 10),),
        (tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",)), (50000, 10000),
        ("cifar-10-batches-py", "cifar-10-python.tar.gz", "batches.meta")),
    "cifar100": Published(
        "cifar100", "CIFAR-100", _CIFAR100, (3, 32, 32), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
        "crop+flip", ("cifar100", "cifar-100-binary", "cifar100/cifar-100-binary"), r"cifar[-_]?100.*\.zip",
        ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        (_CIFAR100_FILES, _CIFAR100_FILES), (("coarse", 20), ("fine", 100)), (("train.bin",), ("test.bin",)),
        (50000, 10000), ("cifar-100-python", "cifar-100-python.tar.gz", "meta")),
}
