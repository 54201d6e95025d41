"""Environments of configuration: the place of their results and their names in MLflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from adv_detect.errors import ConfigurationError, unknown_choice

BASE, LOCAL = "base", "local"
DATA, RAW = "data", "01_raw"
REPORT = PurePosixPath("08_reporting", "report.html")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DATA_LAYER = re.compile(r"\d\d_.*")
SHARED_KEY = "serving"


def is_default(env: str | None) -> bool:
    """Tell whether an environment is the default one: ``base`` with the user's own ``local``.

    Args:
        env: Name of the environment; None where none was named.

    Returns:
        True for it.
    """
    return env in (None, "", BASE, LOCAL)


def results_folder(env: str | None) -> str:
    """Name the folder that holds the results of an environment.

    Args:
        env: Name of the environment; None where none was named.

    Returns:
        ``data``, or ``data/<env>``, relative to the project.
    """
    return DATA if is_default(env) else f"{DATA}/{env}"


def own_name(env: str | None, name: str) -> str:
    """Make a name that no other environment has.

    Args:
        env: Name of the environment; None where none was named.
        name: The name in the default environment.

    Returns:
        ``name``, or ``<name>-<env>``.
    """
    return name if is_default(env) else f"{name}-{env}"


def check_environment(env: str | None, conf: Path) -> None:
    """Check that an environment exists and that its results have a folder of their own.

    Args:
        env: Name of the environment; None where none was named.
        conf: Folder of configuration; where it is no local folder, only the name is checked.

    Raises:
        ConfigurationError: The name cannot be a folder of results, there is no such environment, or it would write into
            another one's folder.
    """
    if env == BASE and (own := _settings_of(conf / LOCAL)):
        raise ConfigurationError(
            f"--env={BASE}: expected no settings of your own in {conf / LOCAL}, got {', '.join(own)}, which {BASE} "
            f"leaves out although its results lie in the same folder {DATA}/; leave --env out, or move them to an "
            "environment of their own"
        )
    if is_default(env):
        return
    if not NAME.fullmatch(str(env)) or DATA_LAYER.fullmatch(str(env)):
        raise ConfigurationError(
            f"--env: expected a name of at most 64 letters, digits and _ . -, beginning with a letter or digit and not "
            f"like a folder of data ({DATA}/01_raw ...), since results go to {DATA}/<env>, got {env!r}; rename the "
            "environment's folder"
        )
    if conf.is_dir() and not (conf / str(env)).is_dir():
        raise unknown_choice("--env", env, _environments(conf))


def check_registered_name(name: str, env: str | None, conf: Path) -> None:
    """Check that no other environment registers its model under the same name.

    Args:
        name: The name of the registered model, ``serving.name``.
        env: The environment that it is for.
        conf: Folder of configuration; where it is no local folder, nothing is checked.

    Raises:
        ConfigurationError: Another environment has the name too.
    """
    mine = BASE if is_default(env) else env
    others = [one for one in _environments(conf) if one != mine and _registered_name(one, conf) == name]
    if others:
        raise ConfigurationError(
            f"serving.name: expected a name that no other environment has, got {name!r} for {mine!r}, which is also "
            f"that of {', '.join(map(repr, others))}; give each its own, or write ${{own_name:{name}}} in conf/{BASE}, "
            "which adds the environment's name"
        )


def check_results(paths: dict[str, str], env: str | None, project: Path) -> None:
    """Check that what a run writes lies in no other environment's results, nor among raw data.

    Args:
        paths: Name to path of each dataset that the run writes, as the catalog says it.
        env: The environment of the run.
        project: Folder of the project.

    Raises:
        ConfigurationError: A path lies elsewhere below ``data``.
    """
    data, own = project / DATA, project / results_folder(env)
    for name, path in paths.items():
        place = project / path
        inside = place.is_relative_to(own) and (own != data or DATA_LAYER.fullmatch(place.relative_to(data).parts[0]))
        raw = place.is_relative_to(data / RAW)
        if place.is_relative_to(data) and (raw or not inside):
            layer = place.relative_to(data).as_posix()
            raise ConfigurationError(
                f"{name}: expected a path in the environment's own folder of results, {results_folder(env)}, got "
                f"{DATA}/{layer}; write ${{results:}}/<layer>/... in the catalog"
            )


def resolvers(env: str | None) -> dict[str, Callable[..., Any]]:
    """Functions for configuration files, ``${results:}`` and ``${own_name:<name>}``.

    Args:
        env: Name of the environment; None where none was named.

    Returns:
        Name to function.
    """
    return {"results": lambda: results_folder(env), "own_name": lambda name: own_name(env, name)}


class EnvironmentConfigLoader(OmegaConfigLoader):
    """Loads configuration in which paths and names of results follow from the environment alone."""

    def __init__(self, conf_source: str | Path, env: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Check the environment before anything is read."""
        check_environment(env, Path(conf_source))
        super().__init__(conf_source, env, *args, **kwargs)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load a kind of configuration.

        Raises:
            ConfigurationError: A file of the environment is no valid YAML; the message names it.
        """
        _register(self.env)
        try:
            return super().__getitem__(key)
        except YAMLError as exc:
            raise ConfigurationError(_broken_file(Path(self.conf_source), self.env, exc)) from exc


def _broken_file(conf: Path, env: str | None, error: YAMLError) -> str:
    """Name the file that cannot be read, which Kedro's error does not."""
    for folder in (conf / BASE, conf / (env or LOCAL)):
        for name in _settings_of(folder):
            try:
                OmegaConf.create((folder / name).read_text(encoding="utf-8"))
            except (YAMLError, OmegaConfBaseException) as exc:
                return f"{folder / name}: expected valid YAML with each key once, got: {' '.join(str(exc).split())}"
    return f"{conf}: expected valid YAML with each key once, got: {' '.join(str(error).split())}"


def _register(env: str | None) -> None:
    """OmegaConf holds one function of a name in a process, so the one of another environment is replaced."""
    for name, function in resolvers(env).items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _environments(conf: Path) -> list[str]:
    folders = sorted(path.name for path in conf.iterdir() if path.is_dir()) if conf.is_dir() else []
    return [name for name in folders if name != LOCAL and not name.startswith(".")]


def _registered_name(env: str, conf: Path) -> str | None:
    """Read ``serving.name`` as an environment's files say it, the last word first."""
    _register(env)
    for folder in (LOCAL, BASE) if env == BASE else (env, BASE):
        for block in _blocks(conf / folder):
            name = _selected(block, f"{SHARED_KEY}.name")
            if name is not None:
                return str(name)
    return None


def _blocks(folder: Path) -> Iterator[DictConfig]:
    """List parameter files that mention serving; the others are not parsed, for speed."""
    for name in _settings_of(folder, "parameters"):
        text = (folder / name).read_text(encoding="utf-8")
        try:
            loaded = OmegaConf.create(text) if SHARED_KEY in text else None
        except (YAMLError, OmegaConfBaseException):  # a run of that environment reports it
            continue
        if isinstance(loaded, DictConfig):
            yield loaded


def _selected(block: DictConfig, key: str) -> object:
    try:
        return OmegaConf.select(block, key)
    except OmegaConfBaseException:  # it depends on the parameters of a run, so its value exists in that run only
        return None


def _settings_of(folder: Path, *kinds: str) -> list[str]:
    """Names of files of parameters or datasets."""
    found = [path for kind in kinds or ("parameters", "catalog") for path in folder.rglob(f"{kind}*")]
    return sorted(str(path.relative_to(folder)) for path in found if path.suffix in {".yml", ".yaml", ".json"})
