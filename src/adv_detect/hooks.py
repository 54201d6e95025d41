"""Hooks around a run: lock its results, check its configuration, track it with MLflow."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from adv_detect.environments import BASE, check_registered_name, check_results, is_default, results_folder
from adv_detect.locks import RunLock
from adv_detect.memory import keep_freed_memory
from adv_detect.workers import close_workers

if TYPE_CHECKING:
    import pandas as pd
    from kedro.config import AbstractConfigLoader
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node
    from mlflow import MlflowClient

with warnings.catch_warnings(record=True):  # importing the plugin defines a class that MLflow has advice about
    from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
    from kedro_mlflow.framework.hooks.utils import _assert_mlflow_enabled

    from adv_detect.tracking.addresses import is_server
    from adv_detect.tracking.config import stop_telemetry, tracking_config
    from adv_detect.tracking.records import (
        MAX_PARAMS,
        MAX_VALUE,
        RUN_NAME,
        flatten_parameters,
        log_champion,
        log_detectors,
        log_file,
        log_metrics,
        metric,
        run_name,
    )
    from adv_detect.tracking.relocation import relocate

# Kedro and kedro-mlflow still call OmegaConf by the old name; nobody who runs this project can change that.
warnings.filterwarnings("ignore", message="register_new_resolver", category=UserWarning)

LOGGER = logging.getLogger(__name__)
TALKATIVE = ("kedro_mlflow", "mlflow")  # they set their own level when they are imported, after logging.yml was read
SILENT = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
RANDOM_NAME = "km.random_name"  # of kedro-mlflow, for run.name in mlflow.yml
METADATA_KEY, ANNOUNCED, DETECTORS = "mlflow", "announced", "detectors"  # keys of a catalog entry's metadata
MAIN_JOB = "main job"
ARTIFACT_FOLDERS = {"artifact": None, "figure": "figures"}


class RunLockHooks:
    """Lock of the results of an environment: one run at a time writes into them; reading takes no lock.

    The worker processes of a run end before the lock is given back.
    """

    def __init__(self) -> None:
        """Start without a run."""
        self._lock: RunLock | None = None

    @hook_impl(wrapper=True, tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: DataCatalog) -> Generator[None, Any, Any]:
        """Take the lock before anything is checked; a run that is refused gives it back."""
        from adv_detect.checks import runtime_of

        keep_freed_memory()
        self._release()  # a run that was interrupted in this process, in a notebook, still has it
        folder = Path(run_params["project_path"]) / results_folder(run_params["env"])
        self._lock = RunLock(folder, wait_seconds=runtime_of(catalog).wait_seconds).acquire()
        try:
            return (yield)
        except BaseException:
            self._release()
            raise

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Give the lock back."""
        self._release()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Give the lock back."""
        self._release()

    def _release(self) -> None:
        close_workers()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class ConfigurationHooks:
    """Refusal of a configuration that could only fail later."""

    def __init__(self) -> None:
        """Start without a project."""
        self._own_attacks: dict[str, Any] | None = None
        self._context: KedroContext | None = None
        self._entries: dict[str, Any] = {}

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Check names and values of all parameters, whatever pipeline is asked for."""
        from adv_detect.parameter_sources import all_parameters, further_parameters, own_attacks
        from adv_detect.validation.blocks import check_parameters

        self._context = context
        parameters = all_parameters(context.config_loader)
        check_parameters(parameters, further=further_parameters(context.config_loader, parameters))
        self._own_attacks = own_attacks(context.config_loader)

    @hook_impl
    def after_catalog_created(self, conf_catalog: dict[str, Any]) -> None:
        """Note the entries of the catalog."""
        self._entries = conf_catalog

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check all parameters and datasets that the pipeline is going to use."""
        from adv_detect.checks import check_run, registered_name

        if self._context is not None:
            self._check_environment(self._context, pipeline, registered_name(pipeline, catalog))
        check_run(pipeline, catalog, self._own_attacks)

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Log where the outputs lie whose catalog entries have ``metadata: {announced: true}``."""
        for name in sorted(pipeline.all_outputs()):
            entry = self._entries.get(name) or {}
            if (entry.get("metadata") or {}).get(ANNOUNCED):
                LOGGER.info("%s: %s", name, entry.get("filepath"))

    def _check_environment(self, context: KedroContext, pipeline: Pipeline, name: str | None) -> None:
        """Check that the results that this environment writes, and the model it registers, are its own."""
        entries = {one: self._entries.get(one) or {} for one in pipeline.all_outputs()}
        paths = {one: entry.get("filepath") or entry.get("path") for one, entry in entries.items()}
        check_results({one: path for one, path in paths.items() if path}, context.env, context.project_path)
        if name is not None:
            check_registered_name(name, context.env, Path(context.config_loader.conf_source))


