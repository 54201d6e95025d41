"""Scores of any scale as conformal p-values: a table of clean scores with smooth tails, so that gradients exist."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adv_detect.errors import DataError

KNOTS = 129
"""Entries of a table, whatever the number of clean images."""
FARTHEST = 1e-4
"""Smallest tail probability of an entry; beyond it the tail goes on as an exponential one."""
TAIL = 0.1
"""Share of the clean scores that the scale of the tail is measured on."""
APART = 1e-6
"""Least distance of two entries, relative to their size: equal clean scores must not make a jump."""
FEWEST = 2


class TailTable(nn.Module):
    """Maps scores to the logarithm of the share of clean images that score as high or higher.

    Between the clean scores the logarithm is interpolated, above the largest of n, where the share is 1 / (n + 1), an
    exponential tail takes over, with the mean excess over the upper tenth of the clean scores as its scale. So the map
    falls strictly and no two scores are tied.

    Attributes:
        scores: Scores ``(K,)``, ascending; not a number before :meth:`fit`.
        logs: Logarithms of tail probabilities ``(K,)``, descending.
    """

    scores: Tensor
    logs: Tensor

    def __init__(self) -> None:
        """Make a table that is not filled."""
        super().__init__()
        far = math.log(FARTHEST / (1 - FARTHEST))
        self.register_buffer("scores", torch.full((KNOTS,), torch.nan))
        self.register_buffer("logs", nn.functional.logsigmoid(torch.linspace(-far, far, KNOTS)))

    def fit(self, clean: Tensor) -> None:
        """Fill the table.

        Args:
            clean: Scores ``(n,)`` of clean images.

        Raises:
            DataError: There are fewer than two.
        """
        if len(clean) < FEWEST:
            raise DataError(f"expected scores of at least {FEWEST} clean validation images, got {len(clean)}")
        ordered = torch.sort(clean.detach().cpu().double(), descending=True).values
        shares = torch.arange(1, len(ordered) + 1, dtype=torch.float64) / (len(ordered) + 1)
        wanted = self.logs.cpu().double()
        above = (shares[0].log() - wanted).clamp(min=0)
        below = (shares[0].log() - torch.log1p(-wanted.exp())).clamp(min=0)
        found = _interpolate(wanted, shares.log(), ordered)
        found = found + _scale(ordered) * above - _scale(-ordered.flip(0)) * below
        self.scores.copy_(_strictly_ascending(found).to(self.scores))

    def forward(self, scores: Tensor) -> Tensor:
        """Return logarithms of tail probabilities ``(N,)``, below 0."""
        knots, logs = self.scores, self.logs
        place = torch.searchsorted(knots, scores.detach().contiguous()).clamp(1, len(knots) - 1)
        low, high = knots[place - 1], knots[place]
        slope = (logs[place] - logs[place - 1]) / (high - low)
        inside = logs[place - 1] + slope * (scores - low)  # beyond the last entry: the exponential tail goes on
        below = logs[0] * torch.exp(-(knots[0] - scores).clamp(min=0) / (knots[1] - knots[0]))
        return torch.where(scores < knots[0], below, inside)


def _interpolate(at: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly in ascending ``known``, with the values at its ends beyond them."""
    place = torch.searchsorted(known, at.contiguous()).clamp(1, len(known) - 1)
    share = ((at - known[place - 1]) / (known[place] - known[place - 1])).clamp(0, 1)
    return values[place - 1] + share * (values[place] - values[place - 1])


def _scale(descending: Tensor) -> Tensor:
    """Mean excess of the largest scores over the next one."""
    count = min(max(1, round(TAIL * len(descending))), len(descending) - 1)
    excess = (descending[:count] - descending[count]).mean()
    return excess.clamp(min=APART * float(descending.abs().max().clamp(min=1.0)))


def _strictly_ascending(values: Tensor) -> Tensor:
    step = APART * float(values.abs().max().clamp(min=1.0))
    steps = step * torch.arange(len(values), dtype=values.dtype)
    return torch.cummax(values - steps, dim=0).values + steps
