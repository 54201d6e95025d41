"""Flags that clean pictures would get at a threshold that rests on other clean ones."""

from __future__ import annotations

from typing import Any


def clean_flags(count: int, *, above: int, n_clean: int) -> Any:
    """Give the distribution of the flags among clean pictures.

    The threshold is an order statistic of ``n_clean`` clean scores: with k of them above it, the share of new clean
    scores above it has the beta distribution (k + 1, n_clean - k), and flags are binomial with that share.

    Args:
        count: Clean pictures.
        above: Clean scores above the threshold among those that it rests on.
        n_clean: Clean scores that it rests on.

    Returns:
        A beta-binomial distribution of scipy.
    """
    from scipy.stats import betabinom  # takes a moment

    return betabinom(count, above + 1, n_clean - above)
