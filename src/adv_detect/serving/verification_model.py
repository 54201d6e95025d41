"""The served gate for verification as code: MLflow runs this file to load it, so no pickle is involved."""

from __future__ import annotations

import mlflow

from adv_detect.serving.served_model import ServedModel
from adv_detect.serving.verification import VerificationBundle


class FaceGate(ServedModel):
    """Pairs of pictures in; similarity, scores of both and the joined verdict out."""

    BUNDLE = VerificationBundle


mlflow.models.set_model(FaceGate())
