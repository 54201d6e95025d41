"""Checks and decodes image files."""

from __future__ import annotations

import io
import logging
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from adv_detect.datasets.content_cache import (
    FRAMES,
    TRANSPARENT,
    FileFacts,
    Verify,
    cache_folder,
    content_digest,
    remember,
    remembered,
)
from adv_detect.datasets.file_sources import FileEntry, FileSource
from adv_detect.datasets.pictures import Colour, check_mode, plain_picture, upright_size
from adv_detect.errors import DataError
from adv_detect.fields import Block
from adv_detect.progress import show_progress

logger = logging.getLogger(__name__)

BLOCK = 100_000  # files after which what was found is kept, so that an interrupted run goes on from there
TALKATIVE_FROM = 20_000  # files to read, which take seconds

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
    RuntimeError,  # an unsupported compression
    Image.DecompressionBombError,
)


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

    def apply(self, image: Any) -> Tensor:
        """Turn a PIL image into a tensor ``(channels, H, W)``, uint8."""
        from torchvision.transforms import functional

        plain = plain_picture(image, self.colour)
        header = Header(plain.height, plain.width)
        if not all(self.size(header)):
            raise ValueError(self.describe(header))
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


def inspect_files(
    source: FileSource, entries: Mapping[str, FileEntry], verify: Verify | None = None
) -> dict[str, FileFacts]:
    """Look into image files; one that is unchanged since the last time is not read again.

    Args:
        source: Where they lie.
        entries: The files, by path.
        verify: ``header``, also for None, reads the image header; ``decode`` all pixels, several times slower.

    Returns:
        Facts of each, by path.
    """
    level: Verify = verify or "header"
    cached = remembered(source.place)
    found = {path: cached[path] for path, entry in entries.items() if _still_true(cached.get(path), entry, level)}
    missing = [path for path in entries if path not in found]
    many = len(missing) >= TALKATIVE_FROM
    if many:
        logger.info("reads %d image files of %s; kept in %s", len(missing), source.address, cache_folder())
    with show_progress(f"files of {source.address}", len(missing), unit="files", shown=many) as advance:
        for start in range(0, len(missing), BLOCK):
            fresh = {}
            for path in missing[start : start + BLOCK]:
                fresh[path] = _inspect(source, path, entries[path], level)
                advance()
            remember(source.place, {path: facts for path, facts in fresh.items() if facts.stamp})
            found |= fresh
    return {path: found[path] for path in entries}


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


def _still_true(facts: FileFacts | None, entry: FileEntry, level: Verify) -> bool:
    return facts is not None and facts.stamp == entry.stamp and facts.level in ("decode", level)


def _inspect(source: FileSource, path: str, entry: FileEntry, level: Verify) -> FileFacts:
    """Read a file, unless its facts forbid that."""
    facts = FileFacts(entry.stamp or "", "", level=level)
    if entry.problem:
        return facts._replace(problem=entry.problem)
    try:
        content = source.read(path)
    except DECODE_ERRORS as exc:  # met again next time, it may be the way there
        return facts._replace(stamp="", problem=f"damaged ({exc})")
    return _judge(content, facts._replace(digest=content_digest(content)))


def _judge(content: bytes, facts: FileFacts) -> FileFacts:
    if not content:
        return facts._replace(problem="empty file")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _look_into(image, content, facts)
    except UnidentifiedImageError:
        return facts._replace(problem="not an image file")
    except Image.DecompressionBombError as exc:
        return facts._replace(problem=f"too large to be decoded ({exc})")
    except DECODE_ERRORS as exc:
        return facts._replace(problem=f"damaged ({exc})")


def _look_into(image: Image.Image, content: bytes, facts: FileFacts) -> FileFacts:
    height, width = upright_size(image, content)
    notes = TRANSPARENT * image.has_transparency_data + FRAMES * bool(getattr(image, "is_animated", False))
    seen = facts._replace(height=height, width=width, notes=notes)
    try:
        check_mode(image)
    except ValueError as exc:
        return seen._replace(problem=str(exc))
    if facts.level == "decode":
        plain_picture(image, None)
    return seen
