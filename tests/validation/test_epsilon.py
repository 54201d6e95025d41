"""Natural images that meet the sizes chosen for digits are warned of."""

from __future__ import annotations

import pytest
import torch

from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.params import AdversarialGenerationParams
from adv_detect.validation.epsilon import large_inherited_epsilons, warn_of_epsilons

ATTACKS = AdversarialGenerationParams.model_validate(
    {
        "attacks": {
            "bim": {"attack": "bim", "norm": "linf", "epsilon": 0.3},
            "small": {"attack": "bim", "norm": "linf", "epsilon": "8/255"},
            "bim2": {"attack": "bim", "norm": "l2", "epsilon": 5.0},
            "cw": {"attack": "cw"},
        }
    }
)


class Photographs:
    """Colour images whose pixels are spread over the range."""

    def __init__(self, channels: int = 3) -> None:
        ramp = torch.linspace(20, 235, 28 * 28).reshape(28, 28).to(torch.uint8)
        self._images = torch.stack([ramp.roll(shift, dims=1).expand(channels, 28, 28) for shift in range(20)])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._images[index], 0


def said(caplog, images, own):
    warn_of_epsilons(ATTACKS, own, images, (0.0, 1.0))
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_with_the_sizes_of_digits_are_warned_of_once(caplog, channels):
    (message,) = said(caplog, Photographs(channels), {})

    assert "epsilon of bim (0.3)" in message
    assert "small" not in message
    assert "bim2 (5)" in message


def test_a_size_that_the_environment_states_is_its_own(caplog):
    assert said(caplog, Photographs(), {"bim": {"epsilon": 0.3}, "bim2": {"epsilon": 5.0}}) == []


def test_digits_are_not_warned_of(caplog):
    digits = EmbeddedMNISTDataset(part="test", test_fraction=0.4, max_images=100).load()

    assert said(caplog, digits, {}) == []


@pytest.mark.parametrize(("side", "found"), [(28, {"bim", "bim2"}), (224, {"bim"})])
def test_an_l2_size_is_seen_by_its_share_of_a_pixel(side, found):
    images = torch.zeros(1, 1, side, side)  # 5 / 28 of the range a pixel, 5 / 224

    assert set(large_inherited_epsilons(ATTACKS, {}, images, 1.0)) == found
