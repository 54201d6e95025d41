"""Checks and decodes image files."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from PIL import Image
from torch import Tensor

from adv_detect.datasets.content_cache import (
    FRAMES,
    TRANSPARENT,
    FileFacts,
    Verify,
    cache_folder,
    remember,
    remembered,
)
from adv_detect.datasets.file_sources import FileEntry, FileSource
from adv_detect.errors import DataError
from adv_detect.images import content_digest
from adv_detect.pictures.opening import DECODE_ERRORS, PictureError, opened_picture
from adv_detect.pictures.plain import check_mode, plain_picture, upright_size
from adv_detect.pictures.transform import Transform
from adv_detect.progress import show_progress

logger = logging.getLogger(__name__)

BLOCK = 100_000  # files after which what was found is kept, so that an interrupted run goes on from there
TALKATIVE_FROM = 20_000  # files to read, which take seconds


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
        with opened_picture(source.read(path)) as image:
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
    try:
        with opened_picture(content) as image:
            return _look_into(image, content, facts)
    except PictureError as exc:
        return facts._replace(problem=str(exc))


def _look_into(image: Image.Image, content: bytes, facts: FileFacts) -> FileFacts:
    height, width = upright_size(image, content)
    notes = TRANSPARENT * image.has_transparency_data + FRAMES * bool(getattr(image, "is_animated", False))
    seen = facts._replace(height=height, width=width, notes=notes)
    try:
        check_mode(image)
    except PictureError as exc:
        return seen._replace(problem=str(exc))
    if facts.level == "decode":
        plain_picture(image, None)
    return seen
