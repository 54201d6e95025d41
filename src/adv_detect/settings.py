"""Project settings; see the Kedro documentation for every key."""

from __future__ import annotations

from pathlib import Path

from adv_detect.hooks import ConfigurationHooks, TrackingHooks
from adv_detect.session import CheckedSession
from adv_detect.terminal import install_short_errors

PROJECT_PATH = Path(__file__).resolve().parents[2]


def project_path() -> str:
    """Return the folder that Kedro runs in, for configuration values that must be absolute."""
    from kedro.utils import find_kedro_project

    found = find_kedro_project(Path.cwd())
    return str(found or PROJECT_PATH)


CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {"project_path": project_path},
}

install_short_errors()

SESSION_CLASS = CheckedSession
HOOKS = (ConfigurationHooks(), TrackingHooks())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow", "kedro-mlflow")  # TrackingHooks extends them; either spelling of the name
