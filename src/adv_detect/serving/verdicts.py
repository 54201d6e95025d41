"""Verdicts on scored pictures: accept, review or reject, by two false-positive rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.detector_keys import rate_label
from adv_detect.pictures import Header
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.explanation import DEPARTURE_COLUMN, TEXTS, explanation_table
from adv_detect.serving.pictures import (
    DIGESTS,
    EXPLANATION,
    PATHS,
    PREDICTED,
    READABLE,
    REASONS,
    SCORES,
    SECONDS,
    SIZE,
)
from adv_detect.sharding import ShardContent

ACCEPT, REVIEW, REJECT = "accept", "review", "reject"
VERDICTS = (ACCEPT, REVIEW, REJECT)


@dataclass(frozen=True)
class Judge:
    """Turns scores into verdicts.

    Attributes:
        bundle: Network, representatives and detector, with the clean scores that thresholds rest on.
        review: False-positive rate above whose threshold a picture is for review.
        reject: False-positive rate above whose threshold it is rejected; below ``review``.
        model_version: Name and version of the model, for the table.
    """

    bundle: ScoringBundle
    review: float
    reject: float
    model_version: str

    def __post_init__(self) -> None:
        """Refuse rates that do not order, and a model without thresholds."""
        if not 0 < self.reject < self.review < 1:
            raise ConfigurationError(
                f"review, reject: expected rates with 0 < reject < review < 1, got review {self.review:g} and reject "
                f"{self.reject:g}; a picture that is rejected is rarer among clean ones than one for review"
            )
        if not self.n_clean:
            raise DataError(
                f"model {self.model_version}: expected the scores of clean images that thresholds rest on, got none; "
                "make the model again with: kedro run --pipeline=detector_training"
            )

    @property
    def n_clean(self) -> int:
        """Clean images that the thresholds rest on."""
        return len(self.bundle.stored.clean_scores)

    @property
    def rates(self) -> dict[str, float]:
        """Rate by the column that says whether a picture is flagged at it."""
        return {flag_column(rate): rate for rate in (self.review, self.reject)}

    @property
    def unsupported(self) -> list[float]:
        """Rates that fewer than one of the clean images can carry: their threshold is the largest clean score."""
        return [rate for rate in self.rates.values() if rate * self.n_clean < 1]

    @property
    def columns(self) -> dict[str, str]:
        """Type of each column of :meth:`table`, in order."""
        departures = {}
        if self.bundle.bands is not None:
            departures = {f"{DEPARTURE_COLUMN}{name}": "float64" for name in self.bundle.network.spec.layers}
        return {
            "path": "str",
            "digest": "str",
            "predicted_class": "str",
            "score": "float64",
            "p_value": "float64",
            "verdict": "str",
            **dict.fromkeys(self.rates, "boolean"),
            "model_version": "str",
            "seconds": "float64",
            "error": "str",
            "height": "Int64",
            "width": "Int64",
            "resized": "boolean",
            **dict.fromkeys(TEXTS, "str"),
            "twin_belief": "float64",
            **departures,
        }

    def table(self, content: ShardContent) -> pd.DataFrame:
        """Judge scored pictures.

        Args:
            content: As from :meth:`adv_detect.serving.pictures.PictureScorer.score`.

        Returns:
            One row per picture, in their order, with the :attr:`columns`. Of a picture that could not be scored
            ``error`` says why, and class, score, p-value and verdicts are missing.
        """
        tensors, spec = content.tensors, self.bundle.network.spec
        readable, predicted, scores = tensors[READABLE].numpy(), tensors[PREDICTED], tensors[SCORES]
        told = {name.removeprefix(EXPLANATION): one for name, one in tensors.items() if name.startswith(EXPLANATION)}
        judged = explanation_table(told, class_names=spec.class_names, layers=spec.layers, predicted=predicted)
        judged["predicted_class"] = np.array(spec.class_names, dtype=object)[predicted.numpy()]
        judged["score"] = scores.numpy()
        judged["p_value"] = self.bundle.stored.p_values(scores).numpy()
        for column, rate in self.rates.items():
            judged[column] = scores.numpy() > self.bundle.threshold(rate)
        judged["verdict"] = self._verdicts(judged)
        judged.index = pd.Index(np.flatnonzero(readable))
        return self._complete(judged, content)

    def _verdicts(self, judged: pd.DataFrame) -> np.ndarray:
        rejected, flagged = judged[flag_column(self.reject)], judged[flag_column(self.review)]
        return np.select([rejected, flagged], [REJECT, REVIEW], ACCEPT)

    def _complete(self, judged: pd.DataFrame, content: ShardContent) -> pd.DataFrame:
        """Add what is known of all pictures, and rows for those without a score."""
        facts, (heights, widths) = content.metadata, content.tensors[SIZE].T
        known = heights > 0
        every: Mapping[str, Any] = {
            "path": facts[PATHS],
            "digest": _or_missing(facts[DIGESTS]),
            "model_version": self.model_version,
            "seconds": content.tensors[SECONDS].numpy(),
            "error": _or_missing(facts[REASONS]),
            "height": pd.array(heights.numpy()).astype("Int64"),
            "width": pd.array(widths.numpy()).astype("Int64"),
            "resized": pd.array(self._resized(content.tensors[SIZE]), dtype="boolean"),
        }
        table = pd.DataFrame(every, index=range(len(facts[PATHS])))
        table.loc[~known.numpy(), ["height", "width", "resized"]] = pd.NA
        return table.join(judged).reindex(columns=list(self.columns)).astype(self.columns)

    def _resized(self, sizes: torch.Tensor) -> list[bool]:
        steps = self.bundle.network.spec.picture_input
        return [size[0] > 0 and not steps.fits(Header(*size)) for size in sizes.tolist()]


def flag_column(rate: float) -> str:
    """Name the column that says whether pictures are flagged at a false-positive rate."""
    return f"flagged_at_fpr_{rate_label(rate)}"


def _or_missing(texts: list[str]) -> list[str | None]:
    return [text or None for text in texts]
