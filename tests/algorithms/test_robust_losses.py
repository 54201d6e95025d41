"""Losses of adversarial training and the perturbations that raise them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from scipy.stats import entropy
from torch import nn
from torch.nn import functional

from adv_detect.algorithms.robust_losses import (
    attacked,
    best_wrong_class,
    divergence,
    log_probabilities,
    one_vs_all_loss,
    perturb,
    trades_loss,
    wrong_class_loss,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 40.0, 3.0]])
CLASSES = torch.tensor([0, 2])


def test_log_probabilities_are_those_of_scipy_and_never_saturate():
    softmax = log_probabilities(LOGITS, "softmax")
    each = log_probabilities(LOGITS, "one_vs_all")

    np.testing.assert_allclose(softmax.numpy(), log_softmax(LOGITS.double().numpy(), axis=1), rtol=1e-5)
    np.testing.assert_allclose(each[0].exp().numpy(), expit(LOGITS[0].numpy()), rtol=1e-5)
    assert float(log_probabilities(torch.tensor([[-300.0, 0.0]]), "one_vs_all")[0, 0]) == pytest.approx(-300)


def test_the_best_wrong_class_is_never_the_own_one():
    assert best_wrong_class(LOGITS, CLASSES).tolist() == [0.5, 40.0]


def test_wrong_classes_are_refused_one_by_one():
    expected = [np.log1p(np.exp(-1.0)) + np.log1p(np.exp(0.5)), np.log(2) + 40.0]

    np.testing.assert_allclose(wrong_class_loss(LOGITS, CLASSES).numpy(), expected, rtol=1e-5)


def test_the_class_conditional_loss_asks_for_the_own_class_on_clean_images_alone():
    clean, moved = torch.tensor([[1.0, -2.0]]), torch.tensor([[-5.0, 3.0]])
    own, other, attack = np.log1p(np.exp(-1.0)), np.log1p(np.exp(-2.0)), np.log1p(np.exp(3.0))

    assert float(one_vs_all_loss(clean, moved, torch.tensor([0]))) == pytest.approx(own + (other + attack) / 2)


def test_trades_adds_the_divergence_of_scipy():
    moved = LOGITS.flip(1) / 3
    p, q = torch.softmax(LOGITS, 1).double().numpy(), torch.softmax(moved, 1).double().numpy()

    assert float(divergence(LOGITS, moved)) == pytest.approx(entropy(p, q, axis=1).sum(), rel=1e-4)
    expected = functional.cross_entropy(LOGITS, CLASSES) + 3.0 * divergence(LOGITS, moved) / 2
    assert float(trades_loss(LOGITS, moved, CLASSES, 3.0)) == pytest.approx(float(expected))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_perturbation_raises_the_loss_within_ball_and_bounds(norm):
    torch.manual_seed(0)
    images, weights = torch.rand(6, 1, 5, 5), torch.randn(1, 1, 5, 5)
    before = images.clone()

    moved = perturb(images, lambda x: (x * weights).sum(), norm=norm, epsilon=0.4, steps=20, step=0.1, bounds=(0, 1))

    offset = (moved - images).flatten(1)
    sizes = offset.abs().amax(1) if norm == "linf" else offset.norm(dim=1)
    assert torch.equal(images, before)
    assert float(sizes.max()) <= 0.4 + 1e-6
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert bool(((moved - images) * weights).flatten(1).sum(1).gt(0.2).all())
    if norm == "linf":
        wanted = (images + 0.4 * weights.sign()).clamp(0, 1)
        torch.testing.assert_close(moved, wanted)


def test_no_room_gives_the_images_back():
    images = torch.rand(2, 1, 3, 3)

    assert torch.equal(perturb(images, torch.sum, norm="linf", epsilon=0.0, steps=3, step=1.0, bounds=(0, 1)), images)


def test_a_network_under_attack_comes_back_as_it_was():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).train()
    network[1].eval()
    network[2].requires_grad_(False)

    with attacked(network):
        assert not any(one.training for one in network.modules())
        assert not any(one.requires_grad for one in network.parameters())

    assert [one.training for one in network] == [True, False, True]
    assert [one.requires_grad for one in network.parameters()] == [True, True, True, True, False, False]
