from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adv_detect.datasets.picture_folder import find_pictures, read_picture
from adv_detect.errors import DataError
from adv_detect.networks.spec import NetworkSpec

SPEC = NetworkSpec(
    name="small", num_classes=2, layers=("a",), bounds=(-1.0, 1.0), class_names=("a", "b"), image_shape=(3, 8, 6)
)


def test_pictures_are_found_by_their_endings_however_deep(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("a.JPG", "b/x.png", "b/c/y.webp", "b/readme.md", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    assert find_pictures(str(tmp_path)).paths == ("a.JPG", "b/c/y.webp", "b/x.png")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected pictures \(.jpg, .*got none; check the folder"):
        find_pictures(str(tmp_path))


def test_pixels_are_brought_into_the_range_of_the_network(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = find_pictures(str(tmp_path)).source
    read = read_picture(source, "a.png", SPEC)
    np.testing.assert_allclose(read.image.numpy(), pixels.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 16), (6, 80), (600, 8), (3, 4)])
def test_another_size_is_resized_and_cut(tmp_path, size):
    Image.new("L", size, 255).save(tmp_path / "a.png")
    read = read_picture(find_pictures(str(tmp_path)).source, "a.png", SPEC)
    assert read.image.shape == (3, 8, 6)
    assert (read.image == 1).all()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a.png cannot be read as a picture \(.*; repair or remove it"):
        read_picture(find_pictures(str(tmp_path)).source, "a.png", SPEC)
