from __future__ import annotations

import pytest
import torch

from adv_detect.errors import ConfigurationError
from adv_detect.networks.preprocessing import Preprocessing, check_channels
from adv_detect.params import PreprocessingParams


def test_by_hand():
    params = PreprocessingParams(scale=2.0, channel_order="bgr", mean=(1.0, 2.0, 3.0), std=(1.0, 10.0, 100.0))
    image = torch.tensor([5.0, 6.0, 7.0]).view(1, 3, 1, 1)
    result = Preprocessing(params)(image).flatten()
    assert torch.allclose(result, torch.tensor([(14 - 1) / 1, (12 - 2) / 10, (10 - 3) / 100]))
    assert image.flatten().tolist() == [5.0, 6.0, 7.0]


def test_default_changes_nothing():
    images = torch.rand(2, 1, 3, 3)
    assert torch.equal(Preprocessing(PreprocessingParams())(images), images)


def test_one_value_serves_all_channels():
    result = Preprocessing(PreprocessingParams(mean=(127.5,), std=(128.0,)))(torch.full((1, 3, 2, 2), 255.5))
    assert torch.equal(result, torch.ones(1, 3, 2, 2))


def test_gradients_flow_to_the_right_channel():
    images = torch.zeros(1, 3, 1, 1, requires_grad=True)
    Preprocessing(PreprocessingParams(scale=3.0, channel_order="bgr"))(images)[0, 0].sum().backward()
    assert images.grad.flatten().tolist() == [0.0, 0.0, 3.0]


def test_constants_are_no_weights():
    assert not Preprocessing(PreprocessingParams(mean=(0.5,))).state_dict()


@pytest.mark.parametrize(
    ("values", "channels", "message"),
    [
        ({"mean": (1.0, 2.0)}, 3, r"preprocessing\.mean: expected 1 or 3 values.*got \[1\.0, 2\.0\]"),
        ({"std": (1.0, 2.0, 3.0)}, 1, r"preprocessing\.std: expected 1 or 1 values"),
        ({"channel_order": "bgr"}, 1, r"channel_order: 'bgr' needs images of 3 channels, these have 1"),
    ],
)
def test_values_that_do_not_fit_the_images_are_errors(values, channels, message):
    with pytest.raises(ConfigurationError, match=message):
        check_channels(PreprocessingParams(**values), channels)
