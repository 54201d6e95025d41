"""Mahalanobis distances of all layers, against SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

from adv_detect.algorithms.detectors import build_detector
from adv_detect.algorithms.detectors.published.logistic import LogisticReadout
from adv_detect.algorithms.detectors.published.mahalanobis import MahalanobisDetector
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorParams


def test_figures_are_squared_mahalanobis_distances_to_the_nearest_class_mean(representatives, clean, held):
    labels = clean.logits.argmax(dim=1)
    expected = []
    for part, mean, scored in zip(
        clean.features.values(), representatives.centroids, held.features.values(), strict=True
    ):
        centred = (part - mean[labels]).double().numpy()
        inverse = np.linalg.inv(centred.T @ centred / len(centred))
        far = cdist(scored.double().numpy(), mean.double().numpy(), "mahalanobis", VI=inverse)
        expected.append(far.min(axis=1) ** 2)

    found = MahalanobisDetector(representatives).figures(held)

    np.testing.assert_allclose(found.numpy(), np.stack(expected, axis=1), rtol=1e-3)


def test_the_readout_is_a_logistic_regression_on_standardised_figures():
    generator = torch.Generator().manual_seed(0)
    clean, attacked = torch.randn(80, 2, generator=generator) * 5, torch.randn(40, 2, generator=generator) * 5 + 4
    readout = LogisticReadout(2)
    readout.fit(clean, attacked, seed=0)
    rows = torch.cat([clean, attacked])
    scaled = ((rows - rows.mean(dim=0)) / rows.std(dim=0)).numpy()
    targets = np.arange(120) >= 80
    models = [
        LogisticRegression(C=strength, class_weight="balanced").fit(scaled, targets)
        for strength in np.logspace(-4, 4, 10)
    ]

    nearest = min(np.abs(model.decision_function(scaled) - readout(rows).numpy()).max() for model in models)

    assert nearest < 5e-3  # how far the solver goes


def test_one_attacked_image_is_too_few():
    with pytest.raises(DataError, match="at least 2 natural and 2 attacked images to learn from, got 5 and 1"):
        LogisticReadout(2).fit(torch.rand(5, 2), torch.rand(1, 2), seed=0)


def test_noise_on_the_input_is_refused(representatives):
    with pytest.raises(ConfigurationError, match=r"input_noise: expected 0, got 0\.01"):
        build_detector(DetectorParams(kind="mahalanobis", arguments={"input_noise": 0.01}), representatives)
