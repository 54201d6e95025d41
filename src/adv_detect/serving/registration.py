"""Logs a scoring bundle to MLflow as a model made from code and registers it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adv_detect.algorithms.detectors import with_members
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.description import model_description, version_description, version_tags
from adv_detect.serving.servable import Servable, takes_pictures
from adv_detect.serving.verification import SIDES, VerificationBundle
from adv_detect.serving.verification_description import gate_description, gate_tags, gate_version

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

REQUIREMENTS = ("fsspec", "mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "torch", "tqdm")
PACKAGE = Path(__file__).resolve().parents[1]
CODE = (
    "__init__.py", "dotted.py", "errors.py", "fields.py", "images.py", "keys.py", "names.py", "progress.py",
    "text_files.py",
    "algorithms", "networks", "params", "pictures", "serving", "sharding",
)  # fmt: skip
VIEWS_NEED = "torchvision.transforms"
NOT_SERVED = ("attacks", "registration.py", "__pycache__", "*.pyc")
INSTALLED = ("site-packages", "dist-packages")
EXAMPLE_IMAGES = 2
SIDE_TYPES = {"score": "double", "p_value": "double", "is_adversarial": "boolean"}
OUTPUT_TYPES = {
    "predicted_class": "string",
    "predicted_index": "long",
    "adversarial_score": "double",
    "p_value": "double",
    "threshold": "double",
    "is_adversarial": "boolean",
    "n_clean": "long",
    "model_version": "string",
}
PAIR_OUTPUT_TYPES = {
    "similarity": "double",
    "similarity_threshold": "double",
    "same_person": "boolean",
    **{f"{side}_{name}": kind for side in SIDES for name, kind in SIDE_TYPES.items()},
    "threshold": "double",
    "n_clean": "long",
    "n_pairs": "long",
}
TWIN_OUTPUT_TYPES = {
    "twin_similarity": "double",
    "twin_threshold": "double",
    "twin_same_person": "boolean",
    "n_same_pairs": "long",
}
VERDICT_TYPES = {"accepted": "boolean", "model_version": "string"}
LOGGER = logging.getLogger(__name__)
PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@dataclass(frozen=True)
class Form:
    """Code, outputs and texts of one kind of registered model.

    Attributes:
        code: File that MLflow runs to load it.
        outputs: Gives the columns of an answer and their types.
        description: Explains the model.
        version: Explains a version.
        tags: Facts on a version.
    """

    code: str
    outputs: Callable[[Any], Mapping[str, str]]
    description: Callable[[Any], str]
    version: Callable[[Any], str]
    tags: Callable[[Any], dict[str, str]]


def _pair_outputs(bundle: VerificationBundle) -> dict[str, str]:
    """Columns and types of a gate's answer."""
    return PAIR_OUTPUT_TYPES | ({} if bundle.twin_same is None else TWIN_OUTPUT_TYPES) | VERDICT_TYPES


FORMS = {
    ScoringBundle: Form(
        "pyfunc_model.py", lambda _: OUTPUT_TYPES, model_description, version_description, version_tags
    ),
    VerificationBundle: Form("verification_model.py", _pair_outputs, gate_description, gate_version, gate_tags),
}


def form_of(bundle: Servable) -> Form:
    """Find the form of a bundle by its class."""
    return FORMS[type(bundle)]


def register_bundle(bundle: Servable, folder: Path, *, alias: str | None) -> str:
    """Log a stored bundle to the active MLflow run and register it.

    The registered model is a pyfunc made from code: weights are safetensors artifacts and the part of this package
    that serving needs travels with it, so it loads in a fresh process without the project and without any pickle.

    Args:
        bundle: What was stored.
        folder: Where it was stored.
        alias: Alias that the new version gets; None leaves all where they are.

    Returns:
        The number of the new version.
    """
    import mlflow

    name, defaults = str(bundle.metadata["name"]), {rate: float(bundle.metadata[rate]) for rate in bundle.rates}
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        code, requirements = serving_dependencies(model_parts(bundle.gate), Path(scratch))
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(PACKAGE / "serving" / form_of(bundle).code),
            artifacts={"bundle": str(folder)},
            code_paths=code,
            signature=model_signature(bundle),
            input_example=(example_images(bundle), defaults),
            pip_requirements=requirements,
            metadata=form_of(bundle).tags(bundle),
        )
        return _register(bundle, logged, alias)


