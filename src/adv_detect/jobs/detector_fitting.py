"""Fit one detector to the activations of its images and score the clean validation images with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from adv_detect.algorithms.detectors import (
    Activations,
    Detector,
    FitData,
    FitHistory,
    LearnsFrom,
    Reads,
    TrajectoryDetector,
    build_detector,
    load_reference_detector,
    score_activations,
    stored_tensors,
)
from adv_detect.algorithms.detectors.registry import needed_views
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError
from adv_detect.jobs.activations import natural_activations, read_activations, read_fingerprint, successful_attacks
from adv_detect.jobs.detectors import LEARNING_SPLITS, DetectorJob, changed_naturals
from adv_detect.names import (
    ShardKey,
)
from adv_detect.params import (
    DetectorFitParams,
    DetectorParams,
    ImageChangeParams,
    RuntimeParams,
)
from adv_detect.sharding import ShardContent, ShardStore


@dataclass(frozen=True)
class DetectorWork:
    """Trains one detector and scores the clean validation images with it.

    Attributes:
        activations: Activations of natural and attacked images.
        representatives: Class representatives.
        fit: Settings of the optimisation.
        runtime: Device.
        views: The configured views; those that a detector reads are kept among its facts.
    """

    activations: ShardStore
    representatives: Representatives
    fit: DetectorFitParams
    runtime: RuntimeParams
    views: Mapping[str, ImageChangeParams] = field(default_factory=dict)

    def __call__(self, job: DetectorJob) -> ShardContent:
        """Make one shard: the state and the clean scores of the detector; facts and training curves as metadata."""
        clean = natural_activations(self.activations, "validation")
        detector, params, history = self._detector(job)
        views = needed_views({job.name: params}, self.views)
        facts: dict[str, Any] = {
            "configuration": job.name,
            "params": params.model_dump(mode="json"),
            "trained_criterion": job.criterion,
            "trained_on": job.trained_on,
            "attacks": list(job.attacks),
            "seed": job.seed,
            "history": history,
            "forward_passes": detector.forward_passes(clean),
            "learned_from": {
                key: read_fingerprint(self.activations, key, detector.reads) for key in job.shards(self.activations)
            },
        }
        if views:
            facts["views"] = {name: one.model_dump(mode="json") for name, one in views.items()}
        return ShardContent(tensors=stored_tensors(detector, score_activations(detector, clean)), metadata=facts)

    def _detector(self, job: DetectorJob) -> tuple[Detector, DetectorParams, FitHistory]:
        if job.checkpoint is not None:
            readout = load_reference_detector(job.checkpoint, layers=len(self.representatives.layers))
            params = job.params.model_copy(update={"hidden": readout.hidden, "kind": readout.kind})
            return TrajectoryDetector(self.representatives, params, readout), params, []
        detector = build_detector(job.params, self.representatives, seed=job.seed)
        history = train_detector(
            detector,
            self.activations,
            attacks=job.attacks,
            criteria=job.criteria,
            against=job.params.train_against,
            fit=self.fit,
            seed=job.seed,
            device=str(resolve_device(self.runtime.device)),
        )
        return detector, job.params, history


def train_detector(  # noqa: PLR0913
    detector: Detector,
    activations: ShardStore,
    *,
    attacks: Collection[str],
    criteria: Collection[str],
    against: Collection[str] = (),
    fit: DetectorFitParams,
    seed: int,
    device: str,
    further: Mapping[str, Activations | None] | None = None,
) -> FitHistory:
    """Fit a detector on the train split, chosen by the validation split; it ends on the CPU, in evaluation mode.

    Args:
        detector: Fresh.
        activations: Shards of natural and attacked images.
        attacks: Attacks to learn from.
        criteria: Their criteria.
        against: Benign changes whose images are learned as clean ones.
        fit: Settings of the optimisation.
        seed: Decides everything random.
        device: Where to train.
        further: Further successful attacks by split, in addition to those of the store.

    Returns:
        Training curves.

    Raises:
        DataError: There are no images to learn from.
    """
    learns = detector.learns_from
    if learns is LearnsFrom.NOTHING:
        detector.eval()
        return []
    attacked = dict.fromkeys(LEARNING_SPLITS)
    if learns is LearnsFrom.ATTACKS:
        attacked = {
            split: _joined(
                successful_attacks(activations, split=split, attacks=attacks, criteria=criteria),
                (further or {}).get(split),
                split,
                detector.reads,
            )
            for split in LEARNING_SPLITS
        }
    data = FitData(
        clean=_clean(activations, "train", against),
        attacked=attacked["train"],
        validation_clean=_clean(activations, "validation", against),
        validation_attacked=attacked["validation"],
        params=fit,
        device=device,
    )
    history = detector.fit_chosen(data, seed=seed)
    detector.cpu().eval()
    return history


def _clean(activations: ShardStore, split: str, against: Collection[str]) -> Activations:
    """Read the natural images of a split and, after them, those that benign changes were made to."""
    natural = natural_activations(activations, split)
    changed = changed_naturals(activations, split, against)
    if not against:
        return natural
    parts = (read_activations(changed[key], ShardKey.parse(key).variant) for key in changed)
    return Activations.concatenate([natural, *parts])


def _joined(own: Activations | None, further: Activations | None, split: str, reads: Reads) -> Activations:
    parts = [part for part in (own, further) if part is not None]
    if not parts or not sum(map(len, parts)):
        raise DataError(
            f"detector_training: expected successful attacks of the {split} split to learn from, got none; use more "
            "images, another split or an attack that succeeds"
        )
    read = [part.keep(views=reads.views, twin=reads.twin) for part in parts]  # further ones hold what is read alone
    return Activations.concatenate(read)
