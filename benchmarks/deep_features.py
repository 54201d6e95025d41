"""Attack on deep features against SciPy's L-BFGS-B, one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.deep_features import last_features, run_deep_features
from adv_detect.algorithms.attacks.deep_features_objective import PIXEL_LEVELS
from adv_detect.algorithms.attacks.result import AttackContext
from adv_detect.algorithms.representatives import Representatives
from benchmarks.libraries import own_form
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios
from benchmarks.subjects import digit_representatives, digits, faces, other_classes

GOAL = 20.0
DIGIT_THRESHOLD, FACE_THRESHOLD = 76.5, 10.0
PEOPLE = 20
SEED = 2026
SUCCESS_SLACK, DISTANCE_SLACK = 0.02, 1.05


@dataclass(frozen=True)
class Impersonation:
    """Images that are to come near to the medoid of another class.

    Attributes:
        network: Frozen network.
        images: Source images ``(N, channels, H, W)``.
        labels: Their classes ``(N,)``.
        targets: Classes aimed at ``(N,)``.
        representatives: The last layer's medoids are guides and judge.
        max_thres: Largest change of a pixel in 0..255 units.
        iterations: Most iterations.
        early: Whether an image ends when the target's medoid is the nearest.
        few: So many of them, the first, are given to SciPy, which takes one at a time.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor
    representatives: Representatives
    max_thres: float
    iterations: int
    early: bool
    few: int

    @property
    def medoids(self) -> Tensor:
        return self.representatives.medoids[-1]

    def first(self) -> Impersonation:
        """The same with the few images only."""
        rows = slice(self.few)
        return replace(self, images=self.images[rows], labels=self.labels[rows], targets=self.targets[rows])

    def features(self, images: Tensor) -> Tensor:
        return last_features(self.network, self.representatives.layers)(images)


def measure_deep_features(settings: Settings) -> Iterator[Row]:
    """Stopped at the first success, as published, and run to the end."""
    for early in (True, False):
        yield _compared("`small`", digit_impersonation(settings, early=early), settings)
    yield _compared("face network", _faces(settings), settings)


def digit_impersonation(settings: Settings, *, early: bool) -> Impersonation:
    """The last of the test images, which no other measurement uses."""
    network, images, labels = digits(settings)
    rows = slice(-settings.size(256, 8, gpu=1024), None)
    targets = other_classes(labels[rows], 10)
    representatives = digit_representatives(settings)
    steps = settings.size(100, 5) if early else settings.size(50, 5)
    few = settings.size(64, 4, gpu=128)
    return Impersonation(
        network, images[rows], labels[rows], targets, representatives, DIGIT_THRESHOLD, steps, early, few
    )


@torch.no_grad()
def _faces(settings: Settings) -> Impersonation:
    """Faces; the features of others stand for people."""
    count = settings.size(64, 4, gpu=256)
    network, images, _ = faces(settings, count + PEOPLE, SEED)
    layers, names = tuple(network.spec.layers[-1:]), tuple(str(number) for number in range(PEOPLE))
    features = last_features(network, layers)(images)
    people = features[count:]
    eye = torch.eye(people.shape[1], device=people.device)
    representatives = Representatives(layers, names, [people], [people], [eye], [list(names)])
    labels = torch.cdist(features[:count], people).argmin(dim=1)
    targets = other_classes(labels, PEOPLE)
    steps, few = settings.size(30, 2), settings.size(16, 2, gpu=64)
    return Impersonation(
        network, images[:count], labels, targets, representatives, FACE_THRESHOLD, steps, early=True, few=few
    )


