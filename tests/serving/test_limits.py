from __future__ import annotations

import pytest

from adv_detect.errors import ConfigurationError
from adv_detect.params import ServingParams
from adv_detect.serving.limits import MOST_PREDICTIONS, Limits, available_cores


def test_defaults_are_those_of_the_parameters():
    limits = Limits.from_environment({}, {})
    assert (
        (limits.max_images, limits.max_bytes) == (ServingParams().max_images, ServingParams().max_bytes) == (256, 2**25)
    )
    assert limits.predictions == min(available_cores(), MOST_PREDICTIONS)
    assert limits.timeout == 60
    assert limits.max_held == 4 * 2**25


def test_the_environment_goes_before_the_model_and_that_before_the_defaults():
    configured = {"name": "mine", "fpr": 0.05, "max_images": 10, "max_bytes": 5000}
    limits = Limits.from_environment(configured, {"ADV_DETECT_MAX_IMAGES": "7", "ADV_DETECT_MAX_BYTES": ""})
    assert (limits.max_images, limits.max_bytes, limits.max_requests) == (7, 5000, 64)


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ADV_DETECT_MAX_IMAGES", "max_images"),
        ("ADV_DETECT_MAX_BYTES", "max_bytes"),
        ("ADV_DETECT_MAX_REQUESTS", "max_requests"),
        ("ADV_DETECT_PREDICTIONS", "predictions"),
        ("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "timeout"),
    ],
)
def test_each_variable(variable, name):
    assert getattr(Limits.from_environment({}, {variable: "3"}), name) == 3
    for bad in ("0", "-1", "1.5", "many", "1e3", "nan"):
        with pytest.raises(
            ConfigurationError, match=rf"{variable}: expected a whole number of at least 1, got '{bad}'"
        ):
            Limits.from_environment({}, {variable: bad})


@pytest.mark.parametrize("bad", [{"max_images": 0}, {"max_bytes": 10}, {"max_images": "many"}, {"max_image": 5}])
def test_parameters_out_of_range(bad):
    with pytest.raises(ValueError, match="max_"):
        ServingParams.model_validate(bad)
