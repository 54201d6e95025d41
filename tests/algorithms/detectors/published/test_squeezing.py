"""Feature squeezing, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from adv_detect.algorithms.detectors import Activations, Reads, build_detector
from adv_detect.algorithms.detectors.registry import detector_reads, needed_views
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorParams

LOGITS = torch.tensor([[math.log(3.0), 0.0]])
"""Softmax 3/4, 1/4."""


def squeezing(**arguments):
    return DetectorParams(kind="feature-squeezing", arguments=arguments)


def test_the_view_that_moves_the_softmax_most_counts():
    views = {"slight": torch.zeros(1, 2), "strong": LOGITS.flip(1), "unread": torch.tensor([[-99.0, 99]])}
    detector = build_detector(squeezing(views=["slight", "strong"]), None)
    assert detector(Activations(LOGITS, {}, views)).item() == pytest.approx(1.0)  # 2 * (3/4 - 1/4)
    assert build_detector(squeezing(views="slight"), None)(Activations(LOGITS, {}, views)).item() == pytest.approx(0.5)


def test_it_reads_the_views_that_it_names():
    assert detector_reads(squeezing(views=["a", "b"])) == Reads(layers=False, views=("a", "b"))
    assert detector_reads(squeezing()).views == ("bit-depth-4", "median-3")


def test_a_view_that_is_not_configured_is_refused():
    with pytest.raises(ConfigurationError, match=r"configurations\.mine: the detector reads a view.*'jpeg-9'"):
        needed_views({"mine": squeezing(views="jpeg-9")}, {})


def test_no_view_is_refused():
    with pytest.raises(ConfigurationError, match=r"views: expected the names of at least one view, got \[\]"):
        build_detector(squeezing(views=[]), None)


def test_activations_without_its_views_are_refused():
    with pytest.raises(DataError, match=r"expected the views \['a'\], missing are \['a'\]"):
        build_detector(squeezing(views="a"), None)(Activations(LOGITS, {}))
