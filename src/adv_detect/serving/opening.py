"""Models by address: the champion of an environment, a registered one, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from adv_detect.algorithms.representatives import representatives_digest
from adv_detect.errors import AdvDetectError, DataError
from adv_detect.networks.target import target_digest
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.sharding import fingerprint
from adv_detect.text_files import read_text

CHAMPION = "champion"
REGISTRY = ("models:/", "runs:/")
MLFLOW_MODEL = "MLmodel"
VERSION = "version.txt"
"""Beside a stored bundle: the version under which it was registered."""
SHOWN_DIGITS = 12
KINDS = f"{CHAMPION!r}, an address such as models:/adv-detect@champion, or the folder of a stored model"


class OpenedModel(NamedTuple):
    """A model, ready to score.

    Attributes:
        bundle: Network, representatives and detector.
        version: Registered name and version, as ``adv-detect/3``; else name and first digits of a digest.
    """

    bundle: ScoringBundle
    version: str


def open_model(address: str | Path, *, champion: Path | None = None) -> OpenedModel:
    """Open a model.

    Args:
        address: ``champion``, an address such as ``models:/adv-detect@champion``, or a folder.
        champion: Folder of the champion of this environment; None where there is no environment.

    Returns:
        The model.

    Raises:
        DataError: There is none, or it is no model of this package.
    """
    if str(address).startswith(REGISTRY):
        return _registered(str(address))
    folder = champion if str(address) == CHAMPION and champion is not None else Path(address)
    if (folder / MLFLOW_MODEL).is_file():
        return _registered(str(folder))
    if not folder.is_dir():
        raise (
            no_champion(folder) if folder == champion else DataError(f"there is no model in {folder}; expected {KINDS}")
        )
    bundle = ScoringBundle.load(folder)
    known = folder / VERSION
    return OpenedModel(bundle, read_text(known).strip() if known.is_file() else unregistered_version(bundle))


def no_champion(folder: Path) -> DataError:
    """Build the error for an environment that has no model yet."""
    return DataError(
        f"there is no model in {folder}; make it with: kedro run (with --env=<env> for another environment), or name "
        "another one as scoring.model"
    )


def scores_digest(bundle: ScoringBundle) -> str:
    """Digest all that decides scores and explanations; thresholds and the clean scores they rest on do not.

    Args:
        bundle: A model.

    Returns:
        SHA-256, in hexadecimal.
    """
    stored = bundle.stored
    return fingerprint(
        target_digest(bundle.network),
        bundle.network.spec.pictures,
        representatives_digest(bundle.representatives),
        stored.params,
        dict(stored.detector.state_dict()),
        stored.views,
        None if bundle.twin is None else target_digest(bundle.twin, layers=False),
        None if bundle.bands is None else bundle.bands.tensors(),
    )


def unregistered_version(bundle: ScoringBundle) -> str:
    """Name a version that is in no registry by its content."""
    return f"{bundle.metadata['name']}/{scores_digest(bundle)[:SHOWN_DIGITS]}"


def _registered(address: str) -> OpenedModel:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        loaded = mlflow.pyfunc.load_model(address)
        bundle = getattr(loaded.unwrap_python_model(), "bundle", None)
        version = _version(address)
    except AdvDetectError:
        raise
    except (MlflowException, OSError) as exc:
        raise DataError(f"model {address} cannot be loaded ({str(exc).splitlines()[0]}); expected {KINDS}") from exc
    if not isinstance(bundle, ScoringBundle):
        raise DataError(f"model {address}: expected one that adv-detect registered, got another; expected {KINDS}")
    return OpenedModel(bundle, version or unregistered_version(bundle))


def _version(address: str) -> str | None:
    """Name and version of a registered model; None for what is in no registry."""
    from mlflow import MlflowClient

    name, at, alias = address.removeprefix(REGISTRY[0]).partition("@")
    if not address.startswith(REGISTRY[0]):
        return None
    return f"{name}/{MlflowClient().get_model_version_by_alias(name, alias).version}" if at else name
