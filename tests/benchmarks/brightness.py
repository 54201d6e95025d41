"""A network that anybody can attack by hand."""

from __future__ import annotations

import torch
from torch import nn


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above one half."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(10.0), requires_grad=False)

    def forward(self, images):
        level = self.weight * (images.flatten(1).mean(dim=1) - 0.5)
        return torch.stack([-level, level], dim=1)


class CurvedBrightness(Brightness):
    """The same boundary, of four classes, for attacks that need a curve to step over it or more classes than two."""

    def forward(self, images):
        level = self.weight * (images.flatten(1).mean(dim=1).square() - 0.25)
        others = torch.full_like(level, -10.0)
        return torch.stack([-level, level, others, 2 * others], dim=1)
