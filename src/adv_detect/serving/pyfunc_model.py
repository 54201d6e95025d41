"""The served model as code: MLflow runs this file to load it, so no pickle is involved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from adv_detect.algorithms.device import resolve_device
from adv_detect.errors import AdvDetectError
from adv_detect.serving.bundle import ScoringBundle, score_images
from adv_detect.serving.server import change_loading_server, scoring_app


class AdversarialDetector(PythonModel):
    """Images in; predicted class, adversarial score and verdict out.

    Nothing is changed after loading, so predictions may run in several threads at once.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Read network, representatives and detector from the model's own files; bound the server that loads it."""
        self.bundle = ScoringBundle.load(Path(context.artifacts["bundle"]))
        self.model = self.bundle.model().to(resolve_device("auto")).eval()
        change_loading_server(lambda app: scoring_app(self.bundle, self.model, other=app))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # MLflow knows the bare class only; the signature of the model says shape and type
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Score images.

        Args:
            context: Not used.
            model_input: Float images of shape ``(N, channels, H, W)`` in the pixel range of the network.
            params: ``fpr``, the false-positive rate of the verdict; absent means the model's default.

        Returns:
            One row per image; see :func:`adv_detect.serving.bundle.score_images`.

        Raises:
            MlflowException: The images or the rate are not usable; a server answers it with status 400.
        """
        try:
            return score_images(self.bundle, np.asarray(model_input), fpr=(params or {}).get("fpr"), model=self.model)
        except AdvDetectError as exc:
            raise MlflowException.invalid_parameter_value(str(exc)) from exc


mlflow.models.set_model(AdversarialDetector())
