"""Network and stored detector as one model, and what it costs to score an image with it."""

from __future__ import annotations

import time

import pandas as pd
import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors import Detector, StoredDetector, is_differentiable
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.views import Views
from adv_detect.errors import DataError
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork

TIMED = 16
"""Images that the time per image is measured on, in one batch."""
REPEATS = 2
COSTS = ("forward_passes", "ms_per_image", "bytes", "differentiable")


def join(
    stored: StoredDetector, network: TargetNetwork, device: torch.device, *, twin: TargetNetwork | None = None
) -> DetectionModel:
    """Join a detector with its network on a device, in evaluation mode, as an attacker who knows everything has it.

    Args:
        stored: The detector.
        network: The network, in the form that gradients are taken from.
        device: Where to attack.
        twin: The second network, which a detector may read.

    Returns:
        Images to class logits and scores.

    Raises:
        DataError: The detector reads a twin, and there is none.
    """
    views = Views.build(stored.views, network.spec.bounds)
    if stored.detector.reads.twin and twin is None:
        raise DataError(f"{stored.key} reads the twin, and there is none; run the pipeline twin_training")
    second = working_form(twin.freeze(), device) if twin is not None and stored.detector.reads.twin else None
    model = DetectionModel(network, stored.detector, network.spec.layers, views=views, twin=second)
    model.to(device).eval().requires_grad_(False)
    return model


def measure_costs(
    stored: list[StoredDetector], network: TargetNetwork, twin: TargetNetwork | None, images: Tensor, *, device: str
) -> pd.DataFrame:
    """Measure what scoring an image costs with each detector: network, views, twin and detector together.

    Args:
        stored: The detectors.
        network: The network under attack.
        twin: The second network, where a detector reads it.
        images: Natural images; the first `TIMED` are scored.
        device: Where to score.

    Returns:
        A row per detector: ``detector``, ``forward_passes`` (of the network, and of the twin, per clean image),
        ``ms_per_image`` (the fastest of two batches after a first), ``bytes`` (its state, and that of the twin where it
        reads it), ``differentiable``.
    """
    place = resolve_device(device)
    working = working_form(network.freeze(), place)
    rows = []
    for one in stored:
        second = twin if one.detector.reads.twin else None
        model = join(one, working, place, twin=second)
        rows.append(
            {
                "detector": one.key,
                "forward_passes": float(one.facts.get("forward_passes", 1.0)) + (second is not None),
                "ms_per_image": _milliseconds(model, images[:TIMED].to(place)),
                "bytes": _state_bytes(one.detector) + (0 if second is None else _state_bytes(second)),
                "differentiable": is_differentiable(one.params),
            }
        )
        one.detector.cpu()
    return pd.DataFrame(rows, columns=["detector", *COSTS])


def _milliseconds(model: DetectionModel, images: Tensor) -> float:
    seconds = []
    with torch.no_grad():
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            model(images)[1].cpu()  # waits for a device that computes on its own
            seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds[1:]) / max(len(images), 1)


def _state_bytes(module: Detector | nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in module.state_dict().values())
