"""The parts of the adaptive attacks against answers by hand, NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from adv_detect.algorithms.attacks.adam import AdamState
from adv_detect.algorithms.attacks.adaptive import AdaptiveTask, Guide, described_by, nearest_guides
from adv_detect.algorithms.attacks.adaptive import cw_detector as cw
from adv_detect.algorithms.attacks.adaptive.combined import guide_gap
from adv_detect.algorithms.attacks.adaptive.geometry import project, starting_points, step_factor, unit_step
from adv_detect.algorithms.attacks.adaptive.gradients import (
    CLASSIFIER,
    DETECTOR,
    Direction,
    classifier_loss,
    counts,
    evaluate,
    orthogonal_part,
    raw_gradient,
    unit_gradient,
)
from adv_detect.algorithms.attacks.adaptive.task import class_margin
from adv_detect.algorithms.attacks.adaptive.tracker import NEVER, Tracker
from adv_detect.algorithms.attacks.tanh_search import TanhSpace
from adv_detect.errors import ConfigurationError

LOGITS = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, -1.0]])


def _task(count=2, **changes) -> AdaptiveTask:
    arguments = {
        "images": torch.full((count, 1, 2, 2), 0.5),
        "labels": torch.arange(count) % 3,
        "threshold": 0.0,
        "bounds": (0.0, 1.0),
        "norm": "l2",
        "epsilon": 0.6,
    }
    return AdaptiveTask(**(arguments | changes))


def test_class_margin_by_hand():
    assert class_margin(LOGITS, _task()).tolist() == [-0.5, -4.0]
    assert class_margin(LOGITS, _task(targets=torch.tensor([2, 0]))).tolist() == [-0.5, -4.0]
    assert class_margin(LOGITS, _task(labels=torch.tensor([2, 0]))).tolist() == [0.5, 4.0]


def test_classifier_losses_by_hand_and_against_torch():
    task, targeted = _task(), _task(targets=torch.tensor([2, 0]))
    assert classifier_loss(LOGITS, task, "margin", 0.0).tolist() == [0.5, 4.0]
    beaten = _task(labels=torch.tensor([2, 0]))
    assert classifier_loss(LOGITS, beaten, "hinge", 1.0).tolist() == [0.5, 0.0]
    expected = functional.cross_entropy(LOGITS, task.labels, reduction="none")
    assert torch.equal(classifier_loss(LOGITS, task, "cross_entropy", 0.0), -expected)
    expected = functional.cross_entropy(LOGITS, targeted.targets, reduction="none")
    assert torch.equal(classifier_loss(LOGITS, targeted, "cross_entropy", 0.0), expected)


def test_projection_by_hand():
    far = torch.full((1, 1, 2, 2), 0.5)
    far[0, 0, 0, 0] = 2.0
    l2 = project(far, _task(1, epsilon=0.3))
    assert l2[0, 0, 0, 0].item() == pytest.approx(0.8, abs=1e-5)
    assert project(far, _task(1, epsilon=0.9))[0, 0, 0, 0].item() == 1.0
    linf = project(far + 0.25, _task(1, norm="linf", epsilon=0.125))
    assert torch.equal(linf, torch.full((1, 1, 2, 2), 0.625))
    inside = torch.full((1, 1, 2, 2), 0.55)
    assert torch.equal(project(inside, _task(1)), inside)


def test_projection_agrees_with_numpy():
    generator = torch.Generator().manual_seed(0)
    clean, moved = torch.rand(8, 1, 2, 2, generator=generator), torch.rand(8, 1, 2, 2, generator=generator) * 3 - 1
    got = project(moved, _task(8, images=clean)).numpy()
    change = (moved - clean).numpy()
    length = np.sqrt((change**2).sum(axis=(1, 2, 3), keepdims=True))
    expected = np.clip(clean.numpy() + change * np.minimum(1, 0.6 / length), 0, 1)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_unit_steps_have_length_one_however_small_the_gradient():
    direction = torch.tensor([[3.0, -4.0], [3e-25, 4e-25], [0.0, 0.0]]).reshape(3, 1, 1, 2)
    assert torch.allclose(unit_step(direction, "l2").flatten(1), torch.tensor([[0.6, -0.8], [0.6, 0.8], [0.0, 0.0]]))
    assert unit_step(direction, "linf").flatten(1).tolist() == [[1, -1], [1, 1], [0, 0]]


def test_step_factors():
    assert [step_factor(step, 4, "constant") for step in range(4)] == [1, 1, 1, 1]
    assert [step_factor(step, 4, "linear") for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert step_factor(2, 4, "cosine") == pytest.approx(0.5)


def test_starting_points_belong_to_the_image_and_the_restart():
    task = _task(6, seed=4, bounds=(-1.0, 2.0))
    assert torch.equal(starting_points(task, 0), task.images)
    first, second = starting_points(task, 1), starting_points(task, 2)
    assert not torch.equal(first, second)
    rows = torch.tensor([4, 1])
    assert torch.equal(starting_points(task.select(rows), 1), first[rows])
    assert (first - task.images).flatten(1).norm(dim=1).allclose(torch.tensor(0.6), rtol=1e-4)


def test_orthogonal_part_is_orthogonal_and_leaves_the_rest():
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(5, 1, 3, 3, generator=generator), torch.randn(5, 1, 3, 3, generator=generator)
    other[4] = 0
    part = orthogonal_part(one, other)
    assert torch.allclose((part * other).sum(dim=(1, 2, 3)), torch.zeros(5), atol=1e-5)
    assert torch.equal(part[4], one[4])
    assert torch.allclose(orthogonal_part(other, other)[:4], torch.zeros(4, 1, 3, 3), atol=1e-6)


def test_gradients_by_hand_and_absent_ones():
    images = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1).requires_grad_()
    loss = (images.flatten() ** 2) * torch.tensor([1.0, 1e-12, 0.0])
    assert torch.allclose(raw_gradient(loss, images, keep_graph=True).flatten(), torch.tensor([2.0, 4e-12, 0.0]))
    values, absent = unit_gradient(loss, images)
    assert values.flatten().tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert absent.tolist() == [False, False, True]
    values, absent = unit_gradient((images.detach() > 1).flatten().float(), images)
    assert absent.all()
    assert (values == 0).all()


def test_gradients_that_are_not_finite_count_as_absent():
    images = torch.tensor([0.0, 4.0]).reshape(2, 1, 1, 1).requires_grad_()
    _, absent = unit_gradient(images.flatten().sqrt(), images)
    assert absent.tolist() == [True, False]


def test_end_to_end_gradient_agrees_with_finite_differences(model, make_task):
    double = type(model)()
    double.load_state_dict(model.state_dict())
    double = double.double().eval()
    task = make_task()
    image = task.images[:1].double()
    evaluation = evaluate(double, image, task.select(torch.tensor([0])))
    got = raw_gradient(evaluation.detector_logits, evaluation.images).flatten()
    steps = torch.eye(got.numel(), dtype=torch.float64).reshape(-1, *image.shape[1:]) * 1e-6
    with torch.no_grad():
        expected = (double(image + steps)[1] - double(image - steps)[1]) / 2e-6
    assert torch.allclose(got, expected, atol=1e-6)


def test_tracker_keeps_the_lowest_key_and_freezes_done_rows():
    task = _task(3)
    tracker = Tracker(task)
    rows = torch.tensor([0, 2])
    better, worse = torch.full((2, 1, 2, 2), 0.1), torch.full((2, 1, 2, 2), 0.9)
    tracker.offer(rows, better, torch.tensor([1.0, NEVER]))
    tracker.offer(rows, worse, torch.tensor([2.0, 5.0]))
    tracker.finish(rows, torch.tensor([True, False]))
    tracker.offer(rows, worse, torch.tensor([-1.0, 4.0]))
    evaluated, zero = counts(DETECTOR, torch.tensor([True, True]))
    tracker.spend(rows, Direction(values=better, evaluated=evaluated, zero=zero))
    assert tracker.images[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert tracker.open_rows().tolist() == [1, 2]
    found = tracker.candidates()
    assert found.gradient_evaluations.tolist() == [0, 0, 1]
    assert found.zero_gradient_share.tolist() == [0, 0, 1]


def test_zero_share_is_the_larger_of_classifier_and_detector():
    tracker, rows = Tracker(_task(1)), torch.tensor([0])
    nothing = torch.zeros(1, 1, 2, 2)
    for column, absent in ((CLASSIFIER, False), (CLASSIFIER, False), (DETECTOR, True), (DETECTOR, False)):
        evaluated, zero = counts(column, torch.tensor([absent]))
        tracker.spend(rows, Direction(values=nothing, evaluated=evaluated, zero=zero))
    assert tracker.candidates().zero_gradient_share.item() == 0.5


@pytest.mark.parametrize(("selection", "reached"), [("correct", True), ("reference", False)])
def test_only_the_published_form_is_stuck_at_black_pixels(selection, reached):
    space = TanhSpace(0.0, 1.0, cw.TANH_MARGIN[selection])
    points = space.points(torch.zeros(1, 1, 2, 2))
    adam = AdamState.at_rest(points)
    for _ in range(200):
        points -= adam.move(-torch.ones(1, 1, 2, 2), 0.03)
    assert bool((space.pixels(points.tanh()) > 0.5).all()) == reached


def test_keys_put_every_passing_image_before_every_caught_one():
    sizes, scores = torch.tensor([0.0, 1.0, 1e4]), torch.tensor([-50.0, 0.0, 50.0])
    keys = torch.cat([cw._before_zero(sizes), cw._after_zero(scores)])
    assert torch.equal(keys, keys.sort().values)
    assert keys.unique().numel() == 6


def test_nearest_guides_by_hand():
    own = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    candidates = torch.tensor([[1.0, 0.0], [2.0, 0.0], [9.0, 0.0]])
    classes, labels = torch.tensor([0, 1, 2]), torch.tensor([0, 0])
    found = nearest_guides(own, candidates, classes, labels=labels, targets=None)
    assert torch.equal(found, candidates[[1, 2]])
    found = nearest_guides(own, candidates, classes, labels=labels, targets=torch.tensor([2, 1]))
    assert torch.equal(found, candidates[[2, 1]])
    with pytest.raises(ConfigurationError, match="1 of 2 images have no clean candidate"):
        nearest_guides(own, candidates, classes, labels=labels, targets=torch.tensor([5, 1]))


def test_guide_of_another_shape_is_refused(model, make_task):
    task = make_task(guide="layers")
    short = AdaptiveTask(**(vars(task) | {"guide": Guide(values=torch.zeros(24, 5), describe=model.describe)}))
    evaluation = evaluate(model, task.images, short, use_guide=True)
    with pytest.raises(ConfigurationError, match=r"expected values of shape \(24, 2, 12\).*got \(24, 5\)"):
        guide_gap(evaluation, short.guide)


def test_a_guide_is_needed_with_a_row_per_image(model, make_task):
    task = make_task()
    with pytest.raises(ConfigurationError, match="moves images towards a guide, got none"):
        guide_gap(evaluate(model, task.images, task), task.guide)
    with pytest.raises(ConfigurationError, match="guide: expected 24 rows as there are images, got 3"):
        AdaptiveTask(**(vars(task) | {"guide": Guide(values=torch.zeros(3, 2, 12), describe=model.describe)}))


def test_described_by_joins_model_and_description(model, make_task):
    images = make_task().images
    for got, expected in zip(described_by(model, model.layers)(images), model.describe(images), strict=True):
        assert torch.equal(got, expected)
