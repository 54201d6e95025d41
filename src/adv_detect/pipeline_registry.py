"""The pipelines of the project by name."""

from __future__ import annotations

from kedro.framework.project import find_pipelines
from kedro.framework.project import pipelines as requested
from kedro.pipeline import Pipeline

from adv_detect.choices import check_pipelines
from adv_detect.pipelines import reporting
from adv_detect.reporting import PARTS

MAIN_ORDER = (
    "target_training",
    "twin_training",
    "feature_extraction",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "evaluation",
    "reporting",
)


def register_pipelines() -> dict[str, Pipeline]:
    """Register every pipeline; ``__default__`` is the main job from images to report.

    Returns:
        The pipelines by name; each one that writes a part of the report ends with the report.
    """
    check_pipelines(requested._requested_pipelines or ())  # Kedro says only that a module cannot be imported
    pipelines: dict[str, Pipeline] = find_pipelines(raise_errors=True)
    report = reporting.create_pipeline()
    for name, one in pipelines.items():
        if one.all_outputs().intersection(PARTS):
            pipelines[name] = one + report
    main = [pipelines[name] for name in MAIN_ORDER if name in pipelines]
    pipelines["__default__"] = sum(main, start=Pipeline([]))
    return pipelines
