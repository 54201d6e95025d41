"""Intervals from groups of images, against those from images counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from adv_detect.errors import ConfigurationError
from adv_detect.measures import grouped_bootstrap
from adv_detect.measures.bootstrap import AucBootstrap
from adv_detect.measures.grouped_bootstrap import COUNTED, GroupedBootstrap, choose_bootstrap

SETTINGS = {"resamples": 1000, "confidence_level": 0.95, "seed": 4}
N = 4000


def sample(seed: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Natural scores, adversarial scores with ties among them, and their sources: two attacks on each image."""
    rng = np.random.default_rng(seed)
    of_source = rng.normal(size=N)
    adversarial = np.concatenate([of_source + rng.normal(size=N) + shift for _ in range(2)])
    return np.round(rng.normal(size=N), 2), np.round(adversarial, 2), np.tile(np.arange(N), 2)


def replicates(bootstrap, natural, adversarial, sources):
    return bootstrap.areas(bootstrap.sums(adversarial, bootstrap.natural(natural), sources=sources, n_sources=N))


def test_intervals_are_those_of_images_counted_one_by_one():
    natural, adversarial, sources = sample(1)
    counted, grouped = (
        replicates(one(**SETTINGS), natural, adversarial, sources) for one in (AucBootstrap, GroupedBootstrap)
    )
    assert grouped.mean() == pytest.approx(counted.mean(), abs=counted.std() / 8)
    assert grouped.std() == pytest.approx(counted.std(), rel=0.1)
    alone = replicates(GroupedBootstrap(**SETTINGS), natural, adversarial, np.arange(2 * N) % N)
    np.testing.assert_array_equal(alone, grouped)  # sources belong to images, not to places
    mixed = replicates(
        GroupedBootstrap(**SETTINGS), natural, adversarial, np.random.default_rng(9).permutation(2 * N) // 2
    )
    assert mixed.std() < 0.96 * grouped.std()  # images of one source vary together, which widens the interval


def test_differences_of_detectors_are_paired():
    natural, adversarial, sources = sample(3)
    noise = np.random.default_rng(8)
    beside = [scores + 0.1 * noise.normal(size=len(scores)) for scores in (natural, adversarial)]
    widths = {}
    for one in (AucBootstrap, GroupedBootstrap):
        bootstrap = one(**SETTINGS)
        first = replicates(bootstrap, natural, adversarial, sources)
        second = replicates(bootstrap, *beside, sources)
        widths[one] = (second - first).std()
        assert widths[one] < 0.3 * first.std()
    assert widths[GroupedBootstrap] == pytest.approx(widths[AucBootstrap], rel=0.1)


@pytest.mark.parametrize("kind", [AucBootstrap, GroupedBootstrap])
def test_sums_of_two_samples_added_up_are_those_of_both_together(kind):
    natural, adversarial, sources = sample(5)
    bootstrap = kind(**SETTINGS)
    prepared = bootstrap.natural(natural)
    parts = [slice(None, 700), slice(700, None)]

    added = sum(bootstrap.sums(adversarial[part], prepared, sources=sources[part], n_sources=N) for part in parts)

    np.testing.assert_allclose(bootstrap.areas(added), replicates(bootstrap, natural, adversarial, sources), rtol=1e-5)


def test_a_detector_that_is_right_always_has_an_area_of_one():
    found = replicates(GroupedBootstrap(**SETTINGS), np.zeros(N), np.ones(5), np.arange(5))
    assert np.all(found[~np.isnan(found)] == 1.0)
    assert 0 < np.isnan(found).sum() < 40  # five images: all left out once in 150 resamples


def test_resampling_by_groups_begins_above_a_number_of_images():
    assert isinstance(choose_bootstrap(COUNTED, **SETTINGS), AucBootstrap)
    assert isinstance(choose_bootstrap(COUNTED + 1, **SETTINGS), GroupedBootstrap)
    with pytest.raises(ConfigurationError, match="resamples=-1"):
        choose_bootstrap(COUNTED + 1, resamples=-1, confidence_level=0.95, seed=0)


def test_groups_are_of_equal_size():
    groups = GroupedBootstrap(**SETTINGS)._groups(0, 3 * grouped_bootstrap.GROUPS + 5)
    assert set(np.bincount(groups)) == {3, 4}
