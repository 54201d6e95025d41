"""Accept or reject: thresholds on pairs, the accuracy of the LFW protocol, and decisions that an attack turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.faces.verification import Flags, Scores, check_scores, verify
from adv_detect.measures.intervals import wilson_interval


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of the LFW protocol.

    Attributes:
        mean: Mean of the folds' accuracies.
        standard_error: Standard error of that mean.
        accuracies: Accuracy on each fold, at the threshold best on all others.
        thresholds: These thresholds.
    """

    mean: float
    standard_error: float
    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class FooledPairs:
    """Pairs of one kind under attack, at a threshold fixed on clean pairs.

    Attributes:
        attack: ``impersonation`` (different people accepted) or ``dodging`` (same person rejected).
        n: Pairs of that kind, right or wrong when clean.
        clean_rate: Share of them decided wrongly without attack.
        attacked_rate: Share decided wrongly under attack.
        attacked_low: Lower end of the 95 % interval of ``attacked_rate`` (Wilson).
        attacked_high: Upper end.
        n_correct: Pairs decided rightly when clean.
        fooled_rate: Share of those decided wrongly under attack; NaN when there are none.
    """

    attack: str
    n: int
    clean_rate: float
    attacked_rate: float
    attacked_low: float
    attacked_high: float
    n_correct: int
    fooled_rate: float


def fold_accuracy(scores: Scores, same: Flags, folds: NDArray[np.int64]) -> FoldAccuracy:
    """Measure accuracy as the LFW protocol does: on each fold, at the threshold best on all other folds.

    Args:
        scores: Similarity of each pair, ``(N,)``.
        same: Whether the pair shows the same person, ``(N,)``.
        folds: Fold of each pair, ``(N,)``.

    Returns:
        Accuracy over folds.

    Raises:
        DataError: Wrong shapes, NaN, or fewer than two folds.
    """
    check_scores(scores, same, both=True)
    names = np.unique(folds)
    if folds.shape != scores.shape or len(names) < 2:
        raise DataError(f"expected a fold per pair and at least two folds, got {folds.shape} and {len(names)} folds")
    thresholds = [best_threshold(scores[folds != fold], same[folds != fold]) for fold in names]
    accuracies = [
        float(np.mean((scores[folds == fold] >= threshold) == same[folds == fold]))
        for fold, threshold in zip(names, thresholds, strict=True)
    ]
    error = float(np.std(accuracies, ddof=1) / np.sqrt(len(names)))
    return FoldAccuracy(float(np.mean(accuracies)), error, tuple(accuracies), tuple(thresholds))


def best_threshold(scores: Scores, same: Flags) -> float:
    """Find the threshold of the highest accuracy.

    Args:
        scores: Similarity of each pair, ``(N,)``.
        same: Whether the pair shows the same person, ``(N,)``.

    Returns:
        Half-way between the two neighbouring scores that it divides; of equally good ones the lowest.
    """
    check_scores(scores, same, both=False)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    rejected_same = np.concatenate([[0], np.cumsum(same[order])])
    accepted_different = (~same).sum() - np.concatenate([[0], np.cumsum(~same[order])])
    errors = (rejected_same + accepted_different).astype(np.float64)
    errors[1:-1][ranked[1:] == ranked[:-1]] = np.inf
    cut = int(np.argmin(errors))
    edges = np.concatenate([[ranked[0]], ranked, [np.nextafter(ranked[-1], np.inf)]])
    return float(max((edges[cut] + edges[cut + 1]) / 2, np.nextafter(edges[cut], np.inf)) if cut else edges[0])


def clean_threshold(scores: Scores, same: Flags, *, rule: str | float = "accuracy") -> float:
    """Fix the threshold on clean pairs, at which attacked pairs are then judged.

    Args:
        scores: Similarities of clean pairs, ``(N,)``.
        same: Whether the pair shows the same person, ``(N,)``.
        rule: ``accuracy`` (the highest), ``eer``, or a false-accept rate.

    Returns:
        The similarity from which a pair is accepted.

    Raises:
        ConfigurationError: Another rule.
    """
    if rule == "accuracy":
        return best_threshold(scores, same)
    if rule == "eer":
        return verify(scores, same, fars=()).eer_threshold
    if isinstance(rule, str):
        raise ConfigurationError(f"threshold: expected 'accuracy', 'eer' or a false-accept rate, got {rule!r}")
    return verify(scores, same, fars=(rule,)).accept_rates[0].threshold


def fooled_pairs(clean: Scores, attacked: Scores, same: Flags, *, threshold: float) -> tuple[FooledPairs, ...]:
    """Count decisions that an attack on one side of the pairs turns.

    Args:
        clean: Similarities without attack, ``(N,)``.
        attacked: Similarities of the same pairs with one side attacked, ``(N,)``.
        same: Whether the pair shows the same person, ``(N,)``.
        threshold: Similarity from which a pair is accepted, fixed on clean pairs.

    Returns:
        Impersonation on the pairs of different people and dodging on those of the same person; a kind of which there
        are no pairs is left out.

    Raises:
        DataError: Wrong shapes or NaN.
    """
    check_scores(clean, same, both=False)
    check_scores(attacked, same, both=False)
    result = []
    for attack, kind in (("impersonation", ~same), ("dodging", same)):
        if kind.any():
            wrong_clean = (clean[kind] >= threshold) != same[kind]
            wrong_attacked = (attacked[kind] >= threshold) != same[kind]
            result.append(_fooled(attack, wrong_clean, wrong_attacked))
    return tuple(result)


def _fooled(attack: str, wrong_clean: Flags, wrong_attacked: Flags) -> FooledPairs:
    low, high = wilson_interval(int(wrong_attacked.sum()), len(wrong_attacked))
    right = ~wrong_clean
    return FooledPairs(
        attack=attack,
        n=len(wrong_clean),
        clean_rate=float(wrong_clean.mean()),
        attacked_rate=float(wrong_attacked.mean()),
        attacked_low=low,
        attacked_high=high,
        n_correct=int(right.sum()),
        fooled_rate=float(wrong_attacked[right].mean()) if right.any() else float("nan"),
    )
