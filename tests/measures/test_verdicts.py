"""Counts of verdicts against what clean pictures would give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from adv_detect.measures.verdicts import NAMED_UNREADABLE, Flagged, summarise

RATES = {"flagged_at_fpr_05": 0.05, "flagged_at_fpr_01": 0.01}


COLUMNS = ["path", "score", "predicted_class", "error", "resized", "seconds", "verdict", *RATES]


def part(scores, classes, errors=()):
    rows = [
        {"path": f"{one}.png", "score": one, "predicted_class": name, "error": None, "resized": False, "seconds": 0.5,
         "verdict": "reject" if one > 9 else "review" if one > 5 else "accept",
         "flagged_at_fpr_05": one > 5, "flagged_at_fpr_01": one > 9}
        for one, name in zip(scores, classes, strict=True)
    ]  # fmt: skip
    rows += [{"path": f"bad{n}", "error": one, "seconds": 0.1, "score": np.nan} for n, one in enumerate(errors)]
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {"flagged_at_fpr_05": "boolean", "flagged_at_fpr_01": "boolean", "resized": "boolean"}
    )


def test_parts_are_counted_together_and_the_highest_kept():
    first = part([1.0, 6.0, 10.0], ["a", "b", "b"], ["empty file"])
    second = part([7.0, 2.0], ["a", "a"], ["damaged (x)", "damaged (y)"])
    found = summarise([first, second], RATES, show=2)
    assert (found.files, found.scored) == (8, 5)
    assert found.verdicts == {"accept": 2, "review": 2, "reject": 1}
    assert [(one.rate, one.count, one.scored) for one in found.flagged] == [(0.05, 3, 5), (0.01, 1, 5)]
    assert found.classes == {"a": (3, 1), "b": (2, 2)}
    assert found.suspicious["score"].tolist() == [10.0, 7.0]
    assert found.reasons == {"damaged": 2, "empty file": 1}
    assert found.unreadable["path"].tolist() == ["bad0", "bad0", "bad1"]
    assert next(found.warnings()).startswith("3 of 8 files could not be read; the first: bad0: ")
    assert found.seconds == pytest.approx(2.8)
    assert found.metrics == {
        "scoring_files": 8.0, "scoring_unreadable": 3.0,
        "scoring_flagged_at_fpr_05": 3.0, "scoring_flagged_at_fpr_01": 1.0,
    }  # fmt: skip


def test_what_is_named_is_bounded():
    found = summarise([part([], [], ["empty file"] * 700)] * 2, RATES, show=3)
    assert len(found.unreadable) == NAMED_UNREADABLE
    assert found.reasons == {"empty file": 1400}
    assert list(found.sentences(100)) == []
    [warning] = found.warnings()
    assert warning.startswith("1,400 of 1,400 files could not be read, so no picture was judged; the first: ")
    assert warning.endswith(": empty file")


def test_expected_flags_and_their_ratio():
    flagged = Flagged(rate=0.05, count=30, scored=200)
    assert flagged.expected == pytest.approx(10.0)
    assert flagged.ratio == pytest.approx(3.0)
    low, high = flagged.share()
    assert low < 0.15 < high
    [sentence, _] = summarise([part([1.0] * 19 + [6.0], ["a"] * 20)], RATES, show=1).sentences(400)
    assert sentence.startswith("1 of 20 pictures flagged at a false-positive rate of 0.05, 1 times as many")


@pytest.mark.parametrize(("n_clean", "scored", "rate"), [(180, 1000, 0.05), (100, 40, 0.01), (24, 38, 0.01)])
def test_the_range_of_clean_pictures_holds_nineteen_times_in_twenty(n_clean, scored, rate):
    """Thresholds from clean scores, then flags among other clean scores, drawn many times."""
    generator = np.random.default_rng(0)
    low, high = Flagged(rate, 0, scored).clean_range(n_clean)
    clean = np.sort(generator.random((4000, n_clean)), axis=1)[:, ::-1]
    thresholds = clean[:, min(int(rate * n_clean + 1e-9), n_clean - 1)]
    flags = (generator.random((4000, scored)) > thresholds[:, None]).sum(axis=1)
    covered = ((flags >= low) & (flags <= high)).mean()
    assert covered > 0.945
    plain = stats.binom(scored, rate).interval(0.95)
    assert high >= plain[1]  # a threshold on few images is uncertain itself
