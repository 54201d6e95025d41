"""Changes of images against independent answers, and what holds for all of them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import v2

from adv_detect.algorithms.image_changes import build_change, change_identity, is_random
from adv_detect.algorithms.image_kinds import REGISTERED
from adv_detect.algorithms.pixels import clip
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import ImageChangeParams

ARGUMENTS: dict[str, dict[str, Any]] = {
    "bit_depth": {"bits": 3},
    "blur": {"sigma": 1.0},
    "brightness": {"factor": 1.2},
    "contrast": {"factor": 0.8},
    "crop": {"keep": 0.9},
    "gamma": {"gamma": 0.8},
    "jpeg": {"quality": 60},
    "median": {"size": 3},
    "noise": {"std": "10/255"},
    "resize": {"scale": 0.5},
    "rotation": {"degrees": 5},
    "shift": {"dx": 1, "dy": -2},
}


def draw(channels: int = 3, count: int = 4) -> torch.Tensor:
    """Smooth images in [0, 1] that are no squares, with black and white in them."""
    noise = torch.rand((count, channels, 24, 16), generator=torch.Generator().manual_seed(0))
    return ((v2.functional.gaussian_blur(noise, [5, 5]) - 0.5) * 3 + 0.5).clamp(0, 1)


def changed(kind: str, images: torch.Tensor, bounds=(0.0, 1.0), seed: int = 0, **arguments: Any) -> torch.Tensor:
    params = ImageChangeParams(kind=kind, arguments=arguments or ARGUMENTS.get(kind, {}))
    return build_change("views.x", params)(images, bounds, seed=seed)


def coded(image: np.ndarray, quality: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


EXPECTED = {
    "blur": lambda x: ndimage.gaussian_filter(x, (0, 0, 1.0, 1.0), mode="mirror", radius=(0, 0, 3, 3)),
    "bit_depth": lambda x: np.round(x * 7) / 7,
    "brightness": lambda x: np.clip(x * 1.2, 0, 1),
    "gamma": lambda x: x**0.8,
    "median": lambda x: ndimage.median_filter(x, size=(1, 1, 3, 3), mode="nearest"),
    "shift": lambda x: ndimage.shift(x, (0, 0, -2, 1), order=0, mode="nearest"),
    "contrast": lambda x: _contrast(x, 0.8),
    "jpeg": lambda x: np.stack([np.moveaxis(coded(_bytes(one), 60), -1, 0) for one in x]) / 255,
    "resize": lambda x: np.stack([_resized(one) for one in x]),
}


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.round(image * 255).astype(np.uint8), 0, -1)


def _contrast(images: np.ndarray, factor: float) -> np.ndarray:
    grey = np.tensordot(images, [0.2989, 0.587, 0.114], axes=(1, 0)).mean(axis=(1, 2))[:, None, None, None]
    return np.clip(grey + (images - grey) * factor, 0, 1)


def _resized(image: np.ndarray) -> np.ndarray:
    channels = [Image.fromarray(one.astype(np.float32)) for one in image]
    small = [one.resize((8, 12), Image.Resampling.BILINEAR) for one in channels]
    return np.stack([np.array(one.resize((16, 24), Image.Resampling.BILINEAR)) for one in small])


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_change_equals_an_independent_computation(kind):
    images = draw()

    expected = EXPECTED[kind](images.double().numpy())

    np.testing.assert_allclose(changed(kind, images).numpy(), expected, atol=1e-5)


def test_a_rotation_turns_counter_clockwise_by_hand():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 4] = 1.0  # right of the middle

    turned = changed("rotation", image, degrees=90)

    assert turned[0, 0].argmax() == 2  # above it
    torch.testing.assert_close(
        changed("rotation", torch.full((1, 1, 5, 5), 0.3), degrees=45), torch.full((1, 1, 5, 5), 0.3)
    )


def test_a_crop_keeps_the_middle_by_hand():
    image = torch.zeros(1, 1, 4, 4)
    image[..., 1:3, 1:3] = 1.0

    assert torch.equal(changed("crop", image, keep=0.5), torch.ones(1, 1, 4, 4))


def test_noise_has_the_size_that_is_asked_for_and_is_drawn_per_image():
    images = torch.full((50, 1, 24, 16), 0.5)

    noise = changed("noise", images, std="10/255") - images

    assert float(noise.std()) == pytest.approx(10 / 255, rel=0.03)
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(changed("noise", images, seed=1), changed("noise", images, seed=1))
    assert not torch.equal(changed("noise", images, seed=1), changed("noise", images, seed=2))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", REGISTERED)
def test_every_change_stays_in_the_range_of_the_network_and_lets_gradients_through(kind, channels):
    unit = draw(channels)
    images = (unit * 2 - 1).requires_grad_()

    found = changed(kind, images, (-1.0, 1.0))
    found.sum().backward()

    assert found.shape == images.shape
    assert float(found.detach().min()) >= -1
    assert float(found.detach().max()) <= 1
    assert not torch.equal(found, images)
    torch.testing.assert_close(found, changed(kind, unit) * 2 - 1, atol=1e-4, rtol=0)
    assert bool(torch.isfinite(images.grad).all())
    assert float(images.grad.abs().mean()) > 0.5


@pytest.mark.parametrize("kind", [kind for kind, made in REGISTERED.items() if not made.random])
def test_a_change_that_is_not_drawn_treats_each_image_alone(kind):
    images = draw()

    whole = changed(kind, images)

    torch.testing.assert_close(torch.cat([changed(kind, one[None]) for one in images]), whole, atol=1e-6, rtol=0)
    assert changed(kind, images[:0]).shape == (0, 3, 24, 16)
    assert torch.equal(changed(kind, images, seed=1), whole)


@pytest.mark.parametrize("kind", ["jpeg", "bit_depth"])
def test_rounding_passes_the_gradient_of_the_image_left_alone(kind):
    images = draw().requires_grad_()
    weights = torch.rand(images.shape)

    (changed(kind, images) * weights).sum().backward()

    torch.testing.assert_close(images.grad, weights)


def test_black_and_white_pixels_have_a_gradient_where_clamp_gives_none():
    pixels = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1], requires_grad=True)

    found = clip(pixels, 0.0, 1.0)
    found.sum().backward()

    assert found.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert pixels.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("kind", REGISTERED)
def test_tiny_images_can_be_changed(kind, side):
    assert changed(kind, torch.rand(2, 1, side, side)).shape == (2, 1, side, side)


def double(images, bounds, factor: float = 2.0):
    return images * factor


def nothing(images, bounds):
    return images[:, :, 1:]


def test_a_function_of_ones_own_is_called_in_the_range_of_the_network():
    found = changed(f"{__name__}.double", torch.full((1, 1, 2, 2), 100.0), (0.0, 255.0), factor=2.5)

    assert torch.equal(found, torch.full((1, 1, 2, 2), 250.0))
    with pytest.raises(
        DataError, match=r"views\.x: expected finite images of shape \(1, 1, 2, 2\), got .*\(1, 1, 1, 2\)"
    ):
        changed(f"{__name__}.nothing", torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        ("blurr", {}, r"views\.x\.kind: expected one of \[.*blur,.*'blurr' \(did you mean 'blur'\?\)"),
        ("no.such.function", {}, r"views\.x\.kind: expected one of .*dotted path"),
        ("math.pi", {}, r"views\.x\.kind: expected a function .*got 3\.14"),
        ("blur", {}, r"views\.x\.arguments: sigma: expected a value, got none"),
        ("blur", {"sigma": 0}, r"sigma: expected greater than 0, got 0"),
        ("blur", {"sigm": 1}, r"\[sigma\], got 'sigm' \(did you mean 'sigma'\?\)"),
        ("jpeg", {"quality": 101}, "quality: expected less than or equal to 100, got 101"),
        ("jpeg", {"quality": True}, "quality: expected no true or false here, got True"),
        ("median", {"size": 4}, "size: expected an odd number, got 4"),
        ("bit_depth", {"bits": 9}, "bits: expected less than or equal to 8, got 9"),
        (
            f"{__name__}.double",
            {"factr": 3},
            r"arguments: got an unexpected keyword argument 'factr'; .*double is called",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(kind, arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        build_change("views.x", ImageChangeParams(kind=kind, arguments=arguments))


def test_the_identity_follows_kind_arguments_and_code():
    def identity(kind: str, **arguments: Any) -> str:
        return change_identity(ImageChangeParams(kind=kind, arguments=arguments))

    assert identity("blur", sigma=1.0) == identity("blur", sigma=1.0)
    others = [identity("blur", sigma=2.0), identity("noise", std=1.0), identity(f"{__name__}.double")]
    assert len({identity("blur", sigma=1.0), *others}) == 4
    assert [is_random(ImageChangeParams(kind=kind)) for kind in ("noise", "blur", f"{__name__}.double")] == [
        True,
        False,
        False,
    ]
