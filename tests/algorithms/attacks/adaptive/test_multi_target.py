"""The attack on network and detector towards every class, where what can be found is known by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.adaptive import AdaptiveTask, Guide, build_adaptive_attack, run_adaptive_attack
from adv_detect.algorithms.attacks.adaptive.multi_target import rank_targets
from adv_detect.algorithms.attacks.adaptive.task import NO_SUCCESS
from adv_detect.algorithms.detectors import Activations, TwinDetector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.measures.adaptive_checks import run_checks, unreliable_detectors

THRESHOLD = 0.5
EPSILON = 0.15


class Plane(DetectionModel):
    """Images of two pixels (x, y), three classes, and a twin that never believes in class 1.

    The network names class 1 right of x = 0.6 and class 2 above y = 0.7, whichever is further. The twin's logit of
    class 2 is 10 (y - 0.7), of class 0 it is 0, of class 1 -3.
    """

    def __init__(self) -> None:
        super().__init__(nn.Identity(), TwinDetector(), ())
        self.eval()

    def activations(self, images: Tensor) -> Activations:
        x, y = images.flatten(1).unbind(dim=1)
        nothing = torch.zeros_like(x)
        logits = torch.stack([nothing, 4 * (x - 0.6), 4 * (y - 0.7)], dim=1)
        twin = torch.stack([nothing, nothing - 3, 10 * (y - 0.7)], dim=1)
        return Activations(logits=logits, features={}, twin=twin.log_softmax(dim=1))


class Apart(Plane):
    """The same, whose detector is followed without the network until it nearly passes."""

    asked = 0

    @property
    def detector_stands_alone(self) -> bool:
        return True

    def activations(self, images: Tensor) -> Activations:
        self.asked += len(images)
        return super().activations(images)

    def parts_as(self, images: Tensor, targets: Tensor) -> Tensor:
        said = super().activations(images).twin
        return -said.gather(1, targets[:, None])


def points(count: int = 40) -> Tensor:
    drawn = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    return (drawn * torch.tensor([0.15, 0.3]) + torch.tensor([0.44, 0.39])).reshape(count, 1, 1, 2)


def can_be_lost(images: Tensor) -> Tensor:
    """Whether a point within the Linf budget is named 2 by the network and believed so by the twin.

    Both grow with y, and only class 1 of the network, which grows with x, stands against it: the corner up and left
    decides. The twin passes where log(1 + (1 + e^-3) e^-t) <= 0.5 for its logit t.
    """
    x, y = (images.flatten(1) + torch.tensor([-EPSILON, EPSILON])).unbind(dim=1)
    least = 0.7 + math.log((1 + math.exp(-3)) / math.expm1(THRESHOLD)) / 10
    return (y >= least) & (y > 0.7) & (y - 0.7 > x - 0.6)


def task_of(images: Tensor, **changes) -> AdaptiveTask:
    given = {
        "images": images,
        "labels": torch.zeros(len(images), dtype=torch.int64),
        "threshold": THRESHOLD,
        "bounds": (0.0, 1.0),
        "norm": "linf",
        "epsilon": EPSILON,
    }
    return AdaptiveTask(**(given | changes))


def run(name, model, task, **arguments):
    return run_adaptive_attack(build_adaptive_attack(name, arguments), model, task)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_detector_followed_alone_loses_the_same_images_for_fewer_runs_of_the_network(norm):
    together, apart, task = Plane(), Apart(), task_of(points(), norm=norm)
    found = [run("multi_target", one, task, steps=60, restarts=2, detector_margin=0) for one in (together, apart)]
    assert torch.equal(found[0].evaded, found[1].evaded)
    assert 0 < found[1].evaded.sum() < len(task)
    counted = int(found[1].gradient_evaluations.sum())
    assert apart.asked < counted / 2


def test_it_finds_every_image_that_can_be_lost_and_one_without_targets_misses_some():
    images = points()
    possible = can_be_lost(images)
    assert 10 < possible.sum() < 30
    found = run("multi_target", Plane(), task_of(images), steps=60, restarts=2, detector_margin=0)
    assert torch.equal(found.evaded, possible)
    without = run("selective", Plane(), task_of(images), steps=60, restarts=2, detector_margin=0)
    assert not bool((without.evaded & ~possible).any())
    assert without.evaded.sum() < possible.sum()


def test_a_target_of_the_task_is_the_only_one():
    images = points()
    aimed = {target: task_of(images, targets=torch.full((len(images),), target)) for target in (1, 2)}
    assert not run("multi_target", Plane(), aimed[1], steps=40, restarts=1).evaded.any()
    assert torch.equal(
        run("multi_target", Plane(), aimed[2], steps=60, restarts=1, detector_margin=0).evaded, can_be_lost(images)
    )


def test_the_nearest_targets_are_those_of_the_detector():
    """At (0.55, 0.6) the twin's logits are 0, -3 and -1, so class 2 comes first, though the network is nearer to 1."""
    task = task_of(torch.tensor([[[[0.55, 0.6]]]]))
    assert rank_targets(Plane(), task, "all").tolist() == [[2, 1]]
    assert rank_targets(Plane(), task, 1).tolist() == [[2]]
    by_logits = rank_targets(lambda images: (Plane()(images)[0], torch.zeros(len(images))), task, "all")
    assert by_logits.tolist() == [[1, 2]]


