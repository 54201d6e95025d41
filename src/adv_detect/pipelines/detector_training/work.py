"""The work on one shard of trajectories and on one detector; runs in this process or in a worker."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.deep_features_objective import nearest_classes
from adv_detect.algorithms.attacks.quality import margin, noise_of_same_norm, quantise
from adv_detect.algorithms.detector_training import fit_detector, macro_auc
from adv_detect.algorithms.detectors import TrajectoryDetector, load_reference_detector, score_trajectories
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.finite import finite_rows
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.algorithms.trajectories import all_trajectories
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import DetectorFitParams, DetectorParams, Norm, RuntimeParams
from adv_detect.pipelines.adversarial_generation.work import BY_NETWORK
from adv_detect.pipelines.detector_training.rows import NATURAL, TrajectoryRows, read_rows, stack_rows
from adv_detect.sharding import ShardContent, ShardStore

LOGGER = logging.getLogger(__name__)
Variant = Literal["float", "8bit", "noise"]
KEPT = ("label", "source_index", "target", "l2", "linf")


@dataclass(frozen=True)
class TrajectoryBlock:
    """One shard of images and the variant of it to look at.

    Attributes:
        shard: Key in the store of adversarial examples.
        variant: ``float`` as attacked, ``8bit`` rounded to 256 levels, ``noise`` with random noise of the same norm.
        norm: Norm in which noise is matched.
        seed: Seed of the noise.
        made_from: Fingerprint of that shard, kept with the result.
    """

    shard: str
    variant: Variant = "float"
    norm: Norm = "l2"
    seed: int = 0
    made_from: str = ""


@dataclass(frozen=True)
class TrajectoryWork:
    """Runs stored images through the network and measures their distances to all class representatives."""

    adversarials: ShardStore
    network: TargetNetwork
    representatives: Representatives
    columns: tuple[str, ...]
    runtime: RuntimeParams

    def __call__(self, block: TrajectoryBlock) -> ShardContent:
        """Make one shard: a tensor ``(n, L, C)`` per representative and distance, logits ``(n, C)`` and flags."""
        device = resolve_device(self.runtime.device)
        network, representatives = working_form(self.network, device), self.representatives.to(device)
        content = self.adversarials.read(block.shard)
        images, judge = self._vary(block, content), content.metadata.get("judge", BY_NETWORK)
        step = self.runtime.batch_size
        parts = [
            self._batch(network, representatives, images[start : start + step].to(device), judge)
            for start in range(0, max(len(images), 1), step)
        ]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        tensors |= {name: content.tensors[name] for name in KEPT}
        flags = self._flags(content, tensors.pop("judged"))
        metadata = content.metadata | {"variant": block.variant, "made_from": block.made_from}
        return self._without_non_finite(block, ShardContent(tensors=tensors | flags, metadata=metadata))

    def _without_non_finite(self, block: TrajectoryBlock, content: ShardContent) -> ShardContent:
        """Leave out images that cannot be scored: with NaN or infinity in a logit or a distance."""
        kept = finite_rows(*(content.tensors[name] for name in ("logits", *self.columns)))
        if bool(kept.all()):
            return content
        LOGGER.warning(
            "trajectories: %d of %d images of %s (%s) left out: NaN or infinity in their logits or features",
            int((~kept).sum()), len(kept), block.shard, block.variant,
        )  # fmt: skip
        names = [name for name, flag in zip(content.metadata["source_ids"], kept.tolist(), strict=True) if flag]
        return ShardContent(
            tensors={name: tensor[kept] for name, tensor in content.tensors.items()},
            metadata=content.metadata | {"source_ids": names},
        )

    def _vary(self, block: TrajectoryBlock, content: ShardContent) -> Tensor:
        images, bounds = content.tensors["images"], self.network.spec.bounds
        if block.variant == "8bit":
            return quantise(images, bounds)
        if block.variant == "noise":
            sources = self.adversarials.read(_natural_of(block.shard))
            clean = _matching(sources, content)
            return noise_of_same_norm(clean, images, norm=block.norm, bounds=bounds, seed=block.seed)
        return images

    @torch.no_grad()
    def _batch(
        self, network: TargetNetwork, representatives: Representatives, images: Tensor, judge: str
    ) -> dict[str, Tensor]:
        logits, features = extract_features(network, images, network.spec.layers)
        distances = all_trajectories(features, representatives, self.columns)
        tensors = {"logits": logits, "predicted": logits.argmax(dim=1), "margin": margin(logits)}
        tensors["judged"] = tensors["predicted"]
        if judge != BY_NETWORK:
            tensors["judged"] = nearest_classes(features[-1], representatives.of(judge)[-1])
        return {name: tensor.cpu() for name, tensor in (tensors | distances).items()}

    @staticmethod
    def _flags(content: ShardContent, judged: Tensor) -> dict[str, Tensor]:
        """``success``: the attack fooled its judge; ``survives``: this variant of the image still fools it."""
        success, target, label = (content.tensors[name] for name in ("success", "target", "label"))
        fools = torch.where(target >= 0, judged == target, judged != label)
        return {"success": success, "survives": success & fools}


def _natural_of(key: str) -> str:
    """Key of the unattacked images of a shard: attacks and naturals of a split are cut alike."""
    return f"{NATURAL}/{key.rsplit('/', 1)[1]}"


def _matching(sources: ShardContent, attacked: ShardContent) -> Tensor:
    """Clean images of the rows of an attacked shard."""
    row_of = {index: row for row, index in enumerate(sources.tensors["source_index"].tolist())}
    rows = [row_of[index] for index in attacked.tensors["source_index"].tolist()]
    return sources.tensors["images"][rows]


@dataclass(frozen=True)
class DetectorJob:
    """One detector to train, or one published checkpoint to take over.

    Attributes:
        name: Name of the configuration.
        params: The configuration.
        criterion: ``targeted``, ``untargeted`` or ``both``.
        trained_on: ``all``, ``without-<attack>`` or ``reference``.
        attacks: Names of the attacks in the training set.
        seed: Seed of initial weights and batches.
        checkpoint: File of a published detector; None trains one.
    """

    name: str
    params: DetectorParams
    criterion: str
    trained_on: str
    attacks: tuple[str, ...]
    seed: int
    checkpoint: str | None = None

    @property
    def key(self) -> str:
        """``<name>/<criterion>/<trained_on>/<seed>``."""
        return f"{self.name}/{self.criterion}/{self.trained_on}/{self.seed}"

    @property
    def criteria(self) -> tuple[str, ...]:
        """Criteria of the attacks in the training set."""
        return ("targeted", "untargeted") if self.criterion == "both" else (self.criterion,)


@dataclass(frozen=True)
class DetectorWork:
    """Trains one detector and fixes its thresholds on clean validation images."""

    trajectories: ShardStore
    fit: DetectorFitParams
    all_attacks: tuple[str, ...]
    fprs: tuple[float, ...]
    runtime: RuntimeParams
    made_from: str = ""

    def __call__(self, job: DetectorJob) -> ShardContent:
        """Make one shard: the state dict of the detector; thresholds, history and validation AUC as metadata."""
        validation = self._rows(job, "validation", job.attacks, job.criteria)
        detector, history = self._detector(job, validation)
        params = job.params.model_copy(update={"hidden": detector.hidden, "kind": detector.kind})
        clean = validation.only(NATURAL)
        thresholds = thresholds_at_fpr(score_trajectories(detector, clean.trajectories), self.fprs)
        metadata: dict[str, Any] = {
            "configuration": job.name,
            "params": params.model_dump(mode="json"),
            "trained_criterion": job.criterion,
            "trained_on": job.trained_on,
            "attacks": list(job.attacks),
            "seed": job.seed,
            "layers": validation.trajectories.shape[1],
            "classes": validation.trajectories.shape[2],
            "thresholds": {f"{fpr:g}": float(value) for fpr, value in thresholds.items()},
            "n_validation_natural": len(clean.groups),
            "validation_macro_auc": self._macro(detector, job, job.attacks, job.criteria),
            "validation_macro_auc_all": self._macro(detector, job, self.all_attacks, ("targeted", "untargeted")),
            "history": history,
            "made_from": self.made_from,
        }
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
        return ShardContent(tensors=state, metadata=metadata)

    def _detector(
        self, job: DetectorJob, validation: TrajectoryRows
    ) -> tuple[TrajectoryDetector, list[dict[str, float]]]:
        if job.checkpoint is not None:
            return load_reference_detector(job.checkpoint, layers=validation.trajectories.shape[1]), []
        fitted = fit_detector(
            self._rows(job, "train", job.attacks, job.criteria).as_set(),
            validation.as_set(),
            params=job.params,
            fit=self.fit,
            seed=job.seed,
            device=str(resolve_device(self.runtime.device)),
        )
        return fitted.detector, fitted.history

    def _rows(
        self, job: DetectorJob, split: str, attacks: tuple[str, ...], criteria: tuple[str, ...]
    ) -> TrajectoryRows:
        parts = read_rows(self.trajectories, job.params, split=split, attacks=attacks, criteria=criteria)
        return stack_rows(part.successes() for part in parts)

    def _macro(
        self, detector: TrajectoryDetector, job: DetectorJob, attacks: tuple[str, ...], criteria: tuple[str, ...]
    ) -> float:
        rows = self._rows(job, "validation", attacks, criteria)
        return macro_auc(score_trajectories(detector, rows.trajectories), rows.groups)
