"""The work on one shard of adaptive adversarial examples; runs in this process or in a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.jobs.detectors import restore
from adv_detect.names import KNOWS, TWIN_DIGEST
from adv_detect.networks.target import target_digest
from adv_detect.pipelines.adaptive_attack.attacking import Attacked, AttackSetting, attack_images
from adv_detect.pipelines.adaptive_attack.conditions import Condition
from adv_detect.pipelines.adaptive_attack.guides import describe_in_batches
from adv_detect.pipelines.adaptive_attack.models import REFERENCE_THRESHOLD, STRICT, USUAL
from adv_detect.sharding import ShardContent, ShardStore

NO_TARGET = -1


@dataclass(frozen=True)
class AdaptiveBlock:
    """Some images to attack on one detector.

    Attributes:
        detector: Key of the detector in its store.
        condition: Attack, budget, criterion.
        indices: Source indices: classified correctly and passed by the detector.
        surrogate: Key of the detector that the attack is made on, where it is another one.
    """

    detector: str
    condition: Condition
    indices: tuple[int, ...]
    surrogate: str | None = None


@dataclass(frozen=True)
class AdaptiveWork:
    """Attacks network and detector together."""

    setting: AttackSetting
    detectors: ShardStore

    def __call__(self, block: AdaptiveBlock) -> ShardContent:
        """Make one shard: images, what they fool, scores and perturbation sizes of each row."""
        started = time.perf_counter()
        stored = restore(self.detectors, block.detector, self.setting.representatives)
        surrogate = block.surrogate and restore(self.detectors, block.surrogate, self.setting.representatives)
        attacked = attack_images(self.setting, stored, block.condition, block.indices, surrogate=surrogate or None)
        tensors = self._tensors(attacked, stored, asks_detector=block.condition.asks_detector)
        spec = block.condition.spec
        return ShardContent(
            tensors=tensors,
            metadata={
                "detector": block.detector,
                "attack": block.condition.name,
                "method": spec.attack,
                "role": spec.role,
                "form": spec.form,
                "classifier": spec.classifier,
                "norm": block.condition.norm,
                "epsilon": block.condition.epsilon,
                "criterion": block.condition.criterion,
                KNOWS: block.condition.knows,
                **self._twin(block.condition),
                "threshold_fpr_01": stored.threshold(STRICT),
                "threshold_fpr_05": stored.threshold(USUAL),
                "rounds": len(stored.facts.get("rounds", [])),
                "total_steps": block.condition.build(self.setting.network.spec.bounds).total_steps,
                "seconds": time.perf_counter() - started,
                "source_ids": [self.setting.images.source_ids[index] for index in block.indices],
            },
        )

    def _twin(self, condition: Condition) -> dict[str, str]:
        """Give a fingerprint of the twin, which says whether it is still the attacked one."""
        if condition.kind.guide != "templates" or self.setting.twin is None:
            return {}
        return {TWIN_DIGEST: target_digest(self.setting.twin, layers=False)}

    def _tensors(self, attacked: Attacked, stored: StoredDetector, *, asks_detector: bool) -> dict[str, Tensor]:
        result, task = attacked.result, attacked.task
        logits, _ = describe_in_batches(attacked.model.describe, result.images, self.setting.runtime.batch_size)
        score, fooled = result.detector_score, result.fooled
        blind = torch.full_like(fooled, not asks_detector)  # the gate does without the detector
        tensors = {
            "images": result.images,
            "fooled": fooled,
            "evaded_fpr_01": fooled & (blind | (score <= stored.threshold(STRICT))),
            "evaded_fpr_05": fooled & (blind | (score <= stored.threshold(USUAL))),
            "evaded_reference": fooled & (blind | (score < REFERENCE_THRESHOLD)),
            "detector_score": score,
            "l2": result.l2,
            "linf": result.linf,
            "gradient_evaluations": result.gradient_evaluations,
            "zero_gradient_share": result.zero_gradient_share,
            "first_success": result.first_success,
            "non_finite": result.non_finite,
            "source_index": task.indices,
            "label": task.labels,
            "target": torch.full_like(task.labels, NO_TARGET) if task.targets is None else task.targets,
            "predicted": logits.argmax(dim=1),
        }
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value is not None}
