"""Splits hold images enough for what is measured on them."""

from __future__ import annotations

import numpy as np
import pytest

from adv_detect.algorithms.splits import split_sources
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import AdversarialGenerationParams, EvaluationParams, SplitParams
from adv_detect.validation.numbers import LEAST_IMAGES, check_image_numbers

TENS = np.repeat(np.arange(10), 30)


def test_a_limit_that_leaves_a_split_almost_empty_is_refused_with_the_least_one():
    message = (
        "splits.max_images: expected at least 50, so that the validation split, a share of 0.2, holds 10 of them, got 3"
    )

    with pytest.raises(ConfigurationError) as caught:
        check_image_numbers(TENS, splits=SplitParams(max_images=3), seed=0)

    assert str(caught.value) == message


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.3), (0.6, 0.1, 0.3), (0.34, 0.33, 0.33), (0.5, 0.15, 0.35)])
def test_the_least_number_is_enough_and_one_less_is_not(shares):
    names = dict(zip(("train", "validation", "test"), shares, strict=True))
    with pytest.raises(ConfigurationError) as caught:
        check_image_numbers(TENS, splits=SplitParams(max_images=3, **names), seed=0)
    least = int(str(caught.value).split("at least ")[1].split(",")[0])

    check_image_numbers(TENS, splits=SplitParams(max_images=least, **names), seed=0)
    division = split_sources(TENS, params=SplitParams(max_images=least, **names), seed=0)
    fewer = split_sources(TENS, params=SplitParams(max_images=least - 1, **names), seed=0)

    assert min(np.sum(division == split) for split in names) == LEAST_IMAGES
    assert min(np.sum(fewer == split) for split in names) <= LEAST_IMAGES


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match=r"test_images: expected at least 50 images, .* got 40"):
        check_image_numbers(TENS[:40], splits=SplitParams(), seed=0)


def test_a_split_by_identity_may_leave_few_images_too():
    labels = np.repeat(np.arange(6), [2, 2, 2, 2, 100, 100])

    with pytest.raises(
        DataError, match=r"splits: expected at least 10 images in the .* split, got \d+ \(by: identity\)"
    ):
        check_image_numbers(labels, splits=SplitParams(by="identity"), seed=0)


@pytest.mark.parametrize("key", ["max_images", "max_learning_images"])
def test_an_attack_on_a_handful_of_images_is_refused(key):
    attacks = AdversarialGenerationParams.model_validate({"attacks": {"cw": {"attack": "cw", key: 9}}})

    with pytest.raises(ConfigurationError, match=rf"attacks.cw.{key}: expected at least 10 images .*, got 9"):
        check_image_numbers(TENS, splits=SplitParams(), seed=0, attacks=attacks)


@pytest.mark.parametrize(("count", "named"), [(100, "0.01, 0.05"), (200, "0.01"), (500, None)])
def test_rates_that_the_validation_images_cannot_carry_are_said(caplog, count, named):
    evaluation = EvaluationParams(fprs=(0.05, 0.01))  # validation is a fifth: 20, 40, 100 images
    labels = np.repeat(np.arange(10), count // 10) if count != 100 else np.repeat(np.arange(10), 9)

    check_image_numbers(labels, splits=SplitParams(), seed=0, evaluation=evaluation)

    said = [record.getMessage() for record in caplog.records]
    if named is None:
        assert said == []
    else:
        (message,) = said
        assert f"evaluation.fprs: {named}: expected at least 100 clean validation images" in message
        assert f"got {len(labels) // 5};" in message
