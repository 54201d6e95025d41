"""The attack on a gate that asks two networks, on a scene whose right answers are known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from adv_detect.algorithms.attacks.adaptive import AdaptiveTask, Guide, build_adaptive_attack, run_adaptive_attack
from adv_detect.algorithms.attacks.adaptive.gradients import evaluate
from adv_detect.algorithms.attacks.adaptive.second_opinion import SimilarityGuide, gaps, joint_gap, worst_gap
from adv_detect.errors import ConfigurationError

GREY = 0.5
DARK = torch.full((1, 1, 2, 2), GREY)


class TwoNetworks:
    """Network and twin each read two of the four pixels, as angles between two people; the detector reads the sum."""

    def __init__(self, *, twin_moves: bool = True, limit: float = 100.0) -> None:
        self.twin_moves, self.limit = twin_moves, limit

    def describe(self, images):
        pixels = images.flatten(1) - GREY
        network = torch.stack([1.0 - 4 * pixels[:, 0], 4 * pixels[:, 0]], dim=1)
        seen = pixels[:, 1] if self.twin_moves else 0.0 * pixels[:, 1]
        twin = torch.stack([1.0 - 4 * seen, 4 * seen], dim=1)
        embeddings = torch.stack([network, twin], dim=1)
        scores = pixels.sum(dim=1) * 10
        return embeddings.amin(dim=1), scores, embeddings

    def __call__(self, images):
        logits, scores, _ = self.describe(images)
        return logits, scores


def make_task(model, *, targeted=True, threshold=100.0, epsilon=0.25, images=DARK):
    count = len(images)
    towards = torch.tensor([[[0.0, 1.0]] * 2 if targeted else [[1.0, 0.2]] * 2])
    levels = torch.tensor([[[0.5 if targeted else 0.9, 0.1], [0.8, 0.2]]])
    expanded = {"values": towards.expand(count, 2, 2), "levels": levels.expand(count, 2, 2)}
    return AdaptiveTask(
        images=images,
        labels=torch.zeros(count, dtype=torch.int64),
        targets=torch.ones(count, dtype=torch.int64) if targeted else None,
        threshold=threshold,
        bounds=(0.0, 1.0),
        norm="linf",
        epsilon=epsilon,
        guide=SimilarityGuide(describe=model.describe, **expanded),
    )


def attack(model, task, **arguments):
    return run_adaptive_attack(build_adaptive_attack("second_opinion", {"steps": 40} | arguments), model, task)


def similarities(model, images, towards=(0.0, 1.0)):
    return functional.cosine_similarity(model.describe(images)[2], torch.tensor(towards), dim=2)[0]


def test_the_loss_reaches_both_embeddings():
    model = TwoNetworks()
    task = make_task(model)
    found = evaluate(model, task.images, task, use_guide=True)
    # both are at a right angle: 0.5 and 0.8 are missing, of 0.1 and 0.2
    assert gaps(found, task)[0].tolist() == pytest.approx([5.0, 4.0])
    assert worst_gap(found, task).item() == pytest.approx(5.0)
    (slope,) = torch.autograd.grad(joint_gap(found, task).sum(), found.images)
    network, twin, *others = slope.flatten().tolist()
    share = torch.softmax(torch.tensor([5.0, 4.0]), dim=0)
    # the cosine to the other axis grows by 4 a unit of the pixel, over the standard deviation
    assert network == pytest.approx(-4 / 0.1 * share[0].item(), rel=1e-4)
    assert twin == pytest.approx(-4 / 0.2 * share[1].item(), rel=1e-4)
    assert others == [0.0, 0.0]


def test_both_embeddings_reach_the_other_person():
    model = TwoNetworks()
    found = attack(model, make_task(model))
    assert similarities(model, found.images).tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    assert found.first_success.item() > 0


def test_a_twin_that_does_not_move_is_not_fooled():
    model = TwoNetworks(twin_moves=False)
    found = attack(model, make_task(model))
    network, twin = similarities(model, found.images).tolist()
    assert twin == pytest.approx(0.0)
    assert network == pytest.approx(1.0, abs=0.1)  # the smooth maximum goes on with what can be moved
    assert found.first_success.item() < 0


def test_away_from_the_own_person_one_network_is_enough():
    model = TwoNetworks(twin_moves=False)
    found = attack(model, make_task(model, targeted=False))
    assert (similarities(model, found.images, (1.0, 0.2)) < torch.tensor([0.9, 1.0])).all()
    assert found.first_success.item() > 0


def test_the_detector_is_followed_where_it_is_in_the_way():
    """The sum of the pixels must not grow: the two free ones have to pay for the two that the networks read."""
    model = TwoNetworks()
    task = make_task(model, threshold=0.05)
    found = attack(model, task, steps=120)
    assert found.detector_score.item() <= 0.05
    assert (similarities(model, found.images) > torch.tensor([0.5, 0.8])).all()
    free = found.images.flatten()[2:] - GREY
    assert (free < -0.05).all()
    assert attack(model, make_task(model), gate="similarity").detector_score.item() > 1.0  # nobody asks the detector


def test_a_larger_budget_is_not_weaker():
    model = TwoNetworks()
    gap = []
    for epsilon in (0.05, 0.1, 0.2, 0.4):
        task = make_task(model, epsilon=epsilon)
        images = attack(model, task, goal=9.0).images
        gap.append(worst_gap(evaluate(model, images, task, use_guide=True), task).item())
    assert gap == sorted(gap, reverse=True)


def test_steps_count_those_of_all_budgets():
    assert build_adaptive_attack("second_opinion", {"steps": 7, "restarts": 2}).total_steps == 28


def test_a_guide_without_levels_is_refused():
    model = TwoNetworks()
    task = make_task(model)
    bare = AdaptiveTask(
        images=task.images, labels=task.labels, targets=task.targets, threshold=1.0, bounds=(0.0, 1.0), norm="linf",
        epsilon=0.1, guide=Guide(values=task.guide.values, describe=model.describe),
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="guide with levels of similarity, got none"):
        attack(model, bare)


def test_an_image_does_not_feel_its_neighbours_and_keeps_its_budget():
    model = TwoNetworks()
    images = (DARK + torch.tensor([-0.1, 0.0, 0.05])[:, None, None, None]).clone()
    task = make_task(model, images=images, epsilon=0.1)
    build = build_adaptive_attack("second_opinion", {"steps": 10, "restarts": 2})
    together = run_adaptive_attack(build, model, task)
    alone = run_adaptive_attack(build, model, task.select(torch.tensor([2, 1, 0])), batch_size=1)
    torch.testing.assert_close(together.images.flip(0), alone.images)
    assert together.linf.max() <= 0.1 + 1e-6
    assert (together.linf > 0.05).all()
