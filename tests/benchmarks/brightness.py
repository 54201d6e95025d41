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
