"""The work on one shard of adversarial examples; runs in this process or in a worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.configured import BY_NETWORK, ConfiguredAttack
from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.algorithms.attacks.perturbations import perturbation_norms, verify_result
from adv_detect.algorithms.attacks.result import AttackContext, AttackResult
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.algorithms.attacks.targets import draw_targets
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.finite import finite_rows
from adv_detect.algorithms.margins import margin
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, unknown_choice
from adv_detect.images import ImageSet, load_images
from adv_detect.names import NATURAL, NO_CRITERION
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AttackParams, RuntimeParams, Split
from adv_detect.sharding import ShardContent

NO_TARGET = -1
NO_CLASS = -1
"""Predicted class of an image whose logits are not finite: no class, so never the right one."""


@dataclass(frozen=True)
class SourceBlock:
    """Some source images of one split, for one attack or as they are.

    Attributes:
        attack: Configured name, or ``natural``.
        criterion: ``targeted``, ``untargeted``, or ``none`` for natural images.
        split: The split that all images belong to.
        indices: Positions in the image set.
        seed: Seed of this shard.
        aims: Classes that a targeted attack may aim at, two or more; None for all.
    """

    attack: str
    criterion: str
    split: Split
    indices: tuple[int, ...]
    seed: int
    aims: tuple[int, ...] | None = None


@dataclass(frozen=True)
class AdversarialWork:
    """Attacks the images that the network classifies correctly, or stores them unattacked.

    Which images it classifies correctly is found out once per process: all attacks start from the same ones.
    """

    images: ImageSet
    network: TargetNetwork
    representatives: Representatives
    attacks: dict[str, AttackParams]
    runtime: RuntimeParams
    _correct: dict[int, bool] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, block: SourceBlock) -> ShardContent:
        """Make one shard: images, labels, targets, predictions and perturbation sizes of each row."""
        started = time.perf_counter()
        device = resolve_device(self.runtime.device)
        make = self._natural if block.attack == NATURAL else self._attacked
        parts = [make(block, start, device) for start in range(0, len(block.indices), self._batch_size(block))]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return ShardContent(tensors=tensors, metadata=self._metadata(block, tensors, time.perf_counter() - started))

    def _batch_size(self, block: SourceBlock) -> int:
        attack = self.attacks.get(block.attack)
        return (attack.batch_size if attack else None) or self.runtime.batch_size

    def _metadata(self, block: SourceBlock, tensors: dict[str, Tensor], seconds: float) -> dict[str, Any]:
        attack = self.attacks.get(block.attack)
        return {
            "attack": block.attack,
            "criterion": block.criterion,
            "split": block.split,
            "form": attack.form if attack else NO_CRITERION,
            "judge": build_attack(block.attack, attack).judge if attack else BY_NETWORK,
            "seed": block.seed,
            "seconds": seconds,
            "source_ids": [self.images.source_ids[index] for index in tensors["source_index"].tolist()],
        }

    def _read(self, block: SourceBlock, start: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Source indices ``(n,)``, images and labels of one batch."""
        indices = torch.tensor(block.indices[start : start + self._batch_size(block)])
        batch = load_images(self.images, indices.tolist(), self.network.spec.bounds).to(device)
        return indices, batch, self.images.labels[indices].to(device)

    def _natural(self, block: SourceBlock, start: int, device: torch.device) -> dict[str, Tensor]:
        indices, batch, labels = self._read(block, start, device)
        nothing = torch.zeros(len(batch), device=device)
        predicted, gap = self._predict(batch)
        self._note(indices, predicted == labels)
        result = AttackResult(
            images=batch,
            success=torch.zeros(len(batch), dtype=torch.bool, device=device),
            adversarial_class=predicted,
            gradient_evaluations=torch.zeros(len(batch), dtype=torch.int64, device=device),
            non_finite=predicted == NO_CLASS,
        )
        norms = {"l2": nothing, "linf": nothing}
        return _rows(result, norms, source_index=indices, label=labels, target=None, predicted=predicted, margin=gap)

    def _attacked(self, block: SourceBlock, start: int, device: torch.device) -> dict[str, Tensor]:
        indices, batch, labels = self._read(block, start, device)
        correct = self._find_correct(indices, batch, labels)
        indices, batch, labels = indices[correct.cpu()], batch[correct], labels[correct]
        attack = build_attack(block.attack, self.attacks[block.attack])
        targets = self._targets(block, indices, labels)
        result = self._run(attack, batch, labels, targets=targets, seed=block.seed + start)
        predicted, gap = self._predict(result.images)
        norms = perturbation_norms(batch, result.images)
        return _rows(result, norms, source_index=indices, label=labels, target=targets, predicted=predicted, margin=gap)

    def _find_correct(self, indices: Tensor, batch: Tensor, labels: Tensor) -> Tensor:
        """Return whether the network classifies each image correctly, bool ``(n,)``."""
        if any(index not in self._correct for index in indices.tolist()):
            self._note(indices, self._predict(batch)[0] == labels)
        return torch.tensor([self._correct[index] for index in indices.tolist()], device=labels.device)

    def _note(self, indices: Tensor, correct: Tensor) -> None:
        self._correct.update(zip(indices.tolist(), correct.tolist(), strict=True))

    def _targets(self, block: SourceBlock, indices: Tensor, labels: Tensor) -> Tensor | None:
        if block.criterion == "untargeted":
            return None
        aims = torch.arange(len(self.network.spec.class_names)) if block.aims is None else torch.tensor(block.aims)
        positions = torch.searchsorted(aims, labels.cpu())
        drawn = draw_targets(positions, len(aims), seed=self.runtime.seed, source_indices=indices)
        return aims[drawn].to(labels.device)

    def _run(
        self, attack: ConfiguredAttack, batch: Tensor, labels: Tensor, *, targets: Tensor | None, seed: int
    ) -> AttackResult:
        bounds = self.network.spec.bounds
        if not len(batch):
            empty = torch.zeros(0, dtype=torch.int64, device=batch.device)
            return AttackResult(batch, empty.bool(), empty, empty)
        result = run_attack(
            attack,
            working_form(self.network, batch.device),
            batch,
            labels,
            targets=targets,
            bounds=bounds,
            seed=seed,
            context=AttackContext(
                representatives=self.representatives,
                layers=self.network.spec.layers,
                guides=guide_images(attack.guides, self.images, bounds),
            ),
        )
        verify_result(result, batch, bounds, attack.epsilon_bound(bounds), attack.norm)
        return result

    @torch.no_grad()
    def _predict(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted classes (``NO_CLASS``: logits not finite) and the gap of the two largest logits, each ``(n,)``."""
        if not len(batch):
            return torch.zeros(0, dtype=torch.int64, device=batch.device), torch.zeros(0, device=batch.device)
        logits = working_form(self.network, batch.device)(batch)
        return logits.argmax(dim=1).masked_fill(~finite_rows(logits), NO_CLASS), margin(logits)


def guide_images(guides: Mapping[str, str], images: ImageSet, bounds: tuple[float, float]) -> dict[int, Tensor]:
    """Read the guide images of a deep-features attack.

    Args:
        guides: Source id by class name.
        images: Where they are found.
        bounds: Pixel range of the network.

    Returns:
        Image ``(channels, H, W)`` by class.

    Raises:
        ConfigurationError: A class or a source id does not exist.
    """
    found = {}
    for name, source_id in guides.items():
        if name not in images.class_names:
            raise unknown_choice("arguments.guides, class", name, images.class_names)
        if source_id not in images.source_ids:
            raise ConfigurationError(
                f"arguments.guides.{name}: expected the source id of an image to be attacked, such as "
                f"{images.source_ids[0]!r}, got {source_id!r}"
            )
        index = list(images.source_ids).index(source_id)
        found[list(images.class_names).index(name)] = load_images(images, [index], bounds)[0]
    return found


def _rows(
    result: AttackResult, norms: dict[str, Tensor], *, target: Tensor | None, **more: Tensor
) -> dict[str, Tensor]:
    tensors = {
        "images": result.images,
        "success": result.success,
        "adversarial_class": result.adversarial_class,
        "gradient_evaluations": result.gradient_evaluations,
        "non_finite": result.non_finite,
        "target": torch.full_like(result.adversarial_class, NO_TARGET) if target is None else target,
        **norms,
        **more,
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
