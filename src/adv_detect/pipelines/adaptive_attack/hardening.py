"""Adversarial training of a detector: attacked, shown what got through, fitted again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from adv_detect.algorithms.detector_training import fit_detector, macro_auc
from adv_detect.algorithms.detectors import score_trajectories
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.params import DetectorFitParams, HardeningParams, Split
from adv_detect.pipelines.adaptive_attack.attacking import Scene, attack_images, describe_in_batches
from adv_detect.pipelines.adaptive_attack.conditions import Condition, choose_sources, score_naturals
from adv_detect.pipelines.adaptive_attack.models import FeatureModel, KnownDetector
from adv_detect.pipelines.detector_training.rows import NATURAL, TrajectoryRows, read_rows, stack_rows
from adv_detect.sharding import ShardContent, ShardStore


@dataclass(frozen=True)
class HardeningWork:
    """Trains one detector again, with adaptive adversarial examples among its training attacks.

    Attributes:
        scene: Network, images and all else that is shared.
        detectors: The trained detectors.
        conditions: The attacks of each round.
        params: Rounds and numbers of images.
        fit: How a detector is trained.
        fprs: False-positive rates whose thresholds are fixed, on clean validation images.
    """

    scene: Scene
    detectors: ShardStore
    conditions: tuple[Condition, ...]
    params: HardeningParams
    fit: DetectorFitParams
    fprs: tuple[float, ...]

    def __call__(self, key: str) -> ShardContent:
        """Make one shard: the detector after the last round, in the form of the trained ones, with ``rounds``."""
        content = self.detectors.read(key)
        known = KnownDetector.restore(key, content.metadata, content.tensors)
        base = {split: self._ordinary(known, split) for split in ("train", "validation")}
        added: dict[str, list[TrajectoryRows]] = {"train": [], "validation": []}
        rounds: list[dict[str, Any]] = []
        for number in range(1, self.params.rounds + 1):
            facts: dict[str, Any] = {"round": number}
            for split, count in (("train", self.params.train_images), ("validation", self.params.validation_images)):
                found = list(self._adaptive(known, split, count, number, facts))  # type: ignore[arg-type]
                added[split] += found
            known = self._refit(known, base, added, facts)
            rounds.append(facts)
        state = {name: value.detach().cpu().contiguous() for name, value in known.detector.state_dict().items()}
        return ShardContent(tensors=state, metadata=dict(known.about) | {"rounds": rounds, "hardened_from": key})

    def _ordinary(self, known: KnownDetector, split: str) -> TrajectoryRows:
        """The rows that the detector was trained on."""
        about = known.about
        criteria = ("targeted", "untargeted") if about["trained_criterion"] == "both" else (about["trained_criterion"],)
        parts = read_rows(
            self.scene.trajectories, known.params, split=split, attacks=about["attacks"], criteria=criteria
        )
        return stack_rows(part.successes() for part in parts)

    def _adaptive(
        self, known: KnownDetector, split: Split, count: int, number: int, facts: dict[str, Any]
    ) -> Iterator[TrajectoryRows]:
        """Trajectories of attacks on the current detector that fooled the network."""
        scored = score_naturals(self.scene.trajectories, split, known)
        attacked = fooled = evaded = 0
        sources: set[int] = set()
        for condition in self.conditions:
            chosen = choose_sources(scored, condition.spec, known, seed=self.scene.runtime.seed + number, count=count)
            if not chosen:
                continue
            outcome = attack_images(self.scene, known, condition, chosen)
            result = outcome.result
            attacked, fooled = attacked + len(chosen), fooled + int(result.fooled.sum())
            evaded, sources = evaded + int(result.evaded.sum()), sources | set(chosen)
            if bool(result.fooled.any()):
                judge = outcome.model
                joint = judge.model if isinstance(judge, FeatureModel) else judge
                _, seen = describe_in_batches(
                    joint.describe, result.images[result.fooled], self.scene.runtime.batch_size
                )
                rows = seen.cpu()
                yield TrajectoryRows(rows, torch.ones(len(rows), dtype=torch.bool), [f"adaptive-{number}"] * len(rows))
        names = sorted(self.scene.images.source_ids[index] for index in sources)
        facts[split] = {"attacked": attacked, "fooled": fooled, "evaded": evaded, "source_ids": names}

    def _refit(
        self,
        known: KnownDetector,
        base: dict[str, TrajectoryRows],
        added: dict[str, list[TrajectoryRows]],
        facts: dict[str, Any],
    ) -> KnownDetector:
        train, validation = (stack_rows([base[split], *_both_or_none(added)[split]]) for split in base)
        seed = int(known.about["seed"])
        fitted = fit_detector(
            train.as_set(),
            validation.as_set(),
            params=known.params,
            fit=self.fit,
            seed=seed,
            device=str(resolve_device(self.scene.runtime.device)),
        )
        ordinary = base["validation"]
        clean = score_trajectories(fitted.detector, ordinary.only(NATURAL).trajectories)
        scores = score_trajectories(fitted.detector, ordinary.trajectories)
        thresholds = thresholds_at_fpr(clean, self.fprs)
        facts["validation_macro_auc"] = fitted.validation_macro_auc
        about = dict(known.about) | {
            "thresholds": {f"{fpr:g}": float(value) for fpr, value in thresholds.items()},
            "validation_macro_auc": macro_auc(scores, ordinary.groups),
            "history": fitted.history,
        }
        fitted.detector.requires_grad_(False)
        return KnownDetector(known.key, fitted.detector, known.params, about)


def _both_or_none(added: dict[str, list[TrajectoryRows]]) -> dict[str, list[TrajectoryRows]]:
    """Adaptive rows take part once there are some to learn from and some to choose by."""
    return added if all(added.values()) else {split: [] for split in added}
