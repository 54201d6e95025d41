from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tests.plots.grids import rows_of

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.plots import (
    Example,
    adversarial_grid,
    auc_overview,
    distance_distributions,
    figure_bytes,
    mean_trajectory_figure,
    roc_figure,
    score_histograms,
    train_test_figure,
    training_curves,
)
from adv_detect.plots.style import LINE_STYLES, MARKERS, PALETTE, colours, line_styles, markers

RNG = np.random.default_rng(0)
NATURAL = RNG.normal(size=50)
ATTACKS = {"bim": RNG.normal(2.0, 1.0, 40), "cw": RNG.normal(1.0, 1.0, 30), "none": np.zeros(0)}
LAYERS = ("conv1", "conv2", "fc")
TRAJECTORIES = RNG.random((20, 3, 4)) + 1.0


def metrics() -> pd.DataFrame:
    rows = []
    base = {"kind": "lstm", "representative": "medoid", "order": "fixed", "criterion": "targeted", "variant": "float"}
    for name, distance, criterion, shift in (
        ("a", "cosine", "targeted", 0.0),
        ("b", "euclidean", "targeted", 0.05),
        ("a", "cosine", "both", 0.07),
        ("margin", "", "none", -0.1),
    ):
        for attack, auc in (("bim", 0.9), ("cw", 0.8), ("macro", 0.85), ("worst", 0.8), ("all", 0.84)):
            row = {"configuration": name, "distance": distance, "trained_criterion": criterion, "attack": attack}
            row |= {"detector": f"{name}/{criterion}", "trained_on": "none" if name == "margin" else "all", "seed": 0}
            values = {
                "auc": auc + shift,
                "auc_low": auc + shift - 0.02,
                "auc_high": auc + shift + 0.02,
                "form": "early",
            }
            rows.append(base | row | values)
    return pd.DataFrame(rows)


def grid() -> Figure:
    clean = np.full((1, 6, 6), 0.5)
    examples = [Example(attack, clean, clean + step, "3", "8") for attack, step in (("bim", 0.1), ("cw", 0.0))]
    return adversarial_grid([*examples, examples[0]], bounds=(0.0, 1.0), title="grid")


def matrix() -> pd.DataFrame:
    return pd.DataFrame([[0.9, 0.8], [0.7, np.nan]], index=["all", "without-bim"], columns=["bim", "cw"])


FIGURES: dict[str, Callable[[], Figure]] = {
    "roc": lambda: roc_figure(NATURAL, ATTACKS, title="title"),
    "histograms": lambda: score_histograms(NATURAL, ATTACKS, threshold=0.5, title="title"),
    "distances": lambda: distance_distributions({"label": {"bim": ATTACKS["bim"]}, "deep": {"deep": NATURAL}}),
    "trajectory": lambda: mean_trajectory_figure(
        TRAJECTORIES, TRAJECTORIES + 0.1, predicted_class=1, layers=LAYERS, distance="euclidean"
    ),
    "grid": grid,
    "overview": lambda: auc_overview(metrics(), criterion="targeted", title="title"),
    "matrix": lambda: train_test_figure(matrix(), title="title"),
    "training": lambda: training_curves({"a": [{"train_loss": 1.0, "validation_macro_auc": 0.5}]}, title="title"),
}


def texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_without_pyplot(name: str) -> None:
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert figure_bytes(figure).startswith(b"\x89PNG")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize("name", ["roc", "trajectory", "overview"])
def test_axes_have_labels(name: str) -> None:
    axes = FIGURES[name]().axes[0]
    assert axes.get_xlabel() or name == "trajectory"
    assert axes.get_ylabel() or name == "overview"


def test_same_figure_same_bytes() -> None:
    first, second = (figure_bytes(FIGURES["roc"](), "svg") for _ in range(2))
    assert first == second
    assert b"<svg" in first


def test_unknown_format() -> None:
    with pytest.raises(ConfigurationError, match=r"file_format: expected one of \[png, svg\], got 'gif'"):
        figure_bytes(FIGURES["matrix"](), "gif")


