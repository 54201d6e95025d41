"""The configuration of MLflow, which connects when a run begins and not before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig

from adv_detect.errors import TrackingError
from adv_detect.tracking.addresses import (
    ARTIFACTS,
    REGISTRY,
    TRACKING,
    absolute_address,
    choose_addresses,
    database_file,
    is_server,
    remember_exported,
)
from adv_detect.tracking.relocation import PROJECT_TAG

IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
DEFAULT_EXPERIMENT = "0"
SHOWN = 200  # characters of an error of others, in a message


class TrackingConfig(KedroMlflowConfig):  # type: ignore[misc]
    """Configuration of kedro-mlflow in two steps: who only reads needs no store, so a run alone connects."""

    def setup(self, context: Any) -> None:
        """Tell MLflow the addresses and what goes with every request.

        Args:
            context: Kedro's context, for credentials.
        """
        import mlflow

        self._export_credentials(context)
        self._register_request_header_provider(context)
        mlflow.set_tracking_uri(self.server.mlflow_tracking_uri)
        mlflow.set_registry_uri(self.server.mlflow_registry_uri)
        if self.tracking.disable_tracking.disable_autologging:
            mlflow.autolog(disable=True)

    def connect(self) -> None:
        """Find the experiment, or make it.

        Raises:
            TrackingError: The store cannot be reached, or the experiment keeps its artifacts on another machine.
        """
        from mlflow import MlflowClient

        address, registry = self.server.mlflow_tracking_uri, self.server.mlflow_registry_uri
        file = database_file(address)
        # MLflow makes the tables of a new database without a lock of its own
        guard = FileLock(f"{file}.lock") if file is not None else nullcontext()
        with guard, _short_patience(), _explained(address, TRACKING):
            self.server._mlflow_client = MlflowClient(tracking_uri=address, registry_uri=registry)
            self._set_experiment()
        if registry is not None and is_server(registry):
            with _short_patience(), _explained(registry, REGISTRY):
                self.server._mlflow_client.search_registered_models(max_results=1)
        if is_server(address):
            self._check_artifacts(address)

    def _check_artifacts(self, address: str) -> None:
        """Refuse an experiment whose artifacts a client of before keeps in a folder of its own."""
        from mlflow.utils.uri import is_local_uri

        experiment = self.tracking.experiment._experiment
        if not is_local_uri(experiment.artifact_location):  # type: ignore[no-untyped-call]
            return
        with _explained(address, TRACKING):
            usual = self.server._mlflow_client.get_experiment(DEFAULT_EXPERIMENT).artifact_location
        if not is_local_uri(usual):  # type: ignore[no-untyped-call]
            raise TrackingError(
                f"experiment {experiment.name!r} on {address}: expected artifacts where the server keeps them "
                f"({usual}), got {experiment.artifact_location}, a folder of the client that made it; choose another "
                "name in mlflow.yml (tracking.experiment.name), or rename that experiment"
            )


def tracking_config(conf: dict[str, Any], project: Path) -> TrackingConfig:
    """Read ``mlflow.yml``: addresses are chosen, and artifacts lie where the store wants them.

    Args:
        conf: Content of the file.
        project: Folder of the project.

    Returns:
        The configuration, not connected.
    """
    config: TrackingConfig = TrackingConfig.model_validate(
        conf | {"server": choose_addresses(conf.get("server") or {}, project)}
    )
    address = config.server.mlflow_tracking_uri
    remember_exported(config.server.model_dump())
    wanted = config.tracking.experiment.create_experiment_kwargs
    if wanted.artifact_location is not None:
        wanted.artifact_location = absolute_address(wanted.artifact_location, project)
    elif not is_server(address) and not address.startswith("file:"):
        wanted.artifact_location = (project / ARTIFACTS).as_uri()
    if database_file(address) is not None:
        wanted.tags = {PROJECT_TAG: str(project)} | (wanted.tags or {})
    return config


@contextmanager
def _short_patience() -> Iterator[None]:
    """Let MLflow give up soon; a choice of the user stands."""
    ours = {name: value for name, value in IMPATIENT.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@contextmanager
def _explained(address: str, variable: str) -> Iterator[None]:
    """Say which store did not answer."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, OSError) as exc:
        if not is_server(address):
            raise
        cause = _cause(exc)
        raise TrackingError(
            f"{variable}: expected an MLflow server that answers at {address}, got: {cause}; start it, correct the "
            f"address ({variable} or conf/<env>/mlflow.yml), or unset it to use the project's own database"
        ) from exc


def _cause(error: BaseException) -> str:
    """Give the innermost error's message in a line: libraries wrap a refused connection several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def stop_telemetry() -> None:
    """Drop the sender of MLflow, which is imported before this project is read; a choice of the user stands."""
    from mlflow.telemetry import set_telemetry_client

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    set_telemetry_client()  # type: ignore[no-untyped-call]