class TrackingHooks(MlflowHook):  # type: ignore[misc]
    """MLflow run, opened and closed as kedro-mlflow does, and all that is logged to it.

    It stands in for the hooks of the plugin (see ``DISABLE_HOOKS_FOR_PLUGINS`` in the settings), which log a typed
    block of parameters as one long text and every parameter by a request of its own. Logged are: the parameters that
    the pipeline uses, flattened, and each dataset by the ``metadata: {mlflow: ...}`` of its catalog entry: ``artifact``
    (a file), ``figure`` (a file in the folder ``figures``), ``metrics`` (numbers by name), or ``{detectors: {summary:
    <dataset>, histories: <dataset>}}`` (a table of metrics: one nested run per detector of the summary, with its
    training curves, and a summary of the champion).
    """

    def __init__(self) -> None:
        """Start without a project."""
        super().__init__()
        self._catalog: DataCatalog | None = None
        self._environment: str | None = None  # that the run is named after
        atexit.register(self._close_interrupted)

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read ``mlflow.yml``; MLflow reports to nobody and says what matters only. Nothing is connected yet."""
        import mlflow

        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        stop_telemetry()
        relocate(context.project_path)
        if mlflow.active_run() is not None:  # somebody else tracks: kedro-mlflow joins that run
            super().after_context_created(context)
            return
        self._already_active_mlflow = False
        self.mlflow_config = tracking_config(_mlflow_yml(context.config_loader), context.project_path)
        self.mlflow_config.setup(context)
        context.__setattr__("mlflow", self.mlflow_config)  # the name by which notebooks know it

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Open a run, after the configuration was found good, and log the parameters that the pipeline uses."""
        tracked = _assert_mlflow_enabled(run_params.get("pipeline_names") or ["__default__"], self.mlflow_config)
        if tracked and not self._already_active_mlflow:
            self.mlflow_config.connect()
        super().before_pipeline_run(run_params, pipeline, catalog)
        self._catalog = catalog
        if self._is_mlflow_enabled:
            self._name_run(run_params)
            self._log_parameters(pipeline, catalog)
            self._say_where()

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any], is_async: bool) -> None:
        """Join the run where a node runs in a thread of its own; its parameters are logged already."""
        import mlflow

        active = mlflow.active_run()
        if active is None or active.info.run_id != self.run_id:  # joined twice, it would stay open at the end
            super().before_node_run(node, catalog, {}, is_async)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log a dataset as the metadata of its catalog entry says."""
        if not self._is_mlflow_enabled or self._catalog is None or self.run_id is None:
            return
        from mlflow import MlflowClient

        client, kind = MlflowClient(), self._logged_as(dataset_name)
        if isinstance(kind, str) and kind in ARTIFACT_FOLDERS:
            log_file(client, self.run_id, self._catalog.get(dataset_name), ARTIFACT_FOLDERS[kind])
        elif kind == "metrics":
            log_metrics(client, self.run_id, [metric(name, value) for name, value in data.items()])
        elif isinstance(kind, dict) and DETECTORS in kind:
            self._log_detectors(client, kind[DETECTORS], data)

    def _log_detectors(self, client: MlflowClient, named: dict[str, str], metrics: pd.DataFrame) -> None:
        """Log a table of metrics by detector; a part of a pipeline may have left its companions out."""
        assert self._catalog is not None
        missing = [one for one in named.values() if not self._catalog.exists(one)]
        if missing:
            told = " and no ".join(missing)
            LOGGER.warning("mlflow: detectors are not logged one by one, since this run made no %s", told)
            return
        summary, histories = (self._catalog.load(named[name]) for name in ("summary", "histories"))
        log_detectors(client, self.run_id, metrics, summary, histories)
        log_champion(client, self.run_id, metrics, summary, environment=self._environment)

    def _name_run(self, run_params: dict[str, Any]) -> None:
        """Name the run by environment and pipelines; a name in ``mlflow.yml``, or a run of somebody else, stands."""
        import mlflow

        self._environment = None
        if not self._already_active_mlflow and not self.mlflow_config.tracking.run.name:
            self._environment = BASE if is_default(run_params.get("env")) else str(run_params["env"])
            names = run_params.get("pipeline_names") or ["__default__"]
            mlflow.set_tag(RUN_NAME, run_name(self._environment, "+".join(names).replace("__default__", MAIN_JOB)))

    def _say_where(self) -> None:
        """Log the address of the run's page on a server; MLflow itself would do so at the end of every nested run."""
        server, experiment = self.mlflow_config.server, self.mlflow_config.tracking.experiment._experiment
        os.environ.setdefault(SILENT, "true")
        if is_server(server.mlflow_tracking_uri):
            page = f"{server.mlflow_tracking_uri}/#/experiments/{experiment.experiment_id}/runs/{self.run_id}"
            LOGGER.info("mlflow: %s", page)

    def _logged_as(self, dataset_name: str) -> Any:
        assert self._catalog is not None
        metadata = getattr(self._catalog.get(dataset_name), "metadata", None)
        return metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None

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
        """End a run that is still open at exit as interrupted; MLflow would call it finished."""
        import mlflow

        run = mlflow.active_run()
        if run is not None and run.info.run_id == self.run_id:
            mlflow.end_run("KILLED")


def _mlflow_yml(loader: AbstractConfigLoader) -> dict[str, Any]:
    """Content of ``mlflow.yml``; nothing where there is none."""
    from kedro.config import MissingConfigException, OmegaConfigLoader
    from kedro_mlflow.config.resolvers import resolve_random_name
    from omegaconf import OmegaConf

    assert isinstance(loader, OmegaConfigLoader)
    loader.config_patterns.setdefault("mlflow", ["mlflow*", "mlflow*/**", "**/mlflow*"])
    if not OmegaConf.has_resolver(RANDOM_NAME):
        OmegaConf.register_new_resolver(RANDOM_NAME, resolve_random_name, use_cache=True)
    try:
        return dict(loader["mlflow"] or {})
    except MissingConfigException:
        return {}
