"""Attack on deep features: move the features of a face to those of another one, or away from its own.

Source: Sabour et al., "Adversarial manipulation of deep representations", ICLR 2016; stopped by nearest neighbours on
class medoids as in Massoli et al., CVIU 2021. Departures: the whole batch is solved at once on its device, by several
solvers; an image that the neighbours already misjudge is attacked all the same, and counts only once it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from adv_detect.algorithms.attacks.arguments import refused_arguments
from adv_detect.algorithms.attacks.deep_features_lbfgs import LbfgsSteps
from adv_detect.algorithms.attacks.deep_features_objective import (
    Box,
    FeatureFunction,
    FeatureObjective,
    Judge,
    NearestRepresentativeJudge,
    distances,
    make_box,
    pixel_radius,
)
from adv_detect.algorithms.attacks.deep_features_solvers import (
    AdamSteps,
    Objective,
    SignSteps,
    Solution,
    Stepper,
    minimise,
)
from adv_detect.algorithms.attacks.result import AttackContext, AttackResult
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.finite import finite_rows, replace_rows
from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block, PositiveNumber

DEFAULT_LEARNING_RATES = {"adam": 0.1, "sign": 0.1}
"""First step as a share of ``max_thres``."""
JITTER = 0.1
"""Random start, as a share of ``max_thres``, of a dodging image whose features are its reference: no gradient there."""


class DeepFeaturesParams(Block):
    """Arguments of the deep-features attack.

    Attributes:
        max_thres: Largest change of a pixel in 0..255 units.
        iterations: Most rounds; each costs one forward and backward pass on the images still attacked.
        solver: ``lbfgs`` (projected limited-memory BFGS), ``adam`` or ``sign`` (projected steps of decaying size).
        history: Curvature pairs of ``lbfgs``; memory grows by two images per pair and image.
        tolerance: Relative gain of a step below which ``lbfgs`` counts it as a stall; it stops at several in a row.
        learning_rate: First step of ``adam`` and ``sign``, as a share of ``max_thres``.
        momentum: Of ``sign``.
        representative: Guide and judge: ``medoid`` (as published) or ``centroid`` of each class.
        guides: Targeted attacks: for a class, by name, the source id of an image to approach in place of the class's
            representative. The judge remains the nearest representative.
        dodging: Untargeted attacks: ``away`` maximises the distance to the own class, which lowers the similarity to it
            most but need not lead to another class; ``nearest`` approaches the nearest other class, which fools the
            judge soonest.
    """

    max_thres: PositiveNumber = 10.0
    iterations: int = Field(1000, ge=1)
    solver: Literal["lbfgs", "adam", "sign"] = "lbfgs"
    history: int = Field(10, ge=1)
    tolerance: float = Field(1e-5, ge=0)
    learning_rate: PositiveNumber | None = None
    momentum: float = Field(0.9, ge=0, lt=1)
    representative: Literal["medoid", "centroid"] = "medoid"
    guides: dict[str, str] = Field(default_factory=dict)
    dodging: Literal["nearest", "away"] = "away"

    def epsilon(self, bounds: tuple[float, float]) -> float:
        """Return ``max_thres`` in the pixel range ``bounds``: the largest Linf distance from the source."""
        return pixel_radius(self.max_thres, bounds)


def parse_arguments(arguments: dict[str, Any]) -> DeepFeaturesParams:
    """Check the arguments of a configured deep-features attack.

    Args:
        arguments: As written in the configuration.

    Returns:
        The arguments with defaults filled in.

    Raises:
        ConfigurationError: A name is unknown or a value is not usable; the message names the valid names.
    """
    try:
        return DeepFeaturesParams.model_validate(arguments)
    except ValidationError as exc:
        raise refused_arguments("deep-features", DeepFeaturesParams, exc) from exc


def run_deep_features(  # noqa: PLR0913 - the signature of every attack, and its context
    arguments: dict[str, Any],
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    targets: Tensor | None,
    bounds: tuple[float, float],
    seed: int,
    context: AttackContext,
    return_early: bool,
) -> AttackResult:
    """Attack images through the features of the last layer read.

    Targeted (impersonation): approach the representative of the target class. Untargeted (dodging): see ``dodging``.
    The judge is the nearest representative.

    Args:
        arguments: As in :class:`DeepFeaturesParams`.
        network: Frozen network in evaluation mode.
        images: Source images within ``bounds``, ``(N, channels, H, W)``.
        labels: Their classes, int64 ``(N,)``.
        targets: Classes aimed at, int64 ``(N,)``; None for untargeted.
        bounds: Lowest and highest pixel value.
        seed: Seed of the rare random starts (see ``JITTER``).
        context: Class representatives, names of the layers read, and guide images where there are any.
        return_early: Stop each image as soon as the judge is fooled; False uses all iterations to get as near to the
            guide, or as far from the own class, as possible.

    Returns:
        Attacked images and whether the judge is fooled by them; an image that did not change is no success, and one
        with features or gradients that are not finite is the source image again.

    Raises:
        ConfigurationError: Wrong arguments, a target that equals its label, images outside ``bounds``.
        AttackError: Features that are not differentiable.
    """
    params = parse_arguments(arguments)
    _check_targets(labels, targets)
    classes = context.representatives.of(params.representative)[-1].to(images.device, images.dtype)
    features = last_features(network, context.layers)
    judge = NearestRepresentativeJudge(classes, labels, targets)
    objective = class_objective(features, images, judge, dodging=params.dodging, guides=context.guides)
    solution = solve(objective, images, judge=judge if return_early else None, params=params, bounds=bounds, seed=seed)
    return _result(solution, images, judge, features)


def solve(
    objective: Objective,
    images: Tensor,
    *,
    judge: Judge | None,
    params: DeepFeaturesParams,
    bounds: tuple[float, float],
    seed: int = 0,
) -> Solution:
    """Minimise an objective within ``max_thres`` of the images; for guides and losses of one's own.

    Args:
        objective: Loss per image, for instance of its features to those of a guide image.
        images: Source images within ``bounds``, ``(N, channels, H, W)``.
        judge: Ends each image's run when fooled; None runs to the end.
        params: Solver and its settings.
        bounds: Lowest and highest pixel value.
        seed: Seed of the random starts.

    Returns:
        Attacked images and the forward and backward passes of each.
    """
    if not len(images):
        nothing = torch.zeros(0, dtype=torch.int64, device=images.device)
        return Solution(images, nothing, nothing.bool())
    box = make_box(images, max_thres=params.max_thres, bounds=bounds)
    start = _start(objective, images, box, seed)
    return minimise(objective, start, box, make_stepper(params), iterations=params.iterations, judge=judge)


def class_objective(
    features: FeatureFunction,
    images: Tensor,
    judge: NearestRepresentativeJudge,
    *,
    dodging: str,
    guides: Mapping[int, Tensor] | None = None,
) -> FeatureObjective:
    """Choose what each image approaches or leaves.

    Args:
        features: Gives the features of images.
        images: Source images, ``(N, channels, H, W)``.
        judge: Holds representatives, labels and targets.
        dodging: ``nearest`` or ``away``; read when there are no targets.
        guides: Image ``(channels, H, W)`` of a class whose features take the place of its representative.

    Returns:
        The objective: approach the target's representative; without targets approach the one nearest to the source
        image among the others, or leave the own one.
    """
    if judge.targets is not None:
        return FeatureObjective(features, _with_guides(judge.representatives, features, guides or {})[judge.targets])
    if dodging == "away":
        return FeatureObjective(features, judge.representatives[judge.labels], direction="leave")
    with torch.no_grad():
        to_classes = distances(features(images), judge.representatives)
    others = to_classes.scatter(1, judge.labels[:, None], float("inf")).argmin(dim=1)
    return FeatureObjective(features, judge.representatives[others])


@torch.no_grad()
def _with_guides(representatives: Tensor, features: FeatureFunction, guides: Mapping[int, Tensor]) -> Tensor:
    """Put the features of guide images in the place of representatives ``(C, D)``."""
    if not guides:
        return representatives
    aims = representatives.clone()
    images = torch.stack(list(guides.values())).to(representatives)
    aims[list(guides)] = features(images)
    return aims


def last_features(network: nn.Module, layers: tuple[str, ...]) -> FeatureFunction:
    """Return the map from images to pooled features ``(N, D)`` of the last of ``layers``."""

    def features(images: Tensor) -> Tensor:
        _, (last,) = extract_features(network, images, layers[-1:])
        return last

    return features


def make_stepper(params: DeepFeaturesParams) -> Stepper:
    """Build a fresh solver."""
    if params.solver == "lbfgs":
        return LbfgsSteps(history=params.history, tolerance=params.tolerance)
    rate = params.learning_rate or DEFAULT_LEARNING_RATES[params.solver]
    if params.solver == "adam":
        return AdamSteps(iterations=params.iterations, learning_rate=rate)
    return SignSteps(iterations=params.iterations, learning_rate=rate, momentum=params.momentum)


def _start(objective: Objective, images: Tensor, box: Box, seed: int) -> Tensor:
    """Start from the images, a little off where leaving their reference has no gradient yet."""
    if not isinstance(objective, FeatureObjective) or objective.direction == "approach":
        return images
    with torch.no_grad():
        stuck = objective.loss(objective.features(images), torch.arange(len(images), device=images.device)) == 0
    if not bool(stuck.any()):
        return images
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
    return torch.where(stuck[:, None, None, None], box.project(images + JITTER * box.radius * noise), images)


def _check_targets(labels: Tensor, targets: Tensor | None) -> None:
    if targets is not None and bool((targets == labels).any()):
        same = int((targets == labels).sum())
        raise ConfigurationError(f"targets: expected classes other than the labels, got {same} equal to their label")


@torch.no_grad()
def _result(
    solution: Solution, images: Tensor, judge: NearestRepresentativeJudge, features: FeatureFunction
) -> AttackResult:
    """Judge the final images once more, all in one batch."""
    if not len(images):
        empty = torch.zeros(0, dtype=torch.int64, device=images.device)
        return AttackResult(images, empty.bool(), empty, empty)
    final = features(solution.images)
    changed = (solution.images != images).flatten(1).any(dim=1)
    sound = finite_rows(final)
    success = judge.fooled(final, torch.arange(len(images), device=images.device)) & changed & sound
    broken = (solution.non_finite | ~sound) & ~success
    return AttackResult(
        images=replace_rows(solution.images, images, broken),
        success=success,
        adversarial_class=judge.classes(final),
        gradient_evaluations=solution.evaluations,
        non_finite=broken,
    )
