"""Margins of class logits."""

from __future__ import annotations

from torch import Tensor


def margin(logits: Tensor) -> Tensor:
    """Measure the gap between the two largest logits.

    Args:
        logits: Logits ``(N, C)``, C at least 2.

    Returns:
        The gaps ``(N,)``, zero or more.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second