def test_roc_names_n_and_auc() -> None:
    from sklearn.metrics import roc_auc_score

    linear, logarithmic = FIGURES["roc"]().axes
    flags = np.r_[np.ones(40), np.zeros(50)]
    auc = roc_auc_score(flags, np.r_[ATTACKS["bim"], NATURAL])
    assert texts(linear) == [f"bim  AUC {auc:.3f}  (n = 40)", texts(linear)[1], "chance"]
    assert (linear.get_xscale(), logarithmic.get_xscale()) == ("linear", "log")


def test_drawn_curve_encloses_the_same_area() -> None:
    from adv_detect.algorithms.roc import roc_auc
    from adv_detect.plots.roc import _steps

    fpr, tpr = _steps(ATTACKS["bim"], NATURAL)
    flags = np.r_[np.ones(40), np.zeros(50)]
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc(np.r_[ATTACKS["bim"], NATURAL], flags))


def test_constant_scores_can_be_drawn() -> None:
    assert figure_bytes(roc_figure(np.ones(5), {"a": np.ones(4)}))
    assert figure_bytes(score_histograms(np.ones(5), {"a": np.ones(4)}))


@pytest.mark.parametrize("draw", [roc_figure, score_histograms])
def test_scores_of_both_kinds_are_needed(draw: Callable[..., Figure]) -> None:
    with pytest.raises(DataError, match="expected natural and adversarial scores"):
        draw(NATURAL, {"a": np.zeros(0)})
    with pytest.raises(DataError, match="expected natural and adversarial scores"):
        draw(np.zeros(0), ATTACKS)
    with pytest.raises(DataError, match="expected scores of 'a' without NaN"):
        draw(NATURAL, {"a": np.array([np.nan])})


def test_histogram_shares_sum_to_one() -> None:
    from matplotlib.patches import StepPatch

    axes = FIGURES["histograms"]().axes[0]
    sums = [patch.get_data().values.sum() for patch in axes.patches if isinstance(patch, StepPatch)]
    assert sums == pytest.approx([1.0] * 4)


def test_distance_panels_share_their_axis_and_name_medians() -> None:
    left, right = FIGURES["distances"]().axes
    assert left.get_xlim() == right.get_xlim()
    assert texts(left) == [f"bim: median {np.median(ATTACKS['bim']):.3g} (n = 40)"]
    with pytest.raises(DataError, match="at least one group"):
        distance_distributions({"a": {"b": np.zeros(0)}})


@pytest.mark.parametrize(("distance", "nearest"), [("euclidean", np.min), ("cosine", np.max)])
def test_trajectory_means(distance: str, nearest: Callable[..., np.ndarray]) -> None:
    figure = mean_trajectory_figure(
        TRAJECTORIES, TRAJECTORIES * 1.1, predicted_class=2, layers=LAYERS, distance=distance
    )
    scale = np.ones(3) if distance == "cosine" else TRAJECTORIES[:, :, 2].mean(axis=0)
    own = TRAJECTORIES[:, :, 2]
    other = nearest(TRAJECTORIES[:, :, [0, 1, 3]], axis=2)
    gap = own - other if distance == "cosine" else other - own
    for axes, expected in zip(figure.axes, (own, other, gap), strict=True):
        np.testing.assert_allclose(axes.lines[0].get_ydata(), (expected / scale).mean(axis=0))
        assert [label.get_text() for label in axes.get_xticklabels()] == list(LAYERS)


