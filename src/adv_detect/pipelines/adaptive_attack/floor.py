"""The floor: images whose activations an attacker moves among those of clean images, whatever the detector."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.detectors import Activations, StoredDetector
from adv_detect.algorithms.detectors.middle import MiddleOfClean
from adv_detect.jobs.activations import natural_activations
from adv_detect.measures.intervals import wilson_interval
from adv_detect.params import AdaptiveAttackParams, AdaptiveAttackSpec, Criterion, DetectorParams, FloorParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting, attack_images
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import Condition, choose_sources, conditions
from adv_detect.pipelines.adaptive_attack.plans import shared_fingerprints
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, fingerprint

FLOOR = "floor"
METHOD = "multi_target"
"""The attack that follows every layer at once towards several classes."""
RECORDED = ("matched", "l2", "linf")
FACTS = ("norm", "epsilon", "criterion")
FLOOR_COLUMNS = ("norm", "epsilon", "criterion", "floor_n", "floor", "floor_low", "floor_high")
WITHIN = 1 + 1e-4
"""Tolerance of sizes that are compared with a budget."""


@dataclass(frozen=True)
class FloorBlock:
    """Some images to move under one budget and criterion."""

    condition: Condition
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FloorWork:
    """Moves the activations of images among those of clean images."""

    setting: AttackSetting
    coverage: float

    def __call__(self, block: FloorBlock) -> ShardContent:
        """Make one shard: images, and whether all layers of each are in the middle of clean ones of its new class."""
        middle = middle_of(self.setting, self.coverage)
        attacked = attack_images(self.setting, middle, block.condition, block.indices)
        result, condition = attacked.result, block.condition
        tensors = {
            "images": result.images,
            "matched": result.fooled & (result.detector_score <= 0),
            "l2": result.l2,
            "linf": result.linf,
            "source_index": attacked.task.indices,
        }
        return ShardContent(
            tensors={name: one.detach().cpu().contiguous() for name, one in tensors.items() if one is not None},
            metadata={
                "norm": condition.norm,
                "epsilon": condition.epsilon,
                "criterion": condition.criterion,
                "source_ids": [self.setting.images.source_ids[index] for index in block.indices],
            },
        )


def middle_of(setting: AttackSetting, coverage: float) -> StoredDetector:
    """Fit the middle of clean images on those of the train and the validation split, with 0 as its threshold."""
    detector = MiddleOfClean(setting.representatives, coverage=coverage)
    clean = [natural_activations(setting.activations, split) for split in ("train", "validation")]
    detector.fit(Activations.concatenate(one.keep(views=(), twin=False) for one in clean), None, seed=0)
    detector.eval().requires_grad_(False)
    return StoredDetector(FLOOR, detector, DetectorParams(kind="margin"), {}, torch.zeros(1))


def match_activations(attack_setting: AttackSetting, adaptive_attack: AdaptiveAttackParams) -> ShardPlan:
    """Plan the floor under every budget that detectors are attacked with.

    Args:
        attack_setting: Network, images and all else that is shared.
        adaptive_attack: The attacks, for their budgets and criteria, and the floor's own settings.

    Returns:
        A plan with the shards ``<norm>-<epsilon>/<criterion>/<number>``; none where the floor is left out.
    """
    setting, floor = attack_setting, adaptive_attack.floor
    coverage = floor.coverage if floor is not None else 0.5
    shards = [] if floor is None else list(_shards(setting, adaptive_attack, floor))
    work = FloorWork(setting, coverage)
    return ShardPlan(work=work, shards=tuple(shards), runtime=setting.runtime, description="floor")


def floor_table(floor_adversarials: ShardStore, *, confidence_level: float) -> pd.DataFrame:
    """Measure the floor.

    Args:
        floor_adversarials: The moved images.
        confidence_level: Coverage of the intervals.

    Returns:
        A row per norm, epsilon and criterion: ``norm``, ``epsilon``, ``criterion``, ``floor_n``, and ``floor`` with
        ``floor_low`` and ``floor_high`` (Wilson): the share of images of which some image within the budget, of
        whatever budget it was looked for, is taken for another class with all layers in the middle of clean ones.
        Targeted finds count as untargeted ones.
    """
    found = _records(floor_adversarials)
    rows = []
    for (norm, epsilon, criterion), part in found.groupby([*FACTS], sort=True) if len(found) else ():
        limit = float(part["epsilon"].iloc[0]) * WITHIN
        usable = found[(found[norm] <= limit) & found["criterion"].isin(_counting(str(criterion)))]
        matched = usable[usable["matched"]]["source_id"]
        hits, count = int(part["source_id"].isin(matched).sum()), len(part)
        low, high = wilson_interval(hits, count, confidence_level=confidence_level)
        rows.append((norm, epsilon, criterion, count, hits / count, low, high))
    numbers = [name for name in FLOOR_COLUMNS if name not in ("norm", "criterion")]
    return pd.DataFrame(rows, columns=list(FLOOR_COLUMNS)).astype(dict.fromkeys(numbers, float))


def with_floor(summary: pd.DataFrame, floor: pd.DataFrame) -> pd.DataFrame:
    """Put the floor beside what is lost: the same for all detectors under a budget; NaN where it was not measured."""
    return summary.merge(floor, on=[*FACTS], how="left") if len(summary) else summary


def _counting(criterion: str) -> set[str]:
    return {criterion, "targeted"} if criterion == "untargeted" else {criterion}


def _records(store: ShardStore) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {"source_id": content.metadata["source_ids"]}
            | {name: content.metadata[name] for name in FACTS}
            | {name: content.tensors[name].numpy() for name in RECORDED}
        )
        for content in store.only(*RECORDED).values()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _shards(setting: AttackSetting, params: AdaptiveAttackParams, floor: FloorParams) -> list[ShardSpec]:
    arguments = {"steps": floor.steps, "restarts": floor.restarts, "targets": floor.targets}
    spec = AdaptiveAttackSpec(attack=METHOD, arguments=arguments)
    indices, size, shards = _sources(setting, spec, floor), setting.runtime.shard_size, []
    shared = shared_fingerprints(setting), setting.activations.digest, floor.coverage, adaptive_attack_source(METHOD)
    for norm, epsilon, criterion in _budgets(params, setting.network.spec.bounds):
        condition = Condition(FLOOR, spec, norm, epsilon, criterion)
        for number, start in enumerate(range(0, len(indices), size)):
            block = FloorBlock(condition, indices[start : start + size])
            names = [setting.images.source_ids[index] for index in block.indices]
            key = f"{norm}-{epsilon:.6g}/{criterion}/{number:04d}"
            shards.append(ShardSpec(key, fingerprint(shared, condition.identity, block.indices, names), block))
    return shards


def _budgets(params: AdaptiveAttackParams, bounds: tuple[float, float]) -> list[tuple[str, float, Criterion]]:
    """Budgets and criteria of the attacks, each once; those that bound nothing are left out."""
    span = bounds[1] - bounds[0]
    found = [
        (one.norm, one.epsilon, one.criterion)
        for one in conditions(params)
        if one.epsilon is not None and not (one.norm == "linf" and one.epsilon >= span)
    ]
    return list(dict.fromkeys(found))


def _sources(setting: AttackSetting, spec: AdaptiveAttackSpec, floor: FloorParams) -> tuple[int, ...]:
    """Test images that the network classifies correctly, in the order in which detectors are attacked."""
    middle = middle_of(setting, floor.coverage)
    scored = score_naturals(setting.activations, "test", middle, setting.representatives)
    return choose_sources(scored.assign(score=0.0), spec, middle, seed=setting.runtime.seed, count=floor.max_images)
