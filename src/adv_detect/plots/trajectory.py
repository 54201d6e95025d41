"""The mean way of natural and adversarial images through the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_detect.algorithms.roc import Values, to_array
from adv_detect.errors import DataError
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPREAD_PERCENT = (10.0, 90.0)
DISTANCE_LABELS = {
    "euclidean": "Euclidean distance",
    "mahalanobis": "Mahalanobis distance",
    "cosine": "cosine similarity",
}
Array = NDArray[Any]


def mean_trajectory_figure(
    natural: Values,
    adversarial: Values,
    *,
    predicted_class: int,
    layers: Sequence[str],
    distance: str,
    class_name: str | None = None,
    title: str = "",
) -> Figure:
    """Draw the mean trajectories of images that the network gives one and the same class.

    Three panels, layer by layer: to the representative of the predicted class, to the nearest of the other
    classes, and the gap between the two. Distances are divided by the natural images' mean distance to their own
    class at that layer, since layers differ in scale; similarities are drawn as they are.

    Args:
        natural: Trajectories ``(N, L, C)``, class axis in label order.
        adversarial: Trajectories ``(M, L, C)`` of images that the network gives the same class.
        predicted_class: That class, an index of the class axis.
        layers: Names of the L layers.
        distance: ``euclidean``, ``cosine`` or ``mahalanobis``.
        class_name: Name of the class.
        title: What is shown.

    Returns:
        The figure: means, and the range of the middle 80 % of the images.

    Raises:
        DataError: Shapes do not fit each other, or one kind has no image.
    """
    clean, attacked = to_array(natural), to_array(adversarial)
    for name, values in (("natural", clean), ("adversarial", attacked)):
        _check(name, values, layers, predicted_class)
    similarity = distance == "cosine"
    scale = np.ones(len(layers)) if similarity else _safe(clean[:, :, predicted_class].mean(axis=0))
    figure = style.new_figure(11.0, 3.9)
    panels = figure.subplots(1, 3)
    kinds = (("natural", clean, style.NATURAL_COLOUR, "o"), ("adversarial", attacked, style.ADVERSARIAL_COLOUR, "s"))
    for name, values, colour, marker in kinds:
        label = f"{name} (n = {len(values):,})"
        for axes, lines in zip(panels, _quantities(values, predicted_class, similarity), strict=True):
            _band(axes, lines / scale, colour, marker, label)
    what = DISTANCE_LABELS.get(distance, distance)
    y_label = what if similarity else f"{what} / natural mean"
    shown = class_name if class_name is not None else str(predicted_class)
    titles = (f"to the predicted class ({shown})", "to the nearest other class", "gap between the two")
    for axes, panel_title in zip(panels, titles, strict=True):
        style.tidy(axes, title=panel_title, y_label=y_label if axes is panels[0] else "")
        axes.set_xticks(range(len(layers)), layers, rotation=35, ha="right")
    panels[2].axhline(0.0, color=style.INK, linewidth=0.8)
    panels[0].legend(fontsize=style.FONT_SIZE - 1.5)
    style.heading(figure, title)
    return figure


def _check(name: str, values: Array, layers: Sequence[str], predicted_class: int) -> None:
    if values.ndim != 3 or values.shape[1] != len(layers) or not 0 <= predicted_class < values.shape[2]:
        raise DataError(
            f"expected {name} trajectories of shape (N, {len(layers)}, C) with C > {predicted_class}, "
            f"got {values.shape}"
        )
    if not len(values) or values.shape[2] < 2:
        raise DataError(f"expected {name} trajectories of at least one image and two classes, got {values.shape}")


def _safe(scale: Array) -> Array:
    return np.where(scale > 0, scale, 1.0)


def _quantities(values: Array, predicted_class: int, similarity: bool) -> tuple[Array, Array, Array]:
    """To the predicted class, to the nearest other one, and how much nearer the predicted one is; each ``(N, L)``."""
    own = values[:, :, predicted_class]
    others = np.delete(values, predicted_class, axis=2)
    nearest = others.max(axis=2) if similarity else others.min(axis=2)
    return own, nearest, own - nearest if similarity else nearest - own


def _band(axes: Axes, lines: Array, colour: str, marker: str, label: str) -> None:
    steps = np.arange(lines.shape[1])
    low, high = np.percentile(lines, SPREAD_PERCENT, axis=0)
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(steps, lines.mean(axis=0), color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)
