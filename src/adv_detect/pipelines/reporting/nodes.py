"""Node that renders the report."""

from __future__ import annotations

import pandas as pd

from adv_detect.reporting import ReportPart, detectors_identity, render_parts


def render_report(detector_summary: pd.DataFrame, **parts: ReportPart | None) -> str:
    """Render the report from the parts that belong to the detectors on disk.

    Args:
        detector_summary: One row per trained detector.
        **parts: The parts by name of their dataset; None where a pipeline has not run.

    Returns:
        One self-contained HTML page.
    """
    return render_parts(parts, detectors_identity(detector_summary))
