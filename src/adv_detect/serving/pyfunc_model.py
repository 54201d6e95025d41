"""The served model as code: MLflow runs this file to load it, so no pickle is involved."""

from __future__ import annotations

import mlflow

from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.served_model import ServedModel


class AdversarialDetector(ServedModel):
    """Images in; predicted class, adversarial score and verdict out."""

    BUNDLE = ScoringBundle


mlflow.models.set_model(AdversarialDetector())
