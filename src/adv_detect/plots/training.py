"""Training curves of detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adv_detect.errors import DataError
from adv_detect.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS_KEYS = ("train_loss", "validation_loss")
SCORE_KEY = "validation_macro_auc"


def training_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str = "") -> Figure:
    """Draw loss and validation macro-AUC over the epochs, one colour per detector.

    Args:
        histories: Per detector, one mapping per epoch with ``epoch`` (counted from 0 when absent), ``train_loss``,
            ``validation_loss`` and ``validation_macro_auc``; missing ones are not drawn.
        title: What is shown.

    Returns:
        The figure; a mark lies on the epoch with the best validation macro-AUC, whose weights are kept.

    Raises:
        DataError: No detector has an epoch.
    """
    histories = {name: history for name, history in histories.items() if history}
    if not histories:
        raise DataError("expected the history of at least one detector, got none")
    figure = style.new_figure(10.0, 3.9)
    losses, scores = figure.subplots(1, 2)
    colours, markers = style.colours(histories), style.markers(histories)
    for name, history in histories.items():
        for key, line in zip(LOSS_KEYS, ("--", "-"), strict=True):
            epochs, values = _series(history, key)
            losses.plot(epochs, values, color=colours[name], linestyle=line, linewidth=1.2)
        epochs, values = _series(history, SCORE_KEY)
        kept = [values.index(max(values))] if values else []
        look = {"color": colours[name], "linewidth": 1.2, "marker": markers[name], "markersize": 5}
        scores.plot(epochs, values, markevery=kept, label=name, **look)
    style.tidy(losses, title="loss (dashed: training, solid: validation)", x_label="epoch", y_label="cross-entropy")
    style.tidy(scores, title="validation macro-AUC (marked: kept)", x_label="epoch", y_label="macro-AUC")
    figure.legend(fontsize=style.FONT_SIZE - 2, loc="outside lower center", ncols=3, frameon=False)
    style.heading(figure, title)
    return figure


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    pairs = [(float(row.get("epoch", index)), float(row[key])) for index, row in enumerate(history) if key in row]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]
