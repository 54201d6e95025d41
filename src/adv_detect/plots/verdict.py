"""One picture and its way through the layers, beside natural images of the class that the network names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]


def verdict_figure(
    picture: Array,
    *,
    layers: Sequence[str],
    band: tuple[Array, Array] | None = None,
    lines: Mapping[str, Array] | None = None,
) -> Figure:
    """Draw a picture as the network sees it, and its distances to classes at each layer.

    Args:
        picture: Shape ``(H, W)`` or ``(H, W, 3)``, uint8.
        layers: Names of the L layers.
        band: Lower and upper edge of the middle 95 % of natural images, ``(L,)`` each, in the units of the lines.
        lines: Distances of the picture ``(L,)`` by what they are to, the named class first; nothing is drawn without.

    Returns:
        The figure.
    """
    if not lines:
        figure = style.new_figure(1.8, 1.8)
        _show(figure.subplots(), picture)
        return figure
    figure = style.new_figure(6.6, 2.5)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.4))
    _show(left, picture)
    steps = np.arange(len(layers))
    if band is not None:
        right.fill_between(steps, *band, color=style.NATURAL_COLOUR, alpha=0.18, linewidth=0, label="natural, 95 %")
    colours = (style.ADVERSARIAL_COLOUR, style.INK)
    for (name, values), colour, shape, marker in zip(lines.items(), colours, ("-", "--"), ("o", "s"), strict=False):
        right.plot(steps, values, shape, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=name)
    style.tidy(right, y_label="distance / median")
    right.set_xticks(steps, layers, rotation=35, ha="right")
    right.set_ylim(bottom=0)
    right.legend(fontsize=style.FONT_SIZE - 2, frameon=False)
    return figure


def _show(axes: Axes, picture: Array) -> None:
    axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
