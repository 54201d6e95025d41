"""Pictures of any size to the input of a network."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional

from adv_detect.errors import ConfigurationError
from adv_detect.images import load_images
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import build_target, target_digest
from adv_detect.params import NetworkParams
from adv_detect.pictures import Header, PictureError, PictureInput, Transform

RGB = PictureInput.of(None, (3, 12, 10), (0.0, 1.0))


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze())


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_picture_of_the_networks_size_keeps_its_pixels():
    image = picture(12, 10)
    pixels, header = RGB.decode(encoded(image))
    assert torch.equal(pixels, functional.pil_to_tensor(image))
    assert header == Header(12, 10)
    assert RGB.fits(header)


@pytest.mark.parametrize("size", [(24, 20), (50, 20), (12, 11), (3, 4)])
def test_another_size_is_scaled_to_cover_and_cut(size):
    image = picture(*size)
    pixels, header = RGB.decode(encoded(image))
    expected = ImageOps.fit(image, (10, 12), Image.Resampling.BILINEAR)
    assert torch.equal(pixels, functional.pil_to_tensor(expected))
    assert not RGB.fits(header)


def test_an_exact_multiple_is_scaled_only():
    image = picture(24, 20)
    expected = functional.resize(image, [12, 10])
    assert torch.equal(RGB.decode(encoded(image))[0], functional.pil_to_tensor(expected))


def test_the_steps_of_training_pictures_come_first():
    transform = Transform(resize_shorter_side=14, centre_crop=(12, 10))
    way, image = PictureInput.of(transform, (3, 12, 10), (0.0, 1.0)), picture(31, 47)
    pixels, header = way.decode(encoded(image))
    assert torch.equal(pixels, transform.apply(image))
    assert way.fits(header)


def test_a_picture_smaller_than_the_crop_is_scaled_up():
    way = PictureInput.of(Transform(centre_crop=(12, 10)), (3, 12, 10), (0.0, 1.0))
    with pytest.raises(PictureError, match="8 x 8, smaller than the crop"):
        way.transform.apply(picture(8, 8))
    assert way.decode(encoded(picture(8, 8)))[0].shape == (3, 12, 10)


def test_a_long_thin_picture_takes_no_memory():
    pixels, _ = RGB.decode(encoded(Image.new("L", (60_000, 1), 200)))
    assert pixels.shape == (3, 12, 10)
    assert int(pixels.min()) == int(pixels.max()) == 200
    with pytest.raises(PictureError, match="too long and thin"):
        Transform(resize_shorter_side=256, centre_crop=(224, 224)).apply(Image.new("L", (60_000, 1)))


def test_colour_follows_the_channels_of_the_network():
    grey = PictureInput.of(Transform(colour="rgb"), (1, 12, 10), (0.0, 1.0))
    image = picture(12, 10)
    assert torch.equal(grey.decode(encoded(image))[0], functional.pil_to_tensor(image.convert("L")))
    assert RGB.decode(encoded(picture(12, 10, 1)))[0].shape == (3, 12, 10)
    with pytest.raises(ConfigurationError, match=r"takes 1 channel .* or 3 .*, this one takes 4"):
        PictureInput.of(None, (4, 12, 10), (0.0, 1.0))


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_batches_lie_in_the_bounds_as_those_of_training(bounds):
    way = PictureInput.of(None, (3, 12, 10), bounds)
    pixels = [functional.pil_to_tensor(picture(12, 10, seed=seed)) for seed in range(3)]

    class Images:
        class_names, source_ids, labels = ("a",), ("0", "1", "2"), torch.zeros(3, dtype=torch.int64)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return pixels[index], 0

    batch = way.batch(pixels)
    assert torch.equal(batch, load_images(Images(), range(3), bounds))
    assert bounds[0] <= float(batch.min()) < float(batch.max()) <= bounds[1]
    assert way.batch([]).shape == (0, 3, 12, 10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no picture at all", "not an image file"),
        (encoded(picture(12, 10))[:60], "damaged"),
        (
            encoded(Image.fromarray(np.full((4, 4), 7.0, dtype=np.float32)), "TIFF"),
            "mode F .* needs values from 0 to 1",
        ),
    ],
)
def test_the_reason_is_said(content, reason):
    with pytest.raises(PictureError, match=f"^{reason}"):
        RGB.decode(content)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    content = encoded(Image.new("L", (40, 40)))
    with pytest.raises(PictureError, match=r"^too large to be decoded \(40 x 40 pixels, expected at most 1,599"):
        RGB.decode(content, max_pixels=1599)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PictureError, match=r"^too large to be decoded \(.*decompression bomb"):
        RGB.decode(content)


def test_the_description_of_a_network_holds_the_steps():
    transform = Transform(resize_shorter_side=30, centre_crop=(28, 28), colour="grayscale")
    described = build_target(NetworkParams(), class_names=("a", "b"), image_shape=(1, 28, 28), pictures=transform)
    again = NetworkSpec.model_validate_json(described.spec.model_dump_json())
    assert again.pictures == transform
    assert again.picture_input == PictureInput(transform, (1, 28, 28), (0.0, 1.0))
    without = described.with_spec(pictures=None)
    assert without.spec.picture_input.transform == Transform(colour="grayscale")
    assert target_digest(without) == target_digest(described)  # attacks are the same, however pictures are read
