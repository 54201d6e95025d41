"""Invariants of layers and pairs, against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.svm import OneClassSVM as Solver

from adv_detect.algorithms.detectors import Activations, build_detector
from adv_detect.algorithms.detectors.published.one_class import OneClassSVM, principal_projection
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorParams


def drawn(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) * torch.arange(1, width + 1) + 3


def test_the_one_class_model_is_that_of_scikit_learn():
    rows, scored = drawn(200, 5, 0), drawn(50, 5, 1) * 1.3
    model = OneClassSVM(5, nu=0.1, components=3)
    model.fit(rows)
    whitened = PCA(3, whiten=True).fit(rows.double().numpy())
    expected = Solver(nu=0.1, gamma=1 / 3).fit(whitened.transform(rows.double().numpy()))
    decided = expected.decision_function(whitened.transform(scored.double().numpy()))

    found = model(scored).numpy()

    threshold = -expected.intercept_[0]
    np.testing.assert_allclose(np.exp(-found), (decided + threshold) / threshold, rtol=1e-3)
    assert ((found > 0) == (decided < 0)).mean() >= 0.98


def test_far_away_it_still_rises():
    model = OneClassSVM(5, nu=0.1, components=5)
    model.fit(drawn(100, 5, 0))
    near, far = model(torch.stack([torch.full((5,), 1e3), torch.full((5,), 1e4)])).tolist()
    assert 1e3 < near < far < np.inf


def test_components_without_spread_are_left_out():
    rows = drawn(50, 3, 0)
    flat = torch.cat([rows, rows[:, :1], torch.zeros(50, 1)], dim=1).double()
    flat = flat - flat.mean(dim=0)
    found = principal_projection(flat, 10)
    assert found.shape == (5, 3)
    np.testing.assert_allclose(np.cov((flat @ found).numpy().T), np.eye(3), atol=1e-8)
    assert principal_projection(torch.zeros(4, 2).double(), 10).shape == (2, 1)


def test_readings_of_classes_are_logistic_regressions(representatives, clean, held):
    detector = build_detector(DetectorParams(kind="nic"), representatives)
    detector.fit(clean, None, seed=0)
    part = clean.features["early"].numpy()
    mean, std = part.mean(axis=0), part.std(axis=0, ddof=1)
    model = LogisticRegression(max_iter=300).fit((part - mean) / std, clean.logits.argmax(dim=1).numpy())

    (pair,) = detector._pairs(held)

    np.testing.assert_allclose(
        pair[:, :3].detach(), model.predict_proba((held.features["early"].numpy() - mean) / std), atol=2e-3
    )
    torch.testing.assert_close(pair[:, 3:].detach(), held.logits.softmax(dim=1))


def test_a_layer_that_contradicts_the_next_is_found_by_the_provenance(representatives, clean, held):
    """Every layer on its own looks natural: only the pair tells."""
    detector = build_detector(DetectorParams(kind="nic"), representatives)
    detector.fit(clean, None, seed=0)
    turned = torch.arange(len(held)).roll(1)
    odd = Activations(held.logits, {"early": held.features["early"][turned], "last": held.features["last"]})

    with torch.no_grad():
        natural, mixed = detector.invariants(held), detector.invariants(odd)

    torch.testing.assert_close(mixed[:, :2].sort(dim=0).values, natural[:, :2].sort(dim=0).values)
    assert mixed[:, 2].median() > natural[:, 2].quantile(0.95)
    assert detector(odd).median() > detector(held).quantile(0.95)


def test_two_classes_are_read_as_by_scikit_learn(representatives, clean):
    two = clean.select(clean.logits.argmax(dim=1) != 1)
    detector = build_detector(DetectorParams(kind="nic"), representatives)
    detector.fit(two, None, seed=0)
    (pair,) = detector._pairs(two)
    assert pair[:, 1].max() == 0
    assert ((pair[:, 2] > 0.5) == (two.logits.argmax(dim=1) == 2)).float().mean() > 0.95


def test_one_class_is_refused(representatives, clean):
    detector = build_detector(DetectorParams(kind="nic"), representatives)
    with pytest.raises(DataError, match=r"clean images of at least 2 classes, got \[1\]"):
        detector.fit(clean.select(clean.logits.argmax(dim=1) == 1), None, seed=0)


def test_a_single_layer_is_refused(representatives):
    single = replace(
        representatives,
        layers=("last",),
        centroids=representatives.centroids[1:],
        medoids=representatives.medoids[1:],
        whitening=representatives.whitening[1:],
    )
    with pytest.raises(
        ConfigurationError, match=r"at least 2 layers read.*got \['last'\]; name more in network.layers"
    ):
        build_detector(DetectorParams(kind="nic"), single)


@pytest.mark.parametrize("arguments", [{"nu": 0}, {"components": 0}, {"images": 5}])
def test_bad_arguments_are_refused(arguments, representatives):
    with pytest.raises(ConfigurationError, match="expected nu above 0 and at most 1, components from 1 and images"):
        build_detector(DetectorParams(kind="nic", arguments=arguments), representatives)
