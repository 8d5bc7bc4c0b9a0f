"""Spatial transformer networks: a digit classifier, and a classifier of birds that looks at two or four parts of a picture.

Source: M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, Spatial Transformer Networks, 2015, arXiv:1506.02025.
- `stn_mnist`: the layers of PyTorch's tutorial "Spatial Transformer Networks", whose initialisation it also has (uniform with
  variance 1 / (3 fan_in)), with biases of 0. The paper's digit networks (section 4.1) have other sizes.
- `stn_cub`: section 4.3, table 3 and the appendix on its details. One BN-Inception without pooling and classifier, followed by
  a 1x1 convolution to 128 channels and dense layers of 128 and 2 x transformers, gives the centres of 224x224 crops at half the
  picture's scale; each crop has a BN-Inception of its own, and the 1024-vectors of all are classified together.
What the paper leaves open for `stn_cub`, and what was chosen: how the localisation sees 448x448 pictures (reduced to 224x224 by
2x2 averages: the paper's cost does not grow with 448); the activations between its last layers (ReLU); where the crops start
(side by side for 2, in the four quadrants for 4, by weights of 0 and these biases); which BN-Inception (`bn_inception`, here
with weights to be loaded from one trained on ImageNet, as the paper's were). The parameters of its row in other tables are
therefore not defined by the paper; here they are those of what was built.
Differences: crops may lie partly outside the picture, where they are 0; the paper does not say.
"""
import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..errors import UserError
from ..layers import GlobalAveragePool, Network, SpatialTransformer, Stages, concat_channels, sample_affine
from ..layers.spatial_transformer import Values
from ..registry import ModelSpec, register
from .bn_inception import BNInception

__all__ = ["STNMNIST", "STNCUB", "AttentionCrops", "Streams", "stn_mnist", "stn_cub"]

#: Transformers -> (x, y) of the centres of their crops at first; a crop of half the scale around (0.5, 0.5) is a quadrant.
CENTRES = {2: (-0.5, 0, 0.5, 0), 4: (-0.5, -0.5, 0.5, -0.5, -0.5, 0.5, 0.5, 0.5)}

TUTORIAL = mx.init.Xavier("uniform", factor_type="in", magnitude=1)
HE = mx.init.MSRAPrelu(factor_type="in", slope=0)


def _pooled_conv(in_channels, channels, kernel_size, dropout=0, prefix=None):
    """Convolution without padding, dropout of whole maps, 2x2 max pooling, ReLU."""
    block = nn.HybridSequential(prefix=prefix)
    with block.name_scope():
        block.add(nn.Conv2D(channels, kernel_size, in_channels=in_channels, weight_initializer=TUTORIAL))
        if dropout:
            block.add(nn.Dropout(dropout, axes=(2, 3)))
        block.add(nn.MaxPool2D(2), nn.Activation("relu"))
    return block


class STNMNIST(Network):
    """A small convolutional network with a spatial transformer before its first layer.

    Shape: (N, in_channels, 28, 28) -> (N, classes), logits.
    """

    def __init__(self, classes=10, in_channels=1):
        super().__init__(classes, in_channels, min_size=(28, 28), fixed_size=True)
        with self.name_scope():
            localisation = nn.HybridSequential(prefix="localisation_")
            with localisation.name_scope():                                                         # N x 1 x 28 x 28
                localisation.add(_pooled_conv(in_channels, 8, 7), _pooled_conv(8, 10, 5),           # N x 10 x 3 x 3
                                 nn.Dense(32, activation="relu", in_units=90, weight_initializer=TUTORIAL))
            self.features = Stages(prefix="features_")
            with self.features.name_scope():
                self.features.transform = SpatialTransformer(localisation, 32, prefix="transform_")  # N x 1 x 28 x 28
                self.features.conv1 = _pooled_conv(in_channels, 10, 5, prefix="conv1_")             # N x 10 x 12 x 12
                self.features.conv2 = _pooled_conv(10, 20, 5, dropout=0.5, prefix="conv2_")         # N x 20 x 4 x 4
            self.fc1 = nn.Dense(50, activation="relu", in_units=320, weight_initializer=TUTORIAL)
            self.dropout = nn.Dropout(0.5)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=50, weight_initializer=TUTORIAL, prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.fc1(self.features(x))))


