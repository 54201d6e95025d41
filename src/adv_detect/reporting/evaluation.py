"""The sections of an evaluation's report, in reading order."""

from __future__ import annotations

from collections.abc import Sequence

from adv_detect.reporting import evaluation_sentences as sentences
from adv_detect.reporting import sections
from adv_detect.reporting.benign import benign_section
from adv_detect.reporting.blocks import Block, Bullets, Facts, Fold, Section, Table, Text
from adv_detect.reporting.by_class import class_section
from adv_detect.reporting.results import EvaluationResults, chosen_detector
from adv_detect.reporting.summary import summary_section

__all__ = ["EvaluationResults", "chosen_detector", "evaluation_sections"]


def evaluation_sections(results: EvaluationResults, *, further: Sequence[Section] = ()) -> list[Section]:
    """All sections of an evaluation.

    Args:
        results: Tables, figures and facts.
        further: Sections of other pipelines, put before the limits.

    Returns:
        The sections, from the summary to the provenance.
    """
    return [
        summary_section(results),
        Section("How to read this", [Bullets(sentences.HOW_TO_READ)]),
        network_section(results),
        sections.attacks_section(results),
        sections.detection_section(results),
        sections.operating_section(results),
        sections.comparison_section(results),
        sections.quantisation_section(results),
        sections.controls_section(results),
        benign_section(results),
        class_section(results),
        sections.matrix_section(results),
        sections.inside_section(results),
        *further,
        Section("Limits", [Bullets(sentences.LIMITS)]),
        provenance_section(results),
    ]


def provenance_section(results: EvaluationResults) -> Section:
    """Versions and machine; the many parameters behind a heading that the reader opens."""
    blocks: list[Block] = [Text("What made these numbers."), Facts(results.versions)]
    if results.parameters:
        blocks.append(Fold("All parameters", [Facts(results.parameters)]))
    return Section("Provenance", blocks)


def network_section(results: EvaluationResults) -> Section:
    """The network under attack and the images."""
    blocks: list[Block] = [Text(_accuracy(results)), Facts(results.network, "Network")]
    if len(results.layers):
        blocks.append(Table(results.layers, sentences.LAYERS))
    blocks.append(Facts(results.images, "Images"))
    return Section("Network under attack", blocks)


def _accuracy(results: EvaluationResults) -> str:
    accuracy = results.network.get("accuracy")
    if not isinstance(accuracy, float):
        return sentences.NETWORK
    return f"The network classifies **{accuracy:.2%}** of the clean test images right. {sentences.NETWORK}"
