"""A fitted detector with its facts and the clean scores that its thresholds rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.detectors.base import Detector
from adv_detect.algorithms.detectors.registry import build_detector
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.thresholds import p_values, thresholds_at_fpr
from adv_detect.params import DetectorParams, ImageChangeParams

CLEAN_SCORES = "clean_scores"
"""Name of the clean scores among the stored tensors."""
STATE = "state."
"""What precedes a name of the state dict among the stored tensors."""


@dataclass(frozen=True, eq=False)
class StoredDetector:
    """One fitted detector, as evaluation, serving and attackers have it.

    Attributes:
        key: Its name in all tables.
        detector: The detector, frozen, in evaluation mode.
        params: Its configuration.
        facts: What else is known of it: ``configuration``, ``trained_criterion``, ``trained_on``, ``seed``,
            ``attacks``, ``history``, and ``views`` (their configurations by name) where it reads some.
        clean_scores: Its scores ``(n,)`` on clean validation images; thresholds and p-values rest on them.
    """

    key: str
    detector: Detector
    params: DetectorParams
    facts: Mapping[str, Any]
    clean_scores: Tensor

    @classmethod
    def restore(
        cls, key: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], representatives: Representatives
    ) -> StoredDetector:
        """Build it from what :meth:`tensors` gave.

        Args:
            key: Its name.
            facts: Holds ``params``.
            tensors: State and clean scores.
            representatives: Class representatives of the network under attack.

        Returns:
            The detector, on the CPU.
        """
        params = DetectorParams.model_validate(facts["params"])
        detector = build_detector(params, representatives)
        state = {name.removeprefix(STATE): value for name, value in tensors.items() if name.startswith(STATE)}
        detector.make_room(state)
        detector.load_state_dict(state)
        detector.eval().requires_grad_(False)
        return cls(key, detector, params, facts, tensors[CLEAN_SCORES])

    def tensors(self) -> dict[str, Tensor]:
        """Copy state and clean scores, to be stored; the facts must hold ``params``."""
        return stored_tensors(self.detector, self.clean_scores)

    @property
    def views(self) -> dict[str, ImageChangeParams]:
        """The views that it reads, as they were configured when it was fitted."""
        return stored_views(self.facts)

    def threshold(self, fpr: float) -> float:
        """Return the score above which an image counts as adversarial.

        Args:
            fpr: False-positive rate on clean images, in [0, 1).

        Returns:
            The threshold.
        """
        return thresholds_at_fpr(self.clean_scores, [fpr])[fpr]

    def p_values(self, scores: Tensor) -> Tensor:
        """Return conformal p-values of scores ``(N,)``: small where clean images hardly ever score so high."""
        return p_values(scores, self.clean_scores)


def stored_views(facts: Mapping[str, Any]) -> dict[str, ImageChangeParams]:
    """Read the views of a detector from its stored facts."""
    return {name: ImageChangeParams.model_validate(one) for name, one in facts.get("views", {}).items()}


def stored_tensors(detector: Detector, clean_scores: Tensor) -> dict[str, Tensor]:
    """Name the tensors of a detector for storage.

    Args:
        detector: Fitted.
        clean_scores: Its scores on clean validation images, ``(n,)``.

    Returns:
        Tensors on the CPU; the clean scores ascend.
    """
    state = {f"{STATE}{name}": value.detach().cpu().contiguous() for name, value in detector.state_dict().items()}
    return state | {CLEAN_SCORES: torch.sort(clean_scores.detach().cpu()).values}
