"""Deep k nearest neighbours, against a count written with scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from adv_detect.algorithms.detectors import build_detector
from adv_detect.errors import ConfigurationError
from adv_detect.params import DetectorParams


@pytest.fixture(scope="module")
def fitted(representatives, clean):
    detector = build_detector(DetectorParams(kind="dknn", arguments={"k": 7}), representatives)
    detector.fit(clean, None, seed=0)
    return detector


def nonconformities(detector, scored) -> np.ndarray:
    """Neighbours of another label than each class, over both layers."""
    counted = np.zeros((len(scored), 3))
    for number, name in enumerate(("early", "last")):
        points = (scored.features[name] - detector.get_buffer(f"centre_{number}")).numpy()
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        references = detector.get_buffer(f"references_{number}").numpy()
        rows = NearestNeighbors(n_neighbors=7).fit(references).kneighbors(points, return_distance=False)
        labels = detector.labels.numpy()[rows]
        counted += np.stack([(labels != one).sum(axis=1) for one in range(3)], axis=1)
    return counted


def test_the_score_is_minus_the_credibility_but_for_ties(fitted, attacked):
    least = nonconformities(fitted, attacked).min(axis=1)
    calibration = fitted.calibration.numpy()
    credibility = np.array([(calibration >= one).mean() for one in least])

    scores = fitted(attacked).double().numpy()

    breaking = scores + credibility
    assert (breaking >= -1e-6).all()
    assert (breaking < 1 / (2 * len(calibration))).all()
    assert len(np.unique(credibility)) > 1


def test_among_ties_more_nonconformity_scores_higher(fitted, attacked):
    least = nonconformities(fitted, attacked).min(axis=1)
    scores = fitted(attacked).double().numpy()
    order = np.argsort(least, kind="stable")
    highest = {one: scores[least == one].max() for one in np.unique(least)}
    lowest = {one: scores[least == one].min() for one in np.unique(least)}
    steps = np.unique(least[order])
    assert all(highest[below] < lowest[above] for below, above in itertools.pairwise(steps))


def test_calibration_images_are_none_of_those_compared_with(fitted, clean):
    assert len(fitted.labels) + len(fitted.calibration) == len(clean)
    assert len(fitted.calibration) == 30
    assert fitted.references_0.norm(dim=1).tolist() == pytest.approx([1.0] * 120, abs=1e-5)


def test_fewer_references_are_balanced(representatives, clean):
    detector = build_detector(DetectorParams(kind="dknn", arguments={"k": 3, "references": 30}), representatives)
    detector.fit(clean, None, seed=0)
    assert detector.labels.bincount().tolist() == [10, 10, 10]


def test_clean_images_conform(fitted, held):
    least = torch.from_numpy(nonconformities(fitted, held).min(axis=1)).long()
    assert fitted.credibility(least).mean() > 0.3


def test_more_neighbours_than_references_are_refused(representatives):
    with pytest.raises(ConfigurationError, match="k: expected 1 to 20, the references, got 21"):
        build_detector(DetectorParams(kind="dknn", arguments={"k": 21, "references": 20}), representatives)
