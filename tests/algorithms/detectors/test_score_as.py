"""What a detector would answer if the network named another class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_detect.algorithms.detectors import Activations, MarginDetector, TwinDetector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.detectors.joined import JoinedDetector


def activations(count: int = 12) -> Activations:
    generator = torch.Generator().manual_seed(0)
    logits, twin = (torch.randn(count, 4, generator=generator) * 3 for _ in range(2))
    return Activations(logits=logits, features={}, twin=twin.log_softmax(dim=1))


def joined() -> JoinedDetector:
    made = JoinedDetector(None, members={"twin": {"kind": "twin"}, "margin": {"kind": "margin"}})  # type: ignore[arg-type]
    clean = activations(60)
    for name, member in made.members.items():
        made.high[name].fit(member(clean))
    return made


@pytest.mark.parametrize("make", [MarginDetector, TwinDetector, joined])
def test_it_is_the_score_where_the_network_names_the_class(make):
    detector, seen = make(), activations()
    scores = detector(seen)
    named = seen.logits.argmax(dim=1)
    assert torch.allclose(detector.score_as(seen, named, scores=scores), scores)
    assert torch.allclose(detector.score_parts(seen, named, scores=scores).amax(dim=1), scores)


def test_a_twin_answers_about_the_class_and_the_margin_about_the_image():
    seen, targets = activations(), torch.arange(12) % 4
    twin = TwinDetector()
    assert torch.equal(twin.score_as(seen, targets, scores=twin(seen)), -seen.twin[torch.arange(12), targets])
    margin = MarginDetector()
    assert torch.equal(margin.score_as(seen, targets, scores=margin(seen)), margin(seen))


def test_joined_detectors_ask_their_members():
    """By Bonferroni: minus the least log p-value, less log 2; the margin's is that of the image in any case."""
    detector, seen, targets = joined(), activations(), torch.arange(12) % 4
    own = torch.stack(
        [
            detector.log_p_value("twin", -seen.twin[torch.arange(12), targets]),
            detector.log_p_value("margin", MarginDetector()(seen)),
        ]
    )
    expected = -own.amin(dim=0) - torch.log(torch.tensor(2.0))
    assert torch.allclose(detector.score_as(seen, targets, scores=detector(seen)), expected)
    parts = detector.score_parts(seen, targets, scores=detector(seen))
    assert parts.shape == (12, 2)
    assert torch.allclose(parts.amax(dim=1), expected)


def test_a_product_of_p_values_has_one_part():
    detector, seen, targets = joined(), activations(), torch.arange(12) % 4
    detector.rule = "fisher"
    parts = detector.score_parts(seen, targets, scores=detector(seen))
    assert parts.shape == (12, 1)
    assert torch.allclose(parts[:, 0], detector.score_as(seen, targets, scores=detector(seen)))


class Counted(nn.Module):
    """A network that counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.runs = nn.Linear(6, 4), 0

    def forward(self, images):
        self.runs += 1
        return self.layer(images.flatten(1))


def test_the_network_is_not_run_where_the_twin_alone_is_read(tiny_twin):
    network, images, targets = Counted(), torch.rand(5, 1, 2, 3), torch.tensor([0, 1, 2, 3, 0])
    model = DetectionModel(network, TwinDetector(), ("layer",), twin=tiny_twin)
    assert model.detector_stands_alone
    alone = model.parts_as(images, targets)
    assert network.runs == 0
    assert alone.shape == (5, 1)
    assert torch.allclose(alone, model.evade(images, targets)[2])
    assert network.runs == 1
    logits, by_class = model.scores_by_class(images)
    assert torch.allclose(by_class.gather(1, targets[:, None]), alone)
    assert torch.equal(logits, network.layer(images.flatten(1)))


@pytest.fixture
def tiny_twin():
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)
            self.spec = type("Spec", (), {"head": "softmax"})

        def forward(self, images):
            return self.layer(images.flatten(1))

    return Twin()
