from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.plots.grids import rows_of

from adv_detect.errors import DataError
from adv_detect.plots.adaptive import EvadingExample, evading_grid, success_curves
from adv_detect.plots.style import figure_bytes


def make_curves() -> pd.DataFrame:
    rows = []
    for detector in ("a/both/all/0", "b/both/all/0"):
        for attack, rates in (("selective", (0.2, 0.6)), ("union", (0.3, 0.9))):
            for epsilon, rate in zip((0.2, 0.1), rates[::-1], strict=True):
                low_high = {"success_low_fpr_05": rate - 0.1, "success_high_fpr_05": min(rate + 0.1, 1.0)}
                row = {
                    "detector": detector,
                    "classifier": "network",
                    "norm": "linf",
                    "criterion": "untargeted",
                    "attack": attack,
                    "n": 10,
                }
                rows.append(row | {"epsilon": epsilon, "success_fpr_05": rate} | low_high)
    return pd.DataFrame(rows)


def make_example(**changes) -> EvadingExample:
    clean = np.full((1, 6, 6), 0.5)
    values = {"row": "cw", "clean": clean, "adversarial": clean + 0.1, "clean_class": "3", "adversarial_class": "8"}
    return EvadingExample(**(values | {"score": -1.0, "threshold": 0.5} | changes))


def test_curves_start_at_zero_and_ascend_in_epsilon() -> None:
    figure = success_curves(make_curves(), title="title")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 2
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    assert set(lines) == {"selective", "any attack"}
    np.testing.assert_allclose(lines["any attack"].get_xdata(), [0.0, 0.1, 0.2])
    np.testing.assert_allclose(lines["any attack"].get_ydata(), [0.0, 0.3, 0.9])
    assert figure_bytes(figure).startswith(b"\x89PNG")


def test_grid_says_distortion_and_score() -> None:
    figure = evading_grid([make_example(), make_example(), make_example(row="selective")], bounds=(0.0, 1.0))
    texts = [caption for row in rows_of(figure).values() for _, caption in row]
    attacked = next(text for text in texts if "taken for 8" in text)
    assert "0.6" in attacked
    assert "score -1 (limit 0.5)" in attacked
    assert figure_bytes(figure).startswith(b"\x89PNG")


def test_colour_images_are_drawn() -> None:
    clean = np.zeros((3, 4, 4))
    assert figure_bytes(evading_grid([make_example(clean=clean, adversarial=clean + 0.2)], bounds=(0.0, 1.0)))


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one epsilon"):
        success_curves(make_curves().iloc[:0])
    with pytest.raises(DataError, match="at least one example"):
        evading_grid([], bounds=(0.0, 1.0))
    with pytest.raises(DataError, match=r"one shape.*\(1, 6, 6\) and \(1, 5, 6\)"):
        evading_grid([make_example(adversarial=np.zeros((1, 5, 6)))], bounds=(0.0, 1.0))
