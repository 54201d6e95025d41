"""Kernel densities, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity

from adv_detect.algorithms.detectors import Activations, FitData, build_detector
from adv_detect.errors import ConfigurationError
from adv_detect.params import DetectorParams


def fitted(representatives, clean, **arguments):
    detector = build_detector(DetectorParams(kind="kde", arguments=arguments), representatives)
    detector.fit(clean, None, seed=0)
    return detector


def by_scikit_learn(clean: Activations, scored: Activations, bandwidth: float) -> np.ndarray:
    learned, predicted = clean.logits.argmax(dim=1), scored.logits.argmax(dim=1)
    found = np.zeros(len(scored))
    for one in range(3):
        density = KernelDensity(bandwidth=bandwidth).fit(clean.features["last"][learned == one].numpy())
        rows = (predicted == one).numpy()
        found[rows] = density.score_samples(scored.features["last"].numpy()[rows])
    return found


def test_it_is_minus_the_log_density_of_the_predicted_class(representatives, clean, attacked):
    normalisation = 6 * math.log(0.7 * math.sqrt(2 * math.pi))
    expected = by_scikit_learn(clean, attacked, 0.7) + normalisation
    found = fitted(representatives, clean, bandwidth=0.7)(attacked)
    np.testing.assert_allclose(-found.numpy(), expected, rtol=1e-4)


def test_the_bandwidth_is_the_likeliest_for_the_validation_images(representatives, clean, held):
    detector = build_detector(DetectorParams(kind="kde"), representatives)
    history = detector.fit_chosen(FitData(clean, None, held, None), seed=0)
    likelihoods = [by_scikit_learn(clean, held, one["bandwidth"]).mean() for one in history]

    np.testing.assert_allclose([one["log_likelihood"] for one in history], likelihoods, rtol=1e-3)
    assert detector.bandwidth == history[int(np.argmax(likelihoods))]["bandwidth"]
    assert 0 < int(np.argmax(likelihoods)) < len(history) - 1


def test_a_class_without_images_is_measured_against_all(representatives, clean):
    detector = fitted(representatives, clean.select(clean.logits.argmax(dim=1) != 2), bandwidth=1.0)
    image = clean.select(clean.logits.argmax(dim=1) == 2).select(torch.tensor([0]))
    expected = KernelDensity(bandwidth=1.0).fit(detector.references.numpy())
    found = -detector(image).item() - 6 * math.log(math.sqrt(2 * math.pi))
    assert found == pytest.approx(expected.score_samples(image.features["last"].numpy()).item(), rel=1e-4)


def test_far_away_it_stays_finite_and_rises(representatives, clean):
    detector = fitted(representatives, clean, bandwidth=0.1)
    features = {"early": torch.zeros(2, 4), "last": torch.stack([torch.full((6,), 1e3), torch.full((6,), 1e4)])}
    near, far = detector(Activations(torch.eye(3)[:2], features)).tolist()
    assert 1e7 < near < far < math.inf


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"dropout": True}, "dropout: expected false, got true; .*activations hold one"),
        ({"bandwidth": 0.0}, "bandwidth above 0 or null"),
        ({"references": 1}, "at least 2 references"),
    ],
)
def test_bad_arguments_are_refused(arguments, match, representatives):
    with pytest.raises(ConfigurationError, match=match):
        build_detector(DetectorParams(kind="kde", arguments=arguments), representatives)
