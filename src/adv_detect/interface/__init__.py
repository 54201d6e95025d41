"""Use from Python: open a model and score pictures, or fit a detector to a network of one's own; no Kedro needed."""

from adv_detect.interface.gate import Gate, load
from adv_detect.interface.own_detector import fit

__all__ = ["Gate", "fit", "load"]
