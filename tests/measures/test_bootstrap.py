from __future__ import annotations

import numpy as np
import pytest

from adv_detect.algorithms.roc import roc_auc, split_scores
from adv_detect.errors import ConfigurationError
from adv_detect.measures.bootstrap import AucBootstrap


def sample(seed: int, n: int = 150, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    adversarial, natural = rng.normal(1.2, 1.0, n), rng.normal(0.0, 1.0, n + 20)
    return (np.round(adversarial, 1), np.round(natural, 1)) if ties else (adversarial, natural)


def delong_standard_error(adversarial: np.ndarray, natural: np.ndarray) -> float:
    order = (adversarial[:, None] > natural) + 0.5 * (adversarial[:, None] == natural)
    variance = order.mean(axis=1).var(ddof=1) / len(adversarial) + order.mean(axis=0).var(ddof=1) / len(natural)
    return float(np.sqrt(variance))


def replicates(bootstrap: AucBootstrap, adversarial, natural, **sources) -> np.ndarray:
    return bootstrap.areas(bootstrap.sums(adversarial, natural, **sources))


def auc_interval(scores, adversarial, **options):
    """Interval of one area, each image a source of its own."""
    positives, negatives = split_scores(scores, adversarial)
    bootstrap = AucBootstrap(**({"resamples": 1000} | options))
    rows = np.arange(len(positives))
    found = replicates(bootstrap, positives, bootstrap.natural(negatives), sources=rows, n_sources=len(rows))
    return bootstrap.interval(found)


@pytest.mark.parametrize("ties", [False, True])
def test_replicates_are_areas_of_resamples(ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    adversarial, natural = sample(0, 40, ties=ties)
    bootstrap = AucBootstrap(resamples=5, seed=3)
    rows = np.arange(40)
    found = replicates(bootstrap, adversarial, bootstrap.natural(natural), sources=rows, n_sources=40)
    for index in range(5):
        weights = [bootstrap._counts(stream, n)[:, index] for stream, n in ((1, 40), (0, 60))]
        expected = roc_auc_score(
            np.r_[np.ones(40), np.zeros(60)], np.r_[adversarial, natural], sample_weight=np.concatenate(weights)
        )
        assert found[index] == pytest.approx(expected, abs=1e-5)
        assert [weight.sum() for weight in weights] == [40, 60]


@pytest.mark.parametrize("seed", range(3))
def test_interval_agrees_with_delong(seed: int) -> None:
    adversarial, natural = sample(seed)
    scores, flags = np.r_[adversarial, natural], np.r_[np.ones(150), np.zeros(170)]
    low, high = auc_interval(scores, flags, resamples=2000, seed=seed)
    auc = roc_auc(scores, flags)
    assert low < auc < high
    assert (high - low) / 2 == pytest.approx(1.96 * delong_standard_error(adversarial, natural), rel=0.12)


def test_same_seed_same_interval_and_order_of_images_does_not_change_much() -> None:
    adversarial, natural = sample(1)
    scores, flags = np.r_[adversarial, natural], np.r_[np.ones(150), np.zeros(170)]
    assert auc_interval(scores, flags, seed=5) == auc_interval(scores, flags, seed=5)
    assert auc_interval(scores, flags, seed=5) != auc_interval(scores, flags, seed=6)
    assert auc_interval(scores[::-1], flags[::-1], seed=5) == pytest.approx(
        auc_interval(scores, flags, seed=5), abs=0.02
    )


def test_wider_level_gives_wider_interval() -> None:
    adversarial, natural = sample(2)
    scores, flags = np.r_[adversarial, natural], np.r_[np.ones(150), np.zeros(170)]
    narrow, wide = (auc_interval(scores, flags, confidence_level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_perfect_separation_and_constant_scores_have_no_width() -> None:
    flags = np.r_[np.ones(30), np.zeros(40)]
    assert auc_interval(np.r_[np.full(30, 60.0), np.full(40, 50.0)], flags) == (1.0, 1.0)
    assert auc_interval(np.zeros(70), flags) == pytest.approx((0.5, 0.5), abs=1e-6)


def test_adversarials_of_one_source_are_drawn_together() -> None:
    adversarial, natural = sample(3, 60)
    bootstrap = AucBootstrap(resamples=500, seed=0)
    prepared, rows = bootstrap.natural(natural), np.arange(60)
    single = replicates(bootstrap, adversarial, prepared, sources=rows, n_sources=60)
    doubled = replicates(bootstrap, np.tile(adversarial, 2), prepared, sources=np.tile(rows, 2), n_sources=60)
    np.testing.assert_allclose(doubled, single, rtol=1e-5)


def test_a_source_that_is_never_drawn_gives_nan_not_zero() -> None:
    bootstrap = AucBootstrap(resamples=400, seed=0)
    natural = bootstrap.natural(np.zeros(10))
    found = replicates(bootstrap, np.ones(1), natural, sources=np.array([7]), n_sources=50)
    assert 0 < np.isnan(found).sum() < 400
    assert bootstrap.interval(found) == (1.0, 1.0)


def test_many_rows_in_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    adversarial, natural = sample(4, 64)
    whole = AucBootstrap(resamples=50, seed=1)
    expected = replicates(whole, adversarial, whole.natural(natural), sources=np.arange(64), n_sources=64)
    monkeypatch.setattr("adv_detect.measures.bootstrap.BLOCK_ELEMENTS", 500)
    parts = AucBootstrap(resamples=50, seed=1)
    found = replicates(parts, adversarial, parts.natural(natural), sources=np.arange(64), n_sources=64)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_no_resamples_no_interval() -> None:
    assert np.isnan(auc_interval(np.arange(4.0), np.array([0, 1, 0, 1]), resamples=0)).all()


@pytest.mark.parametrize("wrong", [{"resamples": -1}, {"confidence_level": 1.0}, {"confidence_level": 0.0}])
def test_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="bootstrap: expected resamples >= 0"):
        AucBootstrap(**wrong)  # type: ignore[arg-type]
