from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from adv_detect.algorithms.attacks.targets import draw_targets


def test_never_the_label_and_always_a_class():
    labels = torch.arange(1000) % 7
    targets = draw_targets(labels, 7, seed=3, source_indices=torch.arange(1000))
    assert targets.dtype == torch.int64
    assert bool((targets != labels).all())
    assert set(targets.tolist()) == set(range(7))


def test_uniform_over_the_other_classes():
    indices = torch.arange(30_000)
    for seed in (0, 1):
        targets = draw_targets(torch.zeros(30_000, dtype=torch.int64), 10, seed=seed, source_indices=indices)
        assert chisquare(torch.bincount(targets, minlength=10)[1:].numpy()).pvalue > 1e-3


def test_successive_draws_are_independent():
    targets = draw_targets(torch.zeros(20_001, dtype=torch.int64), 5, seed=0, source_indices=torch.arange(20_001)) - 1
    pairs = torch.bincount(targets[:-1] * 4 + targets[1:], minlength=16)
    assert chisquare(pairs.numpy()).pvalue > 1e-3


def test_a_draw_depends_on_seed_and_source_index_alone():
    labels, indices = torch.arange(100) % 10, torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:100]
    whole = draw_targets(labels, 10, seed=5, source_indices=indices)
    alone = [draw_targets(labels[i : i + 1], 10, seed=5, source_indices=indices[i : i + 1]) for i in range(100)]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(whole.flip(0), draw_targets(labels.flip(0), 10, seed=5, source_indices=indices.flip(0)))
    assert not torch.equal(whole, draw_targets(labels, 10, seed=6, source_indices=indices))


def test_two_classes_leave_no_choice():
    labels = torch.tensor([0, 1, 1])
    assert draw_targets(labels, 2, seed=0, source_indices=torch.arange(3)).tolist() == [1, 0, 0]


def test_no_images():
    empty = torch.zeros(0, dtype=torch.int64)
    assert draw_targets(empty, 3, seed=0, source_indices=empty).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "classes", "indices", "message"),
    [
        ([0], 1, [0], "expected at least 2"),
        ([3], 3, [0], r"expected labels in 0\.\.2, got 3\.\.3"),
        ([0, 1], 3, [0], r"one shape \(N,\), got \(2,\) and \(1,\)"),
    ],
)
def test_wrong_input(labels, classes, indices, message):
    with pytest.raises(ValueError, match=message):
        draw_targets(torch.tensor(labels), classes, seed=0, source_indices=torch.tensor(indices))
