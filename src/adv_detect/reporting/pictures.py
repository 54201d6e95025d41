"""Figures drawn once: the files of the catalog and the report hold the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adv_detect.params import RuntimeParams
from adv_detect.plots.style import figure_bytes, new_figure
from adv_detect.sharding.pool import do_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEPARATOR = "/"


def draw_pictures(
    figures: Mapping[str, Figure], shown: Sequence[str], runtime: RuntimeParams
) -> tuple[dict[str, bytes], list[bytes]]:
    """Draw figures as PNG files.

    Args:
        figures: Figures by ``<kind>`` or ``<kind>/<suffix>``.
        shown: Kinds of which one picture is wanted by itself.
        runtime: Number of processes; whether progress is shown.

    Returns:
        All pictures under the names of their figures, and per kind the first one; where a kind has none, a picture
        that says so.
    """
    drawn = do_all(figure_bytes, list(figures.values()), runtime, title="figures", unit="figures")
    pictures = dict(zip(figures, drawn, strict=True))
    first: dict[str, bytes] = {}
    for name, picture in pictures.items():
        first.setdefault(name.split(SEPARATOR)[0], picture)
    return pictures, [first[kind] if kind in first else _nothing(kind) for kind in shown]


def _nothing(kind: str) -> bytes:
    figure = new_figure(6.0, 1.0)
    figure.text(0.5, 0.5, f"{kind.replace('_', ' ')}: nothing to show in this run", ha="center", va="center")
    return figure_bytes(figure)
