"""Style of all figures: a palette that colour-blind readers can tell apart, quiet axes, no global state."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from adv_detect.errors import unknown_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NATURAL_COLOUR = "#0072B2"
ADVERSARIAL_COLOUR = "#D55E00"
CONTROL_COLOUR = "#5A5A5A"
PALETTE = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31", "#000000")
"""Okabe and Ito's colours (without yellow, which is faint on white), natural images' blue left out, two added."""
LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
INK = "#222222"
GRID = "#DDDDDD"
FONT_SIZE = 9.5
MOST_COLUMNS = 3
RESOLUTION = 192
"""Dots per inch: two for each pixel of a page, whose pixels are 1/96 inch."""
FORMATS = {"png": "image/png", "svg": "image/svg+xml"}
HASH_SALT = "adv_detect"


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches, outside of pyplot's list of open figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def joint_legend(figure: Figure, drawn: Iterable[Axes]) -> None:
    """Put one legend beside the panels, with every label once."""
    handles = {label: handle for axes in drawn for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), fontsize=FONT_SIZE - 1, loc="outside right upper", frameon=False)


def panels(
    count: int,
    *,
    panel: tuple[float, float],
    spare: tuple[float, float] = (0.0, 0.0),
    most_columns: int = MOST_COLUMNS,
    share_x: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels that share their y axis, row by row.

    Args:
        count: Number of panels, at least 1.
        panel: Width and height of a panel, in inches.
        spare: Width and height beside the panels, in inches.
        most_columns: Panels in one row.
        share_x: Whether they share their x axis too.

    Returns:
        The figure and its panels; places of the last row that are left over stay empty.
    """
    columns = min(most_columns, count)
    rows = -(-count // columns)
    figure = new_figure(panel[0] * columns + spare[0], panel[1] * rows + spare[1])
    places = figure.subplots(rows, columns, sharex=share_x, sharey=True, squeeze=False).ravel()
    for axes in places[count:]:
        axes.set_visible(False)
    return figure, list(places[:count])


def tidy(axes: Axes, *, title: str = "", x_label: str = "", y_label: str = "", grid: bool = True) -> Axes:
    """Give axes the common style and their texts."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=FONT_SIZE - 1)
    axes.set_xlabel(x_label, color=INK, fontsize=FONT_SIZE)
    axes.set_ylabel(y_label, color=INK, fontsize=FONT_SIZE)
    axes.set_title(title, color=INK, fontsize=FONT_SIZE + 1, loc="left")
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, color=GRID, linewidth=0.6)
    return axes


def heading(figure: Figure, text: str, *, y: float | None = None) -> None:
    """Set the title above all axes; where no layout places it, ``y`` is its upper edge as a share of the height."""
    place = {} if y is None else {"y": y}
    figure.suptitle(text, color=INK, fontsize=FONT_SIZE + 2, x=0.01, ha="left", weight="bold", **place)


def colours(names: Iterable[str]) -> dict[str, str]:
    """Assign colours to names in order; after the palette's end they repeat with another marker and line style."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def line_styles(names: Iterable[str]) -> dict[str, str | tuple[int, tuple[float, ...]]]:
    """Assign line styles to names in order, so that lines differ in print too: 32 pairs with the colours."""
    return {name: LINE_STYLES[_turned(index) % len(LINE_STYLES)] for index, name in enumerate(names)}


def markers(names: Iterable[str]) -> dict[str, str]:
    """Assign marker shapes to names in order: 64 pairs with the colours."""
    return {name: MARKERS[_turned(index) % len(MARKERS)] for index, name in enumerate(names)}


def _turned(index: int) -> int:
    """Count one further each time that the colours start again, so that the same colour meets another shape."""
    return index + index // len(PALETTE)


def figure_bytes(figure: Figure, file_format: str = "png") -> bytes:
    """Draw a figure, the same bytes for the same figure.

    Args:
        figure: What to draw.
        file_format: ``png`` or ``svg``.

    Returns:
        The file's content.

    Raises:
        ConfigurationError: The format is another one.
    """
    from matplotlib import rc_context

    if file_format not in FORMATS:
        raise unknown_choice("file_format", file_format, FORMATS)
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": HASH_SALT}):
        figure.savefig(buffer, format=file_format, dpi=RESOLUTION, metadata=metadata)
    return buffer.getvalue()
