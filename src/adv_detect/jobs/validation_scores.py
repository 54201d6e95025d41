"""Scores of validation images, by which detectors are compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from torch import Tensor

from adv_detect.algorithms.detectors import Activations, Detector, score_activations
from adv_detect.algorithms.detectors.trajectory.training import macro_auc
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.jobs.activations import natural_activations, successful_attacks
from adv_detect.jobs.benign_changes import changed_images
from adv_detect.names import BENIGN, NATURAL, UNCHANGED, ShardKey
from adv_detect.params import Criterion
from adv_detect.sharding import ShardStore


class ValidationScores:
    """Scores of the validation images, attack by attack, for one detector after the other.

    Attributes:
        clean: Activations of the natural images.
        attacked: Activations of the successes, by ``<attack>/<criterion>``.
        changed: Activations of natural images after each benign change that detectors are trained against; of images
            that the network still classifies as before.
    """

    def __init__(self, activations: ShardStore, attacks: Mapping[str, tuple[Criterion, ...]]) -> None:
        """Read what is scored, once for all detectors."""
        self.clean = natural_activations(activations, "validation")
        found = {
            f"{name}/{criterion}": successful_attacks(
                activations, split="validation", attacks=(name,), criteria=(criterion,)
            )
            for name, criteria in attacks.items()
            for criterion in criteria
        }
        self.attacked = {group: part for group, part in found.items() if part is not None and len(part)}
        self.changed = dict(_changed(activations))

    def macro_auc(self, scores: Mapping[str, Tensor], groups: Collection[str]) -> float:
        """Average the AUC over some groups; NaN where none of them has a success.

        Args:
            scores: Scores by group, ``natural`` among them.
            groups: Groups ``<attack>/<criterion>`` that count.
        """
        chosen = [group for group in self.attacked if group in groups]
        if not chosen:
            return float("nan")
        names = [NATURAL] * len(self.clean) + [group for group in chosen for _ in range(len(self.attacked[group]))]
        values = np.concatenate([scores[group].numpy() for group in (NATURAL, *chosen)])
        return macro_auc(values, names)  # type: ignore[arg-type]

    def score(self, detector: Detector) -> dict[str, Tensor]:
        """Score all groups with a detector."""
        return {NATURAL: score_activations(detector, self.clean)} | {
            group: score_activations(detector, part) for group, part in self.attacked.items()
        }

    def worst_false_alarms(self, detector: Detector, natural: Tensor, *, fpr: float) -> float:
        """Find the highest share of false alarms under one benign change.

        Args:
            detector: Scores the changed images.
            natural: Its scores of the natural images, which the threshold comes from.
            fpr: The rate of the threshold.

        Returns:
            The share; NaN where no detector is trained against benign changes.
        """
        threshold = thresholds_at_fpr(natural, (fpr,))[fpr]
        shares = [score_activations(detector, part) > threshold for part in self.changed.values()]
        return max((float(share.float().mean()) for share in shares), default=float("nan"))


def _changed(activations: ShardStore) -> Iterator[tuple[str, Activations]]:
    variants = {ShardKey.parse(key).variant for key in activations}
    names = sorted(one.removeprefix(f"{BENIGN}/") for one in variants if one.startswith(f"{BENIGN}/"))
    for name, images in changed_images(activations, activations, names, split="validation") if names else ():
        same = images.predicted == images.before
        if name != UNCHANGED and bool(same.any()):
            yield name, images.activations.select(same)
