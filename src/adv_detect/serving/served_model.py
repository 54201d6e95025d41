"""The base of the served models as MLflow runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from adv_detect.algorithms.device import resolve_device
from adv_detect.errors import AdvDetectError
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.log import with_log
from adv_detect.serving.server import change_loading_server, scoring_app
from adv_detect.serving.verification import VerificationBundle


class ServedModel(PythonModel):
    """Inputs in; scores and verdicts out.

    Nothing is changed after loading, so predictions may run in several threads at once.

    Attributes:
        BUNDLE: What is read from the model's own files.
    """

    BUNDLE: ClassVar[type[ScoringBundle] | type[VerificationBundle]]

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle from the model's own files; bound the server that loads it."""
        self.bundle = with_log(self.BUNDLE.load(Path(context.artifacts["bundle"])))
        self.model = self.bundle.model().to(resolve_device("auto")).eval()
        change_loading_server(lambda app: scoring_app(self.bundle, self.model, other=app))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # MLflow knows the bare class only; the signature of the model says shape and type
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Score inputs.

        Args:
            context: Not used.
            model_input: Float images in the pixel range of the network, of the shape of the signature.
            params: Rates; absent means the model's defaults.

        Returns:
            One row per input; see :func:`adv_detect.serving.bundle.score_images` and
            :func:`adv_detect.serving.verification.verify_pairs`.

        Raises:
            MlflowException: The images or a rate are not usable; a server answers it with status 400.
        """
        try:
            return self.bundle.score(np.asarray(model_input), params or {}, model=self.model)
        except AdvDetectError as exc:
            raise MlflowException.invalid_parameter_value(str(exc)) from exc
