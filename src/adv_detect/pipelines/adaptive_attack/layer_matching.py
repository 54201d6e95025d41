"""Layer matching: images whose activations an attacker who looks at no detector moves among those of clean images.

Each layer is matched for itself. A detector that reads layers together, or distances to more classes than the one that
the network names, may still flag such an image, so the share that each detector passes stands beside; what passes is
lost, as what any other attack got through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.detectors import Activations, StoredDetector, score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.detectors.middle import MiddleOfClean
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.views import Views
from adv_detect.jobs.activations import natural_activations
from adv_detect.measures.adaptive_records import GROUP, RECORD_COLUMNS, spread_over_budgets
from adv_detect.measures.intervals import wilson_interval
from adv_detect.networks.frozen import working_form
from adv_detect.params import (
    AdaptiveAttackParams,
    AdaptiveAttackSpec,
    Criterion,
    DetectorParams,
    ImageChangeParams,
    LayerMatchingParams,
)
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting, attack_images
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import Condition, choose_sources, conditions
from adv_detect.pipelines.adaptive_attack.models import STRICT, USUAL
from adv_detect.pipelines.adaptive_attack.plans import shared_fingerprints
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, fingerprint

LAYER_MATCHING = "layer matching"
METHOD = "multi_target"
"""The attack that follows every layer at once towards several classes."""
RECORDED = ("matched", "fooled", "l2", "linf")
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
            "fooled": result.fooled,
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


def judge_matched(
    matched_adversarials: ShardStore, attack_setting: AttackSetting, detectors: Mapping[str, StoredDetector]
) -> pd.DataFrame:
    """Show the moved images to detectors, as records of one more attack, made without a look at any of them.

    Args:
        matched_adversarials: The moved images.
        attack_setting: Network and twin, which say what the detectors read of the images.
        detectors: The detectors by key.

    Returns:
        A row per detector and image with the columns that :mod:`adv_detect.measures.adaptive_records` reads,
        ``method``, ``role``, ``form``, and ``matched``; no rows where the matching was left out. What was spent on
        gradients is missing: it was spent once for all detectors.
    """
    found = _records(matched_adversarials)
    if found.empty:
        return pd.DataFrame(columns=[*RECORD_COLUMNS, "method", "role", "form", "matched"])
    said = _activations(matched_adversarials, attack_setting, list(detectors.values()))
    frames = []
    for key, stored in detectors.items():
        scores = torch.cat([score_activations(stored.detector, one) for one in said]).numpy()
        evaded = {
            "evaded_fpr_01": found["fooled"] & (scores <= stored.threshold(STRICT)),
            "evaded_fpr_05": found["fooled"] & (scores <= stored.threshold(USUAL)),
        }
        frames.append(found.assign(detector=key, detector_score=scores, **evaded))
    facts = {"attack": LAYER_MATCHING, "classifier": "network", "method": METHOD, "role": "matching", "form": "correct"}
    unknown = dict.fromkeys(("gradient_evaluations", "zero_gradient_share"), np.nan)
    return pd.concat(frames, ignore_index=True).assign(**facts, **unknown)


def attacked_alike(matched_records: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Keep the records of matched images under conditions that detectors were attacked under.

    Args:
        matched_records: From :func:`judge_matched`.
        records: Records of the attacks.

    Returns:
        The rows whose detector, norm, epsilon and criterion some attack had.
    """
    conditions = spread_over_budgets(records)[GROUP].drop_duplicates()
    return matched_records.merge(conditions, on=GROUP, how="inner") if len(matched_records) else matched_records


def matching_table(matched_records: pd.DataFrame, *, confidence_level: float) -> pd.DataFrame:
    """Measure which share of images can be matched, and what of it each detector passes.

    Args:
        matched_records: From :func:`judge_matched`.
        confidence_level: Coverage of the intervals.

    Returns:
        A row per detector, norm, epsilon and criterion: ``detector``, ``norm``, ``epsilon``, ``criterion``,
        ``matching_n``, ``matched`` with ``matched_low`` and ``matched_high`` (Wilson): the share of images of which
        some image within the budget, of whatever budget it was looked for, is taken for another class with each layer
        in the middle of clean ones; ``matched_passed``: the share of which such an image is also passed at FPR 5 %.
        Targeted finds count as untargeted ones.
    """
    rows = []
    for key, found in matched_records.groupby("detector", sort=True):
        for facts, part in found.groupby([*FACTS], sort=True):
            near = _within_reach(found, part)
            hits, count = int(part["source_id"].isin(found[near]["source_id"]).sum()), len(part)
            low, high = wilson_interval(hits, count, confidence_level=confidence_level)
            through = int(part["source_id"].isin(found[near & found["evaded_fpr_05"]]["source_id"]).sum())
            rows.append((key, *facts, count, hits / count, low, high, through / count))
    numbers = [name for name in MATCHING_COLUMNS if name not in ("detector", "norm", "criterion")]
    return pd.DataFrame(rows, columns=list(MATCHING_COLUMNS)).astype(dict.fromkeys(numbers, float))


def with_matching(summary: pd.DataFrame, matching: pd.DataFrame) -> pd.DataFrame:
    """Put layer matching beside what is lost; NaN where it was not measured."""
    return summary.merge(matching, on=["detector", *FACTS], how="left") if len(summary) else summary


def _within_reach(found: pd.DataFrame, part: pd.DataFrame) -> pd.Series:
    """Rows ``(N,)`` of all matched images that an attacker under the condition of a part may use."""
    norm, criterion = str(part["norm"].iloc[0]), str(part["criterion"].iloc[0])
    limit = float(part["epsilon"].iloc[0]) * WITHIN
    return (found[norm] <= limit) & found["criterion"].isin(_counting(criterion)) & found["matched"]


def _activations(store: ShardStore, setting: AttackSetting, stored: list[StoredDetector]) -> list[Activations]:
    """Run network, views and twin once on the moved images, in the order of `_records`, for all detectors."""
    device = resolve_device(setting.runtime.device)
    network = working_form(setting.network.freeze(), device)
    read: dict[str, ImageChangeParams] = {}
    for one in stored:
        read |= one.views
    twin = setting.twin if any(one.detector.reads.twin for one in stored) else None
    second = None if twin is None else working_form(twin.freeze(), device)
    views = Views.build(read, network.spec.bounds)
    with torch.no_grad():
        return [
            network_activations(network, batch.to(device), network.spec.layers, views=views, twin=second)
            for content in store.only("images").values()
            for batch in torch.split(content.tensors["images"], setting.runtime.batch_size)
        ]


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
    shared = (
        shared_fingerprints(setting),
        setting.activations.digest,
        matching.coverage,
        adaptive_attack_source(METHOD),
        RECORDED,
    )
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
