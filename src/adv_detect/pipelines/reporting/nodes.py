"""Nodes that compare all detectors and render the report."""

from __future__ import annotations

import pandas as pd

from adv_detect.reporting import (
    LEADERBOARD,
    LOST,
    ReportPart,
    detectors_identity,
    leaderboard_metrics,
    leaderboard_section,
    render_parts,
    with_lost,
)


def rank_detectors(
    detector_summary: pd.DataFrame, **parts: ReportPart | None
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Join what evaluation measured with what adaptive attackers took, for the detectors on disk.

    Args:
        detector_summary: One row per trained detector.
        **parts: The parts of the report by name of their dataset; None where a pipeline has not run.

    Returns:
        The table that :func:`adv_detect.reporting.leaderboard.with_lost` describes, for parquet and for CSV, and
        metrics for MLflow; without rows where no evaluation of these detectors has run.
    """
    identity, tables = detectors_identity(detector_summary), dict[str, pd.DataFrame]()
    for part in parts.values():
        tables |= part.tables if part is not None and part.made_from == identity else {}
    measured = tables.get(LEADERBOARD, pd.DataFrame({"configuration": pd.Series(dtype=str)}))
    table = with_lost(measured, tables.get(LOST, pd.DataFrame()))
    return table, table, leaderboard_metrics(table)


def render_report(detector_summary: pd.DataFrame, leaderboard: pd.DataFrame, **parts: ReportPart | None) -> str:
    """Render the report from the parts that belong to the detectors on disk.

    Args:
        detector_summary: One row per trained detector.
        leaderboard: The comparison of all configurations, which stands after the summary; left out without rows.
        **parts: The parts by name of their dataset; None where a pipeline has not run.

    Returns:
        One self-contained HTML page.
    """
    compared = [leaderboard_section(leaderboard)] if len(leaderboard) else []
    return render_parts(parts, detectors_identity(detector_summary), after_first=compared)
