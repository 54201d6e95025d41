"""The section on false alarms on honest pictures after benign changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from adv_detect.measures.benign_changes import SHOWN_RATE, worst_change
from adv_detect.measures.detector_keys import CONTROL_LABELS, MARGIN, rate_text
from adv_detect.names import UNCHANGED
from adv_detect.reporting import sections
from adv_detect.reporting.blocks import Block, Note, Section, Table, Text, prose
from adv_detect.reporting.results import EvaluationResults, chosen_detector

NOMINAL = float(SHOWN_RATE.replace("_", ".")) / 100
TOLERATED = 2.0
"""Times the nominal rate that false alarms on a benign change may reach without a word of caution."""

BENIGN = prose("""
    Pictures are compressed, resized and edited on their way. A detector that calls that an attack is of no use, however
    well it finds attacks. Natural test images were changed, rounded to 8 bits as a file would hold them, and scored at
    the thresholds fixed on unchanged validation images. Only images count that the network still classifies as before;
    changes with a star are kept out of the training of every detector.
""")
TABLE = (
    "Share of false alarms at a nominal {rate}, with {level:.0%} interval (Wilson); n: images that the network "
    "classifies as before, of {images:,}. All configurations of the first seed stand in the figure, and in "
    "benign_changes.csv."
)


def benign_section(results: EvaluationResults) -> Section:
    """False alarms of the detectors on every change."""
    blocks: list[Block] = [Text(BENIGN)]
    keys = _shown(results)
    if results.benign.empty or not keys:
        return Section("Benign changes", [*blocks, Note("Not measured in this run.")])
    caption = TABLE.format(
        rate=rate_text(SHOWN_RATE), level=results.confidence_level, images=int(results.benign["n_images"].max())
    )
    formats = {"accuracy": ".1%"}
    headers = {"accuracy": "accuracy of the network"}
    table = Table(_table(results.benign, keys), caption, formats, headers)
    return Section("Benign changes", [*blocks, *sections.figures(results, "benign_changes"), table])


def benign_note(results: EvaluationResults) -> list[Block]:
    """Say on which change the registered detector raises most false alarms."""
    key = results.registered
    row = worst_change(results.benign, key) if key is not None else None
    if row is None:
        return []
    share, low, high = (row[f"fpr_{SHOWN_RATE}{end}"] for end in ("", "_low", "_high"))
    text = (
        f"**Benign changes.** Worst false-alarm rate of `{key}` at a nominal {rate_text(SHOWN_RATE)}: **{share:.1%}** "
        f"on {row['change']} ({results.confidence_level:.0%} interval {low:.1%} to {high:.1%}, n = {row['n']:,}); "
        f"{_unchanged(results.benign, key)} on unchanged images."
    )
    return [Note(text, "caution" if share > TOLERATED * NOMINAL else "info")]


def _unchanged(table: pd.DataFrame, key: str | None) -> str:
    rows = table[(table["detector"] == key) & (table["change"] == UNCHANGED)]
    return f"{rows[f'fpr_{SHOWN_RATE}'].iloc[0]:.1%}"


def _shown(results: EvaluationResults) -> dict[str, str]:
    """Detectors shown, with their titles: the registered one, those chosen per criterion, the margin."""
    if results.benign.empty:
        return {}
    chosen = [results.registered, *(chosen_detector(results.detectors, one) for one in results.criteria)]
    measured = set(results.benign["detector"])
    found = {key: key for key in chosen if key is not None and key in measured}
    return found | ({MARGIN: CONTROL_LABELS[MARGIN]} if MARGIN in measured else {})


def _table(table: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    first = table.drop_duplicates("change").set_index("change")
    names = [f"{name}{'' if train else '*'}" for name, train in first["train"].items()]
    frame = pd.DataFrame({"change": names, "n": first["n"].to_numpy(), "accuracy": first["accuracy"].to_numpy()})
    for key, title in keys.items():
        rows = table[table["detector"] == key].set_index("change").reindex(first.index)
        frame[title] = [_cell({str(name): one for name, one in row.items()}) for row in rows.to_dict("records")]
    return frame


def _cell(row: Mapping[str, Any]) -> str:
    share, low, high = (row[f"fpr_{SHOWN_RATE}{end}"] for end in ("", "_low", "_high"))
    return "–" if pd.isna(share) else f"{share:.1%} ({100 * low:.1f} to {100 * high:.1f})"  # noqa: RUF001 - en dash
