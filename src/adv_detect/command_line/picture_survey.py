"""A survey of a folder of class folders: what an environment for it has to say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from adv_detect.datasets.class_folders import EXTENSIONS
from adv_detect.datasets.file_sources import FileSource, open_source
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.pictures import PictureError, PictureInput, Transform, opened_picture
from adv_detect.pictures.plain import plain_picture
from adv_detect.validation.epsilon import is_natural

LOOKED_AT = 500
"""Pictures that are opened at most, at even distances."""
DECODED = 64
SIDE = 64
"""Height and width to which pictures are brought to tell photographs from drawings."""
GREY = ("1", "L", "LA", "I", "I;16", "F")
FEWEST_CLASSES = 2


@dataclass(frozen=True)
class PictureSurvey:
    """Facts on a folder of class folders.

    Attributes:
        address: The folder or archive.
        parts: Folders of the train and the test images below it; empty for none, where images are divided by us.
        classes: Pictures by class; of the test images where these lie apart.
        training: Pictures of the smallest class among the train images, before any division.
        sizes: Pictures by height and width, upright, of those looked at.
        modes: Pictures by Pillow's mode, of those looked at.
        unreadable: Paths of pictures that cannot be opened, of those looked at.
        natural: Whether they look like photographs, not like digits or drawings.
    """

    address: str
    parts: tuple[str, str]
    classes: dict[str, int]
    training: int
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    unreadable: list[str]
    natural: bool

    @property
    def looked_at(self) -> int:
        """Pictures that were opened."""
        return sum(self.modes.values()) + len(self.unreadable)

    @property
    def colour(self) -> str:
        """``grayscale`` where all pictures are grey, else ``rgb``."""
        return "grayscale" if set(self.modes) <= set(GREY) else "rgb"

    @property
    def size(self) -> tuple[int, int]:
        """The most common height and width."""
        return self.sizes.most_common(1)[0][0]

    @property
    def one_size(self) -> bool:
        """True where all pictures have the same size."""
        return len(self.sizes) == 1


def survey_pictures(address: str) -> PictureSurvey:
    """Look at the pictures of a folder.

    Args:
        address: Folder of class folders, or of ``train`` and ``test`` that hold the class folders; or a zip archive.

    Returns:
        What it holds.

    Raises:
        ConfigurationError: It holds fewer than two classes.
        DataError: It is not there, or none of its pictures can be opened.
    """
    source = open_source(address)
    paths = [path for path in source.entries("") if path.lower().endswith(EXTENSIONS)]
    parts = ("train", "test") if {"train", "test"} <= {path.split("/")[0] for path in paths} else ("", "")
    counts = [_classes(paths, part) for part in dict.fromkeys(parts)]
    if len(counts[-1]) < FEWEST_CLASSES:
        raise ConfigurationError(
            f"--images: expected a folder with a folder of pictures ({', '.join(EXTENSIONS)}) for each class, at least "
            f"{FEWEST_CLASSES} of them, or of train and test that hold these, got {len(counts[-1])} in {address}"
        )
    if set(counts[0]) != set(counts[-1]):
        odd = sorted(set(counts[0]) ^ set(counts[-1]))
        raise ConfigurationError(
            f"--images: expected the same classes in train and test of {address}, got {odd[:5]} in one of them alone"
        )
    sizes, modes, unreadable = _headers(source, _spread(paths, LOOKED_AT))
    if not sizes:
        raise DataError(f"--images: expected pictures that can be opened in {address}, got none, such as {paths[0]}")
    usable = [path for path in _spread(paths, DECODED) if path not in unreadable]
    natural = is_natural(_decoded(source, usable), (0.0, 1.0))
    return PictureSurvey(
        address, parts, counts[-1], min(counts[0].values()), sizes, modes, unreadable, natural
    )  # fmt: skip


def _classes(paths: list[str], part: str) -> dict[str, int]:
    """Count pictures by class folder, below ``part``."""
    depth = 1 if part else 0
    split = [path.split("/") for path in paths]
    names = (one[depth] for one in split if len(one) > depth + 1 and (not part or one[0] == part))
    return dict(sorted(Counter(names).items()))


def _spread(paths: list[str], count: int) -> list[str]:
    step = max(1, -(-len(paths) // count))
    return paths[::step]


def _headers(source: FileSource, paths: list[str]) -> tuple[Counter[tuple[int, int]], Counter[str], list[str]]:
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    unreadable = []
    for path in paths:
        try:
            with opened_picture(source.read(path)) as image:
                mode, plain = image.mode, plain_picture(image, None)
        except (PictureError, OSError):
            unreadable.append(path)
            continue
        modes[mode] += 1
        sizes[(plain.height, plain.width)] += 1
    return sizes, modes, unreadable


def _decoded(source: FileSource, paths: list[str]) -> torch.Tensor:
    steps = PictureInput.of(Transform(), (3, SIDE, SIDE), (0.0, 1.0))
    pixels = []
    for path in paths:
        try:
            pixels.append(steps.decode(source.read(path))[0])
        except (PictureError, OSError):
            continue
    return steps.batch(pixels)


def inside(address: str, project: Path) -> str:
    """Write an address relative to the project where it lies within it."""
    path = Path(address)
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else address
