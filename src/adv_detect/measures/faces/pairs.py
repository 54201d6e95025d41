"""Pairs of face images for 1:1 verification: from a file in LFW's format, or drawn from labelled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.text_files import plain_text

SAME_FIELDS = 3
DIFFERENT_FIELDS = 4
FILE_NAME = "{name}/{name}_{number:04d}"
"""Folder and file name of an image, without suffix."""


@dataclass(frozen=True)
class Pair:
    """Two images to be told the same person or not.

    Attributes:
        first: Image of the first side: ``name/name_0001``, or a source id.
        second: Image of the second side.
        same: Whether both show the same person.
        fold: Fold of the protocol, from 0.
    """

    first: str
    second: str
    same: bool
    fold: int


@dataclass(frozen=True)
class LocatedPairs:
    """Pairs of a data set.

    Attributes:
        pairs: The pairs whose images both exist, named by source id.
        first: Position of the first image of each pair in the data set.
        second: Position of the second image.
        missing: The pairs left out because an image does not exist, as they were given.
    """

    pairs: tuple[Pair, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]
    missing: tuple[Pair, ...]

    def missing_images(self, source_ids: Sequence[str]) -> tuple[str, ...]:
        """Name the images that the missing pairs ask for and the data set lacks, sorted."""
        known = set(_positions(source_ids))
        asked = {side for pair in self.missing for side in (pair.first, pair.second)}
        return tuple(sorted(side for side in asked if _key(side) not in known))


def parse_pairs(text: str | bytes, *, source: str = "pairs file") -> tuple[Pair, ...]:
    """Read pairs in LFW's format.

    The first line holds ``folds n``, or ``n`` alone for a single fold. Each fold is n lines ``name i j`` (same person)
    and n lines ``name1 i name2 j`` (different people). Fields are separated by tabs or blanks.

    Args:
        text: Content of the file; a byte-order mark at its start does not count.
        source: What to call the file in errors.

    Returns:
        The pairs in file order; image i of a person is called ``name/name_0001`` for i = 1.

    Raises:
        DataError: It is not in UTF-8, or the header, a line, or the number of lines is not as expected; names the
            line, what was expected and what came.
    """
    rows = plain_text(text, source=source).splitlines()
    lines = [(number, line.split()) for number, line in enumerate(rows, start=1) if line.strip()]
    if not lines:
        raise DataError(f"{source}, line 1: expected a header such as '10 300', got an empty file")
    folds, half = _header(lines[0][1], f"{source}, line {lines[0][0]}")
    expected = folds * half * 2
    if len(lines) - 1 != expected:
        raise DataError(
            f"{source}: expected {expected} pairs ({folds} folds of {half} same and {half} different) as its header "
            f"says, got {len(lines) - 1}; the file is cut off, or its header is wrong"
        )
    return tuple(
        _pair(fields, same=index % (2 * half) < half, fold=index // (2 * half), where=f"{source}, line {number}")
        for index, (number, fields) in enumerate(lines[1:])
    )


def locate_pairs(pairs: Sequence[Pair], source_ids: Sequence[str]) -> LocatedPairs:
    """Find the images of pairs in a data set.

    An image is known by its last folder and its file name without suffix, so ``faces/Ann/Ann_0001.jpg`` is
    ``Ann/Ann_0001``.

    Args:
        pairs: The pairs.
        source_ids: Name of each image of the data set.

    Returns:
        The pairs found, with positions, and those left out.

    Raises:
        DataError: Two images of the data set go by the same name, or no pair is found at all.
    """
    positions = _positions(source_ids)
    found, missing, first, second = [], [], [], []
    for pair in pairs:
        one, two = positions.get(_key(pair.first)), positions.get(_key(pair.second))
        if one is None or two is None:
            missing.append(pair)
            continue
        found.append(Pair(source_ids[one], source_ids[two], pair.same, pair.fold))
        first.append(one)
        second.append(two)
    if not found:
        example = f"for example {pairs[0].first!r}" if pairs else "there are no pairs"
        have = source_ids[0] if source_ids else "nothing"
        raise DataError(f"none of {len(pairs)} pairs is in the data: asked {example}, the data holds {have!r} and such")
    return LocatedPairs(tuple(found), tuple(first), tuple(second), tuple(missing))


def _header(fields: list[str], where: str) -> tuple[int, int]:
    if len(fields) not in (1, 2) or not all(field.isdecimal() and int(field) > 0 for field in fields):
        raise DataError(
            f"{where}: expected a header 'folds n' such as '10 300', or 'n' for one fold, got {' '.join(fields)!r}"
        )
    numbers = [int(field) for field in fields]
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _pair(fields: list[str], *, same: bool, fold: int, where: str) -> Pair:
    form = "'name i j' (same person)" if same else "'name1 i name2 j' (different people)"
    if len(fields) != (SAME_FIELDS if same else DIFFERENT_FIELDS):
        raise DataError(f"{where}: expected {form}, got {' '.join(fields)!r}")
    name, one = fields[0], _number(fields[1], form, where)
    other, two = (name, fields[2]) if same else (fields[2], fields[3])
    number = _number(two, form, where)
    if (name == other) != same or (name, one) == (other, number):
        raise DataError(f"{where}: expected two different images of {form}, got {' '.join(fields)!r}")
    return Pair(FILE_NAME.format(name=name, number=one), FILE_NAME.format(name=other, number=number), same, fold)


def _number(field: str, form: str, where: str) -> int:
    if not field.isdecimal() or int(field) < 1:
        raise DataError(f"{where}: expected {form} with image numbers from 1, got {field!r} for a number")
    return int(field)


def _key(image: str) -> tuple[str, str]:
    path = PurePosixPath(image.replace("\\", "/"))
    return path.parent.name, path.stem


def _positions(source_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    keys = [_key(image) for image in source_ids]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise DataError(f"expected one image per folder and file name, got several called {'/'.join(twice[0])!r}")
    return {key: position for position, key in enumerate(keys)}


def fold_sizes(pairs: int, folds: int) -> Iterator[int]:
    """Divide a number of pairs into folds whose sizes differ by at most one.

    Raises:
        ConfigurationError: There are fewer pairs than folds, or no fold.
    """
    if folds < 1 or pairs < folds:
        raise ConfigurationError(f"pairs: expected at least one pair of each kind per fold, got {pairs} in {folds}")
    for fold in range(folds):
        yield pairs // folds + (fold < pairs % folds)
