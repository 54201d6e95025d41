"""Facts of a run for its report: network, layers, versions, parameters."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd
from pydantic import BaseModel

from adv_detect import __version__
from adv_detect.networks.target import TargetNetwork

PACKAGES = ("foolbox", "kedro", "mlflow", "numpy", "scikit-learn", "torch", "torchvision")
NETWORK_FACTS = ("name", "num_classes", "image_shape", "bounds", "layers", "accuracy")
BLOCKS = (
    "runtime",
    "network",
    "splits",
    "target_training",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "evaluation",
)


def network_facts(network: TargetNetwork) -> dict[str, object]:
    """Describe a network in plain values.

    Args:
        network: The network under attack.

    Returns:
        Name, number of classes, image shape, pixel bounds, layers, accuracy.
    """
    spec = network.spec.model_dump(mode="json")
    return {name: spec[name] for name in NETWORK_FACTS}


def layer_table(network: TargetNetwork) -> pd.DataFrame:
    """List how each layer of the network is read.

    Args:
        network: The network under attack.

    Returns:
        A row per layer: ``layer``, ``output``, ``channel axis``, ``width``, ``found by``.
    """
    rows = [
        {
            "layer": one.name,
            "output": f"(N, {', '.join(map(str, one.shape[1:]))})",
            "channel axis": str(one.channels),
            "width": str(one.width),
            "found by": one.found_by,
        }
        for one in network.spec.readings
    ]
    return pd.DataFrame(rows)


def package_versions() -> dict[str, str]:
    """List the versions of this package and of those that decide numbers, and the machine."""
    packages = {"adv-detect": __version__, **{name: version(name) for name in PACKAGES}}
    return packages | {
        "python": platform.python_version(), "system": platform.system(), "processor": platform.machine(),
    }  # fmt: skip


def run_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give the blocks of parameters of the main job in plain values.

    Args:
        parameters: All parameters of the run, as plain values or typed blocks.

    Returns:
        The blocks that are there, by name.
    """
    return {name: _plain(parameters[name]) for name in BLOCKS if name in parameters}


def _plain(block: Any) -> Any:
    return block.model_dump(mode="json") if isinstance(block, BaseModel) else block
