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
    reference = classes[:, None]
    own = logits.gather(1, reference).squeeze(1)
    other = logits.scatter(1, reference, float("-inf")).amax(dim=1)
    return own - other if targeted else other - own