class AttentionCrops(HybridBlock):
    """Parallel spatial transformers of half the scale, whose centres one localisation network gives.

    Shape: (N, in_channels, 448, 448) -> (N, transformers x in_channels, 224, 224), crop after crop.
    """

    def __init__(self, in_channels, transformers, prefix=None):
        super().__init__(prefix=prefix)
        self._transformers, self._in_channels = transformers, in_channels
        with self.name_scope():
            self.localisation = nn.HybridSequential(prefix="localisation_")
            with self.localisation.name_scope():                                                    # N x 3 x 448 x 448
                self.localisation.add(
                    nn.AvgPool2D(2), BNInception(in_channels=in_channels).features,                 # N x 1024 x 7 x 7
                    nn.Conv2D(128, 1, in_channels=1024, activation="relu", weight_initializer=HE),
                    nn.Dense(128, activation="relu", in_units=128 * 7 * 7, weight_initializer=HE))
            self.centres = nn.Dense(2 * transformers, in_units=128, weight_initializer="zeros",
                                    bias_initializer=Values(CENTRES[transformers]), prefix="centres_")

    def hybrid_forward(self, F, x):
        centres, crops = self.centres(self.localisation(x)), []
        for index in range(self._transformers):
            right = F.slice_axis(centres, axis=1, begin=2 * index, end=2 * index + 1)
            down = F.slice_axis(centres, axis=1, begin=2 * index + 1, end=2 * index + 2)
            zero = F.zeros_like(right)
            theta = F.concat(zero + 0.5, zero, right, zero, zero + 0.5, down, dim=1)
            crops.append(sample_affine(F, x, theta, size=(224, 224)))
        return concat_channels(F, crops, [self._in_channels] * self._transformers)


class Streams(HybridBlock):
    """A BN-Inception without pooling and classifier for each crop.

    Shape: (N, transformers x in_channels, 224, 224) -> (N, transformers x 1024, 7, 7).
    """

    def __init__(self, in_channels, transformers, prefix=None):
        super().__init__(prefix=prefix)
        self._in_channels = in_channels
        with self.name_scope():
            for index in range(transformers):
                setattr(self, f"stream{index + 1}", BNInception(in_channels=in_channels).features)

    def hybrid_forward(self, F, x):
        width, streams = self._in_channels, list(self._children.values())
        maps = [stream(F.slice_axis(x, axis=1, begin=index * width, end=(index + 1) * width))
                for index, stream in enumerate(streams)]
        return concat_channels(F, maps, [1024] * len(streams))


class STNCUB(Network):
    """2 or 4 parallel spatial transformers, each with its own BN-Inception, and one classifier for all.

    Args:
        transformers: 2 or 4.
    Shape: (N, in_channels, 448, 448) -> (N, classes), logits.
    """

    def __init__(self, classes=200, in_channels=3, transformers=2):
        if isinstance(transformers, bool) or transformers not in CENTRES:
            raise UserError(f"transformers is {transformers!r}; expected 2 or 4")
        super().__init__(classes, in_channels, min_size=(448, 448), fixed_size=True)
        self._units = 1024 * transformers
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                        # N x 3 x 448 x 448
                self.features.transform = AttentionCrops(in_channels, transformers, prefix="transform_")  # N x 6 x 224 x 224
                self.features.describe = Streams(in_channels, transformers, prefix="describe_")     # N x 2048 x 7 x 7
            self.pool = GlobalAveragePool()                                                         # N x 2048
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._units, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


@register(ModelSpec(
    task="classification", family="STN", year=2015, classes=10, input_shape=(1, 28, 28), params=27360, macs=771300,
    paper="Spatial Transformer Networks", link="arXiv:1506.02025", learning_rate=0.01))
def stn_mnist(classes=10, in_channels=1):
    """Digit classifier with a spatial transformer; see `STNMNIST`. 28x28 inputs."""
    return STNMNIST(classes, in_channels)


@register(ModelSpec(
    task="classification", family="STN", year=2015, classes=200, input_shape=(3, 448, 448), params=32155180, macs=6102363648,
    paper="Spatial Transformer Networks", link="arXiv:1506.02025", notes="the paper does not fix the counts"))
def stn_cub(classes=200, in_channels=3, transformers=2):
    """Classifier of birds with 2 (or 4) parallel spatial transformers; see `STNCUB`. 448x448 inputs."""
    return STNCUB(classes, in_channels, transformers)
