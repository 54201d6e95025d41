"""Grids of images: clean, attacked, and what was changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_detect.algorithms.roc import Values, to_array
from adv_detect.errors import DataError
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
Panel = tuple[Values, str]
"""An image ``(channels, H, W)`` and what stands beneath it."""


@dataclass(frozen=True)
class Example:
    """One attacked image.

    Attributes:
        attack: Name of the attack: the grid's row.
        clean: Image ``(channels, H, W)``, in pixel units of the network.
        adversarial: The attacked image, same shape.
        clean_class: Name of the class predicted before.
        adversarial_class: Name of the class predicted after.
    """

    attack: str
    clean: Values
    adversarial: Values
    clean_class: str
    adversarial_class: str


def adversarial_grid(examples: Sequence[Example], *, bounds: tuple[float, float], title: str = "") -> Figure:
    """Draw a row per attack and, per example, the clean image, the adversarial one and the amplified perturbation.

    Args:
        examples: What to show; examples of one attack stand in one row, in the given order.
        bounds: Lowest and highest pixel value.
        title: What is shown.

    Returns:
        The figure. Each perturbation is drawn around mid-grey, amplified by the factor beneath it; the norms are in
        pixel units of the network.

    Raises:
        DataError: There is no example, or an image pair differs in shape.
    """
    rows: dict[str, list[Panel]] = {}
    for example in examples:
        rows.setdefault(example.attack, []).extend(_panels(example, bounds))
    return image_grid(rows, bounds=bounds, title=title)


def image_grid(
    rows: Mapping[str, Sequence[Panel]],
    *,
    bounds: tuple[float, float],
    title: str = "",
    cell_inches: float = 1.12,
    caption_inches: float = 0.36,
    label_size: float = style.FONT_SIZE,
) -> Figure:
    """Draw rows of images with captions beneath and the name of the row at the left.

    Args:
        rows: The panels of each row, by its name; rows may differ in length.
        bounds: Lowest and highest pixel value.
        title: What is shown.
        cell_inches: Width and height of an image.
        caption_inches: Height of the captions.
        label_size: Size of the names of rows.

    Returns:
        The figure.

    Raises:
        DataError: There is no panel, or one is no image.
    """
    width = max(map(len, rows.values()), default=0)
    if not width:
        raise DataError("expected at least one example to draw, got none")
    figure = style.new_figure(cell_inches * width + 0.8, (cell_inches + caption_inches) * len(rows) + 0.4)
    cells = figure.subplots(len(rows), width, squeeze=False)
    for axes in cells.ravel():
        axes.set_axis_off()
    for row, (name, panels) in zip(cells, rows.items(), strict=True):
        for axes, (image, caption) in zip(row, panels, strict=False):
            _draw(axes, image, caption, bounds)
        row[0].text(-0.16, 0.5, name, transform=row[0].transAxes, rotation=90, va="center", ha="right",
                    fontsize=label_size, weight="bold", color=style.INK)  # fmt: skip
    style.heading(figure, title)
    return figure


def perturbation_of(clean: Values, adversarial: Values) -> tuple[Array, str, str]:
    """Give what was changed ``(channels, H, W)``, and its norms as they are captioned.

    Args:
        clean: Image ``(channels, H, W)``.
        adversarial: The attacked image.

    Returns:
        The difference as float64, its l2 norm and its linf norm in pixel units.

    Raises:
        DataError: The two are no images of one shape.
    """
    before, after = (to_array(image).astype(np.float64) for image in (clean, adversarial))
    if before.ndim != 3 or before.shape != after.shape:
        raise DataError(f"expected images of one shape (channels, H, W), got {before.shape} and {after.shape}")
    change = after - before
    return change, f"$\\ell_2$ {np.linalg.norm(change):.3g}", f"$\\ell_\\infty$ {np.abs(change).max():.3g}"


def _panels(example: Example, bounds: tuple[float, float]) -> list[Panel]:
    change, euclidean, largest = perturbation_of(example.clean, example.adversarial)
    low, high = bounds
    peak = float(np.abs(change).max())
    factor = 1.0 if peak == 0.0 else (high - low) / 2 / peak
    return [
        (example.clean, f"clean\n{example.clean_class}"),
        (example.adversarial, f"adversarial\n{example.adversarial_class}"),
        ((low + high) / 2 + change * factor, f"x{factor:.3g}   {euclidean}\n{largest}"),
    ]


def _draw(axes: Axes, image: Values, caption: str, bounds: tuple[float, float]) -> None:
    low, high = bounds
    shown = np.clip((np.moveaxis(to_array(image).astype(np.float64), 0, -1) - low) / (high - low), 0.0, 1.0)
    axes.imshow(shown.squeeze(), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_title(caption, fontsize=style.FONT_SIZE - 2.5, color=style.INK, y=-0.02, va="top", pad=0)
