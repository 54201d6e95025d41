"""What adaptive attackers take, beside what was measured, and where the comparison stands in the report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adv_detect.names import TESTED_FORMS
from adv_detect.pipelines.reporting.nodes import rank_detectors, render_report
from adv_detect.reporting import (
    LEADERBOARD,
    LOST,
    PARTS,
    Report,
    ReportPart,
    Section,
    Text,
    detectors_identity,
    leaderboard_metrics,
    leaderboard_section,
    lost_table,
    with_lost,
)
from adv_detect.reporting.leaderboard import ATTACKED, NO_GRADIENT, NOT_ATTACKED
from adv_detect.reporting.stored import part_as_json, part_from_json

SUMMARY = pd.DataFrame({"detector": ["ours/both/all/0"], "validation_macro_auc": [0.9]})


def measured() -> pd.DataFrame:
    rows = []
    for place, (name, criterion, learns) in enumerate(
        [("ours", "both", "attacks"), ("trees", "both", "attacks"), ("density", "none", "clean")]
    ):
        row = {
            "configuration": name, "kind": "mlp", "trained_criterion": criterion, "learns_from": learns, "seeds": 2,
            "features_auc_mean": np.nan, "features_auc_worst": np.nan, "fpr_01": 0.01, "fpr_05": 0.06,
            "benign_fpr_05": 0.2, "benign_change": "blur-1", "attacks": 8, "above_margin": 7.0 - place,
            "forward_passes": 3.0, "ms_per_image": 1.5, "bytes": 5000, "differentiable": name != "trees",
        }  # fmt: skip
        for form in TESTED_FORMS:
            row |= {f"{form}_attacks": 2, f"{form}_auc_mean": 0.9, f"{form}_auc_worst": 0.8}
            row |= {f"{form}_worst_attack": "bim/targeted", f"{form}_behind": 0.1 * place}
            row |= {f"{form}_behind_low": 0.1 * place - 0.01, f"{form}_behind_high": 0.1 * place + 0.01}
            row |= {f"{form}_tpr_{rate}_{what}": 0.7 for rate in ("01", "05") for what in ("mean", "worst")}
        rows.append(row)
    return pd.DataFrame(rows)


def lost() -> pd.DataFrame:
    columns = ("detector", "norm", "epsilon", "criterion", "n", "success_fpr_05", "success_low_fpr_05",
               "success_high_fpr_05", "matched", "matched_passed")  # fmt: skip
    return pd.DataFrame(
        [
            ("ours/both/all/0", "linf", 0.1, "untargeted", 40, 0.2, 0.1, 0.3, 0.05, 0.01),
            ("ours/both/all/0", "linf", 0.3, "untargeted", 40, 0.6, 0.5, 0.7, 0.4, 0.1),
            ("ours/both/all/1", "linf", 0.3, "untargeted", 40, 0.8, 0.7, 0.9, 0.4, 0.3),
            ("ours/both/all/0", "l2", np.nan, "targeted", 40, 0.1, 0.0, 0.2, np.nan, np.nan),
        ],
        columns=list(columns),
    )


def test_most_lost_stands_beside_each_detector_and_what_was_not_attacked_says_why():
    table = with_lost(measured(), lost()).set_index("configuration")

    assert table["adaptive"].to_dict() == {"ours": ATTACKED, "trees": NO_GRADIENT, "density": NOT_ATTACKED}
    ours = table.loc["ours"]
    assert (ours["lost"], ours["lost_low"], ours["lost_high"]) == pytest.approx((0.7, 0.6, 0.8))
    assert (ours["lost_n"], ours["matched"], ours["matched_passed"]) == pytest.approx((40, 0.4, 0.2))
    assert ours["lost_where"] == "untargeted, linf up to 0.3"
    assert table.loc[["trees", "density"], "lost"].isna().all()


def test_a_stored_part_without_layer_matching_leaves_it_open():
    table = with_lost(measured(), lost().drop(columns=["matched", "matched_passed"])).set_index("configuration")

    assert table.loc["ours", "lost"] == pytest.approx(0.7)
    assert np.isnan(table.loc["ours", "matched_passed"])


def test_of_adaptive_attacks_the_union_on_detectors_as_they_were_trained_counts():
    more = lost().assign(classifier="network", attack="union", rounds=0)
    others = [("attack", "selective"), ("classifier", "nearest_medoid"), ("rounds", 2)]
    summary = pd.concat([more, *(more.assign(**{name: value}) for name, value in others)], ignore_index=True)

    pd.testing.assert_frame_equal(lost_table(summary), lost())
    assert lost_table(pd.DataFrame()).empty


def test_without_adaptive_attacks_nothing_is_said_to_be_lost():
    table = with_lost(measured(), pd.DataFrame())

    assert table["adaptive"].tolist() == [NOT_ATTACKED, NO_GRADIENT, NOT_ATTACKED]
    assert table["lost"].isna().all()


def test_metrics_are_the_finite_figures_of_each_configuration():
    found = leaderboard_metrics(with_lost(measured(), lost()))

    assert found["leaderboard/ours/lost"] == pytest.approx(0.7)
    assert found["leaderboard/density/unseen_auc_mean"] == 0.9
    assert "leaderboard/density/lost" not in found
    assert all(np.isfinite(value) for value in found.values())


def test_a_sign_marks_what_the_bootstrap_does_not_tell_from_the_best():
    table, *_ = (
        block.frame for block in leaderboard_section(with_lost(measured(), lost())).blocks if hasattr(block, "frame")
    )

    assert table["AUC unseen"].tolist() == [".900 / .800 =", ".900 / .800", ".900 / .800"]
    assert table["lost"].tolist()[1:] == [NO_GRADIENT, NOT_ATTACKED]
    assert table["lost"][0] == "70.0% (60.0% to 80.0%; n = 40; untargeted, linf up to 0.3)"
    assert table["above margin"].tolist() == ["7 of 8", "6 of 8", "5 of 8"]
    assert table["worst benign change"][0] == "20.0% (blur-1)"


def part(title: str, tables: dict[str, pd.DataFrame], made_from: str = detectors_identity(SUMMARY)) -> ReportPart:
    sections = [Section(title, [Text("words")]), Section("Limits", [])] if title == "Summary" else [Section(title, [])]
    return ReportPart(Report(title, "", sections), made_from, tables)


def test_the_comparison_follows_the_summary_with_what_all_pipelines_found():
    parts = dict.fromkeys(PARTS) | {
        "evaluation_part": part_from_json(part_as_json(part("Summary", {LEADERBOARD: measured()}))),
        "adaptive_attack_part": part("Attackers", {LOST: lost()}),
    }

    table, same, metrics = rank_detectors(SUMMARY, **parts)
    page = render_report(SUMMARY, table, **parts)

    pd.testing.assert_frame_equal(table, same)
    pd.testing.assert_frame_equal(table, with_lost(measured(), lost()), check_dtype=False)
    assert metrics == leaderboard_metrics(table)
    headings = [line for line in page.splitlines() if line.startswith("<h2>")]
    assert headings == [f"<h2>{name}</h2>" for name in ("Summary", "Leaderboard", "Attackers", "Limits")]


def test_attacks_on_other_detectors_do_not_count():
    parts = dict.fromkeys(PARTS) | {
        "evaluation_part": part("Summary", {LEADERBOARD: measured()}),
        "adaptive_attack_part": part("Attackers", {LOST: lost()}, "others"),
    }

    table, *_ = rank_detectors(SUMMARY, **parts)

    assert table["adaptive"].tolist() == [NOT_ATTACKED, NO_GRADIENT, NOT_ATTACKED]


def test_without_an_evaluation_there_is_no_row_and_no_section():
    parts = dict.fromkeys(PARTS) | {"adaptive_attack_part": part("Attackers", {LOST: lost()})}

    table, _, metrics = rank_detectors(SUMMARY, **parts)

    assert (len(table), metrics) == (0, {})
    assert "<h2>Leaderboard</h2>" not in render_report(SUMMARY, table, **parts)
