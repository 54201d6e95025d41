"""Warning where natural images are attacked with the sizes that were chosen for digits."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adv_detect.images import ImageSet, load_images
from adv_detect.params import AdversarialGenerationParams, AttackParams

LOGGER = logging.getLogger(__name__)
PLAIN = 0.1
"""Change of a pixel, as a share of the range (26 of 255), that is plainly seen in natural images; 8 of 255 is usual."""
SAMPLE = 64
EXTREME, MOSTLY = 0.1, 0.6
"""Digits and drawings: most pixels lie within a tenth of the range from black or white."""


def large_inherited_epsilons(
    attacks: AdversarialGenerationParams, own: Mapping[str, Any], images: Tensor, span: float
) -> dict[str, float]:
    """Find the attacks whose size is that of the base configuration and plainly seen.

    Args:
        attacks: The attacks of the run.
        own: ``adversarial_generation.attacks`` as the environment and the command line state it, without the base.
        images: Some images in the network's pixel range, ``(n, channels, H, W)``.
        span: Width of that range.

    Returns:
        Epsilon by name of attack.
    """
    return {
        name: attack.epsilon
        for name, attack in attacks.active.items()
        if attack.epsilon is not None
        and "epsilon" not in (own.get(name) or {})
        and _change(attack, images[0].numel()) > PLAIN * span
    }


def _change(attack: AttackParams, pixels: int) -> float:
    """Change of a pixel if all change alike."""
    assert attack.epsilon is not None
    alike = {"l1": pixels, "l2": math.sqrt(pixels)}
    return attack.epsilon / alike.get(str(attack.norm), 1.0)


def is_natural(images: Tensor, bounds: tuple[float, float]) -> bool:
    """Tell photographs, whose pixels are spread over the range, from digits, which are mostly black or white.

    Args:
        images: In the pixel range, ``(n, channels, H, W)``.
        bounds: That range.
    """
    low, high = bounds
    edge = EXTREME * (high - low)
    extreme = (images <= low + edge) | (images >= high - edge)
    return float(extreme.float().mean()) < MOSTLY


def warn_of_epsilons(
    attacks: AdversarialGenerationParams, own: Mapping[str, Any], images: ImageSet, bounds: tuple[float, float]
) -> None:
    """Warn once where natural images meet sizes that no environment chose.

    Args:
        attacks: The attacks of the run.
        own: ``adversarial_generation.attacks`` as the environment and the command line state it, without the base.
        images: The images to attack.
        bounds: Pixel range of the network.
    """
    step = max(1, len(images) // SAMPLE)
    sample = load_images(images, list(range(0, len(images), step))[:SAMPLE], bounds)
    found = large_inherited_epsilons(attacks, own, sample, bounds[1] - bounds[0])
    if found and is_natural(sample, bounds):
        LOGGER.warning(
            "adversarial_generation.attacks: epsilon of %s comes from the base configuration, where it was chosen for "
            "digits, and is plainly seen in natural images such as these; state epsilon in the environment (8/255 of "
            "the pixel range is usual)",
            ", ".join(f"{name} ({epsilon:g})" for name, epsilon in found.items()),
        )
