"""Logistic regression over a few figures of each image: the last step of several published detectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_detect.errors import DataError

FOLDS = 5
"""Of the cross-validation that chooses the strength of the penalty."""
STRENGTHS = 10
"""Penalties that it chooses from, as scikit-learn spaces them from 1e-4 to 1e4."""


class LogisticReadout(nn.Module):
    """Standardised figures ``(N, F)`` to log-odds ``(N,)``, penalty chosen by cross-validation.

    Attributes:
        mean: Of the figures of natural and attacked images, ``(F,)``.
        std: Likewise.
        weight: Of the standardised figures, ``(F,)``.
        bias: Scalar.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, figures: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(figures))
        self.register_buffer("std", torch.ones(figures))
        self.register_buffer("weight", torch.zeros(figures))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, figures: Tensor) -> Tensor:
        """Give the log-odds of being adversarial."""
        standardised = (figures - self.mean.to(figures.dtype)) / self.std.to(figures.dtype)
        return standardised @ self.weight.to(figures.dtype) + self.bias.to(figures.dtype)

    def fit(self, clean: Tensor, attacked: Tensor, *, seed: int) -> None:
        """Learn to tell figures ``(N, F)`` of attacked images from those of natural ones.

        Args:
            clean: Of natural images.
            attacked: Of successful attacks.
            seed: Of the folds.

        Raises:
            DataError: There are fewer than two of one of them.
        """
        fewest = min(len(clean), len(attacked))
        if fewest < 2:
            raise DataError(
                f"expected at least 2 natural and 2 attacked images to learn from, got {len(clean)} and "
                f"{len(attacked)}; use more images, or an attack that succeeds"
            )
        rows = torch.cat([clean, attacked]).double()
        targets = (torch.arange(len(rows)) >= len(clean)).long()
        self.mean, self.std = rows.mean(dim=0).float(), rows.std(dim=0).clamp_min(1e-12).float()
        found = _fitted(((rows - self.mean) / self.std).numpy(), targets.numpy(), min(FOLDS, fewest), seed)
        self.weight, self.bias = found[0], found[1]


def _fitted(rows: object, targets: object, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Fit weights and intercept: the penalty by log loss over the folds, both kinds of images weighted equally."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    model = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        scoring="neg_log_loss",
        class_weight="balanced",
        max_iter=1000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    ).fit(rows, targets)
    return torch.from_numpy(model.coef_[0]).float(), torch.tensor(float(model.intercept_[0]))
