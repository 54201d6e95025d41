"""Guides of attacks: clean images that pass, described by the detector or as they are, and medoids."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.attacks.adaptive import AdaptiveTask, Guide, nearest_guides
from adv_detect.algorithms.attacks.adaptive.second_opinion import SimilarityGuide
from adv_detect.algorithms.attacks.adaptive.task import DescribingModel
from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.images import load_images
from adv_detect.jobs.activations import read_activations
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import Condition
from adv_detect.pipelines.adaptive_attack.gate_models import GateModel
from adv_detect.pipelines.adaptive_attack.models import USUAL, FeatureModel

if TYPE_CHECKING:
    from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting

MAX_CANDIDATES = 5000
"""Clean images from which the guides of an attack are chosen."""
MAX_STARTS = 500
"""Clean images among which the starting points of an attack are looked for."""
STARTS = 10
"""Starting points offered per attacked image."""


def with_guide(
    task: AdaptiveTask,
    setting: AttackSetting,
    stored: StoredDetector,
    *,
    condition: Condition,
    model: DetectionModel | FeatureModel | GateModel,
) -> AdaptiveTask:
    """Give a task the guide that its attack needs, from clean images of the train split.

    Args:
        task: The attacked images.
        setting: Network, images and all else that is shared.
        stored: The detector.
        condition: The attack.
        model: Network and detector joined.

    Returns:
        The task; as it is where the attack needs no guide.
    """
    source = condition.kind.guide
    describe: DescribingModel = model.describe
    if isinstance(model, GateModel):
        return replace(task, guide=_templates(task, model))
    if source == "starting_points":
        return replace(task, guide=Guide(values=_starting_points(task, setting, stored), describe=describe))
    if source == "clean_images" and isinstance(model, DetectionModel):
        candidates, classes = _clean_descriptions(setting, stored)
    elif source == "medoids":
        candidates = setting.representatives.medoids[-1]
        classes = torch.arange(len(candidates))
    else:
        return task
    device = task.images.device
    _, own = describe_in_batches(describe, task.images, setting.runtime.batch_size)
    values = nearest_guides(own, candidates.to(device), classes.to(device), labels=task.labels, targets=task.targets)
    evade = model.evade if isinstance(model, FeatureModel) else None
    return replace(task, guide=Guide(values=values, describe=describe, evade=evade))


def _templates(task: AdaptiveTask, model: GateModel) -> Guide:
    """Templates of the classes aimed at; without targets those of the own ones, to get away from."""
    values = model.templates[task.labels if task.targets is None else task.targets]
    levels = model.levels.expand(len(task), *model.levels.shape)
    return SimilarityGuide(values=values, describe=model.describe, evade=model.evade, levels=levels)


def describe_in_batches(describe: DescribingModel, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Classify and describe images without gradients.

    Args:
        describe: Gives class logits, detector logits and a description, such as the ``describe`` of a joint model.
        images: Shape ``(N, channels, H, W)``.
        batch_size: Images a forward pass.

    Returns:
        Class logits ``(N, C)``, and the description: trajectories ``(N, L, K)`` or features ``(N, D)``.
    """
    with torch.no_grad():
        parts = [describe(batch) for batch in torch.split(images, batch_size)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[2] for part in parts])


def _passing_images(setting: AttackSetting, stored: StoredDetector) -> pd.DataFrame:
    """Clean train images that the network classifies correctly and the detector passes, in an order drawn once."""
    scored = score_naturals(setting.activations, "train", stored, setting.representatives)
    good = (scored["predicted"] == scored["label"]) & (scored["score"] <= stored.threshold(USUAL))
    return scored[good].sample(frac=1.0, random_state=0)


def _clean_descriptions(setting: AttackSetting, stored: StoredDetector) -> tuple[Tensor, Tensor]:
    """Descriptions ``(M, ...)`` and classes ``(M,)`` of clean train images, classified correctly and passed."""
    allowed = set(_passing_images(setting, stored)["source_index"].head(MAX_CANDIDATES))
    values, classes = [], []
    for content in setting.activations.select(split="train", natural=True).values():
        kept = torch.tensor([index in allowed for index in content.tensors["source_index"].tolist()])
        values.append(stored.detector.describe(read_activations(content).select(kept)))
        classes.append(content.tensors["label"][kept])
    return torch.cat(values), torch.cat(classes)


def _starting_points(task: AdaptiveTask, setting: AttackSetting, stored: StoredDetector) -> Tensor:
    """The nearest clean images of an admissible class for each attacked one, ``(N, K, channels, H, W)``."""
    passing = _passing_images(setting, stored).head(MAX_STARTS)
    natural = load_images(setting.images, passing["source_index"].tolist(), setting.network.spec.bounds)
    natural, classes = natural.to(task.images), torch.tensor(passing["label"].to_numpy()).to(task.labels)
    wanted = classes[None, :] != task.labels[:, None] if task.targets is None else classes == task.targets[:, None]
    distances = torch.cdist(task.images.flatten(1), natural.flatten(1)).masked_fill(~wanted, float("inf"))
    nearest = distances.argsort(dim=1, stable=True)[:, : min(STARTS, len(natural))]
    return natural[nearest]
