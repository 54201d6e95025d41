"""Explanations of verdicts: hand-computed cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.served import draw_images

from adv_detect.algorithms.bands import NaturalBands, natural_bands
from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.serving.bundle import ScoringBundle, score_images
from adv_detect.serving.explanation import Explainer, explanation_table

LAYERS, CLASSES = ("one", "two", "three"), ("a", "b", "c")
CENTROIDS = torch.tensor([[0.0], [10.0], [20.0]])


@pytest.fixture
def explainer() -> Explainer:
    points = [CENTROIDS] * 3
    made = Representatives(LAYERS, CLASSES, points, points, [torch.eye(1)] * 3, [["x", "y", "z"]] * 3)
    shape = (3, 3)
    bands = NaturalBands(torch.zeros(shape), torch.ones(shape), torch.full(shape, 2.0), torch.full((3,), 50))
    return Explainer(made, bands)


def said(features: list[list[float]], named: list[int], **more: object) -> Activations:
    logits = torch.nn.functional.one_hot(torch.tensor(named), 3).float()
    values = {name: torch.tensor([[row[number]] for row in features]) for number, name in enumerate(LAYERS)}
    return Activations(logits=logits, features=values, **more)


def table(explainer, activations):
    predicted = activations.logits.argmax(dim=1)
    return explanation_table(explainer(activations), class_names=CLASSES, layers=LAYERS, predicted=predicted)


def test_layers_that_depart_and_the_class_of_the_early_layers(explainer):
    # of class a: natural all the way; and one that begins at c (distance 20), is between at layer two, ends at a
    found = table(explainer, said([[1.0, 1.0, 1.5], [20.0, 6.0, 0.5]], [0, 0]))
    assert found["departing_layers"].tolist() == ["", "one, two"]
    assert found["early_class"].tolist() == ["a", "c"]
    assert found["departure.one"].tolist() == [0.0, 19.0]
    assert found["departure.two"].tolist() == [0.0, 5.0]
    assert found["departure.three"].tolist() == [0.5, -0.5]
    assert found["views_changed"].isna().all()
    assert found["twin_class"].isna().all()
    assert found["twin_belief"].isna().all()


def test_views_and_twin_that_disagree(explainer):
    views = {"blur": torch.eye(3)[[0, 2]], "jpeg": torch.eye(3)[[0, 0]]}
    twin = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]]).log()
    found = table(explainer, said([[1.0] * 3] * 2, [0, 0], views=views, twin=twin))
    assert found["views_changed"].tolist() == ["", "blur"]
    assert found["twin_class"].tolist() == ["a", "c"]
    assert found["twin_belief"].tolist() == pytest.approx([0.7, 0.05])


def test_a_model_without_bands_leaves_the_layers_out(explainer):
    without = Explainer(Representatives(LAYERS, CLASSES, [], [], [], []), None)
    found = table(without, said([[1.0] * 3], [0]))
    assert found["departing_layers"].isna().all()
    assert not [name for name in found if name.startswith("departure.")]


@pytest.fixture(scope="module")
def explained(bundle) -> ScoringBundle:
    with torch.no_grad():
        clean = network_activations(bundle.network, draw_images(60, 2), bundle.network.spec.layers)
    return replace(bundle, bands=natural_bands(clean, bundle.representatives))


def test_scores_are_the_same_with_an_explanation(explained):
    images = draw_images(5, 3).numpy()
    plain, told = score_images(explained, images), score_images(explained, images, explainer=explained.explainer())
    assert told[plain.columns.tolist()].equals(plain)
    layers = explained.network.spec.layers
    assert [f"departure.{name}" for name in layers] == [name for name in told if name.startswith("departure.")]
    assert told["early_class"].isin(explained.network.spec.class_names).all()
    assert len(score_images(explained, images[:0], explainer=explained.explainer())) == 0


def test_bands_travel_with_the_bundle(explained, bundle, tmp_path):
    explained.save(tmp_path)
    again = ScoringBundle.load(tmp_path)
    assert torch.equal(again.bands.high, explained.bands.high)
    images = draw_images(4, 4).numpy()
    first, second = (score_images(one, images, explainer=one.explainer()) for one in (explained, again))
    assert first.equals(second)
    (tmp_path / "without").mkdir()
    bundle.save(tmp_path / "without")
    assert ScoringBundle.load(tmp_path / "without").bands is None
