"""Pairs under attack, and what they do to decisions that were fixed on clean pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from adv_detect.measures.faces.decisions import FooledPairs, clean_threshold, fooled_pairs
from adv_detect.measures.faces.verification import Flags, Scores, Verification, cosine_similarities, verify
from adv_detect.names import DODGING, IMPERSONATION, NATURAL
from adv_detect.params import FaceRecognitionParams
from adv_detect.pipelines.face_recognition.rows import FaceRows

KIND_OF = {"targeted": IMPERSONATION, "untargeted": DODGING}
CLEAN = ("none", "none")
PAIR_COLUMNS = (
    "attack", "criterion", "form", "kind", "source_id", "reference_id", "success", "clean_score", "attacked_score",
    "twin_score",
)  # fmt: skip


def attacked_pairs(natural: FaceRows, attacked: Iterable[FaceRows], *, seed: int) -> pd.DataFrame:
    """Pair each attacked image with a clean image that the attacker wants to match, or to be apart from.

    A targeted adversarial of A toward B is paired with a clean image of B (impersonation), an untargeted one of A with
    another clean image of A (dodging). The clean image is drawn by the seed and the source image alone, so all attacks
    of a criterion meet the same pairs.

    Args:
        natural: Clean images to pair with.
        attacked: Attacked images, an attack and criterion at a time.
        seed: Seed of the draw.

    Returns:
        One row per attacked image: attack, criterion, form, kind, source_id, reference_id, success (of the attack on
        its own aim), clean_score (the pair before the attack), attacked_score, twin_score (similarity of the attacked
        pair in the twin; NaN where it is not asked). Images whose pair cannot be formed, because there is no other
        clean image of that identity, are left out.
    """
    frames = [_pair_up(natural, rows, seed) for rows in attacked]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(PAIR_COLUMNS))


def _pair_up(natural: FaceRows, rows: FaceRows, seed: int) -> pd.DataFrame:
    wanted = rows.target if rows.criterion == "targeted" else rows.label
    references = _draw_references(natural, rows.source_index.numpy(), wanted.numpy(), seed)
    kept = np.flatnonzero(references >= 0)
    rows, reference = rows.take(kept), natural.take(references[kept])
    position = {int(index): row for row, index in enumerate(natural.source_index.tolist())}
    sources = natural.take(np.array([position[index] for index in rows.source_index.tolist()], dtype=np.int64))
    return pd.DataFrame(
        {
            "attack": rows.attack,
            "criterion": rows.criterion,
            "form": rows.form,
            "kind": KIND_OF[rows.criterion],
            "source_id": rows.source_ids,
            "reference_id": reference.source_ids,
            "success": rows.success.numpy(),
            "clean_score": cosine_similarities(sources.template, reference.template).numpy(),
            "attacked_score": cosine_similarities(rows.template, reference.template).numpy(),
            "twin_score": twin_similarities(rows.twin_template, reference.twin_template),
        },
        columns=list(PAIR_COLUMNS),
    )


def twin_similarities(first: torch.Tensor, second: torch.Tensor) -> Scores:
    """Compare pairs in the twin.

    Args:
        first: Templates of the one side, ``(N, D)``; of width 0 where the twin is not asked.
        second: Of the other side.

    Returns:
        Cosine similarities ``(N,)``; NaN where the twin is not asked.
    """
    if not first.shape[1]:
        return np.full(len(first), np.nan)
    found: Scores = cosine_similarities(first, second).numpy().astype(np.float64)
    return found


def _draw_references(
    natural: FaceRows, sources: NDArray[np.int64], identities: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Row in ``natural`` of a clean image of each identity other than the source image, -1 where there is none."""
    index = natural.source_index.numpy()
    members = {int(one): np.flatnonzero(natural.label.numpy() == one) for one in np.unique(identities)}
    drawn = np.full(len(sources), -1, dtype=np.int64)
    for row, (source, identity) in enumerate(zip(sources.tolist(), identities.tolist(), strict=True)):
        choices = members[identity][index[members[identity]] != source]
        if len(choices):
            drawn[row] = np.random.default_rng([seed, source, identity]).choice(choices)
    return drawn


