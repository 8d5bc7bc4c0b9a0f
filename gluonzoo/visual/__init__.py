"""Plots and pictures. matplotlib is imported only when one is drawn."""
from .compare import accuracy_picture
from .curves import read_log, training_curve
from .deconvnet import Projection, deconvnet, deconvnet_picture
from .filters import filters
from .maps import feature_maps
from .overlay import overlaid_curves
from .predictions import prediction_picture
from .report import write_report
from .report_seeds import write_comparison
from .report_table import write_table

__all__ = ["training_curve", "read_log", "accuracy_picture", "filters", "feature_maps", "deconvnet", "deconvnet_picture",
           "Projection", "prediction_picture", "overlaid_curves", "write_report", "write_table",
           "write_comparison"]
