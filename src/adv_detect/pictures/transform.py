"""Resize, crop and colour of a picture: the part of its way to a network that a data set may choose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from adv_detect.fields import Block
from adv_detect.pictures.opening import PictureError
from adv_detect.pictures.plain import Colour, plain_picture

MOST_RESIZED = 2**28
"""Pixels of a resized picture: a long, thin one would grow to any size."""


@dataclass(frozen=True)
class Header:
    """Height and width of an image file, in pixels, turned upright."""

    height: int
    width: int


class Transform(Block):
    """Decoding steps of an image between file and tensor.

    Attributes:
        resize_shorter_side: Length of the shorter side, bilinear with antialiasing; None keeps the size.
        centre_crop: Height and width cut from the middle, after the resize; None keeps all.
        colour: ``rgb`` gives three channels, ``grayscale`` one.
    """

    resize_shorter_side: int | None = Field(None, ge=1)
    centre_crop: tuple[int, int] | None = None
    colour: Colour = "rgb"

    def size(self, header: Header) -> tuple[int, int]:
        """Return height and width after the transform; ``(0, 0)`` when the crop is larger than the image."""
        height, width = self._resized(header)
        if self.centre_crop is None:
            return height, width
        return self.centre_crop if height >= self.centre_crop[0] and width >= self.centre_crop[1] else (0, 0)

    def describe(self, header: Header) -> str:
        """Say height and width after the transform, or why there are none."""
        height, width = self.size(header)
        return (
            f"{height} x {width}"
            if height
            else f"{header.height} x {header.width}, smaller than the crop {self.centre_crop}"
        )

    def apply(self, image: Image.Image) -> Tensor:
        """Turn a picture into a tensor ``(channels, H, W)``, uint8.

        Raises:
            PictureError: It is smaller than the crop, or its range of values is unclear.
        """
        plain = plain_picture(image, self.colour)
        header = Header(plain.height, plain.width)
        if not all(self.size(header)):
            raise PictureError(self.describe(header))
        return pixels_of(self.shaped(plain))

    def shaped(self, plain: Image.Image) -> Image.Image:
        """Resize and crop a picture of eight bits a channel that is not smaller than the crop."""
        height, width = self._resized(Header(plain.height, plain.width))
        if (height, width) != (plain.height, plain.width):
            if height * width > MOST_RESIZED:
                raise PictureError(f"too long and thin to be resized ({plain.height} x {plain.width})")
            plain = plain.resize((width, height), Image.Resampling.BILINEAR)
        if self.centre_crop is None:
            return plain
        rows, columns = self.centre_crop
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        return plain.crop((left, top, left + columns, top + rows))

    def _resized(self, header: Header) -> tuple[int, int]:
        if self.resize_shorter_side is None:
            return header.height, header.width
        shorter = self.resize_shorter_side
        longer = int(shorter * max(header.height, header.width) / min(header.height, header.width))
        return (shorter, longer) if header.height <= header.width else (longer, shorter)


def pixels_of(plain: Image.Image) -> Tensor:
    """Read the pixels of a picture of mode ``L`` or ``RGB``.

    Args:
        plain: The picture.

    Returns:
        Shape ``(channels, H, W)``, uint8.
    """
    values = torch.from_numpy(np.array(plain))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()
