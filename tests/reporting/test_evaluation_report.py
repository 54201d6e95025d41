from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from adv_detect.errors import DataError
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS, SUMMARY_FIGURES
from adv_detect.measures.evaluation_tables import describe_detectors, metric_table, reference_table
from adv_detect.plots.style import figure_bytes
from adv_detect.reporting import (
    EvaluationResults,
    Report,
    Section,
    Text,
    chosen_detector,
    evaluation_sections,
    render_report,
)
from adv_detect.reporting.blocks import Cards, Fold, Note, Table
from adv_detect.reporting.summary import compare_with_margin, summary_section

CONFIGURATIONS = {
    "cos": ("lstm", "medoid", "cosine", "fixed"),
    "ours": ("lstm", "medoid", "mahalanobis", "ranked"),
}
VALIDATION = (0.9, 0.95, 0.97, 0.99, 0.9)
KEYS = {
    "cos/targeted/all/0": 1.0,
    "ours/targeted/all/0": 2.5,
    "ours/targeted/all/1": 2.4,
    "ours/targeted/without-cw/0": 2.0,
    "cos/untargeted/all/0": 1.0,
    "margin": 1.2,
    "untrained/0": 0.0,
}
N = 30


def make_scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = []
    for key, shift in KEYS.items():
        confident = -1.0 if key == "margin" else shift
        for attack, criterion, form, variant, mean in (
            ("natural", "none", "none", "float", 0.0),
            ("bim", "targeted", "early", "float", shift + 0.5),
            ("cw", "targeted", "early", "float", shift),
            ("cw", "targeted", "early", "8bit", shift),
            ("cw", "targeted", "early", "noise", 0.0),
            ("far", "targeted", "confident", "float", confident),
        ):
            score = rng.normal(mean, 1.0, N).astype(np.float32)
            values: dict[str, Any] = {"attack": attack, "criterion": criterion, "form": form, "variant": variant}
            frame = pd.DataFrame({"detector": key, "source_id": [f"i{i}" for i in range(N)], "score": score} | values)
            frame["success"] = np.arange(N) % 10 != 0
            frame["correct"] = np.arange(N) > 2
            for rate, threshold in (("01", 2.3), ("05", 1.6)):
                frame[f"verdict_fpr_{rate}"] = score > threshold
            frames.append(frame)
    return pd.concat(frames, ignore_index=True).assign(split="test")


def make_records() -> pd.DataFrame:
    columns = {"attack": ["bim", "bim", "cw"], "criterion": "targeted", "success": [True, False, True]}
    return pd.DataFrame(columns | {"l2": [1.0, 0.0, 2.0], "linf": [0.1, 0.0, 0.2], "gradient_evaluations": [1, 2, 3]})


@pytest.fixture(scope="module")
def results() -> EvaluationResults:
    rows = []
    for key, auc in zip(KEYS, VALIDATION, strict=False):  # the controls have none
        name, criterion, trained_on, seed = key.split("/")
        rows.append((key, name, *CONFIGURATIONS[name], criterion, trained_on, int(seed), auc, auc))
    detectors = describe_detectors(pd.DataFrame(rows, columns=[*DETECTOR_COLUMNS, *SUMMARY_FIGURES]))
    metrics = metric_table(make_scores(), detectors, resamples=50)
    drawn = MatplotlibFigure()
    drawn.subplots().plot([0, 1])
    figure = figure_bytes(drawn)
    return EvaluationResults(
        metrics=metrics,
        detectors=detectors,
        attack_records=make_records(),
        network={"name": "small <x>", "accuracy": 0.987},
        images={"test": N},
        figures={"auc_overview/targeted-confident": figure, "roc": figure, "adversarial_grid": figure},
        versions={"torch": "2.15.0"},
        parameters={"runtime": {"seed": 7}},
        trained_attacks=("bim", "cw"),
        registered="ours/targeted/all/1",
        published={"targeted": {"LSTM + M + cos": {"cw": 0.904}}},
    )


@pytest.fixture(scope="module")
def sections(results: EvaluationResults) -> dict[str, Section]:
    return {one.title: one for one in evaluation_sections(results, further=[Section("Faces", [Text("x")])])}


@pytest.fixture(scope="module")
def html(sections: dict[str, Section]) -> str:
    return render_report(Report("Report", "sub", list(sections.values())))


def tables(one: Section) -> list[Table]:
    inner = [block for fold in one.blocks if isinstance(fold, Fold) for block in fold.blocks]
    return [block for block in [*one.blocks, *inner] if isinstance(block, Table)]


def test_detector_is_chosen_on_validation_among_those_trained_on_all(results: EvaluationResults) -> None:
    assert chosen_detector(results.detectors, "targeted") == "ours/targeted/all/1"
    assert chosen_detector(results.detectors, "untargeted") == "cos/untargeted/all/0"
    assert chosen_detector(results.detectors.iloc[:1], "untargeted") is None
    with pytest.raises(DataError, match="chosen on validation images, never on test images"):
        chosen_detector(results.detectors.drop(columns="validation_macro_auc"), "targeted")


def test_page_holds_the_numbers_of_the_table(results: EvaluationResults, html: str) -> None:
    table = reference_table(results.metrics, criterion="targeted")
    for cell in table.iloc[:, 1:].to_numpy().ravel():
        assert f">{cell}</td>" in html
    assert ">.904</td>" in html
    assert "control: margin only" in html
    assert "small &lt;x&gt;" in html
    assert "runtime.seed" in html
    assert "2.15.0" in html


