"""The input of a network, made of a picture: the same in training, scoring and serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor

from adv_detect.errors import ConfigurationError
from adv_detect.images import in_bounds
from adv_detect.pictures.opening import opened_picture
from adv_detect.pictures.plain import Colour, plain_picture
from adv_detect.pictures.transform import Header, Transform, pixels_of

CHANNELS: dict[int, Colour] = {1: "grayscale", 3: "rgb"}


@dataclass(frozen=True)
class PictureInput:
    """Steps from a picture of any size to the input of a network.

    A picture takes the steps of the training pictures (upright, eight bits a channel, colour, resize, crop). One that
    is not of the network's size then, which no training picture was, is scaled until it covers that size, and its
    middle is cut out.

    Attributes:
        transform: Steps of the training pictures.
        shape: Channels, height and width of the input.
        bounds: Lowest and highest pixel value of the input.
    """

    transform: Transform
    shape: tuple[int, int, int]
    bounds: tuple[float, float]

    @classmethod
    def of(cls, transform: Transform | None, shape: tuple[int, int, int], bounds: tuple[float, float]) -> PictureInput:
        """Complete what a network's description says of pictures.

        Args:
            transform: Steps of its training pictures; None where these were no pictures, or kept their size.
            shape: Channels, height and width of its input.
            bounds: Its pixel range.

        Returns:
            The steps.

        Raises:
            ConfigurationError: The input has neither one channel nor three, so no picture can become it.
        """
        colour = CHANNELS.get(shape[0])
        if colour is None:
            raise ConfigurationError(
                f"a network for pictures takes 1 channel (grey) or 3 (red, green, blue), this one takes {shape[0]}; "
                "give it tensors"
            )
        return cls((transform or Transform()).model_copy(update={"colour": colour}), shape, bounds)

    def fits(self, header: Header) -> bool:
        """Tell whether a picture of this size takes the steps of the training pictures alone."""
        return self.transform.size(header) == self.shape[1:]

    def decode(self, content: bytes, *, max_pixels: int | None = None) -> tuple[Tensor, Header]:
        """Read an encoded picture.

        Args:
            content: A whole file.
            max_pixels: Pixels that are taken at most; None means Pillow's limit.

        Returns:
            Pixels ``(channels, H, W)``, uint8, and its size before any step.

        Raises:
            PictureError: It cannot be used.
        """
        with opened_picture(content, max_pixels=max_pixels) as image:
            return self.pixels(image)

    def pixels(self, image: Image.Image) -> tuple[Tensor, Header]:
        """Read an opened picture, as :meth:`decode` does."""
        plain = plain_picture(image, self.transform.colour)
        header, (height, width) = Header(plain.height, plain.width), self.shape[1:]
        if all(self.transform.size(header)):
            plain = self.transform.shaped(plain)
        if plain.size != (width, height):
            plain = ImageOps.fit(plain, (width, height), Image.Resampling.BILINEAR)
        return pixels_of(plain), header

    def batch(self, pixels: Sequence[Tensor]) -> Tensor:
        """Bring pictures into the range of the network.

        Args:
            pixels: Of each picture, ``(channels, H, W)``, uint8.

        Returns:
            Float32 images ``(n, channels, H, W)`` within the bounds.
        """
        stacked = torch.stack(list(pixels)) if pixels else torch.zeros(0, *self.shape, dtype=torch.uint8)
        return in_bounds(stacked, self.bounds)
