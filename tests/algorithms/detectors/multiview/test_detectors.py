"""Detectors of joined descriptions: what they find, how a cascade joins, models of clean images."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from tests.algorithms.detectors.multiview.test_description import activations, representatives
from torch import nn

from adv_detect.algorithms.detectors import Activations, FitData, build_detector, score_activations
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.detectors.multiview.detector import join_scores
from adv_detect.algorithms.detectors.multiview.one_class import OneClass
from adv_detect.algorithms.detectors.trajectory.sampling import side_weights
from adv_detect.algorithms.roc import area
from adv_detect.algorithms.views import Views
from adv_detect.errors import DataError
from adv_detect.params import DetectorFitParams, DetectorParams, ImageChangeParams

FIT = DetectorFitParams(epochs=25, batch_size=32, learning_rate=1e-2)
READS = {"views": ["v"], "neighbours": 3, "distances": False, "hidden": 16}


def attacked(count: int, *, seed: int) -> Activations:
    """Images whose view disagrees with them."""
    one = activations(count, seed=seed)
    return Activations(
        one.logits, one.features, {"v": one.logits.roll(1, dims=1) * 3}, groups=("bim/targeted",) * count
    )


def clean(count: int, *, seed: int) -> Activations:
    """Images whose view agrees with them."""
    one = activations(count, seed=seed, sources=False)
    return Activations(one.logits, one.features, {"v": one.logits * 0.9}, groups=("natural",) * count)


@cache
def fitted(**arguments):
    made = build_detector(DetectorParams(kind="multiview", arguments=READS | arguments), representatives())
    data = FitData(clean(200, seed=0), attacked(200, seed=1), clean(40, seed=2), attacked(40, seed=3), FIT)
    made.fit_chosen(data, seed=0)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("arguments", [{}, {"readout": "lstm"}, {"cascade": True, "sure_clean": 0.02}])
def test_it_finds_images_whose_views_disagree(arguments):
    made = fitted(**arguments)
    scores = [score_activations(made, one) for one in (attacked(50, seed=5), clean(50, seed=6))]

    assert area(*(one.numpy() for one in scores)) > 0.85


def test_it_scores_the_same_after_being_stored():
    made, images = fitted(cascade=True), attacked(9, seed=7)
    again = build_detector(DetectorParams(kind="multiview", arguments=READS | {"cascade": True}), representatives())
    again.load_state_dict(made.state_dict())

    assert torch.equal(score_activations(again, images), score_activations(made, images))


def test_scores_of_a_cascade_are_one_order():
    cheap, sure = torch.tensor([-3.0, -2.0, 0.0, 0.5, 2.0, 4.0]), torch.tensor([-1.0, 1.0])
    full = torch.tensor([50.0, -50.0, -7.0, 9.0, -50.0, 50.0])

    found = join_scores(cheap, full, sure)

    assert found.tolist() == [-3.0, -2.0, -7.0, 9.0, 2.0, 4.0]
    assert join_scores(cheap, -full, sure)[[0, 1, 4, 5]].tolist() == found[[0, 1, 4, 5]].tolist()


def test_a_cascade_needs_views_of_unsure_images_alone_and_says_what_it_costs():
    made = fitted(cascade=True, sure_clean=0.6, sure_attacked=0.1)
    images = clean(40, seed=2)  # the validation images that the bounds come from

    needing = made.needs_views(images)

    assert 0 < int(needing.sum()) < len(images)
    assert float(needing.float().mean()) == pytest.approx(0.3, abs=0.05)
    assert made.forward_passes(images) == pytest.approx(1 + float(needing.float().mean()))
    other = Activations(images.logits, images.features, {"v": images.views["v"].where(needing[:, None], 99.0)})
    assert torch.equal(score_activations(made, other), score_activations(made, images))


class Network(nn.Module):
    """Two layers and a count of the images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 2), nn.Linear(2, 2), nn.Linear(2, 4)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.head(self.b(self.a(images.flatten(1)).relu()))


def test_the_joint_model_runs_the_network_on_views_of_unsure_images_alone():
    made = fitted(cascade=True, sure_clean=0.6, sure_attacked=0.1)
    torch.manual_seed(0)
    network = Network()
    views = Views.build({"v": ImageChangeParams(kind="brightness", arguments={"factor": 0.5})}, (0.0, 1.0))
    model, images = DetectionModel(network, made, ("a", "b"), views=views), torch.rand(20, 1, 2, 2)

    with torch.no_grad():
        logits, scores = model(images)
    seen, network.seen = network.seen, 0
    whole = DetectionModel(network, made, ("a", "b")).activations(images)
    needing = made.needs_views(whole)

    assert seen == 20 + int(needing.sum())
    assert network.seen == 20
    full = Activations(logits, whole.features, views.logits(network, images))
    torch.testing.assert_close(scores, made(full).detach())


def test_without_attacks_it_says_so():
    made = build_detector(DetectorParams(kind="multiview", arguments=READS), representatives())
    with pytest.raises(DataError, match="multiview detector learns from attacks, got none"):
        made.fit(clean(20, seed=0), None, seed=0)


@pytest.mark.parametrize("model", ["gaussian", "class_gaussian", "neighbours"])
@pytest.mark.parametrize("kind", ["density", "view-consistency"])
def test_detectors_of_clean_images_find_what_is_far_from_them(kind, model):
    arguments = {"model": model} | ({"views": ["v"]} if kind == "view-consistency" else {"neighbours": 3})
    made = build_detector(DetectorParams(kind=kind, arguments=arguments), representatives())
    made.fit(clean(100, seed=0), None, seed=0)
    ordinary, odd = clean(60, seed=1), attacked(60, seed=2)
    if kind == "density":
        odd = Activations(odd.logits * 4, {name: one + 3 for name, one in odd.features.items()})

    assert area(score_activations(made, odd).numpy(), score_activations(made, ordinary).numpy()) > 0.9


def test_the_gaussian_is_that_of_ledoit_and_wolf():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[2.0, 1, 0], [0, 1, 0], [0, 0, 3]]
    )
    made = OneClass(3, 5, "gaussian", k=1, references=1)
    made.fit(values, torch.zeros(200, dtype=torch.int64), seed=0)

    even = np.arcsinh((values.numpy() - values.numpy().mean(0)) / values.numpy().std(0))
    wanted = np.sqrt(LedoitWolf().fit(even).mahalanobis(even) / 3)
    np.testing.assert_allclose(made(values, torch.zeros(200, dtype=torch.int64)).numpy(), wanted, rtol=2e-3)


def test_both_sides_weigh_the_same_and_changes_share_half_of_theirs():
    groups = torch.tensor([2, 2, 2, 0, 1, 1, 3, 4, 4])  # natural 2, changes 0 and 1, attacks 3 and 4
    adversarial = groups > 2

    weights = side_weights(groups, adversarial, 2)

    totals = [float(weights[groups == group].sum()) for group in range(5)]
    assert totals == pytest.approx([0.125, 0.125, 0.25, 0.25, 0.25])
    assert side_weights(groups[[0, 6, 7]], adversarial[[0, 6, 7]], 2).tolist() == pytest.approx([0.5, 0.25, 0.25])