def test_sections_stand_in_reading_order(sections: dict[str, Section], html: str) -> None:
    titles = list(sections)
    assert titles[:5] == ["Summary", "How to read this", "Network under attack", "Attacks", "Detection"]
    assert titles[-3:] == ["Faces", "Limits", "Provenance"]
    assert [html.index(f"<h2>{title}</h2>") for title in titles] == sorted(html.index(f"<h2>{t}</h2>") for t in titles)
    assert html.count("<img") == 3


def test_summary_words_agree_with_the_metrics(results: EvaluationResults) -> None:
    row = results.row("ours/targeted/all/1", attack="macro", criterion="targeted", form="early")
    assert row is not None
    blocks = summary_section(results).blocks
    words = " ".join(block.text for block in blocks if isinstance(block, Text))
    assert "6 detectors" not in words
    assert "5 detectors" in words
    assert f"(seed 1) reaches a macro-AUC of **{row['auc']:.3f}**".replace("0.", ".") in words
    pooled = results.row("ours/targeted/all/1", attack="all", criterion="targeted", form="early")
    assert pooled is not None
    assert f"flags {pooled['tpr_at_fpr_05']:.1%} of the adversarial and {pooled['fpr_05']:.1%} of the natural" in words
    cards = next(block for block in blocks if isinstance(block, Cards)).cards
    assert [card.detail.split(";")[0] for card in cards][::2] == [
        "2 attacks, all seen in training",
        "1 attack, none seen in training",
    ]


@pytest.mark.parametrize(
    ("gains", "lows", "tone", "words"),
    [
        ([0.1, 0.2], [0.05, 0.1], "good", "beats it on all 2 attacks, each time beyond the paired interval"),
        ([0.1, 0.2], [-0.05, 0.1], "info", "ahead of it on all 2 attacks; not beyond the paired interval: a (+0.100)"),
        ([-0.1, 0.2], [-0.2, 0.1], "caution", "**not** beat it everywhere: it is ahead on 1 of 2 attacks"),
        ([0.0, 0.2], [0.0, 0.1], "caution", "level on a (+0.000)"),
    ],
)
def test_margin_is_compared_honestly(gains: list[float], lows: list[float], tone: str, words: str) -> None:
    rows = pd.DataFrame({"attack": ["a", "b"], "margin_gain": gains, "margin_gain_low": lows})
    note = compare_with_margin(rows, label="ours")
    assert note.tone == tone
    assert words in note.text


def test_controls_that_misbehave_are_reported(results: EvaluationResults) -> None:
    metrics = results.metrics.copy()
    metrics.loc[(metrics["variant"] == "noise") & (metrics["attack"] == "macro"), "auc"] = 0.8
    metrics.loc[(metrics["configuration"] == "untrained") & (metrics["variant"] == "float"), "auc"] = 0.9
    notes = [
        block.text for block in summary_section(replace(results, metrics=metrics)).blocks if isinstance(block, Note)
    ]
    assert any("Random noise of the same norm already scores AUC .800" in text for text in notes)
    assert any("Untrained detectors reach .900 to .900 over 1 draws" in text for text in notes)


def test_failures_and_misclassified_naturals_stand_apart(sections: dict[str, Section]) -> None:
    main, alarms, failed = tables(sections["At fixed thresholds"])
    assert list(main.frame["attack"]) == ["bim", "cw", "far"]
    assert list(alarms.frame["n"]) == [N, 3]
    assert list(failed.frame["n_failed"]) == [3, 3, 3]


def test_comparison_has_own_and_other_training(sections: dict[str, Section]) -> None:
    (table,) = tables(sections["Early, confident and unseen attacks"])
    assert list(table.frame["detector"])[-2:] == ["control: margin only", "control: untrained detector"]
    assert [name.endswith("other criterion") for name in table.frame.columns[1:]] == [False, False, True, True]


def test_matrix_and_quantisation_tables(sections: dict[str, Section]) -> None:
    (matrix,) = tables(sections["Attacks left out of training"])
    assert list(matrix.frame["trained on"]) == ["all", "all but cw"]
    (rounded,) = tables(sections["8-bit images"])
    assert list(rounded.frame["attack"]) == ["cw"]


def test_a_bare_run_still_has_a_report(results: EvaluationResults) -> None:
    keep = results.metrics["configuration"].eq("cos") & results.metrics["variant"].eq("float")
    keep &= results.metrics["form"].eq("early") & results.metrics["trained_criterion"].eq("targeted")
    bare = EvaluationResults(
        metrics=results.metrics[keep].drop(columns=["n_survived", "survival_rate"]),
        detectors=results.detectors,
        attack_records=results.attack_records,
        network={},
        images={},
    )
    html = render_report(Report("Report", "", evaluation_sections(bare)))
    assert "No configuration was trained with one attack left out" in html
    assert "Not measured in this run" in html
    assert "<img" not in html


def test_the_report_says_how_layers_are_read(results):
    layers = pd.DataFrame({"layer": ["features.1"], "output": ["(N, 16, 16, 96)"], "channel axis": ["3"]})
    shown = replace(results, layers=layers)

    (section,) = (one for one in evaluation_sections(shown) if one.title == "Network under attack")

    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert table.frame.equals(layers)
