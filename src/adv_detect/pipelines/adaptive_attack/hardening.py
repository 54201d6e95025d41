"""Adversarial training of a detector: attacked, shown what got through, fitted again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from adv_detect.algorithms.detectors import Activations, StoredDetector, build_detector, score_activations
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import resolve_device
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.detector_fitting import train_detector
from adv_detect.jobs.detectors import criteria_of, restore
from adv_detect.params import DetectorFitParams, HardeningParams, Split
from adv_detect.pipelines.adaptive_attack.attacking import Attacked, AttackSetting, attack_images
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import Condition, choose_sources
from adv_detect.sharding import ShardContent, ShardStore


@dataclass(frozen=True)
class HardeningWork:
    """Trains one detector again, with adaptive adversarial examples among its training attacks.

    Attributes:
        setting: Network, images and all else that is shared.
        detectors: The trained detectors.
        conditions: The attacks of each round.
        params: Rounds and numbers of images.
        fit: How a detector is trained.
    """

    setting: AttackSetting
    detectors: ShardStore
    conditions: tuple[Condition, ...]
    params: HardeningParams
    fit: DetectorFitParams

    def __call__(self, key: str) -> ShardContent:
        """Make one shard: the detector after the last round, in the form of the trained ones, with ``rounds``."""
        stored = restore(self.detectors, key, self.setting.representatives)
        added: dict[str, list[Activations]] = {"train": [], "validation": []}
        rounds: list[dict[str, Any]] = []
        for number in range(1, self.params.rounds + 1):
            facts: dict[str, Any] = {"round": number}
            for split, count in (("train", self.params.train_images), ("validation", self.params.validation_images)):
                found = list(self._adaptive(stored, split, count, number, facts))  # type: ignore[arg-type]
                added[split] += found
            stored = self._refit(stored, added, facts)
            rounds.append(facts)
        return ShardContent(
            tensors=stored.tensors(), metadata=dict(stored.facts) | {"rounds": rounds, "hardened_from": key}
        )

    def _adaptive(
        self, stored: StoredDetector, split: Split, count: int, number: int, facts: dict[str, Any]
    ) -> Iterator[Activations]:
        """Activations of attacks on the current detector that fooled the network."""
        scored = score_naturals(self.setting.activations, split, stored, self.setting.representatives)
        attacked = fooled = evaded = 0
        sources: set[int] = set()
        for condition in self.conditions:
            chosen = choose_sources(
                scored, condition.spec, stored, seed=self.setting.runtime.seed + number, count=count
            )
            if not chosen:
                continue
            outcome = attack_images(self.setting, stored, condition, chosen)
            result = outcome.result
            attacked, fooled = attacked + len(chosen), fooled + int(result.fooled.sum())
            evaded, sources = evaded + int(result.evaded.sum()), sources | set(chosen)
            if bool(result.fooled.any()):
                yield self._seen(outcome, number)
        names = sorted(self.setting.images.source_ids[index] for index in sources)
        facts[split] = {"attacked": attacked, "fooled": fooled, "evaded": evaded, "source_ids": names}

    def _seen(self, outcome: Attacked, number: int) -> Activations:
        joint = outcome.model if isinstance(outcome.model, DetectionModel) else outcome.model.model
        images = outcome.result.images[outcome.result.fooled]
        with torch.no_grad():
            parts = [joint.activations(one).to("cpu") for one in torch.split(images, self.setting.runtime.batch_size)]
        return replace(Activations.concatenate(parts), groups=(f"adaptive-{number}",) * len(images))

    def _refit(
        self, stored: StoredDetector, added: dict[str, list[Activations]], facts: dict[str, Any]
    ) -> StoredDetector:
        seed, store = int(stored.facts["seed"]), self.setting.activations
        attacks, criteria = stored.facts["attacks"], criteria_of(stored.facts["trained_criterion"])
        detector = build_detector(stored.params, self.setting.representatives, seed=seed)
        history = train_detector(
            detector,
            store,
            attacks=attacks,
            criteria=criteria,
            against=stored.params.train_against,
            fit=self.fit,
            seed=seed,
            device=str(resolve_device(self.setting.runtime.device)),
            further={split: Activations.concatenate(parts) for split, parts in _both_or_none(added).items() if parts},
        )
        clean = natural_activations(store, "validation")
        facts["validation_macro_auc"] = max((row["validation_macro_auc"] for row in history), default=float("nan"))
        detector.requires_grad_(False)
        return replace(
            stored,
            detector=detector,
            facts=dict(stored.facts) | {"history": history},
            clean_scores=score_activations(detector, clean),
        )


def _both_or_none(added: dict[str, list[Activations]]) -> dict[str, list[Activations]]:
    """Adaptive examples take part once there are some to learn from and some to choose by."""
    return added if all(added.values()) else {split: [] for split in added}
