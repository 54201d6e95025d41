"""Lead of a class over the others."""

from __future__ import annotations

from torch import Tensor


def logit_margin(logits: Tensor, classes: Tensor, *, targeted: bool) -> Tensor:
    """Measure how far logits are beyond the decision boundary.

    Args:
        logits: Shape ``(N, C)``.
        classes: Class to reach when targeted, to leave otherwise, int64 ``(N,)``.
        targeted: Whether ``classes`` are targets.

    Returns:
        Logit gap ``(N,)``, positive where the attack succeeds: target minus best other class, or best other class
        minus the label.
    """
    own, others = _split(logits, classes)
    other = others.amax(dim=1)
    return own - other if targeted else other - own


def smooth_margin(logits: Tensor, classes: Tensor, temperature: Tensor, *, targeted: bool) -> Tensor:
    """Measure the same with all other classes in the place of the best one, by a smooth maximum.

    Args:
        logits: Shape ``(N, C)``.
        classes: Class to reach when targeted, to leave otherwise, int64 ``(N,)``.
        temperature: How much farther back a class may lie and still count, in logits, above 0, ``(N,)``; 1 gives the
            log-odds.
        targeted: Whether ``classes`` are targets.

    Returns:
        Logit gap ``(N,)``, which tends to that of ``logit_margin`` as the temperature falls.
    """
    own, others = _split(logits, classes)
    other = temperature * (others / temperature[:, None]).logsumexp(dim=1)
    return own - other if targeted else other - own


def _split(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the classes ``(N,)``, and all with these at minus infinity ``(N, C)``."""
    reference = classes[:, None]
    return logits.gather(1, reference).squeeze(1), logits.scatter(1, reference, float("-inf"))
