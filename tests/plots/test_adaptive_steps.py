"""The figure of images lost against steps."""

from __future__ import annotations

import pandas as pd
import pytest

from adv_detect.errors import DataError
from adv_detect.plots.adaptive_steps import MAX_PANELS, step_curves


def steps(detectors) -> pd.DataFrame:
    return pd.DataFrame(
        {"detector": name, "criterion": "untargeted", "norm": "linf", "epsilon": 0.3, "attack": attack,
         "steps": count, "lost": count / 100}
        for name in detectors for attack in ("multi", "selective") for count in (1, 10, 50)
    )  # fmt: skip


def test_a_panel_per_detector_and_a_line_per_attack():
    figure = step_curves(steps(["twin", "joined"]), title="lost")
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left").splitlines()[0] for axes in drawn] == ["joined", "twin"]
    assert all([list(line.get_ydata()) for line in axes.get_lines()] == [[0.01, 0.1, 0.5]] * 2 for axes in drawn)
    assert drawn[0].get_xscale() == "log"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"multi", "selective"}


def test_no_more_panels_than_can_be_read():
    figure = step_curves(steps([f"d{number:02d}" for number in range(MAX_PANELS + 3)]))
    assert sum(axes.get_visible() for axes in figure.axes) == MAX_PANELS


def test_nothing_to_draw_is_an_error():
    with pytest.raises(DataError, match="at least one number of steps"):
        step_curves(steps([]))
