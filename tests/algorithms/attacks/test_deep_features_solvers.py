from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.attacks.deep_features_lbfgs import LbfgsSteps
from adv_detect.algorithms.attacks.deep_features_objective import FeatureObjective, NearestRepresentativeJudge, make_box
from adv_detect.algorithms.attacks.deep_features_solvers import AdamSteps, SignSteps, minimise

ROUNDS = 200


def steppers(iterations: int = ROUNDS) -> dict:
    return {
        "lbfgs": LbfgsSteps(history=5, tolerance=0.0),
        "adam": AdamSteps(iterations=iterations, learning_rate=0.2),
        "sign": SignSteps(iterations=iterations, learning_rate=0.2, momentum=0.0),
    }


def flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


@pytest.mark.parametrize("name", ["lbfgs", "adam", "sign"])
def test_identity_features_give_the_guide_clipped_into_the_box(name):
    start = torch.full((1, 1, 1, 4), 0.5)
    guide = torch.tensor([[0.5, 0.55, 0.9, -3.0]])
    box = make_box(start, max_thres=25.5, bounds=(0.0, 1.0))
    solution = minimise(FeatureObjective(flat, guide), start, box, steppers()[name], iterations=ROUNDS)
    torch.testing.assert_close(solution.images.flatten(), torch.tensor([0.5, 0.55, 0.6, 0.4]), atol=1e-3, rtol=0)


def test_lbfgs_solves_an_ill_conditioned_least_squares_like_scipy():
    from scipy.optimize import lsq_linear

    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64) * torch.logspace(0, -1.5, 12)
    guides = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    start = torch.rand(3, 1, 3, 4, generator=generator, dtype=torch.float64)
    box = make_box(start, max_thres=255.0, bounds=(0.0, 1.0))
    solution = minimise(
        FeatureObjective(lambda images: images.flatten(1) @ matrix.T, guides),
        start,
        box,
        LbfgsSteps(history=10, tolerance=0.0),
        iterations=ROUNDS,
    )
    ours = (solution.images.flatten(1) @ matrix.T - guides).square().sum(dim=1) / 2
    best = [lsq_linear(matrix.numpy(), guide.numpy(), bounds=(0, 1), tol=1e-12).cost for guide in guides]
    np.testing.assert_allclose(ours.numpy(), best, rtol=1e-4)
    assert int(solution.evaluations.max()) < ROUNDS


def test_lbfgs_finishes_where_nothing_can_be_gained():
    start = torch.tensor([[[[1.0, 0.0]]], [[[0.5, 0.5]]]])
    guides = torch.tensor([[2.0, -1.0], [0.5, 0.5]])
    solution = minimise(
        FeatureObjective(flat, guides),
        start,
        make_box(start, max_thres=51.0, bounds=(0.0, 1.0)),
        LbfgsSteps(history=3, tolerance=1e-6),
        iterations=50,
    )
    assert torch.equal(solution.images, start)
    assert solution.evaluations.tolist() == [1, 1]


def test_lbfgs_gives_up_where_the_gradient_lies():
    class Wrong(FeatureObjective):
        def evaluate(self, images, rows):
            honest = super().evaluate(images, rows)
            return type(honest)(honest.loss, -honest.gradient, honest.features)

    start = torch.full((1, 1, 1, 2), 0.5)
    box = make_box(start, max_thres=51.0, bounds=(0.0, 1.0))
    solution = minimise(
        Wrong(flat, torch.tensor([[0.7, 0.1]])), start, box, LbfgsSteps(history=3, tolerance=1e-6), iterations=500
    )
    assert torch.equal(solution.images, start)
    assert int(solution.evaluations) < 40


@pytest.mark.parametrize("name", ["lbfgs", "adam", "sign"])
def test_images_leave_the_batch_one_by_one(name):
    seen = []

    def features(images):
        seen.append(len(images))
        return images.flatten(1)

    start = torch.zeros(3, 1, 1, 2)
    centres = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    guides = torch.tensor([[1.0, 1.0], [0.55, 0.55], [0.1, 0.1]])
    judge = NearestRepresentativeJudge(centres, torch.tensor([0, 0, 0]))
    box = make_box(start, max_thres=255.0, bounds=(0.0, 1.0))
    solution = minimise(FeatureObjective(features, guides), start, box, steppers(20)[name], iterations=20, judge=judge)
    fooled = judge.fooled(solution.images.flatten(1), torch.arange(3))
    assert fooled.tolist() == [True, True, False]
    assert seen[0] == 3
    assert seen[-1] == 1 or name == "lbfgs"
    assert sorted(seen, reverse=True) == seen
    assert int(solution.evaluations.sum()) == sum(seen)


@pytest.mark.parametrize("name", ["lbfgs", "adam", "sign"])
def test_the_best_point_is_returned_not_the_last(name):
    start = torch.full((1, 1, 1, 1), 0.5)
    guide = torch.tensor([[0.5001]])
    box = make_box(start, max_thres=255.0, bounds=(0.0, 1.0))
    solution = minimise(FeatureObjective(flat, guide), start, box, steppers(3)[name], iterations=3)
    assert abs(float(solution.images) - 0.5001) <= 1e-4 + 1e-6


def test_leaving_maximises_the_distance():
    start = torch.tensor([[[[0.5, 0.4]]]])
    objective = FeatureObjective(flat, torch.tensor([[0.45, 0.45]]), direction="leave")
    box = make_box(start, max_thres=25.5, bounds=(0.0, 1.0))
    solution = minimise(objective, start, box, LbfgsSteps(history=3, tolerance=1e-6), iterations=30)
    torch.testing.assert_close(solution.images.flatten(), torch.tensor([0.6, 0.3]), atol=1e-5, rtol=0)
