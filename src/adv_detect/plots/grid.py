"""Clean images, their adversarial versions and what was changed."""

from __future__ import annotations

from collections.abc import Sequence
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
CELL_INCHES = 1.12
VIEWS = ("clean", "adversarial", "perturbation")


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
    rows: dict[str, list[Example]] = {}
    for example in examples:
        rows.setdefault(example.attack, []).append(example)
    if not rows:
        raise DataError("expected at least one example, got none")
    width = max(map(len, rows.values()))
    figure = style.new_figure(3 * CELL_INCHES * width + 0.7, (CELL_INCHES + 0.36) * len(rows) + 0.4)
    cells = figure.subplots(len(rows), 3 * width, squeeze=False)
    for axes in cells.ravel():
        axes.set_axis_off()
    for row, (attack, shown) in zip(cells, rows.items(), strict=True):
        for index, example in enumerate(shown):
            _draw(row[3 * index : 3 * index + 3], example, bounds)
        row[0].text(-0.18, 0.5, attack, transform=row[0].transAxes, rotation=90, va="center", ha="right",
                    fontsize=style.FONT_SIZE, weight="bold", color=style.INK)  # fmt: skip
    style.heading(figure, title)
    return figure


def _draw(cells: Sequence[Axes], example: Example, bounds: tuple[float, float]) -> None:
    clean, attacked = _picture(example.clean), _picture(example.adversarial)
    if clean.shape != attacked.shape:
        raise DataError(f"expected an adversarial image of shape {clean.shape}, got {attacked.shape}")
    change = attacked - clean
    low, high = bounds
    peak = float(np.abs(change).max())
    factor = 1.0 if peak == 0.0 else (high - low) / 2 / peak
    amplified = (low + high) / 2 + change * factor
    texts = (
        f"clean\n{example.clean_class}",
        f"adversarial\n{example.adversarial_class}",
        f"x{factor:.3g}   $\\ell_2$ {np.linalg.norm(change):.3g}\n$\\ell_\\infty$ {peak:.3g}",
    )
    for axes, image, text in zip(cells, (clean, attacked, amplified), texts, strict=True):
        shown = np.clip((image - low) / (high - low), 0.0, 1.0)
        axes.imshow(shown.squeeze(), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_title(text, fontsize=style.FONT_SIZE - 2.5, color=style.INK, y=-0.02, va="top", pad=0)


def _picture(image: Values) -> Array:
    """Return ``(H, W, channels)`` as float64."""
    array = to_array(image).astype(np.float64)
    if array.ndim != 3:
        raise DataError(f"expected an image of shape (channels, H, W), got {array.shape}")
    return np.moveaxis(array, 0, -1)
