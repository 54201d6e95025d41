"""Figures become the same files in whichever process they are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from adv_detect.params import RuntimeParams
from adv_detect.plots.grid import Example, adversarial_grid
from adv_detect.plots.style import joint_legend, panels, tidy
from adv_detect.reporting import draw_pictures
from adv_detect.workers import close_workers


@pytest.fixture(autouse=True)
def _ended():
    yield
    close_workers()


def curves():
    figure, drawn = panels(2, panel=(3.0, 2.0))
    for axes in drawn:
        axes.plot([0, 1], [0, 1], label="one")
        tidy(axes, title="title", x_label="x", y_label="y")
    joint_legend(figure, drawn)
    return figure


def grid():
    image = np.linspace(0, 1, 16).reshape(1, 4, 4)
    return adversarial_grid([Example("bim", image, 1 - image, "3", "8")], bounds=(0.0, 1.0), title="grid")


def test_worker_processes_draw_the_same_pictures():
    files = {}
    for processes in (1, 2):
        figures = {"curves/a": curves(), "curves/b": curves(), "grid": grid()}
        files[processes] = draw_pictures(
            figures, ("grid", "curves", "none"), RuntimeParams(progress=False, processes=processes)
        )

    pictures, shown = files[1]
    assert files[2] == (pictures, shown)
    assert list(pictures) == ["curves/a", "curves/b", "grid"]
    assert shown[:2] == [pictures["grid"], pictures["curves/a"]]
    assert len(set(shown)) == 3
