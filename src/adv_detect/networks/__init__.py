"""Networks under attack, the layers read from them and the readers of their weight files."""

from __future__ import annotations

from adv_detect.networks.registry import build_network, default_layers
from adv_detect.networks.weights import load_weights

__all__ = ["build_network", "default_layers", "load_weights"]