def verification_table(pairs: pd.DataFrame, clean: pd.DataFrame, params: FaceRecognitionParams) -> pd.DataFrame:
    """Measure attacked pairs at thresholds fixed on clean pairs.

    Args:
        pairs: As from :func:`attacked_pairs`.
        clean: Clean pairs with ``score`` and ``same``.
        params: Rules of the thresholds, false-accept rates.

    Returns:
        One row per attack x criterion x form x threshold rule, clean pairs first (attack ``natural``): attack,
        criterion, form, kind, threshold_rule, threshold, n, fooled (share of pairs decided wrongly under attack),
        fooled_low, fooled_high (95 %, Wilson), clean (share decided wrongly without attack), n_right (pairs decided
        rightly when clean), fooled_of_right, n_success (attacks that reached their own aim), fooled_of_success, and,
        of all thresholds together, auc, eer and tar_at_far_<rate>: for impersonation the attacked pairs against clean
        pairs of the same person, for dodging against clean pairs of different people; clean_auc and clean_eer are those
        of the very same pairs before the attack. Errors of the clean pairs are those of the pairs that fixed the
        thresholds.
    """
    scores, same = _clean_arrays(clean)
    thresholds = {str(rule): clean_threshold(scores, same, rule=rule) for rule in params.thresholds}
    rows = list(_clean_rows(scores, same, thresholds, verify(scores, same, fars=params.fars)))
    for (attack, criterion, form), group in pairs.groupby(["attack", "criterion", "form"], sort=False):
        condition = {"attack": attack, "criterion": criterion, "form": form}
        curve = _figures(attacked_verification(group, clean, fars=params.fars))
        before = attacked_verification(group, clean, fars=params.fars, score="clean_score")
        curve |= {"clean_auc": before.auc, "clean_eer": before.eer}
        rows += [
            condition | _decided(group, threshold) | {"threshold_rule": rule, "threshold": threshold} | curve
            for rule, threshold in thresholds.items()
        ]
    table = pd.DataFrame(rows)
    first = ["attack", "criterion", "form", "kind", "threshold_rule", "threshold"]
    return table[[*first, *table.columns.drop(first)]]


def attacked_verification(
    group: pd.DataFrame, clean: pd.DataFrame, *, fars: tuple[float, ...], score: str = "attacked_score"
) -> Verification:
    """Measure all operating points with the attacked pairs of one attack in the place of the clean ones of their kind.

    Args:
        group: Rows of :func:`attacked_pairs` of one attack and criterion.
        clean: Clean pairs with ``score`` and ``same``.
        fars: False-accept rates to report.
        score: ``attacked_score``, or ``clean_score`` for the same pairs before the attack.

    Returns:
        ROC, AUC, EER and true-accept rates.
    """
    scores, same = _clean_arrays(clean)
    dodging = bool(group["kind"].iloc[0] == DODGING)
    others = scores[same != dodging]
    joined = np.concatenate([group[score].to_numpy(dtype=np.float64), others])
    return verify(joined, np.repeat([dodging, not dodging], [len(group), len(others)]), fars=fars)


def _decided(group: pd.DataFrame, threshold: float) -> dict[str, Any]:
    every = _fooled(group, threshold)
    reached = group[group["success"]]
    return _columns(every) | {
        "n_success": len(reached),
        "fooled_of_success": _fooled(reached, threshold).attacked_rate if len(reached) else float("nan"),
    }


def _fooled(group: pd.DataFrame, threshold: float) -> FooledPairs:
    same = (group["kind"] == DODGING).to_numpy(dtype=bool)
    clean, attacked = (group[name].to_numpy(dtype=np.float64) for name in ("clean_score", "attacked_score"))
    (found,) = fooled_pairs(clean, attacked, same, threshold=threshold)
    return found


def _clean_rows(
    scores: Scores, same: Flags, thresholds: dict[str, float], measured: Verification
) -> Iterator[dict[str, Any]]:
    criterion, form = CLEAN
    for rule, threshold in thresholds.items():
        for one in fooled_pairs(scores, scores, same, threshold=threshold):
            condition = {"attack": NATURAL, "criterion": criterion, "form": form, "threshold_rule": rule}
            nothing = {"n_success": 0, "fooled_of_success": float("nan")}
            decided = _columns(one) | {"fooled_of_right": float("nan")}
            yield condition | {"threshold": threshold} | decided | nothing | _figures(measured)


def _columns(found: FooledPairs) -> dict[str, Any]:
    return {
        "kind": found.attack,
        "n": found.n,
        "fooled": found.attacked_rate,
        "fooled_low": found.attacked_low,
        "fooled_high": found.attacked_high,
        "clean": found.clean_rate,
        "n_right": found.n_correct,
        "fooled_of_right": found.fooled_rate,
    }


def _figures(measured: Verification) -> dict[str, float]:
    rates = {f"tar_at_far_{one.far:g}": one.tar for one in measured.accept_rates}
    return {"auc": measured.auc, "eer": measured.eer, **rates}


def _clean_arrays(clean: pd.DataFrame) -> tuple[Scores, Flags]:
    return clean["score"].to_numpy(dtype=np.float64), clean["same"].to_numpy(dtype=bool)


def score_pairs(
    pairs: pd.DataFrame, templates: torch.Tensor, twin_templates: torch.Tensor, positions: dict[int, int]
) -> pd.DataFrame:
    """Compare the two images of each clean pair.

    Args:
        pairs: Pairs with ``first_index`` and ``second_index``.
        templates: Shape ``(N, D)``.
        twin_templates: Those of the twin, ``(N, D')``; of width 0 where it is not asked.
        positions: Row of each image in ``templates`` by its index.

    Returns:
        The pairs with the columns ``score``, the cosine similarity, and ``twin_score``, that in the twin.
    """
    rows = [[positions[index] for index in pairs[name]] for name in ("first_index", "second_index")]
    own, twin = ([side[index] for index in rows] for side in (templates, twin_templates))
    return pairs.assign(score=cosine_similarities(*own).numpy(), twin_score=twin_similarities(*twin))
