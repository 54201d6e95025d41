"""The race to the norms of the published attack, on attacks whose norms are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from benchmarks.libraries import Search, Task, attack_all
from benchmarks.measure import Settings
from benchmarks.minimal_norm import Outcome, race
from benchmarks.minimal_norm_attacks import Contender, contenders
from tests.benchmarks.brightness import Brightness, CurvedBrightness

from benchmarks import minimal_norm

CPU = Settings(quick=False, device=torch.device("cpu"))
NEAREST = 0.2 * 4  # from 0.3 to 0.5 on 16 pixels


def task_of(count=4):
    images = torch.full((count, 1, 4, 4), 0.3)
    return Task(Brightness().eval(), images, torch.zeros(count, dtype=torch.int64), None, "cw")


def brighter(task, length):
    """An attack that goes too far by a share of 1 / length."""
    return lambda batch: batch.images + 0.2 * (1 + 1 / length)


def test_the_shortest_length_within_two_per_cent_is_taken(monkeypatch):
    """1 / 10 and 1 / 40 are too far, 1 / 60 is near enough; the attack that stays far has a lower bound."""
    lengths = (10, 40, 60, 100)
    monkeypatch.setattr(
        minimal_norm,
        "contenders",
        lambda *, faces: (
            Contender("ours", "adv_detect", lengths, brighter),
            Contender("far", "torch", (2, 3), brighter),
            Contender("absent", "no_such_library", lengths, brighter),
        ),
    )
    published = Outcome(100, NEAREST, 1.0, 60.0)
    monkeypatch.setattr(minimal_norm, "_published", lambda _task, _settings: published)

    own, far, absent = race("on brightness", task_of(), CPU, faces=False)

    assert own.outcome["l2"] == pytest.approx(NEAREST * (1 + 1 / 60), rel=1e-5)
    assert own.note.startswith("n = 4; published CW 100: 0.800 in 60.00 s; ours, 10: 0.880 in ")
    assert (len(own.values), len(far.values)) == (CPU.rounds, 1)
    assert (far.verdict, far.worse) in {("missed, but theirs: larger distortion", ""), ("met", "")}
    assert far.outcome["other_l2"] == pytest.approx(NEAREST * (1 + 1 / 3), rel=1e-5)
    assert "the ratio is a lower bound" in far.note
    assert (absent.verdict, absent.goal) == ("not measured", 1.0)
    assert "no_such_library is not installed (extra `bench`)" in absent.note


def test_an_attack_that_takes_too_long_is_not_tried_at_greater_lengths(monkeypatch):
    tried = []

    def build(_task, length):
        tried.append(length)
        return lambda batch: batch.images + 0.3

    wanted = Outcome(0, NEAREST, 1.0, 0.0)
    climb = minimal_norm._climb(Contender("slow", "torch", (1, 2, 3), build), task_of(), wanted, CPU)

    assert not climb.reached
    assert set(tried) == {1}


@pytest.mark.parametrize(
    ("l2", "rate", "reached"), [(1.019, 1.0, True), (1.021, 1.0, False), (1.0, 0.9, True), (1.0, 0.8, False)]
)
def test_near_enough_is_two_per_cent_and_no_success_fewer(l2, rate, reached):
    assert Outcome(10, l2, rate, 1.0).reaches(Outcome(10, 1.0, 0.9, 1.0), 10) is reached


def test_failures_are_infinitely_far():
    half = minimal_norm._outcome(
        lambda batch: batch.images + torch.tensor([0.3, 0.0, 0.0, 0.0]).view(4, 1, 1, 1), 1, task_of(), CPU
    )
    assert (half.rate, half.l2) == (0.25, math.inf)


@pytest.mark.parametrize("one", contenders(faces=False), ids=lambda one: one.name)
def test_every_attack_of_the_race_finds_the_boundary(one):
    if not one.installed:
        pytest.skip(f"{one.module} is not installed (extra bench)")
    task = replace(task_of(), network=CurvedBrightness().eval())
    length = Search(steps=50, rounds=2, step_size=0.1, const=10.0) if one.searches else 20
    shift = attack_all(one.build(task, length), task) - task.images
    assert bool((task.network(task.images + shift).argmax(dim=1) == 1).all())
    assert float(shift.flatten(1).norm(dim=1).median()) >= NEAREST - 1e-3
