from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adv_detect.measures.faces.gate import FALSE_REJECT, GateThreshold, clean_condition, gate_table
from adv_detect.measures.monitoring import flag_rates
from adv_detect.plots import flag_rate_figure, gate_figure


def gate(configuration, flagged):
    bim = {"attack": "bim", "criterion": "targeted", "form": "early", "norm": "none", "epsilon": np.nan}
    bim |= {"knows": "nothing", "twin_score": np.nan}
    about = {**bim, "people": "known", "wrong": [True] * 4, "score": [1.0] * flagged + [0.0] * (4 - flagged)}
    parts = [pd.DataFrame({**about, "kind": kind}) for kind in ("impersonation", "dodging")]
    clean = {**clean_condition(FALSE_REJECT, "known"), "wrong": [False] * 10, "score": [1.0] + [0.0] * 9}
    clean |= {"twin_score": np.nan}
    table = gate_table(pd.concat([*parts, pd.DataFrame(clean)]), [GateThreshold("validation", 0.05, 0.5, 20)])
    return table.assign(configuration=configuration)


def test_the_gate_stands_beside_what_gets_through_without():
    figure = gate_figure(pd.concat([gate("one", 3), gate("two", 1)]))
    impersonation, dodging = figure.axes
    assert (impersonation.get_title("left"), dodging.get_title("left")) == ("impersonation", "dodging")
    assert [label.get_text() for label in dodging.get_yticklabels()] == ["bim, early"]
    drawn = [line.get_xdata()[0] for line in dodging.get_lines() if len(line.get_xdata()) == 1]
    assert drawn[:3] == [100.0, 25.0, 75.0]  # without, and behind each of the detectors
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["no gate", "one (+10.0 points rejected)", "two (+10.0 points rejected)"]


def test_flag_rates_lie_on_the_band_of_clean_images():
    times = pd.date_range("2026-01-01", periods=4, freq="12h", tz="UTC")
    log = pd.DataFrame({"time": times, "is_adversarial": [True, False, False, False], "fpr": 0.05, "n_clean": 19})
    rates = flag_rates(log, hours=24)
    (axes,) = flag_rate_figure(rates).axes
    (line,) = axes.get_lines()
    assert list(line.get_ydata()) == [50.0, 0.0]
    (band,) = axes.collections
    assert [segment[:, 1].tolist() for segment in band.get_segments()] == [
        [pytest.approx(100 * low), pytest.approx(100 * high)]
        for low, high in zip(rates["low"], rates["high"], strict=True)
    ]
