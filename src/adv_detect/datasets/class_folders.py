"""Choice and labels of the images in a folder of class folders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from adv_detect.datasets.content_cache import FRAMES, TRANSPARENT, FileFacts, Verify
from adv_detect.datasets.file_sources import FileEntry, FileSource
from adv_detect.datasets.image_files import inspect_files, report_problems
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.fields import Block
from adv_detect.pictures import Header, Transform
from adv_detect.text_files import read_text

logger = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")

_SAID: set[str] = set()  # per process: several catalog entries and many nodes open the same folder


class FolderOptions(Block):
    """Selection of files, and treatment of bad ones.

    Attributes:
        folder: Folder below the source that holds the class folders; empty for the source itself.
        extensions: Endings of image files, in lower case.
        class_names: Class folders to use, the label is the index; None for all, sorted by name.
        min_images_per_class: Classes with fewer usable images are left out and counted in the log.
        max_images_per_class: Seeded draw of so many of each class; None for all.
        max_classes: The first so many of the classes that have enough images; None for all.
        image_size: Height and width that every image must have after the transform; None for the most common one.
        verify: What is checked before any work: ``header`` (or true), ``decode``, or false.
        on_error: Whether a bad image is an error or left out and counted in the log.
    """

    folder: str = ""
    extensions: tuple[str, ...] = EXTENSIONS
    class_names: tuple[str, ...] | None = None
    min_images_per_class: int = Field(1, ge=1)
    max_images_per_class: int | None = Field(None, ge=1)
    max_classes: int | None = Field(None, ge=2)
    image_size: tuple[int, int] | None = None
    verify: Verify | bool = "header"
    on_error: Literal["raise", "skip"] = "raise"

    @property
    def level(self) -> Verify | None:
        """Give the depth of the check of files; None for no check."""
        if isinstance(self.verify, bool):
            return "header" if self.verify else None
        return self.verify

    @model_validator(mode="after")
    def _skip_needs_verify(self) -> FolderOptions:
        if self.on_error == "skip" and self.level is None:
            raise ValueError("on_error: skip finds bad images by looking into them: set verify: header or decode")
        return self


def read_names(names: Sequence[str] | Mapping[str, str] | None) -> tuple[str, ...] | None:
    """Read a list of class names.

    Args:
        names: The names, or ``{filepath: ...}`` of a text file with one name per line, or None.

    Returns:
        The names in order, or None.

    Raises:
        ConfigurationError: The file is absent, or a name is repeated.
    """
    if names is None:
        return None
    if isinstance(names, Mapping):
        try:
            text = read_text(names["filepath"])
        except (OSError, KeyError) as exc:
            raise ConfigurationError(
                f"class_names: expected a list, or filepath: <text file>, got {dict(names)} ({exc!r})"
            ) from exc
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(set(names)) < len(names):
        raise ConfigurationError("class_names: expected each name once")
    return tuple(names)


class FoundImages(NamedTuple):
    """The usable images of a folder.

    Attributes:
        classes: Paths per class, in the order of the labels.
        size: Height and width of all images after the transform.
        entries: Each of these files as it was listed, by path.
        facts: Facts of those that were read, by path.
    """

    classes: dict[str, list[str]]
    size: tuple[int, int]
    entries: dict[str, FileEntry]
    facts: dict[str, FileFacts]


def find_images(source: FileSource, options: FolderOptions, transform: Transform, *, seed: int) -> FoundImages:
    """List the usable images of each class.

    Args:
        source: Where the files lie.
        options: Which of them count.
        transform: What happens to them, which decides their size.
        seed: Of the draw per class.

    Returns:
        What is left after all choices.

    Raises:
        DataError: There are no classes, named ones are missing, or images are not usable.
    """
    entries = source.entries(options.folder)
    classes = _choose(_class_folders(entries, source, options), source, options)
    every = [path for paths in classes.values() for path in paths]
    facts = inspect_files(source, {path: entries[path] for path in _looked_into(every, options)}, options.level)
    size = options.image_size or _common_size(facts, transform)
    bad = {path: entries[path].problem for path in every if entries[path].problem} | _problems(facts, transform, size)
    if bad:
        _report(report_problems(source.address, bad, len(every)), options)
        classes = _choose(
            {name: [p for p in paths if p not in bad] for name, paths in classes.items()}, source, options
        )
    drawn = {name: _draw(paths, options, seed) for name, paths in classes.items()}
    chosen = [path for paths in drawn.values() for path in paths]
    _say_what_is_lost(facts, chosen, source.address)
    read = {path: facts[path] for path in chosen if path in facts}
    return FoundImages(drawn, size, {path: entries[path] for path in chosen}, read)


def _class_folders(
    entries: Mapping[str, FileEntry], source: FileSource, options: FolderOptions
) -> dict[str, list[str]]:
    depth = len(options.folder.split("/")) if options.folder else 0
    classes: dict[str, list[str]] = {}
    for path in entries:
        parts = path.split("/")
        if len(parts) > depth + 1 and path.lower().endswith(options.extensions):
            classes.setdefault(parts[depth], []).append(path)
    if len(classes) < 2:
        raise DataError(
            f"expected at least two class folders with images in {source.address}/{options.folder}, got "
            f"{list(classes)}; if they lie one level deeper, give that level as folder: <name>"
        )
    return classes


def _choose(classes: dict[str, list[str]], source: FileSource, options: FolderOptions) -> dict[str, list[str]]:
    """Take the named classes, or the first that have enough images."""
    least = options.min_images_per_class
    names = options.class_names or sorted(classes)
    enough = [name for name in names if len(classes.get(name, ())) >= least]
    if options.class_names is not None and len(enough) < len(names):
        lacking = [name for name in names if name not in enough]
        raise DataError(
            f"class_names: {len(lacking)} of {len(names)} classes have fewer than {least} usable images in "
            f"{source.address}/{options.folder}: {lacking[:5]}; remove them from the list or add images"
        )
    if len(enough) < 2:
        raise DataError(
            f"expected at least two classes with {least} or more usable images in {source.address}/{options.folder}, "
            f"got {len(enough)} of {len(classes)}; lower min_images_per_class"
        )
    if len(enough) < len(names):
        logger.info("%d classes left out that have fewer than %d images", len(names) - len(enough), least)
    return {name: classes[name] for name in enough[: options.max_classes]}


def _looked_into(paths: list[str], options: FolderOptions) -> list[str]:
    """Return the files to read: all, or only the first, whose size then counts for all."""
    return paths if options.level else paths[:1]


def _common_size(facts: Mapping[str, FileFacts], transform: Transform) -> tuple[int, int]:
    """Return the most common size after the transform, ``(0, 0)`` when no image has one."""
    sizes = Counter(transform.size(Header(one.height, one.width)) for one in facts.values() if not one.problem)
    del sizes[0, 0]  # smaller than the crop
    return sizes.most_common(1)[0][0] if sizes else (0, 0)


def _problems(facts: Mapping[str, FileFacts], transform: Transform, size: tuple[int, int]) -> dict[str, str]:
    """Say what is wrong, by path, with each image that is damaged or of another size."""
    found = {}
    for path, one in facts.items():
        header = Header(one.height, one.width)
        if one.problem:
            found[path] = one.problem
        elif transform.size(header) == (0, 0):
            found[path] = transform.describe(header)
        elif transform.size(header) != size:
            found[path] = f"expected {size[0]} x {size[1]} (height x width) pixels, got {transform.describe(header)}"
    return found


def _say_what_is_lost(facts: Mapping[str, FileFacts], chosen: Sequence[str], address: str) -> None:
    """Say once how many images have transparency or several frames, of which decoding keeps nothing."""
    for note, what in (
        (TRANSPARENT, "can be transparent (as %s); they are laid over white"),
        (FRAMES, "hold several frames (as %s); the first is used"),
    ):
        found = [path for path in chosen if path in facts and note in facts[path].notes]
        if found:
            _warn_once(f"{len(found)} of {len(chosen)} images in {address} {what % found[0]}")


def _warn_once(message: str) -> None:
    if message not in _SAID:
        _SAID.add(message)
        logger.warning("%s", message)


def _report(problem: str, options: FolderOptions) -> None:
    if options.on_error == "raise":
        raise DataError(f"{problem}; repair or remove them, or set on_error: skip")
    _warn_once(f"{problem}; left out")


def _draw(paths: list[str], options: FolderOptions, seed: int) -> list[str]:
    wanted = options.max_images_per_class
    if wanted is None or wanted >= len(paths):
        return paths
    chosen = np.random.default_rng([seed, len(paths)]).permutation(len(paths))[:wanted]
    return [paths[index] for index in np.sort(chosen)]
