"""Remembered facts of image files: an unchanged file is read once, not once a run."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

import PIL

from adv_detect.images import content_digest

logger = logging.getLogger(__name__)

Verify = Literal["header", "decode"]

VARIABLE = "ADV_DETECT_CACHE"
FORM = [1, PIL.__version__]  # of the facts; another Pillow may judge a file otherwise
TRANSPARENT, FRAMES = "t", "f"

_FACTS: dict[tuple[str, str], dict[str, FileFacts]] = {}  # per process: several catalog entries share a folder


class FileFacts(NamedTuple):
    """Size, time and digest of one image file.

    Attributes:
        stamp: Size, times and tags of the file when it was listed; another stamp is another file.
        digest: Digest of its bytes; empty where it could not be read.
        height: Height in pixels as it is seen, turned upright.
        width: Width in pixels.
        notes: Letters: ``t`` for a transparent one, ``f`` for several frames.
        problem: Why it cannot be used; empty where it can.
        level: How deep it was looked into.
    """

    stamp: str
    digest: str
    height: int = 0
    width: int = 0
    notes: str = ""
    problem: str = ""
    level: Verify = "header"


def cache_folder() -> Path | None:
    """Return the folder of remembered facts: ``$ADV_DETECT_CACHE``, or ``adv-detect`` in the user's cache folder."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home folder
        base = None
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else base and Path(base) / "adv-detect"


def remembered(place: str) -> dict[str, FileFacts]:
    """Return the facts of the files of a place, by path.

    Args:
        place: Address of the folder or archive, with its protocol.

    Returns:
        The facts; empty where none are stored, or what is stored is damaged or of another form.
    """
    key = (str(cache_folder()), place)
    if key not in _FACTS:
        _FACTS[key] = _read(place)
    return _FACTS[key]


def remember(place: str, facts: Mapping[str, FileFacts]) -> None:
    """Add facts to what is stored; where that fails, the files are read again in the next run.

    Processes may write at once: a file is replaced whole, and facts that get lost so are found again.

    Args:
        place: Address of the folder or archive, with its protocol.
        facts: New facts by path.
    """
    if not facts:
        return
    remembered(place).update(facts)
    file = _file(place)
    if file is None:
        return
    temporary = file.with_name(f"{file.name}.tmp-{uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_packed({**_read(place), **facts}))
        temporary.replace(file)
    except OSError as exc:
        logger.info("facts of the files of %s are not kept for the next run (%s)", place, exc)
        with suppress(OSError):
            temporary.unlink()


def _file(place: str) -> Path | None:
    folder = cache_folder()
    return folder / "files" / f"{content_digest(place.encode())}.json" if folder else None


def _packed(facts: Mapping[str, FileFacts]) -> bytes:
    """Facts as JSON below a line with their form and digest."""
    body = json.dumps(facts, separators=(",", ":")).encode()
    return json.dumps([FORM, content_digest(body)]).encode() + b"\n" + body


def _read(place: str) -> dict[str, FileFacts]:
    file = _file(place)
    try:
        head, _, body = file.read_bytes().partition(b"\n") if file else (b"", b"", b"")
        if not head or json.loads(head) != [FORM, content_digest(body)]:
            return {}
        return {path: FileFacts(*values) for path, values in json.loads(body).items()}
    except (OSError, ValueError, TypeError):  # absent or damaged: read the images again
        return {}
