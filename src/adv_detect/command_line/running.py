"""Projects and runs as the console script meets them: one sentence for an error, status 2."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adv_detect.errors import ConfigurationError
from adv_detect.terminal import TRACEBACK_VARIABLE, is_expected

if TYPE_CHECKING:
    from kedro.framework.session import KedroSession

PACKAGE = "adv_detect"
WRONG_USE = 2
"""Exit status of a command that the user can mend."""
UNCHANGED = ("models:/", "runs:/")
OTHERS = ("mlflow.exceptions",)
"""Modules of errors that name their cause beside ours and Kedro's."""


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the process with status 2 and the message alone where an error names its cause."""
    try:
        yield
    except Exception as exc:
        named = is_expected(exc) or type(exc).__module__ in OTHERS
        if not named or os.environ.get(TRACEBACK_VARIABLE):
            raise
        sys.stderr.write(f"{' '.join(str(exc).split())}\n")
        raise SystemExit(WRONG_USE) from exc


def is_project(folder: Path) -> bool:
    """Tell whether a folder is a Kedro project of this package.

    Args:
        folder: Any folder.

    Returns:
        True for one.

    Raises:
        ConfigurationError: Its ``pyproject.toml`` is no valid TOML.
    """
    file = folder / "pyproject.toml"
    if not file.is_file():
        return False
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file}: expected valid TOML, got: {exc}; repair it") from exc
    found: bool = content.get("tool", {}).get("kedro", {}).get("package_name") == PACKAGE
    return found


def enter_project() -> Path:
    """Make the project that the working directory lies in the working directory.

    Kedro reads its logging configuration from there when it is imported, so nothing may import it before.

    Returns:
        Folder of the project.

    Raises:
        ConfigurationError: There is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if is_project(folder):
            os.chdir(folder)
            return folder
    raise ConfigurationError(
        f"expected a project of adv-detect in {here} or a folder above it, got none; make one with: adv-detect init"
    )


def absolute(address: str) -> str:
    """Complete a path that is relative to the working directory; addresses stay as they are.

    Args:
        address: A path, an fsspec address, or the address of a model.
    """
    if "://" in address or address.startswith(UNCHANGED):
        return address
    return str(Path(address).resolve())


def nested(values: Mapping[str, Any], further: Sequence[str] = ()) -> dict[str, Any]:
    """Write parameters of a run as nested blocks.

    Args:
        values: Value by dotted name; None is left out.
        further: Parameters as text, ``name=value``; they go before.

    Returns:
        Nested values.

    Raises:
        ConfigurationError: A text has another form.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    made = OmegaConf.create()
    for name, value in values.items():
        if value is not None:
            OmegaConf.update(made, name, value)
    for text in further:
        if not text.partition("=")[1] or not text.partition("=")[0].strip():
            raise ConfigurationError(f"--param: expected name=value, such as runtime.device=cpu, got {text!r}")
        try:
            made = OmegaConf.merge(made, OmegaConf.from_dotlist([text]))  # type: ignore[assignment]
        except (OmegaConfBaseException, YAMLError) as exc:
            raise ConfigurationError(f"--param: expected name=value, got {text!r} ({exc})") from exc
    return OmegaConf.to_container(made)  # type: ignore[return-value]


@contextmanager
def project_session(env: str | None, parameters: Mapping[str, Any]) -> Iterator[KedroSession]:
    """Open the session that ``kedro run`` opens, in the project that is the working directory.

    Args:
        env: Name of the environment; None for the default one.
        parameters: Nested parameters that go before those of the configuration.

    Yields:
        The session.
    """
    from kedro.framework.project import settings
    from kedro.framework.startup import bootstrap_project

    project = Path.cwd()
    bootstrap_project(project)
    with settings.SESSION_CLASS.create(project_path=project, env=env, runtime_params=dict(parameters)) as session:
        yield session


def run_pipeline(name: str, env: str | None, parameters: Mapping[str, Any]) -> None:
    """Run a pipeline as ``kedro run --pipeline`` does.

    Args:
        name: The pipeline.
        env: Name of the environment; None for the default one.
        parameters: Nested parameters that go before those of the configuration.
    """
    with project_session(env, parameters) as session:
        from kedro.runner import SequentialRunner

        session.run(pipeline_names=[name], runner=SequentialRunner())
