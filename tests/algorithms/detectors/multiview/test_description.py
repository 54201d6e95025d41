"""Descriptions: each part by hand, and what they do not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.detectors.multiview.arguments import (
    ConsistencyArguments,
    DescriptionArguments,
    MultiviewArguments,
    parse_arguments,
)
from adv_detect.algorithms.detectors.multiview.description import Description, logit_gaps, view_changes
from adv_detect.algorithms.detectors.multiview.neighbourhood import SHARPNESS, Neighbourhood
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

CLASSES = 4


def representatives(classes: int = CLASSES) -> Representatives:
    points = torch.arange(classes, dtype=torch.float32)[:, None].repeat(1, 2)
    return Representatives(
        layers=("a", "b"),
        class_names=tuple(map(str, range(classes))),
        medoids=[points, 2 * points],
        centroids=[points, 2 * points],
        whitening=[torch.eye(2), 2 * torch.eye(2)],
        medoid_source_ids=[[""] * classes] * 2,
    )


def activations(count: int, *, seed: int = 0, classes: int = CLASSES, sources: bool = True) -> Activations:
    generator = torch.Generator().manual_seed(seed)
    return Activations(
        logits=torch.randn(count, classes, generator=generator),
        features={name: torch.randn(count, 2, generator=generator) for name in ("a", "b")},
        views={"v": torch.randn(count, classes, generator=generator)},
        sources=torch.arange(count) if sources else None,
    )


def test_gaps_are_those_to_the_largest_logit():
    logits = torch.tensor([[1.0, 4.0, -2.0]])

    assert logit_gaps(logits, torch.tensor([[1, 0, 2]])).tolist() == [[3.0, 6.0]]


def test_changes_of_a_view_are_ranked_by_the_image():
    logits, seen = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[1.0, 1.0]])

    found = view_changes(logits, seen, torch.tensor([[1, 0]]))

    torch.testing.assert_close(found, torch.tensor([[1 - math.log(3.0), 1.0, 0.0, -0.25, 0.25, 0.0]]))


def test_a_description_does_not_change_with_the_names_of_classes():
    order = torch.tensor([2, 0, 3, 1])
    plain = representatives()
    other = Representatives(
        layers=plain.layers,
        class_names=plain.class_names,
        medoids=plain.medoids,
        centroids=[part[order] for part in plain.centroids],
        whitening=plain.whitening,
        medoid_source_ids=plain.medoid_source_ids,
    )
    clean, images = activations(12), activations(5, seed=1)

    def permuted(one: Activations) -> Activations:
        return Activations(one.logits[:, order], one.features, {"v": one.views["v"][:, order]}, sources=one.sources)

    arguments = DescriptionArguments(neighbours=3, views=("v",))
    first, second = Description(plain, arguments), Description(other, arguments)
    first.fit(clean, seed=0)
    second.fit(permuted(clean), seed=0)

    assert first(images).shape == (5, first.width) == (5, 2 * (4 + 5) + 3 + 6)
    torch.testing.assert_close(second(permuted(images)), first(images))


def test_labels_and_distances_of_neighbours_by_hand():
    logits = torch.eye(3)[[0, 1, 2]]
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    clean = Activations(logits, {"a": points, "b": points})
    part = Neighbourhood(representatives(3), k=2, references=10)
    part.fit(clean, seed=0)
    image = Activations(torch.tensor([[2.0, 3.0, 1.0]]), {"a": torch.tensor([[0.4, 0.0]]), "b": torch.zeros(1, 2)})

    found = part(image, torch.tensor([[1, 0, 2]]))[0, 0]

    typical = torch.tensor([3.0, 2.0, 3.0]).median().item()
    near, far = 0.4 / typical, 0.6 / typical
    weight = math.exp(-SHARPNESS * near) / (math.exp(-SHARPNESS * near) + math.exp(-SHARPNESS * far))
    torch.testing.assert_close(found, torch.tensor([1 - weight, weight, 0.0, near, far]), rtol=1e-4, atol=1e-5)


def test_an_image_is_not_its_own_neighbour_in_training():
    clean = activations(9)
    part = Neighbourhood(representatives(), k=3, references=20)
    part.fit(clean, seed=0)
    ranking = clean.logits.argsort(dim=1, descending=True)

    own, others = part(clean, ranking), part(clean, ranking, others=True)

    assert (own[:, :, 3] < 1e-4).all()
    assert (others[:, :, 3] > 1e-3).all()
    torch.testing.assert_close(others[:, 0, 3] * part.scale[0], _second_distance(clean.features["a"]))


def _second_distance(features: torch.Tensor) -> torch.Tensor:
    return torch.cdist(features, features).sort(dim=1).values[:, 1]


def test_gradients_reach_features_through_neighbours_and_logits_through_views():
    clean, images = activations(12), activations(4, seed=2)
    part = Description(representatives(), DescriptionArguments(distances=False, neighbours=3, views=("v",)))
    part.fit(clean, seed=0)
    leaves = [images.logits, *images.features.values(), images.views["v"]]
    for leaf in leaves:
        leaf.requires_grad_(True)

    shares = part(images)[:, :3]
    shares.square().sum().backward(retain_graph=True)
    assert images.features["a"].grad is not None
    assert images.features["a"].grad.abs().sum() > 0
    part(images).sum().backward()

    assert all(leaf.grad is not None and bool(torch.isfinite(leaf.grad).all()) for leaf in leaves)


def test_references_survive_being_stored():
    clean, images = activations(12), activations(4, seed=2)
    made, again = (Description(representatives(), DescriptionArguments(neighbours=3)) for _ in range(2))
    made.fit(clean, seed=0)
    again.load_state_dict(made.state_dict())

    assert torch.equal(again(images), made(images))


def test_too_few_clean_images_and_missing_parts_are_named():
    part = Description(representatives(), DescriptionArguments(neighbours=5, views=("w",)))
    with pytest.raises(DataError, match="more than k = 5 clean images to learn from, got 5"):
        part.fit(activations(5), seed=0)
    with pytest.raises(DataError, match=r"missing are \['w'\]"):
        part(activations(5))


def test_benign_changes_are_no_references():
    clean = Activations(torch.zeros(3, 2), {}, groups=("natural", "benign/blur", "natural"))

    assert clean.unchanged().groups == ("natural", "natural")


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (MultiviewArguments, {"veiws": []}, r"'veiws' \(did you mean 'views'\?\)"),
        (MultiviewArguments, {"neighbours": 30, "references": 30}, "fewer than the 30 references, got 30"),
        (MultiviewArguments, {"cascade": True}, "cascade: expected views"),
        (MultiviewArguments, {"sure_clean": 0.9, "sure_attacked": 0.2}, "expected a sum below 1"),
        (
            MultiviewArguments,
            {"distances": False, "neighbours": 0, "readout": "lstm"},
            "an lstm walks through layers; expected distances or neighbours",
        ),
        (DescriptionArguments, {"distances": False, "logit_gaps": False, "neighbours": 0}, "expected at least one of"),
        (ConsistencyArguments, {}, "views"),
    ],
)
def test_arguments_that_cannot_work_are_refused(kind, arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        parse_arguments(kind, arguments)
