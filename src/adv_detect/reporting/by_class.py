"""The section on false alarms by class of clean images."""

from __future__ import annotations

import pandas as pd

from adv_detect.measures.benign_changes import SHOWN_RATE
from adv_detect.measures.detector_keys import CONTROL_LABELS, MARGIN, rate_text
from adv_detect.reporting.blocks import Block, Fold, Note, Section, Table, Text, prose
from adv_detect.reporting.results import EvaluationResults

RATE = f"fpr_{SHOWN_RATE}"

INTRODUCTION = prose("""
    A threshold holds a rate over all clean images together; one class may carry most of the alarms. The classes of few
    images differ by chance alone: the last column says how often images shuffled among the classes differ as much.
    The worst of many classes looks worse than it is; its interval is that of one class looked at alone.
""")
TABLE = (
    "False alarms on clean test images at a nominal {rate}, by true class ({level:.0%} intervals, Wilson; n: images of "
    "all classes). All classes and rates stand in class_false_alarms.csv."
)
REGISTERED = "Every class of `{key}`, the registered detector, worst first."


def class_section(results: EvaluationResults) -> Section:
    """False alarms over all classes, and in the worst of them, per detector."""
    title, blocks = "False alarms by class", [Text(INTRODUCTION)]
    if results.by_class.empty:
        return Section(title, [*blocks, Note("Not measured in this run.")])
    caption = TABLE.format(rate=rate_text(SHOWN_RATE), level=results.confidence_level)
    further: list[Block] = [Table(_by_detector(results), caption, {"all classes": ".1%", "differ by chance": ".3f"})]
    own = results.by_class[results.by_class["detector"] == results.registered]
    if len(own):
        table = Table(_by_class(own, results), REGISTERED.format(key=results.registered))
        further.append(Fold("Classes of the registered detector", [table]))
    return Section(title, [*blocks, *further])


def _by_detector(results: EvaluationResults) -> pd.DataFrame:
    rows = []
    for key, part in results.by_class.groupby("detector", sort=False, observed=True):
        worst = part.sort_values(RATE, ascending=False, kind="stable").iloc[0]
        rows.append(
            {
                "detector": CONTROL_LABELS[MARGIN] if key == MARGIN else str(key),
                "n": int(part["n"].sum()),
                "all classes": (part[RATE] * part["n"]).sum() / part["n"].sum(),
                "worst class": _name(results, int(worst["class"])),
                "its false alarms": _cell(worst),
                "differ by chance": worst[RATE.replace("fpr", "p")],
            }
        )
    return pd.DataFrame(rows)


def _by_class(rows: pd.DataFrame, results: EvaluationResults) -> pd.DataFrame:
    ordered = rows.sort_values(RATE, ascending=False, kind="stable")
    return pd.DataFrame(
        {
            "class": [_name(results, int(one)) for one in ordered["class"]],
            "n": ordered["n"].to_numpy(),
            "false alarms": [_cell(row) for _, row in ordered.iterrows()],
        }
    )


def _name(results: EvaluationResults, label: int) -> str:
    return results.class_names[label] if label < len(results.class_names) else str(label)


def _cell(row: pd.Series) -> str:
    return f"{row[RATE]:.1%} ({100 * row[f'{RATE}_low']:.1f} to {100 * row[f'{RATE}_high']:.1f})"