def model_parts(bundle: ScoringBundle) -> list[str]:
    """Name what a served model is made of.

    Args:
        bundle: What is served.

    Returns:
        Registered names or dotted paths of networks, detectors and views; where there are views, what they need.
    """
    networks = [one.spec.name for one in (bundle.network, bundle.twin) if one is not None]
    detectors = [one.kind for _, one in with_members(bundle.stored.params)]
    kinds = [one.kind for one in bundle.stored.views.values()]
    return [*networks, *detectors, *kinds, *([VIEWS_NEED] if kinds else [])]


def example_images(bundle: Servable) -> NDArray[np.float32]:
    """Draw images that the model takes: a ramp over the pixel range.

    Args:
        bundle: What is served.

    Returns:
        Two inputs, shape ``(2, channels, H, W)`` or of pairs ``(2, 2, channels, H, W)``, float32.
    """
    shape = (EXAMPLE_IMAGES, *bundle.input_shape)
    return np.linspace(*bundle.gate.network.spec.bounds, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def model_signature(bundle: Servable) -> ModelSignature:
    """Describe what goes in and what comes out.

    Args:
        bundle: What is served.

    Returns:
        A float32 tensor ``(-1, channels, H, W)``, or of pairs ``(-1, 2, channels, H, W)``, rates and switches in, a row
        each out. A model that takes pictures as well states no inputs: MLflow's schema has no word for "a tensor, or a
        column of encoded pictures", and would refuse the other form.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    tensors = Schema([TensorSpec(np.dtype(np.float32), (-1, *bundle.input_shape))])
    return ModelSignature(
        inputs=None if takes_pictures(bundle) else tensors,
        outputs=Schema([ColSpec(kind, name) for name, kind in form_of(bundle).outputs(bundle).items()]),
        params=ParamSchema(
            [
                *(ParamSpec(rate, "double", float(bundle.metadata[rate])) for rate in bundle.rates),
                *(ParamSpec(name, "boolean", False) for name in bundle.switches),
            ]
        ),
    )


def serving_dependencies(paths: Iterable[str], scratch: Path) -> tuple[list[str], list[str]]:
    """Gather what the model needs to load elsewhere, the modules of a user's own network and detector included.

    Args:
        paths: Registered names or dotted paths of network, detector and views.
        scratch: Existing, empty folder for a copy of the part of this package that serving needs.

    Returns:
        Files and folders of code that travel with the model, and requirements with their versions.
    """
    code = [_copy(PACKAGE, scratch)]
    wanted = list(REQUIREMENTS)
    for top in dict.fromkeys(path.split(".", maxsplit=1)[0] for path in paths if "." in path):
        found = importlib.util.find_spec(top)
        origin = Path(found.origin) if found is not None and found.origin else None
        if origin is not None and not set(INSTALLED) & set(origin.parts):
            code.append(str(origin.parent if origin.name == "__init__.py" else origin))
        else:
            wanted += packages_distributions().get(top, [])
    return code, [f"{one}=={version(one).split('+')[0]}" for one in dict.fromkeys(wanted)]


def _register(bundle: Servable, logged: Any, alias: str | None) -> str:
    """Make a version of what was logged, with description, tags and alias."""
    from mlflow import MlflowClient

    client, name = MlflowClient(), str(bundle.metadata["name"])
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    form = form_of(bundle)
    client.update_registered_model(name, form.description(bundle))
    made = client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=logged.run_id,
        model_id=logged.model_id,
        tags=form.tags(bundle),
        description=form.version(bundle),
    )
    if alias is not None:
        client.set_registered_model_alias(name, alias, made.version)
    LOGGER.info("mlflow: registered %s version %s, %s", name, made.version, f"alias {alias}" if alias else "no alias")
    return str(made.version)


def _copy(package: Path, scratch: Path) -> str:
    """Copy the part of this package that serving needs."""
    target = scratch / package.name
    target.mkdir()
    ignored = shutil.ignore_patterns(*NOT_SERVED)
    for name in CODE:
        if (package / name).is_dir():
            shutil.copytree(package / name, target / name, ignore=ignored)
        else:
            shutil.copy2(package / name, target / name)
    return str(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and its notes on every step out of the log; warnings stay."""
    logger = logging.getLogger("mlflow")
    level, chosen = logger.level, PROGRESS_BAR in os.environ
    logger.setLevel(max(level, logging.WARNING))
    os.environ.setdefault(PROGRESS_BAR, "false")
    try:
        yield
    finally:
        logger.setLevel(level)
        if not chosen:
            del os.environ[PROGRESS_BAR]
