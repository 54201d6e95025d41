"""Figures of the finished run: what is drawn, what their axes say, and that each is drawn once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from tests.plots.grids import rows_of

from adv_detect.params import RuntimeParams
from adv_detect.pipelines.evaluation.benign import draw_benign_changes
from adv_detect.pipelines.evaluation.figures import SHOWN, draw_detection, draw_inputs, show_figures

CHECKED = {
    "auc_overview/untargeted": (1, "area under the ROC curve", ""),
    "roc/targeted": (2, "false-positive rate", "detection rate"),
    "score_histograms/targeted": (3, "score (logit)", "share of images"),
    "training_curves/untargeted": (2, "epoch", "cross-entropy"),
    "train_test_matrix/targeted/ranked": (2, "tested on", "trained on"),
    "mean_trajectory/untargeted": (3, "", "Mahalanobis distance / natural mean"),
    "adversarial_grid/untargeted": (1, "", ""),
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

    pictures, *shown = show_figures(*drawn, RuntimeParams(progress=False))

    assert {id(figure): saved[id(figure)] for figure in figures.values()} == {id(one): 1 for one in figures.values()}
    assert saved.total() == len(figures)
    assert pictures.keys() == figures.keys()
    for name, picture in zip(SHOWN, shown, strict=True):
        assert picture.startswith(b"\x89PNG")
        harder = [one for key, one in pictures.items() if key == name or key.startswith(f"{name}/untargeted")]
        assert picture == harder[0]


def test_a_kind_without_a_figure_is_said_to_have_none(drawn):
    detection = {name: one for name, one in drawn[0].items() if not name.startswith("roc/")}

    pictures, *shown = show_figures(detection, {}, {}, RuntimeParams(progress=False))

    assert not any(name.startswith("roc/") for name in pictures)
    assert shown[SHOWN.index("roc")] not in pictures.values()
    assert shown[SHOWN.index("roc")].startswith(b"\x89PNG")


def successes(finished, key, criterion):
    """Scores of the natural test images and, by attack, of the successes, from the table of scores."""
    rows = finished.scores.query("detector == @key and split == 'test' and variant == 'float'")
    hits = rows[(rows["criterion"] == criterion) & rows["success"].astype(bool)]
    natural = rows[rows["attack"] == "natural"]["score"]
    return natural.to_numpy(), {name: part["score"].to_numpy() for name, part in hits.groupby("attack", observed=True)}


def shown_detector(figure):
    return figure.get_suptitle().partition(",")[0]


@pytest.mark.parametrize("criterion", ["targeted", "untargeted"])
def test_the_curves_are_those_of_every_attack_with_n_and_auc(finished, drawn, criterion):
    figure = drawn[0][f"roc/{criterion}"]
    natural, attacked = successes(finished, shown_detector(figure), criterion)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}

    expected = {}
    for name, scores in attacked.items():
        labels = np.r_[np.zeros(len(natural)), np.ones(len(scores))]
        auc = roc_auc_score(labels, np.r_[natural, scores])
        expected[f"{name}  AUC {auc:.3f}  (n = {len(scores)})"] = auc
    assert lines.keys() == {*expected, "chance"}
    assert {"bim", "cw", "bim-confident"} == set(attacked)
    for label, auc in expected.items():
        x, y = lines[label].get_data()
        assert np.trapezoid(y, x) == pytest.approx(auc, abs=0.5 / len(natural))
    assert f"n = {len(natural)}" in figure.axes[0].get_xlabel()


def test_the_histograms_hold_all_scores_and_say_how_many(finished, drawn):
    figure = drawn[0]["score_histograms/targeted"]
    natural, attacked = successes(finished, shown_detector(figure), "targeted")

    assert {axes.get_title(loc="left") for axes in figure.axes} == {
        f"{name} (n = {len(scores)})" for name, scores in attacked.items()
    }
    for axes in figure.axes:
        shares = [patch.get_data().values.sum() for patch in axes.patches]
        assert shares == pytest.approx([1.0] * 4)  # filled and outlined, natural and adversarial
    assert f"natural (n = {len(natural)})" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_overview_has_a_dot_per_attack_and_configuration_and_the_margin_beside(finished, drawn):
    axes = drawn[0]["auc_overview/untargeted"].axes[0]
    rows = finished["detection_metrics"].query(
        "criterion == 'untargeted' and form == 'early' and variant == 'float' and trained_on == 'all'"
    )
    attacks = [label.get_text() for label in axes.get_yticklabels()]

    dots = {line.get_label(): line.get_xdata() for line in axes.get_lines() if line.get_marker() not in {"None", ""}}
    assert set(attacks) == {"bim", "cw", "macro"}
    for label, configuration, trained in (("LSTM + M + cos", "cosine", "untargeted"), ("MLP", "ranked", "both")):
        mine = rows[(rows["configuration"] == configuration) & (rows["trained_criterion"] == trained)]
        expected = mine.set_index("attack")["auc"].reindex(attacks).to_numpy()
        found = [
            x for name, x in dots.items() if name.startswith(label) and name.endswith("(both)") == (trained == "both")
        ]
        assert any(np.allclose(one, expected) for one in found), (label, dots.keys())
    margin = finished["detection_metrics"].query(
        "detector == 'margin' and criterion == 'untargeted' and form == 'early' and variant == 'float'"
    )
    (control,) = [one for one in axes.collections if one.get_label() == "control: margin only"]
    np.testing.assert_allclose(
        [segment[0][0] for segment in control.get_segments()], margin.set_index("attack")["auc"].reindex(attacks)
    )


def test_the_training_curves_repeat_the_histories_and_mark_the_epoch_that_was_kept(finished, drawn):
    losses, scores = drawn[0]["training_curves/untargeted"].axes
    keys = ["cosine/untargeted/all/0", "ranked/untargeted/all/0"]
    lines = {line.get_label(): line for line in scores.get_lines()}

    assert list(lines) == keys
    assert len(losses.get_lines()) == 2 * len(keys)
    assert len({line.get_marker() for line in lines.values()}) == len(keys)
    histories = finished["detector_histories"].groupby("detector")
    for key, line in lines.items():
        history = histories.get_group(key)
        np.testing.assert_allclose(line.get_ydata(), history["validation_macro_auc"])
        [kept] = line.get_markevery()
        assert line.get_ydata()[kept] == pytest.approx(history["validation_macro_auc"].max())
        assert line.get_xdata()[kept] == history.loc[history["validation_macro_auc"].idxmax(), "epoch"]


def test_the_matrix_shows_the_auc_of_what_was_trained_with_and_without_an_attack(finished, drawn):
    axes = drawn[0]["train_test_matrix/targeted/ranked"].axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    trained = {"all attacks": "all", "all but bim": "without-bim", "all but cw": "without-cw"}
    metrics = finished["detection_metrics"].query(
        "configuration == 'ranked' and trained_criterion == 'targeted' and criterion == 'targeted' "
        "and variant == 'float' and form == 'early'"
    )

    expected = metrics.set_index(["trained_on", "attack"])["auc"]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert set(rows) == set(trained)
    for row, name in enumerate(rows):
        for column, attack in enumerate(columns):
            if (trained[name], attack) in expected.index:
                assert texts[column, row] == f"{expected[trained[name], attack]:.3f}"
    framed = {(round(one.get_y() + 0.46), round(one.get_x() + 0.47)) for one in axes.patches}
    assert framed == {(rows.index(f"all but {name}"), columns.index(name)) for name in ("bim", "cw")}


def test_mean_trajectories_are_those_of_one_predicted_class(finished, drawn, blocks):
    figure = drawn[1]["mean_trajectory/untargeted"]
    label, layers = blocks["evaluation"].show_class, finished["network_weights"].spec.layers
    own, other, gap = figure.axes
    lines = {line.get_label(): line for line in own.get_lines()}
    scores = finished.scores.query("detector == 'margin' and split == 'test' and variant == 'float'")
    shown = scores[scores["predicted"] == label]
    natural = shown[(shown["attack"] == "natural") & shown["correct"]]
    early = shown[(shown["criterion"] == "untargeted") & (shown["form"] == "early") & shown["success"].astype(bool)]

    assert lines.keys() == {f"natural (n = {len(natural)})", f"adversarial (n = {len(early)})"}
    np.testing.assert_allclose(lines[f"natural (n = {len(natural)})"].get_ydata(), 1.0, rtol=1e-5)
    assert [text.get_text() for text in own.get_xticklabels()] == list(layers)
    for first, second, third in zip(own.get_lines(), other.get_lines(), gap.get_lines(), strict=False):
        np.testing.assert_allclose(third.get_ydata(), second.get_ydata() - first.get_ydata(), atol=1e-5)


def test_the_grid_shows_the_first_success_of_each_attack_and_its_clean_image(finished, drawn):
    figure, store = drawn[1]["adversarial_grid/untargeted"], finished["adversarials"]
    names = finished["network_weights"].spec.class_names
    rows = rows_of(figure)

    assert set(rows) == {"bim", "bim-confident", "cw"}
    for attack, ((before, was), (after, became), (_, changed)) in rows.items():
        attacked, clean = store[f"{attack}/untargeted/test-0000"].tensors, store["natural/test-0000"].tensors
        first = int(attacked["success"].nonzero()[0])
        source = int((clean["source_index"] == attacked["source_index"][first]).nonzero()[0])
        np.testing.assert_allclose(before, clean["images"][source, 0], atol=1e-6)
        np.testing.assert_allclose(after, attacked["images"][first, 0], atol=1e-6)
        assert was == f"clean\n{names[int(clean['predicted'][source])]}"
        assert became == f"adversarial\n{names[int(attacked['predicted'][first])]}"
        largest = float((attacked["images"][first] - clean["images"][source]).abs().max())
        assert changed.endswith(f" {largest:.3g}")
