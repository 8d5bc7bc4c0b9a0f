"""The version, alone in its file so that setup.py and the launcher can read it without importing MXNet."""
__version__ = "0.1.0"
