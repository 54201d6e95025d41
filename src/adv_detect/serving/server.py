"""MLflow's scoring server with an endpoint for scores of our own before it.

MLflow reads a body of any size, scores any number of requests at once, goes on scoring after a timeout, and repeats
the images in its error messages. So `/invocations` is answered here, in MLflow's form; all else stays MLflow's.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.serving.endpoint import ScoringEndpoint
from adv_detect.serving.limits import Limits, available_cores
from adv_detect.serving.log import LoggedBundle
from adv_detect.serving.servable import Servable, takes_pictures

MLFLOW_SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module that uvicorn is started on by ``mlflow models serve``."""
THREADS = "OMP_NUM_THREADS"
LOGGER = logging.getLogger(__name__)


def scoring_app(bundle: Servable, model: DetectionModel, *, other: ASGIApp) -> ASGIApp:
    """Put the endpoint for scores before an application.

    The cores are shared out: as many predictions run at once as the limits say, each on its part of the cores, where
    ``OMP_NUM_THREADS`` does not say otherwise.

    Args:
        bundle: Network, representatives and detector, and what verification takes beside them.
        model: Network and detector, joined.
        other: Answers all other requests.

    Returns:
        The application.

    Raises:
        ConfigurationError: A limit in the environment is no positive number.
    """
    limits = Limits.from_environment(bundle.metadata)
    if THREADS not in os.environ:
        torch.set_num_threads(max(1, available_cores() // limits.predictions))

    def score(images: NDArray[np.float32], rates: Mapping[str, float], unwanted: Callable[[], bool]) -> pd.DataFrame:
        return bundle.score(images, rates, model=model, unwanted=unwanted)

    spec = bundle.gate.network.spec
    pictures = spec.picture_input if takes_pictures(bundle) else None
    names = {"rates": bundle.rates, "switches": bundle.switches}
    endpoint = ScoringEndpoint(score, bundle.input_shape, limits, **names, pictures=pictures)
    LOGGER.info("serving within %s, %d threads a prediction", limits, torch.get_num_threads())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        """Write what the log still holds: a server that is told to end does not pass Python's own exit."""
        yield
        if isinstance(bundle, LoggedBundle):
            bundle.log.flush()

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/invocations", endpoint.answer, methods=["POST"]),
            Route("/limits", endpoint.tell_limits),
            Mount("/", other),
        ],
    )


def change_loading_server(make: Callable[[ASGIApp], ASGIApp]) -> bool:
    """Change the application of MLflow's scoring server, if that is what is loading the model.

    ``mlflow models serve`` starts uvicorn on a module that loads the model and binds its application to ``app``
    afterwards. A property of the module's class goes before what the module binds, so uvicorn finds ours.

    Args:
        make: Gives the application to serve in place of MLflow's.

    Returns:
        Whether such a server is loading the model.
    """
    module = sys.modules.get(MLFLOW_SERVER)
    if module is None or "app" in vars(module):
        return False
    made: list[ASGIApp] = []

    class ChangedModule(ModuleType):
        """A module whose application is made from the one that it binds."""

        @property
        def app(self) -> ASGIApp:
            """The application to serve, made once."""
            if not made:
                made.append(make(vars(self)["app"]))
            return made[0]

    module.__class__ = ChangedModule
    return True
