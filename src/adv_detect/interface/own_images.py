"""Images and labels that a user gives: brought into range, checked, divided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import in_bounds
from adv_detect.interface.gate import named_pictures
from adv_detect.pictures import PictureInput, opened_picture
from adv_detect.pictures.plain import plain_picture

FEWEST_HELD = 20
"""Images that thresholds rest on at least; a rate of 5 % needs as many."""


def bring_into_range(images: Any, bounds: tuple[float, float], image_shape: tuple[int, int, int] | None) -> Tensor:
    """Bring images into a pixel range.

    Args:
        images: An array ``(N, channels, H, W)``, uint8 or numbers within the bounds; or pictures.
        bounds: Lowest and highest pixel value.
        image_shape: Channels, height and width, where images are pictures; None for those of the first.

    Returns:
        Float32, ``(N, channels, H, W)``.

    Raises:
        DataError: They are of another form, or none.
        PictureError: A picture cannot be read.
    """
    if isinstance(images, Tensor | np.ndarray):
        values = torch.as_tensor(images)
        if values.ndim != 4 or not len(values):
            raise DataError(f"images: expected shape (N, channels, H, W) with N >= 1, got {tuple(values.shape)}")
        return in_bounds(values, bounds) if values.dtype == torch.uint8 else values.float()
    if isinstance(images, str | Path | bytes | Image.Image):
        raise DataError("images: expected a list of pictures or an array, got one picture")
    steps, pixels = None if image_shape is None else PictureInput.of(None, image_shape, bounds), []
    for one in named_pictures(images):
        content = one.read()
        steps = steps or _steps_of(content, bounds)
        pixels.append((steps.decode(content) if isinstance(content, bytes) else steps.pixels(content))[0])
    if steps is None:
        raise DataError("images: expected at least one picture, got none")
    return steps.batch(pixels)


def _steps_of(content: bytes | Image.Image, bounds: tuple[float, float]) -> PictureInput:
    """Take colour and size from the first picture."""
    if isinstance(content, bytes):
        with opened_picture(content) as image:
            plain = plain_picture(image, None)
    else:
        plain = plain_picture(content, None)
    return PictureInput.of(None, (1 if plain.mode == "L" else 3, plain.height, plain.width), bounds)


def check_labels(labels: Any, images: int, classes: int) -> Tensor:
    """Check labels.

    Args:
        labels: Class of each image.
        images: Number of images.
        classes: Number of classes.

    Returns:
        int64 ``(N,)``.

    Raises:
        DataError: They do not fit the images or the classes.
    """
    found = torch.as_tensor(np.asarray(labels)).to(torch.int64)
    if found.shape != (images,):
        raise DataError(f"labels: expected one per image, shape ({images},), got {tuple(found.shape)}")
    if int(found.min()) < 0 or int(found.max()) >= classes:
        raise DataError(
            f"labels: expected classes from 0 to {classes - 1}, got {int(found.min())} to {int(found.max())}"
        )
    return found


def hold_out(classes: Tensor, holdout: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out a share of each class.

    Args:
        classes: int64 ``(N,)``.
        holdout: The share, in (0, 1).
        seed: Of the draw.

    Returns:
        Positions of images to learn from, and of those held out.

    Raises:
        ConfigurationError: It is no share.
        DataError: Too few are held out.
    """
    if not 0 < holdout < 1:
        raise ConfigurationError(f"holdout: expected a share above 0 and below 1, got {holdout:g}")
    generator = np.random.default_rng(seed)
    held = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes.numpy()):
        members = generator.permutation(np.flatnonzero(classes.numpy() == label))
        held[members[: round(holdout * len(members))]] = True
    if held.sum() < FEWEST_HELD:
        raise DataError(
            f"images: expected at least {FEWEST_HELD} to rest thresholds on, got {held.sum()} of {len(held)} with "
            f"holdout {holdout:g}; give more images, or a larger holdout"
        )
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
