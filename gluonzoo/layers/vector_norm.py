"""BatchNorm of vectors that does not crash."""
from mxnet.gluon import nn

__all__ = ["VectorBatchNorm"]


class VectorBatchNorm(nn.BatchNorm):
    """BatchNorm behind a dense layer.

    MXNet 1.9.1 gives oneDNN a vector under the description of an image of one pixel. After another network's BatchNorm of as
    many channels had run on such images in the same thread, an eager call died of SIGSEGV: the output had no memory of that
    description. Vectors therefore are images of one pixel here.

    Shape: (N, in_channels) -> (N, in_channels).
    """

    def hybrid_forward(self, F, x, **parameters):
        return F.Flatten(super().hybrid_forward(F, F.reshape(x, shape=(0, 0, 1, 1)), **parameters))
