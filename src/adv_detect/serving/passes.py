"""Passes of images through network and detector, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import device_of
from adv_detect.errors import DataError
from adv_detect.serving.explanation import Explainer

CHUNK, CPU_CHUNK = 256, 32
"""Images a forward pass; more than a few bring no speed on a processor, and take memory."""


@dataclass(frozen=True)
class Passed:
    """Answers of network and detector for N images.

    Attributes:
        predicted: Class that the network names, int64 ``(N,)``.
        scores: Float64 ``(N,)``; may hold what is not finite.
        explanation: As from :class:`~adv_detect.serving.explanation.Explainer`; empty without one.
    """

    predicted: Tensor
    scores: Tensor
    explanation: Mapping[str, Tensor]


def chunk_size(device: torch.device) -> int:
    """Choose images a forward pass."""
    return CPU_CHUNK if device.type == "cpu" else CHUNK


def chunked(
    images: Tensor,
    device: torch.device,
    *,
    batch_size: int | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> Iterator[Tensor]:
    """Split images into forward passes.

    Args:
        images: Shape ``(N, channels, H, W)``.
        device: Where they run.
        batch_size: Images a forward pass; None means what suits the device.
        unwanted: Asked before each forward pass; true when nobody waits for the answer any more.

    Yields:
        The images of a pass, on the device.

    Raises:
        CancelledError: The answer is unwanted.
    """
    for part in torch.split(images, batch_size or chunk_size(device)) if len(images) else ():
        if unwanted():
            raise CancelledError("nobody waits for the answer any more")
        yield part.to(device)


@torch.no_grad()
def pass_through(
    model: DetectionModel,
    images: Tensor,
    *,
    batch_size: int | None = None,
    explainer: Explainer | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> Passed:
    """Run images through network and detector.

    Args:
        model: Both, joined.
        images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
        batch_size: Images a forward pass; None means what suits the device.
        explainer: Explains verdicts, on the device of the model; None leaves that out.
        unwanted: Asked before each forward pass; true when nobody waits for the answer any more.

    Returns:
        Classes, scores and explanations, on the CPU.

    Raises:
        CancelledError: The answer is unwanted.
    """
    chunks = chunked(images, device_of(model.network), batch_size=batch_size, unwanted=unwanted)
    found = [_said(model, part, explainer) for part in chunks]
    if not found:
        return Passed(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64), {})
    whole = {name: torch.cat([one[name].cpu() for one in found]) for name in found[0]}
    return Passed(whole.pop("predicted"), whole.pop("scores"), whole)


def _said(model: DetectionModel, images: Tensor, explainer: Explainer | None) -> dict[str, Tensor]:
    if explainer is None:
        logits, scores = model(images)
        return {"predicted": logits.argmax(dim=1), "scores": scores.double()}
    activations = model.activations(images)
    said = {"predicted": activations.logits.argmax(dim=1), "scores": model.detector(activations).double()}
    told: dict[str, Tensor] = explainer(activations)
    return said | told


def check_scores(scores: NDArray[np.float64]) -> None:
    """Refuse scores that no threshold can judge: a comparison with NaN would say "not adversarial".

    Args:
        scores: Shape ``(N,)``.

    Raises:
        DataError: One is not finite.
    """
    odd = np.flatnonzero(~np.isfinite(scores))
    if len(odd):
        raise DataError(
            f"expected a finite score for each image, got {scores[odd[0]]} for image {odd[0]} and {len(odd) - 1} "
            "others; leave these out, the network's activations on them are not finite"
        )
