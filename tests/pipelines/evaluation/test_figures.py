"""Figures of the finished run: what their axes say, and that each is drawn once."""

from __future__ import annotations

from collections import Counter

import pytest
from matplotlib.figure import Figure

from adv_detect.pipelines.evaluation.benign import draw_benign_changes
from adv_detect.pipelines.evaluation.figures import SHOWN, draw_detection, draw_inputs, show_figures

CHECKED = {
    "auc_overview/untargeted": (1, "area under the ROC curve", ""),
    "roc/targeted": (2, "false-positive rate", "detection rate"),
    "score_histograms/targeted": (3, "score (logit)", "share of images"),
    "training_curves/untargeted": (2, "epoch", "cross-entropy"),
    "train_test_matrix/targeted/ranked": (2, "tested on", "trained on"),
    "mean_trajectory/untargeted": (3, "", "Mahalanobis distance / natural mean"),
    "adversarial_grid/untargeted": (9, "", ""),
}
"""Number of axes, and a part of the labels of one of them."""


@pytest.fixture(scope="module")
def drawn(finished, blocks) -> tuple[dict[str, Figure], dict[str, Figure]]:
    summary, training = finished["detector_summary"], blocks["detector_training"]
    tables = (finished[name] for name in ("scores", "detection_metrics"))
    stores = (finished[one] for one in ("adversarials", "activations", "network_weights", "representatives"))
    return (
        draw_detection(*tables, summary, finished["detector_histories"], training),
        draw_inputs(*stores, finished["detectors"], summary, blocks["evaluation"]),
        draw_benign_changes(finished["benign_changes"]),
    )


@pytest.fixture
def saved(monkeypatch) -> Counter[int]:
    """Counts how often each figure is rendered."""
    counts: Counter[int] = Counter()
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: (counts.update([id(self)]), save(self, *args, **options))[1]
    )
    return counts


@pytest.mark.parametrize("name", CHECKED)
def test_the_axes_say_what_they_show(drawn, name):
    axes = (drawn[0] | drawn[1] | drawn[2])[name].axes
    number, x_label, y_label = CHECKED[name]

    assert len(axes) == number
    assert any(x_label in one.get_xlabel() for one in axes)
    assert any(y_label in one.get_ylabel() for one in axes)


def test_every_figure_is_drawn_once_and_shown_figures_are_those_of_the_report(drawn, saved):
    figures = drawn[0] | drawn[1] | drawn[2]

    pictures, *shown = show_figures(*drawn)

    assert {id(figure): saved[id(figure)] for figure in figures.values()} == {id(one): 1 for one in figures.values()}
    assert saved.total() == len(figures)
    assert pictures.keys() == figures.keys()
    for name, picture in zip(SHOWN, shown, strict=True):
        assert picture.startswith(b"\x89PNG")
        harder = [one for key, one in pictures.items() if key == name or key.startswith(f"{name}/untargeted")]
        assert picture == harder[0]


def test_a_kind_without_a_figure_is_said_to_have_none(drawn):
    detection = {name: one for name, one in drawn[0].items() if not name.startswith("roc/")}

    pictures, *shown = show_figures(detection, {}, {})

    assert not any(name.startswith("roc/") for name in pictures)
    assert shown[SHOWN.index("roc")] not in pictures.values()
    assert shown[SHOWN.index("roc")].startswith(b"\x89PNG")
