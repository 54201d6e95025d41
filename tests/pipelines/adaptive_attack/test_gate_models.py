"""Network, twin and detector as an attacker of a gate sees them, with random weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.features import extract_features
from adv_detect.errors import DataError
from adv_detect.networks.target import build_target
from adv_detect.params import NetworkParams
from adv_detect.pipelines.adaptive_attack.gate_models import GateModel, Templates, make_templates, stack_embeddings

SHAPE, CLASSES = (1, 28, 28), ("a", "b", "c")


class Sum(nn.Module):
    """A detector that adds up the logits."""

    def forward(self, activations):
        return activations.logits.sum(dim=1)

    def score_parts(self, activations, named, *, scores):
        return scores[:, None]


class Joined(nn.Module):
    """A joint model as :class:`GateModel` uses it; reads the twin or not."""

    def __init__(self, network, twin):
        super().__init__()
        self.network, self.twin, self.detector, self.layers = network, twin, Sum(), network.spec.layers

    def activations(self, images):
        return network_activations(self.network, images, self.layers, twin=self.twin)


@pytest.fixture(scope="module")
def networks():
    params = [NetworkParams(name="small"), NetworkParams(name="strided")]
    return [build_target(one, class_names=CLASSES, image_shape=SHAPE).freeze() for one in params]


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def embed(network, images):
    return extract_features(network, images, network.spec.layers[-1:])[1][0]


def make_model(networks, images, *, reads_twin):
    network, twin = networks
    values = stack_embeddings(embed(network, images), embed(twin, images))
    values = torch.cat([values, values.mean(dim=0, keepdim=True)])
    levels = torch.tensor([[0.5, 0.1], [0.25, 0.5]])
    joint = Joined(network, twin if reads_twin else None)
    return GateModel(joint, twin, Templates(functional.normalize(values, dim=2), levels)).eval()


@pytest.mark.parametrize("reads_twin", [False, True])
def test_images_are_described_by_both_networks(networks, images, reads_twin):
    model = make_model(networks, images, reads_twin=reads_twin)
    logits, scores, embeddings, parts = model.evade(images, None)
    for place, network in enumerate(networks):
        own = embed(network, images)
        torch.testing.assert_close(embeddings[:, place, : own.shape[1]], own)
        assert not embeddings[:, place, own.shape[1] :].any()
    # each image is the template of its own class: (1 - .5) / .1 = 5 in the network, (1 - .25) / .5 = 1.5 in the twin
    torch.testing.assert_close(logits.diagonal(), torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(scores, networks[0](images).sum(dim=1))
    assert torch.equal(parts[:, 0], scores)
    assert torch.equal(model(images)[0], logits)


@pytest.mark.parametrize("place", [0, 1])
def test_each_embedding_has_a_gradient(networks, images, place):
    model = make_model(networks, images, reads_twin=True)
    leaf = images.clone().requires_grad_()
    aim = model.templates[[1, 0], place]
    similar = functional.cosine_similarity(model.describe(leaf)[2][:, place], aim, dim=1)
    (slope,) = torch.autograd.grad(similar.sum(), leaf)
    assert (slope.flatten(1).abs().amax(dim=1) > 0).all()


def test_templates_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])  # class 0 twice, class 1 once
    second = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = make_templates(stack_embeddings(first, second), torch.tensor([0, 0, 1]), 3)
    half = 0.5**0.5
    expected = [
        [[half, half, 0.0], [1.0, 0.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.0] * 3] * 2,
    ]
    torch.testing.assert_close(found.values, torch.tensor(expected))
    # the two pictures of class 0 are at a right angle in the one network and alike in the other
    torch.testing.assert_close(found.levels, torch.tensor([[0.0, 1e-3], [1.0, 1e-3]]))
    with pytest.raises(DataError, match="needs a class with two clean images"):
        make_templates(stack_embeddings(first[1:], second[1:]), torch.tensor([0, 1]), 2)
