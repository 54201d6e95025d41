"""Records of a run in MLflow: parameters, files, metrics, a nested run per detector, a summary of the champion."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_detect.measures.detector_keys import MACRO, MARGIN, SUMMARY_ROWS, WORST
from adv_detect.names import CONFIDENT, EARLY

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LOGGER = logging.getLogger(__name__)
ATTACK_VALUES = ("auc", "tpr_at_fpr_01", "tpr_at_fpr_05")
"""Of a single attack; all stand in the artifact detection_metrics.csv, and tens of thousands of metrics take time."""
LOGGED_VALUES = ("auc", "eer", "eer_accuracy", "tpr_at_fpr_01", "tpr_at_fpr_03", "tpr_at_fpr_05", "tpr_at_fpr_10")
CHAMPION_VALUES = {
    MACRO: ("auc", "tpr_at_fpr_01", "tpr_at_fpr_03", "tpr_at_fpr_05", "tpr_at_fpr_10"),
    WORST: ("auc",),
}
RUN_NAME = "mlflow.runName"
NAMED_FORMS = (EARLY, CONFIDENT)
MAX_PARAMS = 100  # of one request to MLflow
MAX_METRICS = 1000
MAX_VALUE = 6000  # characters of a parameter
TABLE_HEAD = """\
| attacks | mean AUC | least AUC | margin control, mean AUC | detected at 1 % FPR | at 5 % FPR |
| --- | --- | --- | --- | --- | --- |
"""


def flatten_parameters(value: Any, name: str) -> dict[str, str]:
    """Name each leaf of nested parameters by its path.

    Args:
        value: A parameter block, nested dictionaries, or a single value.
        name: Name of the whole.

    Returns:
        Dotted name to value as text.
    """
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    if not isinstance(plain, dict) or not plain:
        return {name: str(plain)}
    flat: dict[str, str] = {}
    for key, one in plain.items():
        flat |= flatten_parameters(one, f"{name}.{key}")
    return flat


def log_file(client: MlflowClient, run_id: str, dataset: Any, folder: str | None) -> None:
    """Log the file that a dataset wrote, wherever it lies.

    Args:
        client: Where to log.
        run_id: The run.
        dataset: A file-based dataset of Kedro.
        folder: Folder among the artifacts of the run; None means the top.
    """
    path = str(dataset._get_load_path())
    with tempfile.TemporaryDirectory() as scratch:
        local = str(Path(scratch) / Path(path).name)
        dataset._fs.get(path, local)
        client.log_artifact(run_id, local, folder)


def log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Log any number of metrics in as few requests as MLflow takes.

    Args:
        client: Where to log.
        run_id: The run.
        metrics: What to log.
    """
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS])


def log_detectors(
    client: MlflowClient, parent_id: str, metrics: pd.DataFrame, summary: pd.DataFrame, histories: pd.DataFrame
) -> None:
    """Make one nested run per detector with its configuration, training curves and test metrics.

    Args:
        client: Where to log.
        parent_id: The run to nest in.
        metrics: The detection metrics.
        summary: One row per detector.
        histories: One row per detector and epoch.
    """
    from mlflow.entities import Param

    experiment = client.get_run(parent_id).info.experiment_id
    for row in summary.to_dict("records"):
        key = str(row["detector"])
        run = client.create_run(experiment, run_name=key, tags={"mlflow.parentRunId": parent_id}).info.run_id
        entries = [*_test_metrics(metrics, key), *_curves(histories[histories["detector"] == key])]
        client.log_batch(run, metrics=entries[:MAX_METRICS], params=[Param(str(k), str(v)) for k, v in row.items()])
        log_metrics(client, run, entries[MAX_METRICS:])
        client.set_terminated(run)
    LOGGER.info("mlflow: %d nested runs, one per detector", len(summary))


def log_champion(
    client: MlflowClient, run_id: str, metrics: pd.DataFrame, summary: pd.DataFrame, *, environment: str | None
) -> None:
    """Log on the run itself how the champion and, beside it, the margin control do, and name and describe the run.

    The mean of both criteria stands in metrics of short names, ``macro_auc/<form>`` and ``margin_auc/<form>``, which
    are columns for the list of runs.

    Args:
        client: Where to log.
        run_id: The run.
        metrics: The detection metrics.
        summary: One row per detector.
        environment: Begins the name of the run; None leaves its name as it is.
    """
    from adv_detect.jobs.detectors import best_detector

    key = best_detector(summary)
    short = metrics[metrics["attack"].isin(CHAMPION_VALUES)]
    for attack, wanted in CHAMPION_VALUES.items():
        rows = metrics[metrics["attack"] == attack]
        entries = [*_test_metrics(rows, key, "champion/", wanted), *_test_metrics(rows, MARGIN, f"{MARGIN}/", ("auc",))]
        log_metrics(client, run_id, entries)
    areas, control = macro_areas(metrics, key), macro_areas(metrics, MARGIN)
    columns = {"macro_auc": areas, "margin_auc": control}
    log_metrics(client, run_id, [metric(f"{name}/{form}", one[form]) for name, one in columns.items() for form in one])
    if environment is not None:
        client.set_tag(run_id, RUN_NAME, run_name(environment, key, areas))
    client.set_tag(run_id, "champion", key)
    client.set_tag(run_id, "mlflow.note.content", describe_run(short, key))


