"""What happens around a run: configuration is checked before work starts, results go to MLflow."""

from __future__ import annotations

import atexit
import logging
import math
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from adv_detect.algorithms.detector_keys import MACRO, MARGIN, WORST

if TYPE_CHECKING:
    import pandas as pd
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node
    from mlflow import MlflowClient
    from mlflow.entities import Metric

with warnings.catch_warnings(record=True):  # importing the plugin defines a class that MLflow has advice about
    from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook

# Kedro and kedro-mlflow still call OmegaConf by the old name; nobody who runs this project can change that.
warnings.filterwarnings("ignore", message="register_new_resolver", category=UserWarning)

LOGGER = logging.getLogger(__name__)
TALKATIVE = ("kedro_mlflow", "mlflow")  # they set their own level when they are imported, after logging.yml was read
METRICS_TABLE = "detection_metrics"
SUMMARY_TABLE = "detector_summary"
HISTORIES_TABLE = "detector_histories"
LOGGED_VALUES = ("auc", "eer", "eer_accuracy", "tpr_at_fpr_01", "tpr_at_fpr_03", "tpr_at_fpr_05", "tpr_at_fpr_10")
CHAMPION_VALUES = {
    MACRO: ("auc", "tpr_at_fpr_01", "tpr_at_fpr_03", "tpr_at_fpr_05", "tpr_at_fpr_10"),
    WORST: ("auc",),
}
ARTIFACT_FOLDERS = {"artifact": None, "figure": "figures"}
MAX_PARAMS = 100  # of one request to MLflow
MAX_METRICS = 1000
MAX_VALUE = 6000  # characters of a parameter
TABLE_HEAD = """\
| attacks | mean AUC | least AUC | margin control, mean AUC | detected at 1 % FPR | at 5 % FPR |
| --- | --- | --- | --- | --- | --- |
"""


