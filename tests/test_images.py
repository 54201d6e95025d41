"""Batches of images in the pixel range of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.errors import DataError
from adv_detect.images import ImageSet, first_copies, image_contents, load_images, members_by_class


class Images:
    """Three images of two pixels, as bytes or in [0, 1]."""

    class_names = ("a", "b")
    source_ids = ("x", "y", "z")
    labels = torch.tensor([0, 1, 0])

    def __init__(self, pixels):
        self._pixels = pixels

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self._pixels[index], int(self.labels[index])


BYTES = torch.tensor([[0, 255], [51, 102], [204, 153]], dtype=torch.uint8).reshape(3, 1, 1, 2)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.0, 1.0), [[0.8, 0.6], [0.0, 1.0]]),
        ((0.0, 255.0), [[204.0, 153.0], [0.0, 255.0]]),
        ((-1.0, 1.0), [[0.6, 0.2], [-1.0, 1.0]]),
    ],
)
def test_bytes_are_scaled_to_the_bounds_in_the_order_asked_for(bounds, expected):
    batch = load_images(Images(BYTES), [2, 0], bounds)

    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch.reshape(2, 2), torch.tensor(expected))


def test_floats_are_taken_as_they_are_in_the_unit_range():
    pixels = torch.tensor([[0.25, 1.0], [0.5, 0.0], [0.0, 0.75]], dtype=torch.float64).reshape(3, 1, 1, 2)

    batch = load_images(Images(pixels), [0, 1, 2], (0.0, 2.0))

    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, (2 * pixels).float())


def test_no_pixel_leaves_the_bounds():
    every = torch.arange(256, dtype=torch.uint8).reshape(3 - 2, 1, 16, 16).expand(3, 1, 16, 16)

    batch = load_images(Images(every), [1], (-0.5, 0.5))

    assert float(batch.min()) == -0.5
    assert float(batch.max()) == 0.5
    assert len(batch.unique()) == 256


def test_the_protocol_knows_an_image_set():
    assert isinstance(Images(BYTES), ImageSet)
    assert not isinstance([BYTES], ImageSet)


def test_members_of_each_class_are_found_in_order():
    labels = np.array([3, 0, 3, 1, 0, 3])
    found = members_by_class(labels)
    assert {label: rows.tolist() for label, rows in found.items()} == {0: [1, 4], 1: [3], 3: [0, 2, 5]}
    assert members_by_class(labels[:0]) == {}


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.full((3, 1, 1, 2), 200.0), r"numbers in \[0, 1\], got 200 to 200"),
        (torch.full((3, 1, 1, 2), float("nan")), r"numbers in \[0, 1\], got nan"),
        (torch.full((3, 1, 1, 2), 200, dtype=torch.int16), r"as uint8, or as numbers .* got torch\.int16"),
    ],
)
def test_pixels_of_an_unclear_range_are_refused(pixels, message):
    with pytest.raises(DataError, match=message):
        load_images(Images(pixels), [0, 1], (0.0, 1.0))


def test_images_without_digests_of_their_own_are_told_apart_by_pixels():
    contents = image_contents(Images(torch.stack([BYTES[0], BYTES[1], BYTES[0]])))
    assert contents.form == "pixels"
    assert contents.digests[0] == contents.digests[2] != contents.digests[1]
    assert first_copies(contents.digests).tolist() == [0, 1, 0]
    assert image_contents(Images(BYTES), [1]).digests == contents.digests[1:2]
