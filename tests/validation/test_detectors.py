"""Detectors that cannot be made, or fitted, are refused before there is anything to make them from."""

from __future__ import annotations

import re

import pytest
from torch import Tensor

from adv_detect.algorithms.detectors import Activations, Detector, LearnsFrom
from adv_detect.errors import ConfigurationError
from adv_detect.params import DetectorTrainingParams
from adv_detect.validation.detectors import check_arguments


class Wide(Detector):
    """Wants more features than the stand-in has."""

    learns_from = LearnsFrom.NOTHING

    def __init__(self, representatives) -> None:
        super().__init__()
        if representatives.centroids[0].shape[1] < 1000:
            raise ValueError("too narrow")

    def forward(self, activations: Activations) -> Tensor:
        return activations.logits[:, 0]


def check(kind: str, arguments: dict | None = None, *, layers=("a", "b"), clean: int | None = 100) -> None:
    params = DetectorTrainingParams.model_validate(
        {"configurations": {"lstm": {"kind": "lstm"}, "mine": {"kind": kind, "arguments": arguments or {}}}}
    )
    check_arguments(params, layers=layers, class_names=("x", "y", "z"), clean=clean)


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        ("kde", {"dropout": True}, "dropout: expected false, got true"),
        ("kde", {"bandwith": 1.0}, "arguments of detector 'kde': .*bandwith"),
        ("mahalanobis", {"input_noise": 0.1}, "input_noise: expected 0"),
        ("lid", {"k": 100}, "k: expected 2 to 99"),
        (
            "lid",
            {"k": 20, "minibatch": 91},
            "needs at least 101 natural images of the train split, there are at most 100",
        ),
        ("dknn", {}, "needs at least 94 natural images of the train split, there are at most 93"),
        ("margin", {"x": 1}, "arguments of detector 'margin'"),
        ("density", {"neighbours": 100}, "needs at least 101 natural images of the train split, there are at most 100"),
        ("multiview", {"neighbours": 120}, "needs at least 121 natural images"),
        ("density", {"model": "neighbours", "density_neighbours": 101}, "needs at least 101 natural images"),
        ("density", {"top_k": 4}, "top_k: expected at most the 3 classes of the data, got 4"),
        (
            "joined",
            {"members": {"a": {"kind": "margin"}, "b": {"kind": "density", "arguments": {"neighbours": 100}}}},
            "needs at least 101 natural images",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_the_name_of_its_configuration(kind, arguments, match):
    with pytest.raises(ConfigurationError, match=rf"detector_training\.configurations\.mine: .*{match}"):
        check(kind, arguments, clean=93 if kind == "dknn" else 100)


def test_neighbours_of_a_library_are_counted():
    pytest.importorskip("pytorch_ood", reason="pytorch-ood, of the extra ood, is not installed")
    with pytest.raises(ConfigurationError, match=re.escape("needs at least 101 natural images")):
        check("pytorch_ood.detector.KNN", {"k": 101})
    check("pytorch_ood.detector.KNN", {"k": 100})


def test_too_few_layers_are_refused():
    with pytest.raises(
        ConfigurationError, match=r"configurations\.mine: nic: expected a network with at least 2 layers"
    ):
        check("nic", layers=("a",))


def test_what_fits_passes():
    for kind in ("dknn", "kde", "mahalanobis", "nic", "feature-squeezing", "margin", "density", "multiview"):
        check(kind)
    check("dknn", {"k": 5000}, clean=None)


def test_a_detector_that_only_the_stand_in_does_not_suit_passes():
    check(f"{__name__}.Wide")
