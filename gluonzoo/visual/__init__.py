"""Plots and pictures. matplotlib is imported only when one is drawn."""
from .curves import read_log, training_curve

__all__ = ["training_curve", "read_log"]
