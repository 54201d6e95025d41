"""Checks before any work: of what every run needs, then of what each pipeline of the run needs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adv_detect.algorithms.device import resolve_device
from adv_detect.datasets.overlap import refuse_overlap
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.networks.readings import log_readings
from adv_detect.params import RuntimeParams, ServingParams
from adv_detect.pipelines import checks_of, create, pipeline_names
from adv_detect.reporting import PARTS
from adv_detect.validation.run import Run, block_of, some_of

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

IMAGES = ("train_images", "test_images", "verification_images")
"""Images of the user: where they are absent, their dataset says best what it expects."""


def check_run(pipeline: Pipeline, catalog: DataCatalog, own_attacks: Mapping[str, Any] | None = None) -> None:
    """Check everything that the nodes of a run are going to use, and nothing that only other pipelines use.

    Args:
        pipeline: The nodes that will run.
        catalog: Their datasets and parameters.
        own_attacks: ``adversarial_generation.attacks`` as environment and command line state it, without the base
            configuration; None where that is not known.

    Raises:
        ConfigurationError: A value is unknown or values do not fit together.
        DataError: A dataset that must exist does not.
    """
    run = Run(pipeline, catalog, own_attacks)
    runtime = run.read_block(RuntimeParams)
    if runtime is not None:
        check_runtime(runtime)
    _check_files(run)
    if {"train_images", "test_images"} <= run.inputs:
        _check_classes(run)
    if "test_images" in run.inputs and "train_images" in catalog and catalog.exists("train_images"):
        refuse_overlap(catalog.load("train_images"), catalog.load("test_images"))
    if "network_weights" in run.from_disk:
        _check_stored_network(run)
    for name in run.pipelines:
        checks = checks_of(name)
        if checks is not None:
            checks.check(run)


def runtime_of(catalog: DataCatalog) -> RuntimeParams:
    """Read the block ``runtime``.

    Args:
        catalog: Datasets and parameters.

    Returns:
        The block ``runtime``; the defaults where there is none.
    """
    return block_of(catalog, RuntimeParams) or RuntimeParams()


def registered_name(pipeline: Pipeline, catalog: DataCatalog) -> str | None:
    """Read the name under which a pipeline registers its model.

    Args:
        pipeline: The nodes that will run.
        catalog: Datasets and parameters.

    Returns:
        ``serving.name``; None where no node asks for it.
    """
    serving = Run(pipeline, catalog).read_block(ServingParams)
    return serving.name if serving is not None else None


def check_runtime(params: RuntimeParams) -> None:
    """Check that this machine has the device, and the engine is installed.

    Args:
        params: Device and engine.

    Raises:
        ConfigurationError: One of them is not there.
    """
    resolve_device(params.device)
    if params.engine == "ray" and find_spec("ray") is None:
        raise ConfigurationError(
            "runtime.engine: 'ray' was asked for but is not installed; use local, or pip install -e '.[ray]'"
        )


def _check_files(run: Run) -> None:
    missing = [name for name in sorted(run.from_disk) if name not in IMAGES + PARTS and not run.catalog.exists(name)]
    if missing:
        makers: dict[str, list[str]] = {}
        for name in missing:
            makers.setdefault(_maker(name), []).append(name)
        listed = "; ".join(f"{', '.join(names)} ({maker})" for maker, names in makers.items())
        raise DataError(
            f"the run needs what other pipelines leave on disk, and these are not there: {listed}; run those pipelines "
            "before this one, or `kedro run` for the whole job"
        )


def _maker(name: str) -> str:
    """Say which pipeline makes a dataset; Kedro itself has loaded only those that it was asked to run."""
    for maker in pipeline_names():
        if name in create(maker).all_outputs():
            return f"--pipeline={maker}"
    return "no pipeline makes it: put it there, or correct its entry in the catalog"


def _check_classes(run: Run) -> None:
    """Labels are positions in the list of class names, so the two sets must agree on the list."""
    train, test = (run.catalog.load(name).class_names for name in ("train_images", "test_images"))
    if train == test:
        return
    extra, missing = [name for name in test if name not in train], [name for name in train if name not in test]
    raise DataError(
        f"test_images: expected the {len(train)} classes of train_images in the same order, got {len(test)}; "
        f"only in test_images: {some_of(extra)}; only in train_images: {some_of(missing)}; give both the same class "
        "folders"
    )


def _check_stored_network(run: Run) -> None:
    """Compare the images with the network on disk."""
    spec = run.catalog.load("network_weights").spec
    log_readings(spec.readings)
    for name in sorted(run.inputs.intersection(IMAGES[:2])):
        if (found := tuple(run.catalog.load(name).class_names)) != tuple(spec.class_names):
            raise DataError(
                f"{name}: expected the {len(spec.class_names)} classes of the network on disk, "
                f"{some_of(list(spec.class_names))}, got {len(found)}: {some_of(list(found))}; run the whole job, or "
                "give the environment that made the network"
            )
