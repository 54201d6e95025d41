"""Nodes that watch over a log of scored images."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pandas as pd

from adv_detect.errors import DataError
from adv_detect.measures.monitoring import class_drift, flag_rates, near_copies, score_drift
from adv_detect.measures.score_parts import ScoreParts
from adv_detect.names import NATURAL
from adv_detect.params import MonitoringParams
from adv_detect.pipelines.monitoring.checks import log_files
from adv_detect.plots import figure_bytes, flag_rate_figure
from adv_detect.reporting import render_report
from adv_detect.reporting.monitoring import monitoring_report
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.sharding import ShardStore

LOGGER = logging.getLogger(__name__)
COLUMNS = ("time", "digest", "sketch", "fpr", "predicted_class", "adversarial_score", "is_adversarial", "n_clean")


def read_log(monitoring: MonitoringParams) -> pd.DataFrame:
    """Read the log.

    Args:
        monitoring: Its folder.

    Returns:
        One row per scored image, the oldest first.

    Raises:
        DataError: A file is no part of a log.
    """
    frames = []
    for path in log_files(monitoring):
        try:
            frames.append(pd.read_parquet(path, columns=list(COLUMNS)))
        except (OSError, ValueError, KeyError) as exc:
            raise DataError(f"{path}: expected a file of a log of scored images ({exc}); remove it") from exc
    return pd.concat(frames, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)


def watch(
    scoring_log: pd.DataFrame, champion_model: ScoringBundle, scores: ShardStore, monitoring: MonitoringParams
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Compare the log with clean images, and look for near-copies; alarms are logged.

    Args:
        scoring_log: One row per scored image.
        champion_model: The model, whose clean scores are the reference.
        scores: Scores of the evaluation; the classes of clean validation images are the reference.
        monitoring: Length of a span, levels of the alarms.

    Returns:
        Flag rates over time, groups of near-copies, and figures by name; ``alarm/...`` is 1 where there is one.
    """
    rates = flag_rates(scoring_log, hours=monitoring.hours)
    copies = near_copies(scoring_log, distance=monitoring.near)
    clean = champion_model.stored.clean_scores.double().numpy()
    of_scores = score_drift(scoring_log["adversarial_score"].to_numpy(dtype=np.float64), clean)
    of_classes = class_drift(scoring_log["predicted_class"], _clean_classes(scores, champion_model))
    largest = int(copies["images"].max()) if len(copies) else 0
    alarms = {
        "flag_rate": bool((rates["p_value"] < monitoring.level / len(rates)).any()),
        "scores": of_scores.p_value < monitoring.level,
        "classes": of_classes.p_value < monitoring.level,
        "near_copies": largest >= monitoring.copies,
    }
    for name in (name for name, raised in alarms.items() if raised):
        LOGGER.warning("monitoring: ALARM, %s: see the page", name.replace("_", " "))
    figures = {
        "n": len(scoring_log), "flag_rate": float(scoring_log["is_adversarial"].mean()),
        "scores/statistic": of_scores.statistic, "scores/p_value": of_scores.p_value,
        "classes/statistic": of_classes.statistic, "classes/p_value": of_classes.p_value,
        "near_copies/largest": largest, "near_copies/groups": len(copies),
    }  # fmt: skip
    found = figures | {f"alarm/{name}": raised for name, raised in alarms.items()}
    return rates, copies, {f"monitoring/{name}": float(value) for name, value in found.items()}


def draw_rates(monitoring_rates: pd.DataFrame) -> tuple[bytes, bytes]:
    """Draw the flag rate over time.

    Args:
        monitoring_rates: Flag rates.

    Returns:
        The PNG file, for the page and for itself.
    """
    picture = figure_bytes(flag_rate_figure(monitoring_rates))
    return picture, picture


def write_monitoring_page(
    monitoring_rates: pd.DataFrame,
    monitoring_copies: pd.DataFrame,
    monitoring_metrics: dict[str, Any],
    monitoring_picture: bytes,
    monitoring: MonitoringParams,
) -> str:
    """Write the page.

    Args:
        monitoring_rates: Flag rates.
        monitoring_copies: Groups of near-copies.
        monitoring_metrics: Figures and alarms.
        monitoring_picture: PNG file of the figure.
        monitoring: The levels.

    Returns:
        One self-contained HTML page.
    """
    tables = (monitoring_rates, monitoring_copies)
    return render_report(monitoring_report(*tables, monitoring_metrics, monitoring_picture, monitoring))


def _clean_classes(scores: ShardStore, bundle: ScoringBundle) -> pd.Series[Any]:
    """Classes that the network names on clean validation images."""
    parts, names = ScoreParts(scores), bundle.network.spec.class_names
    own = parts.table(parts.detectors[:1], splits=("validation",), attacks=(NATURAL,))
    return own["predicted"].map(lambda index: names[int(index)] if not math.isnan(index) else "")
