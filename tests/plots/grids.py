"""Pictures and texts of a drawn grid."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def rows_of(figure: Figure) -> dict[str, list[tuple[NDArray[np.float64], str]]]:
    """Pictures and the texts beneath them, by name of the row that they stand in."""
    (axes,) = figure.axes
    names = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_rotation() == 90}
    captions = [text.get_text() for text in axes.texts if text.get_rotation() == 0]
    rows: dict[str, list[tuple[NDArray[np.float64], str]]] = {name: [] for name in names}
    for image, caption in zip(axes.images, captions, strict=True):
        _, _, bottom, top = image.get_extent()
        (row,) = (name for name, height in names.items() if top < height < bottom)
        rows[row].append((np.asarray(image.get_array()), caption))
    return rows
