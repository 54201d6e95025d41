"""Checks and decodes image files."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from adv_detect.datasets.file_sources import FileSource
from adv_detect.errors import DataError
from adv_detect.params import Block
from adv_detect.progress import track

Verify = Literal["header", "decode"]
MANY_FILES = 10_000  # from here on progress is shown

# What Pillow and zipfile raise on damaged files.
DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    KeyError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Header:
    """Height and width of an image file, in pixels."""

    height: int
    width: int


_CHECKED: dict[tuple[str, str, int, Verify], Header | str] = {}  # per process: several entries share a folder


class Transform(Block):
    """What happens to an image between file and tensor.

    Attributes:
        resize_shorter_side: Length of the shorter side, bilinear with antialiasing; None keeps the size.
        centre_crop: Height and width cut from the middle, after the resize; None keeps all.
        colour: ``rgb`` gives three channels, ``grayscale`` one.
    """

    resize_shorter_side: int | None = Field(None, ge=1)
    centre_crop: tuple[int, int] | None = None
    colour: Literal["rgb", "grayscale"] = "rgb"

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

    def apply(self, image: Any) -> Tensor:
        """Turn a PIL image into a tensor ``(channels, H, W)``, uint8."""
        from torchvision.transforms import functional

        header = Header(image.height, image.width)
        if not all(self.size(header)):
            raise ValueError(self.describe(header))
        plain = image.convert("RGB" if self.colour == "rgb" else "L")
        if self.resize_shorter_side is not None:
            plain = functional.resize(plain, [self.resize_shorter_side])
        if self.centre_crop is not None:
            plain = functional.center_crop(plain, list(self.centre_crop))
        tensor: Tensor = functional.pil_to_tensor(plain)
        return tensor

    def _resized(self, header: Header) -> tuple[int, int]:
        if self.resize_shorter_side is None:
            return header.height, header.width
        shorter = self.resize_shorter_side
        longer = int(shorter * max(header.height, header.width) / min(header.height, header.width))
        return (shorter, longer) if header.height <= header.width else (longer, shorter)


def inspect_files(source: FileSource, sizes: dict[str, int], verify: Verify | None) -> dict[str, Header | str]:
    """Look into image files; each is looked into once per process.

    Args:
        source: Where they lie.
        sizes: Size in bytes of each, by path.
        verify: ``header``, also for None, reads the image header; ``decode`` all pixels, several times slower.

    Returns:
        For each path its header, or what is wrong with it.
    """
    found: dict[str, Header | str] = {}
    for path, size in track(
        sizes.items(), f"headers of {source.address}", unit="files", shown=len(sizes) >= MANY_FILES
    ):
        key = (source.address, path, size, verify or "header")
        if key not in _CHECKED:
            _CHECKED[key] = "empty file" if size == 0 else _inspect(source, path, verify or "header")
        found[path] = _CHECKED[key]
    return found


def decode(source: FileSource, path: str, transform: Transform) -> Tensor:
    """Read one image.

    Args:
        source: Where it lies.
        path: Its path.
        transform: What happens to it.

    Returns:
        The image ``(channels, H, W)``, uint8.

    Raises:
        DataError: The file is absent or cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(source.read(path))) as image:
            return transform.apply(image)
    except DECODE_ERRORS as exc:
        raise DataError(
            f"{source.address}/{path} cannot be read as an image ({exc}); remove it, or set verify: decode with "
            "on_error: skip to find and leave out all such files"
        ) from exc


def report_problems(address: str, problems: dict[str, str], total: int, *, shown: int = 5) -> str:
    """Say which files of a folder cannot be used.

    Args:
        address: The folder.
        problems: What is wrong, by path.
        total: Number of files looked at.
        shown: How many are named.

    Returns:
        One sentence that names the first few.
    """
    named = "; ".join(f"{path}: {problem}" for path, problem in sorted(problems.items())[:shown])
    more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
    return f"{len(problems)} of {total} images in {address} cannot be used: {named}{more}"


def _inspect(source: FileSource, path: str, verify: Verify) -> Header | str:
    try:
        with Image.open(io.BytesIO(source.read(path))) as image:
            if verify == "decode":
                image.load()
            return Header(image.height, image.width)
    except UnidentifiedImageError:
        return "not an image file"
    except DECODE_ERRORS as exc:
        return f"damaged ({exc})"
