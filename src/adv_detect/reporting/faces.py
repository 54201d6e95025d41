"""The sections on faces in the report."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from adv_detect.measures.faces.verification import FEW_FALSE_ACCEPTS
from adv_detect.names import DODGING, IMPERSONATION, NATURAL
from adv_detect.params import FaceRecognitionParams
from adv_detect.reporting.blocks import SCORE, Block, Card, Cards, Figure, Note, Section, Table, Text
from adv_detect.reporting.face_sentences import TEXTS

NAMED_RULES = ("accuracy", "eer")
SHARES = {
    "fooled": ".1%",
    "clean": ".1%",
    "fooled_of_success": ".1%",
    "auc": SCORE,
    "eer": ".1%",
    "clean_auc": SCORE,
    "clean_eer": ".1%",
}
VERIFICATION_HEADERS = {
    "threshold_rule": "threshold", "interval": "95 % interval", "clean": "wrong when clean",
    "n_success": "n attack succeeded", "fooled_of_success": "fooled, of these", "auc": "AUC", "eer": "EER",
    "clean_auc": "AUC, clean", "clean_eer": "EER, clean",
}  # fmt: skip
IDENTIFICATION_HEADERS = {
    "rank_1": "rank 1", "rank_5": "rank 5", "n_right": "n right when clean", "interval": "95 % interval",
    "named_target": "named as target",
}  # fmt: skip
DETECTION_HEADERS = {"auc": "AUC", "interval": "95 % interval", "tpr_at_fpr_05": "detected at 5 % FPR"}


def face_sections(
    metrics: dict[str, float],
    verification: pd.DataFrame,
    identification: pd.DataFrame,
    distances: pd.DataFrame,
    detection: pd.DataFrame,
    *,
    figures: Mapping[str, bytes],
    params: FaceRecognitionParams,
) -> list[Section]:
    """Write the sections on faces.

    Args:
        metrics: Figures of the clean protocol.
        verification: Verification under attack.
        identification: Identification, clean and attacked.
        distances: Distances from class representatives, summarised.
        detection: Detection of deep-features attacks.
        figures: Drawn figures ``verification`` and ``distances``.
        params: How faces were compared.

    Returns:
        The sections.
    """
    return [
        _verification_section(metrics, verification, figures["verification"]),
        _identification_section(identification, params),
        _deep_section(distances, detection, figures["distances"]),
    ]


def _verification_section(metrics: dict[str, float], table: pd.DataFrame, figure: bytes) -> Section:
    blocks: list[Block] = [Text(TEXTS["verification"]), Cards(_cards(metrics)), *_few_pairs(metrics)]
    for kind in (IMPERSONATION, DODGING):
        rows = table[table["kind"] == kind]
        rules = rows["threshold_rule"].map(lambda rule: rule if rule in NAMED_RULES else f"FAR {rule}")
        shown = _with_interval(rows.assign(threshold_rule=rules), "fooled")
        columns = [
            "attack", "form", "threshold_rule", "n", "fooled", "interval", "clean", "n_success", "fooled_of_success",
            "clean_auc", "auc", "clean_eer", "eer",
        ]  # fmt: skip
        caption = TEXTS[kind]
        blocks.append(Table(_dashes(shown[columns]), caption, SHARES, VERIFICATION_HEADERS))
    blocks.append(Figure(figure, TEXTS["roc"], "ROC of face verification, clean and attacked"))
    return Section("Face verification", blocks)


def _few_pairs(metrics: dict[str, float]) -> list[Block]:
    """Warn of false-accept rates that rest on a few pairs of different people."""
    different = int(metrics["verification/n_different"])
    rates = [name.rpartition("_")[2] for name in metrics if "/tar_at_far_" in name]
    few = [rate for rate in rates if float(rate) * different < FEW_FALSE_ACCEPTS]
    if not few:
        return []
    return [Note(TEXTS["few_pairs"].format(rates=", ".join(few), n=FEW_FALSE_ACCEPTS, different=different), "caution")]


def _cards(metrics: dict[str, float]) -> list[Card]:
    get = {name.removeprefix("verification/"): value for name, value in metrics.items()}
    same, different, missing = (int(get[f"n_{name}"]) for name in ("same", "different", "missing"))
    pairs = f"{same + different:,} pairs" + (f", {missing} without image left out" if missing else "")
    cards = []
    if "fold_accuracy" in get:
        spread = f"standard error {100 * get['fold_accuracy_error']:.2f} %; {pairs}"
        cards.append(Card(f"{get['fold_accuracy']:.2%}", "accuracy over the folds, clean pairs", spread))
    cards.append(Card(f"{get['eer']:.2%}", "equal error rate", f"{same:,} same, {different:,} different"))
    rates = [name for name in get if name.startswith("tar_at_far_")]
    return cards + [Card(f"{get[one]:.2%}", f"true accepts at {one.removeprefix('tar_at_far_')} FAR") for one in rates]


def _identification_section(table: pd.DataFrame, params: FaceRecognitionParams) -> Section:
    blocks: list[Block] = [Text(TEXTS["identification"].format(k=params.neighbours, metric=params.metric))]
    columns = [
        "attack", "criterion", "form", "n", "accuracy", "rank_1", "rank_5", "n_right", "fooled", "interval",
        "named_target",
    ]  # fmt: skip
    formats = dict.fromkeys(("accuracy", "rank_1", "rank_5", "fooled", "named_target"), ".1%")
    for gallery, rows in table.groupby("gallery", sort=False):
        shown = _with_interval(rows.assign(fooled=rows["fooled"].where(rows["attack"] != NATURAL)), "fooled")
        caption = TEXTS["gallery"].format(gallery=TEXTS[f"gallery_{gallery}"])
        blocks.append(Table(_dashes(shown[columns]), caption, formats, IDENTIFICATION_HEADERS))
    return Section("Face identification", blocks)


def _deep_section(distances: pd.DataFrame, detection: pd.DataFrame, figure: bytes) -> Section:
    blocks: list[Block] = [
        Text(TEXTS["deep"]),
        Figure(figure, TEXTS["distances"], "distributions of distances from the target's medoid"),
        Table(distances, TEXTS["distance_table"], headers={"low": "10 % below", "high": "90 % below"}),
    ]
    if len(detection):
        shown = _with_interval(detection, "auc", SCORE)
        columns = ["attack", "criterion", "form", "configuration", "training", "auc", "interval", "tpr_at_fpr_05"]
        table = shown[[*columns, "n_adversarial", "n_natural"]]
        headers = DETECTION_HEADERS | {"n_adversarial": "n adversarial", "n_natural": "n natural"}
        blocks.append(Table(_dashes(table), TEXTS["detection"], {"auc": SCORE, "tpr_at_fpr_05": ".1%"}, headers))
    return Section("Attacks on deep features", blocks)


def _with_interval(table: pd.DataFrame, name: str, kind: str = "") -> pd.DataFrame:
    """Add the column ``interval``, written out."""
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    known = table[name].notna() & low.notna()
    scale, unit = (1.0, ".3f") if kind == SCORE else (100.0, ".1f")
    words = [
        f"{scale * one:{unit}} to {scale * two:{unit}}" if there else ""
        for one, two, there in zip(low, high, known, strict=True)
    ]
    return table.assign(interval=words)


def _dashes(table: pd.DataFrame) -> pd.DataFrame:
    """Show natural images as ``clean``, whose criterion and form are none."""
    words = table.select_dtypes(include=["object", "string", "category"]).columns
    clean = {NATURAL: "clean", "none": ""}
    return table.assign(**{name: table[name].astype(str).replace(clean) for name in words}).reset_index(drop=True)
