"""Layer matching: images whose activations an attacker who looks at no detector moves among those of clean images.

Each layer is matched for itself. A detector that reads layers together, or distances to more classes than the one that
the network names, may still flag such an image, so the share that each detector passes stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.detectors import Activations, StoredDetector
from adv_detect.algorithms.detectors.middle import MiddleOfClean
from adv_detect.algorithms.device import resolve_device
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.joint_models import join
from adv_detect.measures.intervals import wilson_interval
from adv_detect.networks.frozen import working_form
from adv_detect.params import AdaptiveAttackParams, AdaptiveAttackSpec, Criterion, DetectorParams, LayerMatchingParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting, attack_images
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import Condition, choose_sources, conditions
from adv_detect.pipelines.adaptive_attack.models import USUAL
from adv_detect.pipelines.adaptive_attack.plans import shared_fingerprints
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, fingerprint

LAYER_MATCHING = "layer matching"
METHOD = "multi_target"
"""The attack that follows every layer at once towards several classes."""
RECORDED = ("matched", "l2", "linf")
FACTS = ("norm", "epsilon", "criterion")
MATCHING_COLUMNS = ("detector", *FACTS, "matching_n", "matched", "matched_low", "matched_high", "matched_passed")
WITHIN = 1 + 1e-4
"""Tolerance of sizes that are compared with a budget."""


@dataclass(frozen=True)
class MatchingBlock:
    """Some images to move under one budget and criterion."""

    condition: Condition
    indices: tuple[int, ...]


@dataclass(frozen=True)
class MatchingWork:
    """Moves the activations of images among those of clean images."""

    setting: AttackSetting
    coverage: float

    def __call__(self, block: MatchingBlock) -> ShardContent:
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
    return StoredDetector(LAYER_MATCHING, detector, DetectorParams(kind="margin"), {}, torch.zeros(1))


def match_activations(attack_setting: AttackSetting, adaptive_attack: AdaptiveAttackParams) -> ShardPlan:
    """Plan layer matching under every budget that detectors are attacked with.

    Args:
        attack_setting: Network, images and all else that is shared.
        adaptive_attack: The attacks, for their budgets and criteria, and the settings of the matching.

    Returns:
        A plan with the shards ``<norm>-<epsilon>/<criterion>/<number>``; none where it is left out.
    """
    setting, matching = attack_setting, adaptive_attack.layer_matching
    coverage = matching.coverage if matching is not None else 0.5
    shards = [] if matching is None else list(_shards(setting, adaptive_attack, matching))
    work = MatchingWork(setting, coverage)
    what = "layer matching"
    return ShardPlan(work=work, shards=tuple(shards), runtime=setting.runtime, description=what, one_thread=True)


def matching_table(
    matched_adversarials: ShardStore,
    setting: AttackSetting,
    detectors: Mapping[str, StoredDetector],
    *,
    confidence_level: float,
) -> pd.DataFrame:
    """Measure which share of images can be matched, and what of it each detector passes.

    Args:
        matched_adversarials: The moved images.
        setting: Network and twin, which say what the detectors read of them.
        detectors: The detectors by key.
        confidence_level: Coverage of the intervals.

    Returns:
        A row per detector, norm, epsilon and criterion: ``detector``, ``norm``, ``epsilon``, ``criterion``,
        ``matching_n``, ``matched`` with ``matched_low`` and ``matched_high`` (Wilson): the share of images of which
        some image within the budget, of whatever budget it was looked for, is taken for another class with each layer
        in the middle of clean ones; ``matched_passed``: the share of which such an image is also passed at FPR 5 %.
        Targeted finds count as untargeted ones.
    """
    found, rows = _records(matched_adversarials), []
    parts = list(found.groupby([*FACTS], sort=True)) if len(found) else []
    reached = [(facts, part, _within_reach(found, part)) for facts, part in parts]
    for key, stored in detectors.items() if reached else ():
        passed = _passed(matched_adversarials, setting, stored)
        for facts, part, near in reached:
            hits, count = int(part["source_id"].isin(found[near]["source_id"]).sum()), len(part)
            low, high = wilson_interval(hits, count, confidence_level=confidence_level)
            through = int(part["source_id"].isin(found[near & passed]["source_id"]).sum())
            rows.append((key, *facts, count, hits / count, low, high, through / count))
    numbers = [name for name in MATCHING_COLUMNS if name not in ("detector", "norm", "criterion")]
    return pd.DataFrame(rows, columns=list(MATCHING_COLUMNS)).astype(dict.fromkeys(numbers, float))


def with_matching(summary: pd.DataFrame, matching: pd.DataFrame) -> pd.DataFrame:
    """Put layer matching beside what is lost; NaN where it was not measured."""
    return summary.merge(matching, on=["detector", *FACTS], how="left") if len(summary) else summary


def _within_reach(found: pd.DataFrame, part: pd.DataFrame) -> np.ndarray:
    """Rows ``(N,)`` of all matched images that an attacker under the condition of a part may use."""
    norm, criterion = str(part["norm"].iloc[0]), str(part["criterion"].iloc[0])
    limit = float(part["epsilon"].iloc[0]) * WITHIN
    usable = (found[norm] <= limit) & found["criterion"].isin(_counting(criterion)) & found["matched"]
    return usable.to_numpy(dtype=bool)


def _passed(store: ShardStore, setting: AttackSetting, stored: StoredDetector) -> np.ndarray:
    """Tell which of the moved images a detector passes at FPR 5 %, in the order of `_records`, ``(N,)``."""
    device = resolve_device(setting.runtime.device)
    model = join(stored, working_form(setting.network.freeze(), device), device, twin=setting.twin)
    scores = []
    with torch.no_grad():
        for content in store.only("images").values():
            for batch in torch.split(content.tensors["images"], setting.runtime.batch_size):
                scores.append(model(batch.to(device))[1].cpu())
    return (torch.cat(scores) <= stored.threshold(USUAL)).numpy()


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


def _shards(setting: AttackSetting, params: AdaptiveAttackParams, matching: LayerMatchingParams) -> list[ShardSpec]:
    arguments = {"steps": matching.steps, "restarts": matching.restarts, "targets": matching.targets}
    spec = AdaptiveAttackSpec(attack=METHOD, arguments=arguments)
    indices, size, shards = _sources(setting, spec, matching), setting.runtime.shard_size, []
    shared = shared_fingerprints(setting), setting.activations.digest, matching.coverage, adaptive_attack_source(METHOD)
    for norm, epsilon, criterion in _budgets(params, setting.network.spec.bounds):
        condition = Condition(LAYER_MATCHING, spec, norm, epsilon, criterion)
        for number, start in enumerate(range(0, len(indices), size)):
            block = MatchingBlock(condition, indices[start : start + size])
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


def _sources(setting: AttackSetting, spec: AdaptiveAttackSpec, matching: LayerMatchingParams) -> tuple[int, ...]:
    """Test images that the network classifies correctly, in the order in which detectors are attacked."""
    middle = middle_of(setting, matching.coverage)
    scored = score_naturals(setting.activations, "test", middle, setting.representatives)
    return choose_sources(scored.assign(score=0.0), spec, middle, seed=setting.runtime.seed, count=matching.max_images)
