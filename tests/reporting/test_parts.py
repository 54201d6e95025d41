"""One page from the parts of the pipelines that have run."""

from __future__ import annotations

import pandas as pd
import pytest

from adv_detect.errors import DataError
from adv_detect.pipelines.reporting import create_pipeline
from adv_detect.pipelines.reporting.nodes import render_report
from adv_detect.reporting import PARTS, Report, ReportPart, Section, Text, detectors_identity

SUMMARY = pd.DataFrame({"detector": ["a", "b"], "validation_macro_auc": [0.9, 0.8]})
NONE = pd.DataFrame({"configuration": []})
TITLES = {
    "evaluation_part": ("Summary", "Limits"),
    "adaptive_attack_part": ("If the attacker knows",),
    "face_recognition_part": ("Face verification",),
    "calibration_part": ("Calibration",),
}


def part(name: str, made_from: str = detectors_identity(SUMMARY)) -> ReportPart:
    sections = [Section(title, [Text(f"about {title}")]) for title in TITLES[name]]
    return ReportPart(Report(f"Title of {name}", "", sections), made_from)


def headings(page: str) -> list[str]:
    return [line.removeprefix("<h2>").removesuffix("</h2>") for line in page.splitlines() if line.startswith("<h2>")]


@pytest.mark.parametrize(
    ("have_run", "expected"),
    [
        (PARTS, ["Summary", "If the attacker knows", "Face verification", "Calibration", "Limits"]),
        (PARTS[:1], ["Summary", "Limits"]),
        ((PARTS[0], PARTS[2]), ["Summary", "Face verification", "Limits"]),
        (PARTS[1:2], ["If the attacker knows"]),
    ],
)
def test_the_page_has_the_sections_of_all_pipelines_that_have_run(have_run, expected):
    page = render_report(SUMMARY, NONE, **{name: part(name) if name in have_run else None for name in PARTS})

    assert headings(page) == expected
    assert f"<h1>Title of {have_run[0]}</h1>" in page


def test_a_part_about_other_detectors_is_left_out_with_a_word(caplog):
    parts = {name: part(name) for name in PARTS} | {PARTS[2]: part(PARTS[2], "others")}

    page = render_report(SUMMARY, NONE, **parts)

    assert headings(page) == ["Summary", "If the attacker knows", "Calibration", "Limits"]
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("report: the sections of face_recognition speak of other detectors")
    assert message.endswith("kedro run --pipeline=face_recognition")


def test_a_report_without_a_fitting_part_is_refused():
    with pytest.raises(DataError, match=r"expected a part about the detectors on disk .* --pipeline=evaluation"):
        render_report(SUMMARY, NONE, **dict.fromkeys(PARTS) | {PARTS[0]: part(PARTS[0], "others")})


def test_detectors_are_told_apart_by_key_and_validation_figure():
    again = SUMMARY.iloc[::-1]
    other = SUMMARY.assign(validation_macro_auc=[0.9, 0.7])

    assert detectors_identity(again) == detectors_identity(SUMMARY) != detectors_identity(other)


def test_the_nodes_take_every_part_and_make_leaderboard_and_report():
    ranking, rendering = create_pipeline().nodes

    assert set(ranking.inputs) == {"detector_summary", *PARTS}
    assert set(rendering.inputs) == {"detector_summary", "leaderboard", *PARTS}
    assert rendering.outputs == ["report"]
