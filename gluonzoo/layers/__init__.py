"""Blocks that several families use the same way, and that are useful alone."""
from .concat import concat_channels
from .network import FeatureMaps, Network, Stages, check_positive, features
from .pooling import GlobalAveragePool
from .residual import BasicUnit, BottleneckUnit, ConvNorm, ZeroPadShortcut, he_conv, make_shortcut, residual_stage

__all__ = ["concat_channels", "Network", "Stages", "FeatureMaps", "features", "check_positive",
           "BasicUnit", "BottleneckUnit", "ConvNorm", "ZeroPadShortcut", "he_conv", "make_shortcut",
           "residual_stage", "GlobalAveragePool"]
