"""Detection of adversarial attacks on image classifiers and face-recognition networks."""

__version__ = "0.1.0"
