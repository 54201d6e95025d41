"""The section on calibration in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from adv_detect.measures.calibration import AS_EXPECTED, TWO_GROUPS
from adv_detect.reporting.blocks import Block, Note, Section, Table, Text, prose

SHOWN = 10
INTRODUCTION = prose(
    """
    **Calibration** sets the thresholds anew on {n:,} clean pictures of `{images}`; network and detector stay. Before:
    the share of these pictures above the thresholds of the model so far. After: the share above the thresholds that
    the other nine tenths of the pictures give. The last interval is that of the rate on further pictures of the kind.
    """
)
HEADERS = {
    "fpr": "rate", "threshold_before": "threshold before", "n_before": "rests on", "rate_before": "above it",
    "before": "95 % interval", "threshold_after": "threshold after", "n": "rests on ", "rate_after": "above it ",
    "after": "95 % interval ", "true": "rate on further pictures, 95 %", "n_for_half": "pictures for ± half the rate",
}  # fmt: skip


def calibration_section(scores: pd.DataFrame, rates: pd.DataFrame, check: Mapping[str, Any], images: str) -> Section:
    """Write the section on calibration.

    Args:
        scores: One row per picture.
        rates: The rates before and after.
        check: Signs that the pictures are not all clean.
        images: Where they lie.

    Returns:
        The section.
    """
    tone = "info" if check["verdict"] == AS_EXPECTED else "caution"
    blocks: list[Block] = [
        Text(INTRODUCTION.format(n=check["n"], images=images)),
        Note(check_sentence(check), tone),  # type: ignore[arg-type]
    ]
    formats = {"fpr": "g", "rate_before": ".1%", "rate_after": ".1%", "n_for_half": ",d", "n": ",d", "n_before": ",d"}
    blocks.append(Table(_with_intervals(rates)[list(HEADERS)], "Thresholds before and after.", formats, HEADERS))
    if check["verdict"] != AS_EXPECTED:
        highest = scores.nlargest(SHOWN, "adversarial_score")[
            ["path", "predicted_class", "adversarial_score", "p_value"]
        ]
        blocks.append(Table(highest.reset_index(drop=True), "The pictures with the highest scores: look at these."))
    return Section("Calibration", blocks)


def check_sentence(check: Mapping[str, Any]) -> str:
    """Say what the check of the pictures found, and what to do.

    Args:
        check: Fields of :class:`adv_detect.measures.calibration.MixtureCheck` and ``n``.

    Returns:
        One or two sentences.
    """
    n, gap = check["n"], check["gap"]
    if check["verdict"] == TWO_GROUPS:
        return (
            f"THESE PICTURES LOOK LIKE A MIXTURE of clean and attacked ones: {gap['above']} of {n} lie apart from the "
            f"others, with scores from {gap['high']:.4g} on, none between {gap['low']:.4g} and that (p = "
            f"{gap['p_value']:.1g}). Thresholds that rest on them let attacks pass; look at the pictures with the "
            "highest scores and leave out what is not clean."
        )
    if check["verdict"] != AS_EXPECTED:
        return (
            f"MORE OF THESE {n} PICTURES LIE ABOVE THE THRESHOLDS SO FAR than clean ones of the detector's own kind do "
            f"(p = {check['excess']:.1g}). Either they are of another kind (camera, crop, compression, people), which "
            "is what calibration is for, or some are attacked: look at those with the highest scores first."
        )
    return (
        f"Nothing speaks against these {n} pictures being clean: neither the number above the thresholds so far (p = "
        f"{check['excess']:.2g}) nor a gap among the highest scores (p = {gap['p_value']:.2g}). Few or faint attacks "
        "among them would not show."
    )


def _with_intervals(rates: pd.DataFrame) -> pd.DataFrame:
    """Add the columns ``before``, ``after`` and ``true``, written out."""
    words = {
        name: [
            f"{100 * low:.2f} to {100 * high:.2f} %"
            for low, high in zip(rates[f"{name}_low"], rates[f"{name}_high"], strict=True)
        ]
        for name in ("before", "after", "true")
    }
    return rates.assign(**words)
