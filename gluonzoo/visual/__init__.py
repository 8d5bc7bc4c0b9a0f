"""Plots and pictures. matplotlib is imported only when one is drawn."""
from .compare import accuracy_picture
from .curves import read_log, training_curve
from .deconvnet import Projection, deconvnet, deconvnet_picture
from .filters import filters
from .maps import feature_maps
from .predictions import prediction_picture

__all__ = ["training_curve", "read_log", "accuracy_picture", "filters", "feature_maps", "deconvnet", "deconvnet_picture",
           "Projection", "prediction_picture"]
