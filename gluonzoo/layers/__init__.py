"""Blocks that several families use the same way, and that are useful alone."""
from .aggregated import GroupedConvNorm, ResNeXtUnit, plain_layout
from .binary import BinaryConv2D, BinaryWeightConv2D, binarize, sign
from .binary_network import BINARY, NormBinaryConv2D, binary_convolutions
from .concat import concat_channels
from .crelu import CReLU
from .dense_block import DenseBlock, DenseLayer, DenseTransition, NormReLU, NormReLUConv
from .dense_head import DenseHeadNetwork, FullyConvolutional, to_fully_convolutional
from .dropout import make_dropout
from .inception import Inception, conv_chain, inception_stage
from .initializers import TruncatedNormal
from .lrn import LRN
from .mlpconv import MLPConv
from .network import FeatureMaps, Network, Stages, check_flag, check_positive, features
from .pooling import GlobalAveragePool
from .preact import PreBasicUnit, PreBottleneckUnit, expect_variances
from .prelu import PReLU
from .pyramid import SpatialPyramidPool
from .residual import BasicUnit, BottleneckUnit, ConvNorm, ZeroPadShortcut, he_conv, make_shortcut, residual_stage
from .separable import DepthwiseSeparable
from .shuffle import ChannelShuffle
from .spatial_transformer import SpatialTransformer, sample_affine
from .squeeze_excite import SqueezeExcite
from .stochastic_depth import drop_branch, stochastic_depth, survival_rates
from .sync_norm import SyncBatchNorm, sync_batch_norm
from .vector_norm import VectorBatchNorm
from .weight_layers import weight_names

__all__ = ["concat_channels", "Network", "Stages", "FeatureMaps", "features", "check_flag", "check_positive",
           "BasicUnit", "BottleneckUnit", "ConvNorm", "ZeroPadShortcut", "he_conv", "make_shortcut",
           "residual_stage", "GlobalAveragePool",
           "LRN", "MLPConv", "PReLU", "SpatialPyramidPool", "DenseHeadNetwork", "FullyConvolutional", "to_fully_convolutional",
           "PreBasicUnit", "PreBottleneckUnit", "expect_variances", "ResNeXtUnit", "GroupedConvNorm", "plain_layout",
           "SqueezeExcite",
           "DenseBlock", "DenseLayer", "DenseTransition", "NormReLU", "NormReLUConv", "make_dropout", "TruncatedNormal",
           "DepthwiseSeparable", "ChannelShuffle",
           "BINARY", "NormBinaryConv2D", "binary_convolutions", "weight_names",
           "BinaryConv2D", "BinaryWeightConv2D", "binarize", "sign", "CReLU", "SpatialTransformer", "sample_affine",
           "SyncBatchNorm", "sync_batch_norm", "drop_branch", "stochastic_depth", "survival_rates",
           "VectorBatchNorm", "Inception", "conv_chain", "inception_stage"]
