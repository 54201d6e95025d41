"""Pictures as people have them: on their side, of 16 bits, of numbers, transparent, of several frames."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from PIL import ExifTags, Image, ImageOps

from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.datasets.torchvision_images import TorchvisionImages

RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)  # multiples of 257: eight bits hold them
GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def load(tmp_path):
    """Saves pictures as the images of two classes and reads them back; the first class is the one under test."""

    def save_and_load(suffix, *pictures, options=None, **arguments):
        for name, chosen in (("a", pictures), ("b", pictures[:1])):
            (tmp_path / name).mkdir(exist_ok=True)
            for index, picture in enumerate(chosen):
                path = tmp_path / name / f"{index}{suffix}"
                path.write_bytes(picture) if isinstance(picture, bytes) else picture.save(path, **(options or {}))
        return ImageFolderDataset(filepath=tmp_path, **arguments).load()

    return save_and_load


def halves():
    """A picture of 16 x 24 pixels (height x width), red left and blue right, a green corner at the upper left."""
    pixels = np.zeros((16, 24, 3), dtype=np.uint8)
    pixels[:, :12, 0] = pixels[:, 12:, 2] = 255
    pixels[:4, :4] = (0, 255, 0)
    return Image.fromarray(pixels)


def marked(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return {"exif": exif.tobytes()}


@pytest.mark.parametrize("verify", ["header", "decode"])
def test_a_photograph_that_lies_on_its_side_stands_up(load, verify):
    images = load(".jpg", halves(), options={**marked(6), "quality": 95}, verify=verify)
    assert images.size == (24, 16)
    image = images[0][0].float()
    assert image.shape == (3, 24, 16)
    assert image[:, 4, 4].argmax() == 0  # what lay left is above: red
    assert image[:, 20, 4].argmax() == 2
    assert image[:, 1, 14].argmax() == 1  # the corner at the upper left went to the upper right


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_every_orientation_agrees_with_pillow_and_with_the_header(load, tmp_path, suffix, orientation):
    options = marked(orientation) | ({"lossless": True} if suffix == ".webp" else {})
    images = load(suffix, halves(), options=options)
    with Image.open(tmp_path / "a" / f"0{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(images[0][0].permute(1, 2, 0).numpy(), expected)
    assert images.size == expected.shape[:2] == ((16, 24) if orientation < 5 else (24, 16))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_metadata_is_no_reason_to_refuse_a_picture(load):
    images = load(".jpg", halves(), options={"exif": b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"})
    assert images[0][0].shape == (3, 16, 24)


def pgm(values, highest):
    height, width = values.shape
    return f"P5 {width} {height} {highest}\n".encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize("colour", ["rgb", "grayscale"])
@pytest.mark.parametrize(
    ("suffix", "picture"),
    [
        (".png", Image.fromarray(RAMP)),
        (".tif", Image.fromarray(RAMP)),
        (".pgm", pgm(RAMP, 65535)),
        (".pgm", pgm(RAMP // 16, 4095)),
        (".tif", Image.fromarray((RAMP / 65535).astype(np.float32))),
    ],
    ids=["png of 16 bits", "tiff of 16 bits", "pgm of 16 bits", "pgm of 12 bits", "tiff of numbers"],
)
def test_more_than_eight_bits_are_scaled_to_their_range(load, suffix, picture, colour):
    image = load(suffix, picture, colour=colour)[0][0]
    assert image.dtype == torch.uint8
    assert image.float().mean() == pytest.approx(127.5, abs=0.2)
    assert np.abs(image.numpy().astype(int) - GRADIENT).max() <= 1
    assert (int(image.min()), int(image.max())) == (0, 255)


def test_tiff_with_white_as_zero_is_not_a_negative(load):
    def tagged(number, value):
        return {"tiffinfo": {number: value}}

    inverted = load(".tif", Image.fromarray(RAMP), options=tagged(262, 0), colour="grayscale")
    assert np.array_equal(inverted[0][0][0].numpy(), 255 - GRADIENT)


@pytest.mark.parametrize(
    ("suffix", "values", "problem"),
    [
        (".tif", np.full((16, 16), 2.0, dtype=np.float32), r"mode F \(numbers\) needs values from 0 to 1, got 2 to 2"),
        (".tif", GRADIENT.astype(np.float32), "mode F .* got 0 to 255"),
        (".tif", -GRADIENT.astype(np.float32), "mode F .* got -255 to"),
        (".tif", np.full((16, 16), np.nan, dtype=np.float32), "mode F .* got nan"),
        (".tif", RAMP.astype(np.int32), "mode I of a TIFF file has no defined range; save it with 8 or 16 bits"),
    ],
)
def test_a_range_that_is_unclear_is_refused_before_work(load, suffix, values, problem):
    with pytest.raises(DatasetError, match=rf"2 of 2 images .*a/0\.tif: {problem}"):
        load(suffix, Image.fromarray(values))


def test_a_range_that_is_unclear_is_refused_when_files_were_not_looked_into(load):
    images = load(".tif", Image.fromarray(GRADIENT), Image.fromarray(GRADIENT.astype(np.float32)), verify=False)
    with pytest.raises(ValueError, match=r"a/1\.tif.*mode F"):
        images[1]


def test_cmyk_white_and_black(load):
    white, black = Image.new("CMYK", (8, 8), (0, 0, 0, 0)), Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    images = load(".tif", white, black)
    assert images[0][0].unique().tolist() == [255]
    assert images[1][0].unique().tolist() == [0]


def test_one_bit_pictures_are_black_and_white(load):
    image = load(".png", Image.fromarray(GRADIENT > 127), colour="grayscale")[0][0]
    assert np.array_equal(image[0].numpy(), 255 * (GRADIENT > 127))


def palette_with_a_hole():
    picture = Image.fromarray((GRADIENT > 127).astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 200, 0, 90, 0])
    picture.info["transparency"] = 0
    return picture


def half_transparent(mode):
    return Image.new(mode, (16, 16), (100, 0) if mode == "LA" else (100, 100, 100, 0))


@pytest.mark.parametrize("picture", [half_transparent("LA"), half_transparent("RGBA"), palette_with_a_hole()])
def test_transparency_is_laid_over_white_and_said_once(load, caplog, tmp_path, picture):
    images = load(".png", picture, picture)
    assert images[0][0][:, 0, 0].tolist() == [255, 255, 255]
    assert f"3 of 3 images in {tmp_path} can be transparent (as a/0.png); they are laid over white" in caplog.text
    caplog.clear()
    assert len(ImageFolderDataset(filepath=tmp_path).load()) == 3
    assert "transparent" not in caplog.text


def test_what_is_opaque_keeps_its_colours(load):
    assert load(".png", Image.new("RGBA", (4, 4), (1, 2, 3, 255)))[0][0][:, 0, 0].tolist() == [1, 2, 3]


def test_what_is_half_transparent_is_mixed_with_white(load):
    half = load(".png", Image.new("RGBA", (4, 4), (100, 100, 100, 128)))[0][0]
    assert half.float().mean() == pytest.approx(177.2, abs=1)  # (100 * 128 + 255 * 127) / 255


def test_grey_of_16_bits_with_a_transparent_value(load):
    image = load(".png", Image.fromarray(RAMP), options={"transparency": 0}, colour="grayscale")[0][0]
    assert int(image[0, 0, 0]) == 255
    assert int(image[0, 0, 1]) == 1


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_of_several_frames_the_first_is_used_and_that_is_said(load, caplog, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white")]
    options = {"save_all": True, "append_images": frames[1:]} | ({"lossless": True} if suffix == ".webp" else {})
    with caplog.at_level(logging.WARNING):
        images = load(suffix, frames[0], options=options)
    assert images[0][0].unique().tolist() == [0]
    assert "2 of 2 images" in caplog.text
    assert "hold several frames (as a/0" in caplog.text


def test_more_pixels_than_pillow_decodes_are_refused_by_name(load, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DatasetError, match=r"a/0\.png: too large to be decoded .*256 pixels.* exceeds limit of 200"):
        load(".png", Image.fromarray(GRADIENT))


class OfFiles:
    """A set that opens pictures itself, as those of torchvision do."""

    classes = ("a", "b")
    targets = (0, 1)

    def __init__(self, picture):
        self._picture = picture

    def __getitem__(self, index):
        return self._picture, self.targets[index]


def test_sets_of_torchvision_give_upright_pictures_in_their_range(tmp_path):
    halves().save(tmp_path / "x.png", **marked(6))
    with Image.open(tmp_path / "x.png") as picture:
        assert TorchvisionImages(OfFiles(picture.convert("RGB")), name="x")[0][0].shape == (3, 24, 16)
    image = TorchvisionImages(OfFiles(Image.fromarray(RAMP)), name="x")[0][0]
    assert np.array_equal(image[0].numpy(), GRADIENT)
    assert image.shape == (1, 16, 16)
