"""Pictures and section of adaptive attacks, from figures and tables made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as MatplotlibFigure
from tests.plots.grids import rows_of

from adv_detect.params import RuntimeParams
from adv_detect.pipelines.adaptive_attack.figures import SHOWN, draw_adaptive, show_adaptive, write_adaptive_part
from adv_detect.pipelines.adaptive_attack.tables import TABLES
from adv_detect.reporting import Note, detectors_identity
from adv_detect.reporting.adaptive import TITLE
from adv_detect.sharding import ShardStore


def test_the_first_figure_of_a_kind_is_shown_by_itself():
    figures = {name: MatplotlibFigure(figsize=(1 + number, 1)) for number, name in enumerate(("curves", "scores/a"))}

    named = {f"adaptive_{name}": figure for name, figure in figures.items()}
    pictures, *shown = show_adaptive(named, RuntimeParams(progress=False))

    assert list(pictures) == ["adaptive_curves", "adaptive_scores/a"]
    assert (shown[SHOWN.index("adaptive_curves")], shown[SHOWN.index("adaptive_scores")]) == tuple(pictures.values())
    assert shown[SHOWN.index("adaptive_grid")] not in pictures.values()
    assert all(picture.startswith(b"\x89PNG") for picture in shown)


def test_without_results_the_section_says_what_was_not_measured(tmp_path):
    summary = pd.DataFrame({"detector": ["a"], "validation_macro_auc": [0.9]})
    nothing = ShardStore(str(tmp_path / "none"))

    part = write_adaptive_part({name: pd.DataFrame() for name in TABLES}, {}, nothing, nothing, summary)

    (section,) = part.report.sections
    assert (section.title, part.made_from) == (TITLE, detectors_identity(summary))
    notes = [block.text for block in section.blocks if isinstance(block, Note)]
    for words in (
        "published form was not measured",
        "No detector was trained on adaptive",
        "No transfer attack was run",
    ):
        assert sum(words in note for note in notes) == 1


DETECTOR = "cosine/both/all/0"
SHARD = "bim/untargeted/test-0000"
CURVES = pd.DataFrame(
    {
        "detector": DETECTOR,
        "classifier": "network",
        "norm": "linf",
        "criterion": "untargeted",
        "attack": ["selective", "selective", "union", "union"],
        "epsilon": [0.1, 0.2, 0.1, 0.2],
        "n": 10,
        "success_fpr_05": [0.2, 0.6, 0.3, 0.7],
        "success_low_fpr_05": [0.1, 0.4, 0.1, 0.5],
        "success_high_fpr_05": [0.4, 0.8, 0.5, 0.9],
    }
)


@pytest.fixture
def records(finished):
    """One attack in two budgets on the first images of a shard; every second image gets through."""
    content = finished["adversarials"][SHARD]
    count = 6
    rows = pd.DataFrame(
        {
            "source_id": content.metadata["source_ids"][:count],
            "source_index": content.tensors["source_index"][:count],
            "label": content.tensors["label"][:count],
            "predicted": content.tensors["predicted"][:count],
            "l2": content.tensors["l2"][:count],
            "shard": SHARD,
            "row": range(count),
            "detector": DETECTOR,
            "attack": "selective",
            "norm": "linf",
            "criterion": "untargeted",
            "form": "correct",
            "store": "adaptive",
            "role": "attack",
            "fooled": [True] * 5 + [False],
            "evaded_fpr_05": [True, False] * 3,
            "detector_score": [float(number) for number in range(count)],
            "threshold_fpr_05": 2.5,
        }
    )
    return pd.concat([rows.assign(epsilon=0.1), rows.assign(epsilon=0.2, detector_score=rows["detector_score"] + 10)])


@pytest.fixture
def draw(finished):
    """Draws from records and curves, with the images and detectors of the finished run."""
    setting = SimpleNamespace(
        images=finished["test_images"],
        network=finished["network_weights"],
        activations=finished["activations"],
        representatives=finished["representatives"],
    )

    def make(records, curves=CURVES, **params):
        stores = (finished["adversarials"], setting, finished["detectors"])
        tables = {"curves": curves, "steps": pd.DataFrame()}
        return draw_adaptive(records, tables, *stores, SimpleNamespace(show_examples=2, **params))

    return make


def test_success_is_drawn_against_the_budget_from_zero_on(records, draw):
    (axes,) = draw(records)["adaptive_curves"].axes
    lines = {line.get_label(): line for line in axes.get_lines()}

    assert lines.keys() == {"selective", "any attack"}
    np.testing.assert_allclose(lines["selective"].get_data(), [[0, 0.1, 0.2], [0, 0.2, 0.6]])
    np.testing.assert_allclose(lines["any attack"].get_data(), [[0, 0.1, 0.2], [0, 0.3, 0.7]])
    assert axes.get_title(loc="left") == "cosine\nboth/all/0, untargeted"


def test_the_grid_shows_images_that_got_through_with_the_smallest_budget_first(finished, records, draw):
    figure = draw(records)["adaptive_grid"]
    attacked, names = finished["adversarials"][SHARD].tensors, finished["network_weights"].spec.class_names
    through = records.query("evaded_fpr_05 and epsilon == 0.1").sort_values("l2").head(2)

    ((name, cells),) = rows_of(figure).items()
    assert name == "selective (linf)\ncosine/both"
    for pair, row in zip((cells[:2], cells[2:]), through.to_dict("records"), strict=True):
        clean = finished["test_images"][row["source_index"]][0][0] / 255
        np.testing.assert_allclose(pair[0][0], clean, atol=1e-6)
        np.testing.assert_allclose(pair[1][0], attacked["images"][row["row"], 0], atol=1e-6)
        assert pair[0][1] == f"clean\n{names[row['label']]}"
        assert f"taken for {names[row['predicted']]}" in pair[1][1]
        assert f"score {row['detector_score']:.3g} (limit 2.5)" in pair[1][1]


def test_scores_under_attack_are_those_of_fooled_images_at_the_largest_budget(finished, records, draw):
    figure = draw(records)[f"adaptive_scores/{DETECTOR}"]
    (axes,) = figure.axes
    thresholds, scores = finished["thresholds"], finished.scores
    natural = scores.query("detector == @DETECTOR and split == 'test' and attack == 'natural'")

    assert axes.get_title(loc="left") == "selective, linf, untargeted (n = 5)"
    attacked = axes.patches[2].get_data()
    assert attacked.edges[:-1][attacked.values > 0].min() > 5  # the scores of the larger budget are 10 and above
    threshold = thresholds.query("detector == @DETECTOR and fpr == 0.05")["threshold"].iloc[0]
    assert axes.get_lines()[0].get_xdata()[0] == pytest.approx(threshold)
    assert f"natural (n = {len(natural)})" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_what_was_not_measured_is_not_drawn(records, draw):
    nothing = records.assign(evaded_fpr_05=False, fooled=False)

    assert draw(nothing, CURVES.iloc[:0]) == {}
    assert set(draw(records.assign(role="single_step"), CURVES.iloc[:0])) == {f"adaptive_scores/{DETECTOR}"}