def macro_areas(metrics: pd.DataFrame, detector: str) -> dict[str, float]:
    """Average the macro-AUC of a detector over criteria, on attacks as they were made.

    Args:
        metrics: The detection metrics.
        detector: Its key.

    Returns:
        Mean by form of the attacks (early, confident, unseen); nothing for a form without any.
    """
    rows = metrics[(metrics["detector"] == detector) & (metrics["variant"] == "float") & (metrics["attack"] == MACRO)]
    return {str(form): float(area) for form, area in rows.groupby("form")["auc"].mean().dropna().items()}


def run_name(environment: str, what: str, areas: dict[str, float] | None = None) -> str:
    """Name a run so that the list of runs tells what came out.

    Args:
        environment: The environment.
        what: Pipelines, or the champion.
        areas: Macro-AUC of the champion by form of the attacks.

    Returns:
        For example ``mnist: twin/none/nothing/0, macro-AUC early 1.000, confident 0.999``.
    """
    shown = ", ".join(f"{form} {areas[form]:.3f}" for form in NAMED_FORMS if form in areas) if areas else ""
    return f"{environment}: {what}" + (f", macro-AUC {shown}" if shown else "")


def describe_run(metrics: pd.DataFrame, champion: str) -> str:
    """Describe a run for its page in MLflow.

    Args:
        metrics: The rows ``macro`` and ``worst`` of the detection metrics.
        champion: Key of the best detector.

    Returns:
        Markdown: what the champion is, a small table of what it detects, further reading.
    """
    rows = metrics[metrics["variant"] == "float"].to_dict("records")
    found = {tuple(str(row[name]) for name in ("detector", "criterion", "form", "attack")): row for row in rows}
    lines = []
    for criterion, form in [key[1:3] for key in found if key[0] == champion and key[3] == MACRO]:
        mean, least, control = (
            found.get((name, criterion, form, attack), {})
            for name, attack in ((champion, MACRO), (champion, WORST), (MARGIN, MACRO))
        )
        figures = (mean["auc"], least.get("auc"), control.get("auc"), mean["tpr_at_fpr_01"], mean["tpr_at_fpr_05"])
        cells = (f"{criterion}, {form}", *("" if value is None else f"{value:.3f}" for value in figures))
        lines.append(f"| {' | '.join(cells)} |")
    head = f"Champion: `{champion}`, chosen on validation images and registered.\n\n{TABLE_HEAD}"
    tail = "\n\nEvery detector is a nested run. The whole story is in the artifact `report.html`."
    return head + "\n".join(lines) + tail


def _test_metrics(
    metrics: pd.DataFrame, detector: str, prefix: str = "", wanted: tuple[str, ...] = LOGGED_VALUES
) -> list[Metric]:
    """Metrics ``<prefix><criterion>/<form>/<attack>/<what>`` of a detector on attacks as they were made.

    Of a single attack fewer values than of the summaries over attacks.
    """
    values: dict[str, float] = {}
    for row in metrics[(metrics["detector"] == detector) & (metrics["variant"] == "float")].to_dict("records"):
        place = "/".join(str(row[name]) for name in ("criterion", "form", "attack"))
        summary = row["attack"] in SUMMARY_ROWS
        found = {name: row[name] for name in wanted if name in row and (summary or name in ATTACK_VALUES)}
        values |= {f"{prefix}{place}/{name}": value for name, value in found.items() if not math.isnan(value)}
    return [metric(name, value) for name, value in values.items()]


def _curves(history: pd.DataFrame) -> list[Metric]:
    return [
        metric(f"training/{name}", value, int(row["epoch"]))
        for row in history.drop(columns="detector").to_dict("records")
        for name, value in row.items()
        if name != "epoch" and not math.isnan(value)
    ]


def metric(name: object, value: float, step: int = 0) -> Metric:
    """Make a metric of now.

    Args:
        name: Its name.
        value: Its value.
        step: Its epoch.

    Returns:
        A metric to log.
    """
    from mlflow.entities import Metric

    return Metric(str(name), float(value), int(time.time() * 1000), step)
