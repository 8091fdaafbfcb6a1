"""Reproducible facial expression recognition with PyTorch Lightning and Hydra.

Importing the package imports nothing else: the modules that need torch and Lightning import them, so that
``python train.py --help`` answers at once.
"""

__version__ = "0.1.0"
