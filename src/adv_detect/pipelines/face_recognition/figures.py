"""Nodes that draw and report verification under attack and distances from class representatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adv_detect import plots
from adv_detect.measures.faces.verification import Verification, verify
from adv_detect.names import DODGING, IMPERSONATION, NATURAL
from adv_detect.params import FaceRecognitionParams, RuntimeParams
from adv_detect.pipelines.face_recognition.verification import attacked_verification
from adv_detect.plots import style
from adv_detect.reporting import Report, ReportPart, Section, detectors_identity, draw_pictures
from adv_detect.reporting.faces import face_sections
from adv_detect.reporting.gate import gate_section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("verification", "distances", "gate")
FORMS = {"early": "stopped at first success", "confident": "all steps, or a margin"}
FALSE_ACCEPTS = "false-accept rate (log axis)"
LEAST_RATE = 1e-9
X_LABEL = "Euclidean distance to the target's medoid, last layer"


def draw_faces(
    verification_scores: pd.DataFrame,
    attacked_pair_scores: pd.DataFrame,
    representative_distances: pd.DataFrame,
    face_gate: pd.DataFrame,
    face_recognition: FaceRecognitionParams,
) -> dict[str, Any]:
    """Draw verification under attack, distances from class representatives, and what gets through the gate.

    Args:
        verification_scores: Clean pairs.
        attacked_pair_scores: Pairs with one side attacked.
        representative_distances: One row per successful targeted adversarial and natural test image.
        face_gate: Verification before and after the gate.
        face_recognition: False-accept rates.

    Returns:
        The figures ``verification``, ``distances`` and ``gate``.
    """
    return {
        "verification": draw_verification(verification_scores, attacked_pair_scores, face_recognition),
        "distances": draw_distances(representative_distances),
        "gate": plots.gate_figure(face_gate),
    }


def show_face_figures(face_figures: dict[str, Any], runtime: RuntimeParams) -> tuple[Any, ...]:
    """Draw all figures once.

    Args:
        face_figures: The figures ``verification``, ``distances`` and ``gate``.
        runtime: Number of processes; whether progress is shown.

    Returns:
        PNG files by name of the figure, and each by itself.
    """
    pictures, shown = draw_pictures(face_figures, SHOWN, runtime)
    return pictures, *shown


def write_face_sections(
    verification_metrics: dict[str, float],
    face_verification: pd.DataFrame,
    face_identification: pd.DataFrame,
    face_distances: pd.DataFrame,
    deep_features_detection: pd.DataFrame,
    face_pictures: dict[str, bytes],
    face_recognition: FaceRecognitionParams,
) -> list[Section]:
    """Write the sections on verification, identification and attacks on deep features.

    Args:
        verification_metrics: Figures of the clean protocol.
        face_verification: Verification under attack.
        face_identification: Identification, clean and attacked.
        face_distances: Distances from class representatives, summarised.
        deep_features_detection: Detection of deep-features attacks.
        face_pictures: PNG files of the figures.
        face_recognition: How faces were compared.

    Returns:
        The sections.
    """
    tables = (face_verification, face_identification, face_distances, deep_features_detection)
    return face_sections(verification_metrics, *tables, figures=face_pictures, params=face_recognition)


def write_face_part(
    face_report_sections: list[Section],
    face_gate: pd.DataFrame,
    face_gate_identification: pd.DataFrame,
    face_pictures: dict[str, bytes],
    detector_summary: pd.DataFrame,
) -> ReportPart:
    """Join the sections on faces, that on the gate last.

    Args:
        face_report_sections: The sections on verification, identification and attacks on deep features.
        face_gate: Verification before and after the gate.
        face_gate_identification: Identification before and after the gate.
        face_pictures: PNG files of the figures.
        detector_summary: One row per trained detector.

    Returns:
        The sections, to be joined with those of other pipelines.
    """
    gate = gate_section(face_gate, face_gate_identification, face_pictures["gate"])
    return ReportPart(Report("Faces", "", [*face_report_sections, gate]), detectors_identity(detector_summary))


def draw_verification(
    verification_scores: pd.DataFrame, attacked_pair_scores: pd.DataFrame, face_recognition: FaceRecognitionParams
) -> Figure:
    """Draw the ROC of 1:1 verification, clean and with one side attacked.

    Args:
        verification_scores: Clean pairs.
        attacked_pair_scores: Pairs with one side attacked.
        face_recognition: False-accept rates.

    Returns:
        The figure: impersonation and dodging beside each other, a row per form of attack; false-accept rates on a
        logarithmic axis.
    """
    same = verification_scores["same"].to_numpy(bool)
    clean = verify(verification_scores["score"].to_numpy(dtype=np.float64), same, fars=face_recognition.fars)
    forms = [form for form in FORMS if form in set(attacked_pair_scores["form"])]
    figure = style.new_figure(11.0, 4.4 * max(len(forms), 1))
    panels = figure.subplots(max(len(forms), 1), 2, sharex=True, sharey=True, squeeze=False)
    for row, form in zip(panels, forms or ["early"], strict=True):
        for axes, kind in zip(row, (IMPERSONATION, DODGING), strict=True):
            _curve(axes, clean, f"pairs of the protocol (n = {len(same):,})", style.NATURAL_COLOUR, "-")
            chosen = (attacked_pair_scores["kind"] == kind) & (attacked_pair_scores["form"] == form)
            _attacked_curves(axes, attacked_pair_scores[chosen], verification_scores, face_recognition.fars)
            style.tidy(axes, title=f"{kind}, {FORMS[form]}", x_label=FALSE_ACCEPTS, y_label="true-accept rate")
            axes.set_xscale("log")
            axes.set_xlim(0.5 / clean.n_different, 1.0)
            axes.legend(fontsize=style.FONT_SIZE - 2, framealpha=0.85)
            axes.label_outer()
    return figure


def draw_distances(representative_distances: pd.DataFrame) -> Figure:
    """Draw how near the attacks come to the identity aimed at, label-focused against deep-features attacks.

    Args:
        representative_distances: One row per successful targeted adversarial and natural test image.

    Returns:
        The figure: a panel per form of attack, a distribution per attack.
    """
    by_attack = representative_distances.groupby(["form", "attack"], sort=False)["distance"]
    groups = {key: values.to_numpy(dtype=np.float64) for key, values in by_attack}
    natural = {name: values for (_, name), values in groups.items() if name == NATURAL}
    panels: dict[str, dict[str, Any]] = {}
    for form, words in FORMS.items():
        attacks = {str(name): values for (one, name), values in groups.items() if one == form}
        if attacks:
            panels[words] = {"natural": natural[NATURAL], **attacks}
    return plots.distance_distributions(panels or {"natural images": natural}, x_label=X_LABEL)


def _attacked_curves(axes: Axes, pairs: pd.DataFrame, clean: pd.DataFrame, fars: tuple[float, ...]) -> None:
    names = list(pairs["attack"].unique())
    if names:
        everyone = pairs.drop_duplicates(["source_id", "reference_id"])
        before = attacked_verification(everyone, clean, fars=fars, score="clean_score")
        _curve(axes, before, f"the same pairs, clean (n = {len(everyone):,})", style.NATURAL_COLOUR, ":")
    colours, lines = style.colours(names), style.line_styles(names)
    for name in names:
        group = pairs[pairs["attack"] == name]
        measured = attacked_verification(group, clean, fars=fars)
        _curve(axes, measured, f"{name} (n = {len(group):,})", colours[name], lines[name])


def _curve(axes: Axes, measured: Verification, label: str, colour: str, line: Any) -> None:
    """Draw as steps; rates of zero lie left of the axis."""
    roc = measured.roc
    axes.plot(
        np.maximum(roc.far, LEAST_RATE),
        roc.tar,
        drawstyle="steps-post",
        color=colour,
        linestyle=line,
        linewidth=1.5,
        label=f"{label}  EER {measured.eer:.3f}",
    )
