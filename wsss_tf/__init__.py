"""Weakly supervised semantic segmentation in TensorFlow and Keras."""

__version__ = "0.1.0"
