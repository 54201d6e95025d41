"""Check that the images to attack are other images than the network learns from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from adv_detect.errors import DataError
from adv_detect.images import Contents, ImageSet, first_copies, image_contents, pixel_contents

logger = logging.getLogger(__name__)

SHOWN = 5


def refuse_overlap(train: ImageSet, test: ImageSet) -> None:
    """Refuse two sets that share images; say where a set holds one image more than once.

    Args:
        train: Images that the network and its representatives learn from.
        test: Images to be attacked, on which detectors are measured.

    Raises:
        DataError: Images are in both, by their content.
    """
    learned, attacked = _comparable(train, test)
    trained = {digest: name for digest, name in zip(learned.digests, train.source_ids, strict=True)}
    both = [
        (trained[digest], name)
        for digest, name in zip(attacked.digests, test.source_ids, strict=True)
        if digest in trained
    ]
    if both:
        raise DataError(
            f"train_images and test_images: expected different images, got {len(both)} of {len(test)} test images that "
            f"are training images too: {_named(both)}; take them out of one of the two, or give both entries the same "
            "folder with part: train, part: test and test_fraction"
        )
    say_copies(train, learned, "train_images")
    say_copies(test, attacked, "test_images")


def say_copies(images: ImageSet, contents: Contents, name: str) -> None:
    """Say which images of a set have the same content: once for those of one class, once for those of several.

    Args:
        images: The set.
        contents: Digest of each image.
        name: What to call the set.
    """
    first = first_copies(contents.digests)
    copies = np.flatnonzero(first != np.arange(len(first)))
    pairs = [(images.source_ids[first[copy]], images.source_ids[copy]) for copy in copies.tolist()]
    other = images.labels.numpy()[copies] != images.labels.numpy()[first[copies]]
    for which, what in ((other, "under another class label"), (~other, "in the same class")):
        found = [pair for pair, chosen in zip(pairs, which, strict=True) if chosen]
        if found:
            logger.warning("%s: %d images occur once more %s: %s", name, len(found), what, _named(found))


def _comparable(train: ImageSet, test: ImageSet) -> tuple[Contents, Contents]:
    """Digest both sets in the same form; where one lists files and the other pixels, read the pixels of both."""
    one, other = image_contents(train), image_contents(test)
    return (one, other) if one.form == other.form else (pixel_contents(train), pixel_contents(test))


def _named(pairs: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(one if one == other else f"{one} = {other}" for one, other in pairs[:SHOWN])
    return shown + (f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else "")