def test_steps_are_counted_to_the_first_success():
    """Twice as many steps of a run find nothing that half of the count did not already tell."""
    images = points()
    found = run("multi_target", Plane(), task_of(images), steps=60, restarts=2)
    counted = found.first_success
    assert torch.equal(counted != NO_SUCCESS, found.evaded)
    assert bool((counted[found.evaded] < 60).all()), "the first run finds what there is"
    assert int(counted[found.evaded].min()) > 0, "no clean image gets through"
    noise = run("random_noise", Plane(), task_of(images), samples=20)
    assert torch.equal(noise.first_success > 0, noise.evaded)
    assert noise.evaded.sum() < found.evaded.sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_queries_alone_find_nearly_the_nearest_point(norm):
    """From (0.4, 0.5) only y matters: the nearest point that gets through lies straight up, in either norm."""
    least = 0.7 + math.log((1 + math.exp(-3)) / math.expm1(THRESHOLD)) / 10
    images = torch.tensor([[[[0.4, 0.5]]], [[[0.4, 0.6]]]])
    starts = torch.tensor([[[[0.2, 0.95]]], [[[0.9, 0.2]]]])
    task = task_of(images, norm=norm, epsilon=None)
    guide = _guide(starts.expand(2, *starts.shape))
    name = "hop_skip_jump" if norm == "linf" else "hop_skip_jump_l2"
    found = run(name, Plane(), replace(task, guide=guide), steps=30, initial_gradient_eval_steps=50)
    sizes = found.linf if norm == "linf" else found.l2
    nearest = least - images[:, 0, 0, 1]
    assert found.evaded.all()
    assert (sizes >= nearest - 1e-5).all()
    assert (sizes <= 1.25 * nearest).all()
    nowhere = run(name, Plane(), replace(task, guide=_guide(starts[1:].expand(2, 1, 1, 1, 2))), steps=2)
    assert torch.equal(nowhere.images, images)


def _guide(values: Tensor) -> Guide:
    return Guide(values=values, describe=Plane().describe)


class Templates(nn.Module):
    """Logits by likeness to one pattern per class, behind a hard threshold of the pixels or not."""

    def __init__(self, patterns: Tensor, *, masked: bool) -> None:
        super().__init__()
        self.patterns = (patterns > 0.5).float() if masked else patterns
        self.masked = masked

    def forward(self, images: Tensor) -> Tensor:
        seen = (images > 0.5).to(images) if self.masked else images
        away = (seen[:, None] - self.patterns[None]).flatten(2).square().sum(dim=2)
        return -0.5 * away


class WithTwin(DetectionModel):
    """The tiny network with a twin made of templates."""

    def __init__(self, network: nn.Module, twin: nn.Module) -> None:
        super().__init__(network, TwinDetector(), ())
        self.templates = twin
        self.eval()

    def activations(self, images: Tensor) -> Activations:
        return Activations(logits=self.network(images)[0], features={}, twin=self.templates(images).log_softmax(dim=1))


def _planted(model, make_task, *, masked: bool) -> tuple[pd.DataFrame, dict]:
    patterns = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(99)) * 0.6 + 0.2  # those of the images
    joint = WithTwin(model, Templates(patterns, masked=masked))
    task = make_task(norm="linf", epsilon=0.1)
    scores = joint(task.images)[1]
    usable = task.select(torch.nonzero(scores <= scores.quantile(0.95)).squeeze(1))
    usable = replace(usable, threshold=float(scores.quantile(0.95)))
    attacks = {"multi": ("multi_target", {"steps": 30, "restarts": 2}), "noise": ("random_noise", {"samples": 30})}
    tables = []
    for attack, (name, arguments) in attacks.items():
        result = run(name, joint, usable, **arguments)
        tables.append(_table(attack, usable, result))
    records = pd.concat(tables, ignore_index=True)
    return records, unreliable_detectors(run_checks(records, blind={"random noise": ["noise"]}))


def _table(attack: str, task: AdaptiveTask, result) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source_id": [f"image-{index}" for index in range(len(task))],
            "detector": "twin", "classifier": "network", "attack": attack, "norm": task.norm,
            "epsilon": task.epsilon, "criterion": "untargeted", "fooled": result.fooled,
            "evaded_fpr_01": result.evaded, "evaded_fpr_05": result.evaded, "detector_score": result.detector_score,
            "l2": result.l2, "linf": result.linf, "gradient_evaluations": result.gradient_evaluations,
            "zero_gradient_share": result.zero_gradient_share,
        }
    )  # fmt: skip


def test_a_twin_behind_a_hard_threshold_is_called_unreliable_not_robust(model, make_task):
    records, reasons = _planted(model, make_task, masked=True)
    followed = records[records["attack"] == "multi"]
    assert followed["evaded_fpr_05"].mean() < 0.2, "it looks robust"
    assert any("the gradients are masked" in reason for reason in reasons["twin"])


def test_a_twin_with_gradients_is_not_called_unreliable(model, make_task):
    records, reasons = _planted(model, make_task, masked=False)
    assert records["fooled"].any()
    assert reasons == {}
