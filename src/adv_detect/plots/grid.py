"""Clean images, their adversarial versions and what was changed."""

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
Cell = tuple[Array, str]
"""Picture ``(H, W, channels)`` in pixel units of the network, and the text beneath it."""
LABEL_INCHES = 0.2
"""Distance of the name of a row from its first picture."""
HEADING_INCHES = 0.45
GAP_INCHES = 0.06
"""Between two pictures."""


@dataclass(frozen=True)
class GridSizes:
    """Sizes of a grid of pictures.

    Attributes:
        cell: Side of a picture, in inches.
        caption: Height of the text beneath it, in inches.
        margin: Width left of the pictures, in inches.
        label_size: Font size of the names of rows, in points.
    """

    cell: float = 1.12
    caption: float = 0.36
    margin: float = 0.7
    label_size: float = style.FONT_SIZE


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
    rows = by_row([(example.attack, _cells(example, bounds)) for example in examples])
    return draw_grid(rows, GridSizes(), bounds=bounds, title=title)


def _cells(example: Example, bounds: tuple[float, float]) -> list[Cell]:
    clean, attacked = picture_pair(example.clean, example.adversarial)
    change = attacked - clean
    low, high = bounds
    peak = float(np.abs(change).max())
    factor = 1.0 if peak == 0.0 else (high - low) / 2 / peak
    amplified = (low + high) / 2 + change * factor
    return [
        (clean, f"clean\n{example.clean_class}"),
        (attacked, f"adversarial\n{example.adversarial_class}"),
        (amplified, f"x{factor:.3g}   L2 {np.linalg.norm(change):.3g}\nLinf {peak:.3g}"),
    ]


def by_row(cells: Sequence[tuple[str, list[Cell]]]) -> dict[str, list[Cell]]:
    """Join the cells of examples with the same name into one row, in the given order."""
    rows: dict[str, list[Cell]] = {}
    for name, some in cells:
        rows.setdefault(name, []).extend(some)
    return rows


def picture_pair(clean: Values, adversarial: Values) -> tuple[Array, Array]:
    """Turn an image and its attacked version, ``(channels, H, W)``, into pictures.

    Args:
        clean: The image.
        adversarial: The attacked image.

    Returns:
        Both as float64 ``(H, W, channels)``.

    Raises:
        DataError: They are not of one such shape.
    """
    one, other = (to_array(image).astype(np.float64) for image in (clean, adversarial))
    if one.ndim != 3 or one.shape != other.shape:
        raise DataError(f"expected images of one shape (channels, H, W), got {one.shape} and {other.shape}")
    return np.moveaxis(one, 0, -1), np.moveaxis(other, 0, -1)


def draw_grid(
    rows: Mapping[str, Sequence[Cell]], sizes: GridSizes, *, bounds: tuple[float, float], title: str
) -> Figure:
    """Draw rows of pictures with a text beneath each.

    Args:
        rows: Pictures and texts by name of the row, which stands at its left.
        sizes: Sizes.
        bounds: Lowest and highest pixel value.
        title: What is shown.

    Returns:
        The figure; a row with fewer pictures ends earlier.

    Raises:
        DataError: There is no picture.
    """
    if not rows:
        raise DataError("expected at least one example, got none")
    width = max(map(len, rows.values()))
    size = sizes.cell * width + sizes.margin + LABEL_INCHES, (sizes.cell + sizes.caption) * len(rows) + HEADING_INCHES
    figure = style.new_figure(*size)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # one for all, in inches: one for each picture takes ten times as long
    for line, (name, cells) in enumerate(rows.items()):
        top = HEADING_INCHES + line * (sizes.cell + sizes.caption)
        axes.text(sizes.margin - LABEL_INCHES, top + sizes.cell / 2, name, rotation=90, va="center", ha="right",
                  multialignment="center", fontsize=sizes.label_size, weight="bold", color=style.INK)  # fmt: skip
        for place, cell in enumerate(cells):
            _draw_cell(axes, cell, sizes, (sizes.margin + place * sizes.cell, top), bounds)
    axes.set(xlim=(0.0, size[0]), ylim=(size[1], 0.0), aspect="auto")
    axes.set_axis_off()
    style.heading(figure, title, y=1.0 - GAP_INCHES / size[1])
    return figure


def _draw_cell(
    axes: Axes, cell: Cell, sizes: GridSizes, corner: tuple[float, float], bounds: tuple[float, float]
) -> None:
    """Draw a picture and its text; the upper left corner is given in inches."""
    picture, text = cell
    low, high = bounds
    shown = np.clip((picture - low) / (high - low), 0.0, 1.0)
    side = sizes.cell - GAP_INCHES
    height, width = (side * length / max(picture.shape[:2]) for length in picture.shape[:2])
    left, top = corner[0] + (sizes.cell - width) / 2, corner[1] + (sizes.cell - height) / 2
    axes.imshow(shown.squeeze(), extent=(left, left + width, top + height, top), cmap="gray", vmin=0.0, vmax=1.0,
                interpolation="nearest")  # fmt: skip
    axes.text(corner[0] + sizes.cell / 2, corner[1] + sizes.cell, text, va="top", ha="center",
              multialignment="center", fontsize=style.FONT_SIZE - 2.5, color=style.INK)  # fmt: skip
