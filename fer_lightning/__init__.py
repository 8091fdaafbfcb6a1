"""Facial expression recognition experiments one can trust.

Importing the package is free: torch and lightning are imported by the modules that need them, so that
``python train.py --help`` answers at once.
"""

__version__ = "0.1.0"
