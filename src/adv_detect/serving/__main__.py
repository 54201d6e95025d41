"""Serve a registered model over HTTP; the same as ``mlflow models serve --env-manager local``, in one process."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adv_detect.errors import AdvDetectError
from adv_detect.serving.limits import VARIABLES

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model and serve it until the process is ended.

    Args:
        arguments: Options; None takes those of the command line.

    Returns:
        0, or 2 where the model or a limit is not usable.
    """
    from mlflow.exceptions import MlflowException

    options = _options(arguments)
    try:
        serve_model(options.model, host=options.host, port=options.port, timeout=options.timeout)
    except (AdvDetectError, MlflowException) as exc:
        print(str(exc).splitlines()[0], file=sys.stderr)  # noqa: T201
        return 2
    return 0


def serve_model(model: str, *, host: str, port: int, timeout: int | None) -> None:
    """Load a model and serve it until the process is ended.

    Args:
        model: Address such as ``models:/adv-detect@champion``.
        host: Address of this machine to listen at.
        port: Port; 0 takes a free one.
        timeout: Seconds from the start of a request to its answer; None leaves what the environment says.

    Raises:
        AdvDetectError: The model or a limit is not usable.
    """
    if timeout is not None:
        os.environ[VARIABLES["timeout"]] = str(timeout)
    import uvicorn

    uvicorn.run(load_app(model), host=host, port=port, access_log=False)


def load_app(model: str) -> ASGIApp:
    """Load a registered model as an application.

    Args:
        model: Address such as ``models:/adv-detect@champion``.

    Returns:
        The application, of the same endpoints as MLflow's.
    """
    import mlflow
    from mlflow.pyfunc import scoring_server

    from adv_detect.serving.server import scoring_app

    loaded = mlflow.pyfunc.load_model(model)
    detector = loaded.unwrap_python_model()
    return scoring_app(detector.bundle, detector.model, other=scoring_server.init(loaded))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m adv_detect.serving", description=__doc__)
    parser.add_argument("-m", "--model", default="models:/adv-detect@champion", help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("-p", "--port", type=int, default=5001, help="default: %(default)s")
    parser.add_argument("-t", "--timeout", type=int, help="seconds from the start of a request to its answer")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
