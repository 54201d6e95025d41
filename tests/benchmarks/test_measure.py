"""The measuring itself: order of the sides, verdicts, processes of their own."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.measure import Row, Settings, children_of, family_memory_mib, in_child, in_turns, peak_mib, ratios

CPU = torch.device("cpu")


def test_works_are_warmed_up_and_take_turns_in_being_first():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in ("ours", "a", "b")}

    times = in_turns(works, CPU, rounds=4)

    assert calls[:3] == ["ours", "a", "b"]
    assert calls[3:] == ["ours", "a", "b", "a", "b", "ours", "b", "ours", "a", "ours", "a", "b"]
    assert {name: len(values) for name, values in times.items()} == {"ours": 4, "a": 4, "b": 4}
    assert min(min(values) for values in times.values()) >= 0


def test_a_cold_run_is_timed_from_the_first_call():
    calls = []

    in_turns({"ours": lambda: calls.append(1)}, CPU, rounds=2, warm=False)

    assert len(calls) == 2


def test_ratios_pair_the_rounds():
    assert ratios((4.0, 9.0), (2.0, 3.0), scale=0.5) == (1.0, 1.5)
    with pytest.raises(ValueError, match="shorter"):
        ratios((1.0, 2.0), (1.0,))


@pytest.mark.parametrize(
    ("values", "goal", "at_most", "verdict"),
    [
        ((1.0, 2.0, 5.0), 2.0, False, "met"),
        ((1.0, 1.9, 5.0), 2.0, False, "missed"),
        ((1.2, 1.1), 1.15, True, "met"),
        ((1.2, 1.2), 1.15, True, "missed"),
        ((1.0,), None, False, ""),
        ((), 2.0, False, "not measured"),
        ((math.nan,), 2.0, False, "missed"),
    ],
)
def test_the_median_is_held_against_the_goal(values, goal, at_most, verdict):
    assert Row("group", "name", values, "", goal, at_most).verdict == verdict


def test_speed_does_not_make_up_for_a_worse_outcome():
    assert Row("group", "name", (9.0,), "", 2.0, worse="fewer successes").verdict == "missed: fewer successes"
    assert Row("group", "name", (1.0,), "", 2.0, weaker="lower AUC").verdict == "missed, but theirs: lower AUC"
    assert Row("group", "name", (9.0,), "", 2.0, weaker="lower AUC").verdict == "met"


def test_a_row_becomes_a_flat_record():
    record = Row("group", "name", (3.0, 1.0, 2.0), "n = 4", 2.0, outcome={"success": 0.5}).record()

    assert (record["median"], record["min"], record["max"], record["rounds"]) == (2.0, 1.0, 3.0, 3)
    assert record["success"] == 0.5
    assert math.isnan(Row("group", "name", (), "").record()["median"])


def test_sizes_depend_on_the_device():
    assert Settings(True, torch.device("cuda")).size(10, 1, gpu=100) == 1
    assert Settings(False, torch.device("cuda")).size(10, 1, gpu=100) == 100
    assert Settings(False, torch.device("cuda")).size(10, 1) == 10
    assert Settings(False, CPU).size(10, 1, gpu=100) == 10


def test_a_child_gives_its_result_or_its_error():
    measured = in_child(math.sqrt, 9.0, warm=(4.0,))

    assert measured.result == 3.0
    assert measured.seconds >= 0
    with pytest.raises(RuntimeError, match=r"sqrt.*ValueError"):
        in_child(math.sqrt, -1.0)
    with pytest.raises(RuntimeError, match="without a result"):
        in_child(os._exit, 3)


def test_memory_of_a_child_is_its_own():
    large = np.ones(40_000_000)

    measured = in_child(np.ones, 20_000_000, warm=(1,))

    assert 100 < measured.added_mib < 300
    assert peak_mib() > large.nbytes / 2**20
    assert peak_mib("none") == 0.0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_children_are_those_that_this_process_started():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = children_of(os.getpid())
        child.communicate(b"\n")
    assert child.pid in found
    assert child.pid not in children_of(os.getpid())
    assert children_of(2**30) == []


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_memory_of_a_family_counts_children_while_they_live():
    holding = "held = bytes(range(1, 256)) * 400_000; print(len(held), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        size = int(child.stdout.readline()) / 2**20
        alone, together = family_memory_mib(child.pid), family_memory_mib(os.getpid())
        child.communicate(b"\n")
    assert size < alone < 2 * size
    assert together > alone
    assert family_memory_mib(child.pid) == 0.0
