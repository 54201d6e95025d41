"""Tables and figures that the report of an evaluation is made from, and their look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from adv_detect.errors import DataError
from adv_detect.measures.detector_keys import (
    MARGIN,
    SUMMARY_ROWS,
    configuration_labels,
)
from adv_detect.names import BOTH_CRITERIA, LEARNED_FROM_ALL, NATURAL, NO_CRITERION

SELECTION_COLUMN = "validation_macro_auc"


@dataclass(frozen=True)
class EvaluationResults:
    """Everything that the sections on attacks and detection show.

    Attributes:
        metrics: Result of `metric_table`.
        detectors: Result of `describe_detectors` with a column ``validation_macro_auc`` (NaN for controls).
        attack_records: A row per source image, attack and criterion.
        network: Facts of the network under attack: name, accuracy, layers, bounds, ...
        layers: How each layer is read: name, shape of its output, channel axis, width, how that was found.
        images: Number of images per split, and whatever else describes them.
        figures: Drawn figures by name: ``auc_overview``, ``roc``, ``score_histograms``, ``mean_trajectory``,
            ``adversarial_grid``, ``train_test_matrix``, ``training_curves``; each may carry a suffix
            (``roc/targeted``) and may be missing.
        versions: Versions of packages, and the machine.
        parameters: Parameters and seeds; nested as you like.
        trained_attacks: Names of the attacks that detectors were trained on.
        registered: Key of the detector that was registered.
        published: Published numbers per criterion, label and attack.
        confidence_level: Coverage of the intervals in ``metrics``.
        benign: Result of `benign_table`; empty where it was not measured.
        by_class: Result of `class_false_alarms`; empty where it was not measured.
        class_names: Names of the classes.
    """

    metrics: pd.DataFrame
    detectors: pd.DataFrame
    attack_records: pd.DataFrame
    network: Mapping[str, object]
    images: Mapping[str, object]
    figures: Mapping[str, bytes] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    layers: pd.DataFrame = field(default_factory=pd.DataFrame)
    trained_attacks: Sequence[str] = ()
    registered: str | None = None
    published: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    confidence_level: float = 0.95
    benign: pd.DataFrame = field(default_factory=pd.DataFrame)
    by_class: pd.DataFrame = field(default_factory=pd.DataFrame)
    class_names: Sequence[str] = ()

    @property
    def criteria(self) -> list[str]:
        """Criteria tested, in order of appearance."""
        attacked = self.metrics["attack"] != NATURAL
        return [str(name) for name in self.metrics.loc[attacked, "criterion"].unique()]

    @property
    def labels(self) -> dict[str, str]:
        """Label per configuration."""
        return configuration_labels(self.metrics)

    def rows(self, detector: str, **conditions: str) -> pd.DataFrame:
        """Rows of one detector under conditions such as ``attack='macro', form='early'``."""
        found = self.metrics[self.metrics["detector"] == detector]
        for column, value in conditions.items():
            found = found[found[column] == value]
        return found

    def row(self, detector: str, **conditions: str) -> dict[str, Any] | None:
        """The one row of a detector under conditions; None where it was not measured."""
        found = self.rows(detector, **{"variant": "float"} | conditions)
        return {str(key): value for key, value in found.iloc[0].items()} if len(found) else None

    def single_attacks(self, detector: str, criterion: str) -> pd.DataFrame:
        """Rows of one detector on each attack of a criterion, both forms, without summary rows."""
        found = self.rows(detector, criterion=criterion, variant="float")
        return found[~found["attack"].isin(SUMMARY_ROWS) & found["auc"].notna()]

    @property
    def has_margin(self) -> bool:
        """Tell whether the margin control was scored."""
        return MARGIN in set(self.metrics["detector"])


def chosen_detector(detectors: pd.DataFrame, criterion: str) -> str | None:
    """Choose the detector with the best validation macro-AUC among those that fit a criterion.

    Args:
        detectors: Result of `describe_detectors` with a column ``validation_macro_auc``.
        criterion: ``targeted`` or ``untargeted``; detectors trained on both, or on no attack, count too.

    Returns:
        The key (the first of equals), or None where no detector was trained for this criterion.

    Raises:
        DataError: The column is missing.
    """
    if SELECTION_COLUMN not in detectors.columns:
        raise DataError(
            f"detectors: expected a column {SELECTION_COLUMN!r}, got {list(detectors.columns)}; "
            "the detector shown is chosen on validation images, never on test images"
        )
    own = detectors["trained_criterion"].isin([criterion, BOTH_CRITERIA, NO_CRITERION])
    whole = detectors["trained_on"].isin(LEARNED_FROM_ALL)
    candidates = detectors[own & whole & detectors[SELECTION_COLUMN].notna()]
    best = candidates.sort_values(SELECTION_COLUMN, ascending=False, kind="stable")
    return None if best.empty else str(best["detector"].iloc[0])
