"""Kinds of changes of images, each with its typed arguments; pixels lie in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.pixels import quantise
from adv_detect.fields import Block, Number, PositiveNumber

COLOURS = (1, 3)
"""Channels that contrast and JPEG take at once; other images go channel by channel."""
MAX_8BIT = 255
BLUR_REACH = 3.0
"""A blur reaches so many standard deviations to each side."""
LARGEST_SHIFT, LARGEST_BLUR, LARGEST_MEDIAN = 64, 32.0, 15


class ImageKind(Block):
    """Base of all kinds: typed arguments, and the change of images whose pixels lie in [0, 1].

    Attributes:
        random: Whether the change is drawn; such a change is no view, for a view must be the same each time.
    """

    random: ClassVar[bool] = False

    def apply(self, images: Tensor, seed: int) -> Tensor:
        """Change images.

        Args:
            images: Shape ``(N, channels, H, W)``, pixels in [0, 1].
            seed: Of what is drawn.

        Returns:
            Images of the same shape; what leaves [0, 1] is clipped by the caller.
        """
        raise NotImplementedError


class Blur(ImageKind):
    """Gaussian blur of a standard deviation in pixels; borders are mirrored."""

    sigma: Annotated[PositiveNumber, Field(le=LARGEST_BLUR)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        from torchvision.transforms.v2 import functional as transforms

        fits = min(images.shape[-2:]) - 1  # a mirrored border is narrower than the image
        width = 2 * min(math.ceil(BLUR_REACH * self.sigma), max(fits, 0)) + 1
        found: Tensor = transforms.gaussian_blur(images, [width, width], [self.sigma, self.sigma])
        return found


class JPEG(ImageKind):
    """JPEG compression, colour at half resolution as usual; the gradient is that of an image left alone."""

    quality: Annotated[int, Field(ge=1, le=100)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        return straight_through(images, _as_colours(self._compress)(images.detach()))

    def _compress(self, images: Tensor) -> Tensor:
        pixels = (images * MAX_8BIT).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        coded = [torch.from_numpy(self._recode(picture)) for picture in pixels]
        changed = torch.stack(coded).reshape(pixels.shape).movedim(-1, 1) if coded else images
        return changed.to(images.device, images.dtype).contiguous() / MAX_8BIT

    def _recode(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Save and load a picture ``(H, W, 1 or 3)``."""
        from PIL import Image

        file = BytesIO()
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(
            file, "JPEG", quality=self.quality
        )
        return np.array(Image.open(file))


class Shift(ImageKind):
    """Shift by whole pixels, ``dx`` to the right and ``dy`` down; the border is repeated."""

    dx: Annotated[int, Field(ge=-LARGEST_SHIFT, le=LARGEST_SHIFT)] = 0
    dy: Annotated[int, Field(ge=-LARGEST_SHIFT, le=LARGEST_SHIFT)] = 0

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        height, width = images.shape[-2:]
        rows = (torch.arange(height, device=images.device) - self.dy).clamp(0, height - 1)
        columns = (torch.arange(width, device=images.device) - self.dx).clamp(0, width - 1)
        return images[..., rows, :][..., columns]


class BitDepth(ImageKind):
    """Rounding to ``2 ** bits`` levels; the gradient is that of an image left alone."""

    bits: Annotated[int, Field(ge=1, le=8)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        return straight_through(images, quantise(images.detach(), (0.0, 1.0), levels=2**self.bits))


class Median(ImageKind):
    """Median over a square window of an odd number of pixels; the border is repeated."""

    size: Annotated[int, Field(ge=3, le=LARGEST_MEDIAN)] = 3

    @field_validator("size")
    @classmethod
    def _has_a_middle(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"expected an odd number, got {size}")
        return size

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        reach = self.size // 2
        padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(-2)
        return windows.median(dim=-1).values


class Noise(ImageKind):
    """Gaussian noise, drawn anew for each image, of a standard deviation as a share of the pixel range."""

    random: ClassVar[bool] = True
    std: Annotated[PositiveNumber, Field(le=1)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype)
        return images + self.std * drawn.to(images.device)


class Gamma(ImageKind):
    """Pixels to the power of ``gamma``; above 1 darkens."""

    gamma: Annotated[PositiveNumber, Field(le=10)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        return images.clamp_min(torch.finfo(images.dtype).tiny) ** self.gamma  # a finite gradient at black


class Brightness(ImageKind):
    """Pixels times ``factor``."""

    factor: Annotated[PositiveNumber, Field(le=10)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        return images * self.factor


class Contrast(ImageKind):
    """Distance of the pixels from the mean grey of the image times ``factor``."""

    factor: Annotated[PositiveNumber, Field(le=10)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        from torchvision.transforms.v2 import functional as transforms

        return _as_colours(lambda batch: transforms.adjust_contrast(batch, self.factor))(images)


class Resize(ImageKind):
    """To ``scale`` of height and width, and back."""

    scale: Annotated[PositiveNumber, Field(le=4)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        from torchvision.transforms.v2 import functional as transforms

        size = list(images.shape[-2:])
        small = transforms.resize(images, [max(1, round(self.scale * side)) for side in size], antialias=True)
        found: Tensor = transforms.resize(small, size, antialias=True)
        return found


class Crop(ImageKind):
    """The middle ``keep`` of height and width, resized to the whole."""

    keep: Annotated[Number, Field(gt=0, lt=1)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        from torchvision.transforms.v2 import functional as transforms

        size = list(images.shape[-2:])
        middle = transforms.center_crop(images, [max(1, round(self.keep * side)) for side in size])
        found: Tensor = transforms.resize(middle, size, antialias=True)
        return found


class Rotation(ImageKind):
    """Rotation about the middle by ``degrees``, counter-clockwise; the border is repeated into the corners."""

    degrees: Annotated[Number, Field(ge=-180, le=180)]

    def apply(self, images: Tensor, seed: int) -> Tensor:  # noqa: D102
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as transforms

        size = images.shape[-2:]
        reach = math.ceil(max(size) / 2)
        padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
        turned = transforms.rotate(padded, self.degrees, interpolation=InterpolationMode.BILINEAR)
        found: Tensor = transforms.center_crop(turned, list(size))
        return found


REGISTERED: dict[str, type[ImageKind]] = {
    "bit_depth": BitDepth,
    "blur": Blur,
    "brightness": Brightness,
    "contrast": Contrast,
    "crop": Crop,
    "gamma": Gamma,
    "jpeg": JPEG,
    "median": Median,
    "noise": Noise,
    "resize": Resize,
    "rotation": Rotation,
    "shift": Shift,
}
"""Kinds of changes by name."""


def straight_through(images: Tensor, changed: Tensor) -> Tensor:
    """Give ``changed`` with the gradient of ``images``.

    Source: Bengio, Leonard, Courville 2013 (arXiv 1308.3432); against defences that change their input: Athalye,
    Carlini, Wagner 2018 (arXiv 1802.00420), section 4.1.

    Args:
        images: Any shape.
        changed: The same shape, without gradient.

    Returns:
        The values of ``changed``, exactly.
    """
    found: Tensor = _StraightThrough.apply(images, changed)
    return found


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, changed: Tensor) -> Tensor:
        return changed.view_as(changed)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0], None


def _as_colours(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Apply a change for grey and colour images to any number of channels, each as a grey image."""

    def changed(images: Tensor) -> Tensor:
        if images.shape[1] in COLOURS:
            return change(images)
        return change(images.flatten(0, 1).unsqueeze(1)).reshape(images.shape)

    return changed