def _compared(label: str, task: Impersonation, settings: Settings) -> Row:
    few = task.first()
    found: dict[str, Tensor] = {}
    gradients: dict[str, float] = {}

    def ours() -> None:
        images, gradients[OURS] = solve_ours(task)
        found[OURS] = images[: task.few]

    def theirs() -> None:
        found["scipy"], gradients["scipy"] = solve_scipy(few)

    works: dict[str, Callable[[], None]] = {OURS: ours, "scipy": theirs}
    ours()
    times = in_turns(works, settings.device, rounds=settings.size(2, 1), warm=False)
    (rate, near), (their_rate, their_near) = (_judge(few, found[name]) for name in (OURS, "scipy"))
    worse = "fewer successes" if rate < their_rate - SUCCESS_SLACK else ""
    if not task.early and near > DISTANCE_SLACK * their_near:
        worse = "farther from the guide"
    counts = {OURS: len(task.images), "scipy": task.few}
    used = {
        name: f"{gradients[name]:.1f} gradients and {1000 * min(times[name]) / counts[name]:.1f} ms an image"
        for name in times
    }
    note = (
        f"per image; ours {len(task.images)} in one batch, SciPy {task.few} of them one by one, not used for anything "
        f"else; max_thres {task.max_thres:g}, at most {task.iterations} iterations; ours / theirs: {used[OURS]} / "
        f"{used['scipy']}, and of these {task.few}: success {rate:.3f} / {their_rate:.3f}, mean distance to the guide "
        f"{near:.3f} / {their_near:.3f}"
    )
    outcome = {"success": rate, "other_success": their_rate, "distance": near, "other_distance": their_near}
    name = f"{label}, {'stopped early' if task.early else 'run to the end'}: SciPy L-BFGS-B / ours"
    values = ratios(times["scipy"], times[OURS], scale=len(task.images) / task.few)
    return Row("deep features", name, values, note, GOAL, worse=worse, outcome=outcome)


@torch.no_grad()
def _judge(task: Impersonation, images: Tensor) -> tuple[float, float]:
    """Success rate, and mean distance to the target's medoid."""
    found = torch.cdist(task.features(images), task.medoids)
    success = found.argmin(dim=1) == task.targets
    return float(success.float().mean()), float(found.gather(1, task.targets[:, None]).mean())


def solve_ours(task: Impersonation) -> tuple[Tensor, float]:
    """All images in one batch; also the gradients an image."""
    result = run_deep_features(
        {"max_thres": task.max_thres, "iterations": task.iterations, "solver": "lbfgs"},
        own_form(task.network, task.images.device), task.images,
        task.labels, targets=task.targets, bounds=(0.0, 1.0), seed=0,
        context=AttackContext(task.representatives, task.representatives.layers), return_early=task.early,
    )  # fmt: skip
    return result.images, float(result.gradient_evaluations.float().mean())


def solve_scipy(task: Impersonation) -> tuple[Tensor, float]:
    """Image by image; also the gradients an image."""
    solved = [_one(task, image, int(target)) for image, target in zip(task.images, task.targets, strict=True)]
    images = torch.stack([image for image, _ in solved]).to(task.images)
    return images, sum(count for _, count in solved) / len(solved)


def _one(task: Impersonation, image: Tensor, target: int) -> tuple[Tensor, int]:
    from scipy.optimize import minimize

    start = image.cpu().numpy().ravel().astype(np.float64)
    radius = task.max_thres / PIXEL_LEVELS
    box = np.stack([np.clip(start - radius, 0, 1), np.clip(start + radius, 0, 1)], axis=1)
    loss = _Loss(task, image, target)
    found: Any = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=box, options={"maxiter": task.iterations},
        callback=loss.stop if task.early else None,
    )  # fmt: skip
    return torch.from_numpy(found.x.reshape(image.shape)).to(torch.float32), loss.calls


class _Loss:
    """Half the squared distance to the guide, which ours minimises too, and its gradient.

    Remembers its last features, so that a look at them costs nothing.
    """

    def __init__(self, task: Impersonation, image: Tensor, target: int) -> None:
        self.task, self.image, self.target = task, image, target
        self.calls = 0
        self.last: tuple[np.ndarray, Tensor] | None = None

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        leaf = torch.from_numpy(flat.reshape(1, *self.image.shape)).to(self.image).requires_grad_(True)
        features = self.task.features(leaf)
        value = (features[0] - self.task.medoids[self.target]).square().sum() / 2
        (gradient,) = torch.autograd.grad(value, leaf)
        self.last = (flat.copy(), features.detach())
        return float(value.detach()), gradient.cpu().numpy().ravel().astype(np.float64)

    def stop(self, flat: np.ndarray) -> None:
        """End the search once the target's medoid is the nearest.

        Raises:
            StopIteration: It is.
        """
        if self.last is None or not np.array_equal(self.last[0], flat):
            self(flat)
        features = self.last[1] if self.last else torch.empty(0)
        if int(torch.cdist(features, self.task.medoids).argmin()) == self.target:
            raise StopIteration
