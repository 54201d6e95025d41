"""The session that ``kedro run`` opens."""

from __future__ import annotations

from typing import Any

from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.pipeline import Pipeline

from adv_detect.choices import DEFAULT, check_pipelines, check_selection


class CheckedSession(KedroSession):
    """Kedro's session; names that a command gives and that do not exist are answered with those that do."""

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Check the selection of nodes, then run it; the arguments are those of Kedro's session."""
        names = kwargs.get("pipeline_names") or [DEFAULT]
        check_pipelines(names)
        pipelines.set_requested(kwargs.get("pipeline_names") or None)
        check_selection(sum((pipelines[name] for name in names), start=Pipeline([])), kwargs)
        result: dict[str, Any] = super().run(*args, **kwargs)
        return result