class ConfigurationHooks:
    """Refuses a configuration that could only fail later."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Check that the environment exists."""
        from adv_detect.choices import check_environment

        check_environment(context.config_loader.conf_source, context.env)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check all parameters and datasets that the pipeline is going to use."""
        from adv_detect.checks import check_run

        check_run(pipeline, catalog)


class TrackingHooks(MlflowHook):  # type: ignore[misc]
    """Opens and closes the MLflow run as kedro-mlflow does, and says what is logged to it.

    It stands in for the hooks of the plugin (see ``DISABLE_HOOKS_FOR_PLUGINS`` in the settings), which log a typed
    block of parameters as one long text and every parameter by a request of its own. Logged are: the parameters that
    the pipeline uses, flattened; each dataset whose catalog entry has ``metadata: {mlflow: artifact}`` (a file),
    ``figure`` (a file in the folder ``figures``) or ``metrics``; one nested run per detector; a summary of the
    champion.
    """

    def __init__(self) -> None:
        """Start without a project."""
        super().__init__()
        self._catalog: DataCatalog | None = None
        atexit.register(self._close_interrupted)

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read ``mlflow.yml``; MLflow reports to nobody and says what matters only."""
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        _stop_telemetry()
        super().after_context_created(context)

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Open a run, after the configuration was found good, and log the parameters that the pipeline uses."""
        super().before_pipeline_run(run_params, pipeline, catalog)
        self._catalog = catalog
        if self._is_mlflow_enabled:
            self._log_parameters(pipeline, catalog)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any], is_async: bool) -> None:
        """Join the run where a node runs in a thread of its own; its parameters are logged already."""
        import mlflow

        active = mlflow.active_run()
        if active is None or active.info.run_id != self.run_id:  # joined twice, it would stay open at the end
            super().before_node_run(node, catalog, {}, is_async)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log what the catalog marks, and detectors and champion when they have been measured."""
        if not self._is_mlflow_enabled or self._catalog is None or self.run_id is None:
            return
        from mlflow import MlflowClient

        client, kind = MlflowClient(), self._mark(dataset_name)
        if kind in ARTIFACT_FOLDERS:
            log_file(client, self.run_id, self._catalog.get(dataset_name), ARTIFACT_FOLDERS[kind])
        elif kind == "metrics":
            log_metrics(client, self.run_id, [_metric(name, value) for name, value in data.items()])
        if dataset_name == METRICS_TABLE:
            summary = self._catalog.load(SUMMARY_TABLE)
            log_detectors(client, self.run_id, data, summary, self._catalog.load(HISTORIES_TABLE))
            log_champion(client, self.run_id, data, summary)

    def _mark(self, dataset_name: str) -> Any:
        assert self._catalog is not None
        metadata = getattr(self._catalog.get(dataset_name), "metadata", None)
        return metadata.get("mlflow") if isinstance(metadata, dict) else None

    def _log_parameters(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        found: dict[str, str] = {}
        for name in sorted(pipeline.inputs()):
            if name.startswith("params:"):
                found |= flatten_parameters(catalog.load(name), name.removeprefix("params:"))
        params = [Param(self.sanitize_param_name(name), value[:MAX_VALUE]) for name, value in found.items()]
        for start in range(0, len(params), MAX_PARAMS):
            MlflowClient().log_batch(self.run_id, params=params[start : start + MAX_PARAMS])

    def _close_interrupted(self) -> None:
        """At exit, a run still open was interrupted; MLflow would call it finished."""
        import mlflow

        run = mlflow.active_run()
        if run is not None and run.info.run_id == self.run_id:
            mlflow.end_run("KILLED")


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


def log_champion(client: MlflowClient, run_id: str, metrics: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Log on the run itself how the champion and, beside it, the margin control do, and describe the run.

    Args:
        client: Where to log.
        run_id: The run.
        metrics: The detection metrics.
        summary: One row per detector.
    """
    from adv_detect.pipelines.detector_training.nodes import best_detector

    key = best_detector(summary)
    short = metrics[metrics["attack"].isin(CHAMPION_VALUES)]
    for attack, wanted in CHAMPION_VALUES.items():
        rows = metrics[metrics["attack"] == attack]
        entries = [*_test_metrics(rows, key, "champion/", wanted), *_test_metrics(rows, MARGIN, f"{MARGIN}/", ("auc",))]
        log_metrics(client, run_id, entries)
    client.set_tag(run_id, "champion", key)
    client.set_tag(run_id, "mlflow.note.content", describe_run(short, key))


def describe_run(metrics: pd.DataFrame, champion: str) -> str:
    """Describe a run for its page in MLflow.

    Args:
        metrics: The rows ``macro`` and ``worst`` of the detection metrics.
        champion: Key of the best detector.

    Returns:
        Markdown: what the champion is, a small table of what it detects, where to look further.
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
    """Metrics ``<prefix><criterion>/<form>/<attack>/<what>`` of a detector on attacks as they were made."""
    values: dict[str, float] = {}
    for row in metrics[(metrics["detector"] == detector) & (metrics["variant"] == "float")].to_dict("records"):
        place = "/".join(str(row[name]) for name in ("criterion", "form", "attack"))
        known = {name: row[name] for name in wanted if name in row}
        values |= {f"{prefix}{place}/{name}": value for name, value in known.items() if not math.isnan(value)}
    return [_metric(name, value) for name, value in values.items()]


def _curves(history: pd.DataFrame) -> list[Metric]:
    return [
        _metric(f"training/{name}", value, int(row["epoch"]))
        for row in history.drop(columns="detector").to_dict("records")
        for name, value in row.items()
        if name != "epoch"
    ]


def _metric(name: object, value: float, step: int = 0) -> Metric:
    from mlflow.entities import Metric

    return Metric(str(name), float(value), int(time.time() * 1000), step)


def _stop_telemetry() -> None:
    """MLflow is imported before this project is read, so its sender is dropped here; a choice of the user stands."""
    from mlflow.telemetry import set_telemetry_client

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    set_telemetry_client()  # type: ignore[no-untyped-call]