@pytest.mark.parametrize("wrong", [TRAJECTORIES[:, :2], TRAJECTORIES[0], TRAJECTORIES[:, :, :1]])
def test_trajectory_shapes(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected adversarial trajectories of shape \(N, 3, C\) with C > 1"):
        mean_trajectory_figure(TRAJECTORIES, wrong, predicted_class=1, layers=LAYERS, distance="cosine")


def test_trajectories_of_no_image() -> None:
    with pytest.raises(DataError, match="at least one image"):
        mean_trajectory_figure(TRAJECTORIES, TRAJECTORIES[:0], predicted_class=1, layers=LAYERS, distance="cosine")


def test_grid_names_classes_norms_and_amplification() -> None:
    rows = rows_of(grid())
    first = next(iter(rows.values()))
    captions = [caption for _, caption in first]
    assert sum(map(len, rows.values())) == 9
    assert captions[:2] == ["clean\n3", "adversarial\n8"]
    assert captions[2] == f"x5   L2 {0.1 * 6:.3g}\nLinf 0.1"
    np.testing.assert_allclose(first[2][0], 1.0)


def test_grid_draws_colour_images_in_other_bounds() -> None:
    clean = np.zeros((3, 4, 4))
    figure = adversarial_grid([Example("a", clean, clean - 1, "x", "y")], bounds=(-1.0, 1.0))
    shown = [picture for picture, _ in rows_of(figure)["a"]]
    assert shown[0].shape == (4, 4, 3)
    assert [image.mean() for image in shown] == [0.5, 0.0, 0.0]


def test_pictures_of_a_grid_keep_their_form_and_stand_apart() -> None:
    clean = np.zeros((1, 8, 4))
    figure = adversarial_grid([Example("a", clean, clean, "x", "y")] * 2, bounds=(0.0, 1.0))
    extents = [image.get_extent() for image in figure.axes[0].images]
    width, height = figure.get_size_inches()
    for left, right, bottom, top in extents:
        assert (bottom - top) == pytest.approx(2 * (right - left))
        assert 0 < left < right < width
        assert 0 < top < bottom < height
    assert all(one[1] < other[0] for one, other in itertools.pairwise(extents))


def test_grid_wants_pairs() -> None:
    image = np.zeros((1, 4, 4))
    with pytest.raises(DataError, match="at least one example"):
        adversarial_grid([], bounds=(0.0, 1.0))
    with pytest.raises(DataError, match=r"expected images of one shape \(channels, H, W\)"):
        adversarial_grid([Example("a", image[0], image, "x", "y")], bounds=(0.0, 1.0))
    with pytest.raises(DataError, match=r"one shape.* got \(1, 4, 4\) and \(1, 5, 5\)"):
        adversarial_grid([Example("a", image, np.zeros((1, 5, 5)), "x", "y")], bounds=(0.0, 1.0))


def test_overview_shows_every_detector_and_the_margin() -> None:
    figure = FIGURES["overview"]()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["LSTM + M + cos", "LSTM + M + L2", "LSTM + M + cos (both)", "control: margin only"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["bim", "cw", "macro"]
    with pytest.raises(DataError, match="tested on untargeted early attacks, got none"):
        auc_overview(metrics(), criterion="untargeted")


def test_matrix_frames_what_was_left_out() -> None:
    from matplotlib.patches import Rectangle

    axes = FIGURES["matrix"]().axes[0]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(round(frame.get_x()), round(frame.get_y())) for frame in frames] == [(0, 1)]
    assert [text.get_text() for text in axes.texts] == ["0.900", "0.800", "0.700", "–"]  # noqa: RUF001
    with pytest.raises(DataError, match="at least one cell"):
        train_test_figure(pd.DataFrame())


def test_training_marks_the_best_epoch() -> None:
    history = [{"epoch": epoch, "validation_macro_auc": auc} for epoch, auc in ((1, 0.6), (2, 0.9), (3, 0.8))]
    scores = training_curves({"a": history, "empty": []}).axes[1]
    (line,) = scores.lines
    assert (line.get_markevery(), line.get_xydata()[1].tolist()) == ([1], [2.0, 0.9])
    with pytest.raises(DataError, match="at least one detector"):
        training_curves({"a": []})


def test_looks_repeat_only_after_the_palette() -> None:
    names = [str(index) for index in range(len(PALETTE) + 1)]
    assert len(set(colours(names[:-1]).values())) == len(PALETTE) == len(MARKERS)
    assert (colours(names)["0"], line_styles(names)["0"]) == (PALETTE[0], "-")
    many = [str(index) for index in range(len(PALETTE) * len(LINE_STYLES))]
    for shapes in (line_styles(many), markers(many)):
        assert len(set(zip(colours(many).values(), map(str, shapes.values()), strict=True))) == len(many)
