"""Project settings; see the Kedro documentation for every key."""

from __future__ import annotations

from adv_detect.environments import EnvironmentConfigLoader, resolvers
from adv_detect.hooks import ConfigurationHooks, RunLockHooks, TrackingHooks
from adv_detect.session import CheckedSession
from adv_detect.terminal import install_short_errors

CONFIG_LOADER_CLASS = EnvironmentConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "mlflow": "soft"},
    "custom_resolvers": resolvers(None),  # the loader puts those of its environment in their place
}

install_short_errors()

SESSION_CLASS = CheckedSession
HOOKS = (RunLockHooks(), ConfigurationHooks(), TrackingHooks())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow", "kedro-mlflow")  # TrackingHooks extends them; either spelling of the name
