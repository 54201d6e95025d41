"""The base of the served models as MLflow runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from adv_detect.algorithms.device import resolve_device
from adv_detect.errors import AdvDetectError
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.columns import pictures_of
from adv_detect.serving.log import with_log
from adv_detect.serving.opening import unregistered_version
from adv_detect.serving.servable import VERSION, takes_pictures
from adv_detect.serving.server import change_loading_server, scoring_app
from adv_detect.serving.verification import VerificationBundle
from adv_detect.text_files import read_text

NOTE = "registered_model_meta"
"""File with name and version that MLflow lays beside a registered model when it is loaded."""


class ServedModel(PythonModel):
    """Inputs in; scores and verdicts out.

    Nothing is changed after loading, so predictions may run in several threads at once.

    Attributes:
        BUNDLE: What is read from the model's own files.
    """

    BUNDLE: ClassVar[type[ScoringBundle] | type[VerificationBundle]]

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle from the model's own files; bound the server that loads it."""
        folder = Path(context.artifacts["bundle"])
        self.bundle = with_log(_versioned(self.BUNDLE.load(folder), folder))
        self.model = self.bundle.model().to(resolve_device("auto")).eval()
        change_loading_server(lambda app: scoring_app(self.bundle, self.model, other=app))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # the hint that MLflow lets pass; a table of pictures comes as a DataFrame
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Score inputs.

        Args:
            context: Not used.
            model_input: Float images in the pixel range of the network, ``(N, channels, H, W)`` or pairs of them; or,
                where one input is a picture, a table with one column of encoded pictures: bytes, or base64.
            params: Rates and switches; absent means the model's defaults.

        Returns:
            One row per input; see :func:`adv_detect.serving.bundle.score_images` and
            :func:`adv_detect.serving.verification.verify_pairs`.

        Raises:
            MlflowException: The images or a rate are not usable; a server answers it with status 400.
        """
        try:
            return self.bundle.score(self._images(model_input), params or {}, model=self.model)
        except AdvDetectError as exc:
            raise MlflowException.invalid_parameter_value(str(exc)) from exc

    def _images(self, given: Any) -> np.ndarray:
        """Take tensors as they are, and decode a column of pictures."""
        if isinstance(given, pd.DataFrame | pd.Series) and takes_pictures(self.bundle):
            return pictures_of(given, self.bundle.gate.network.spec.picture_input)
        return np.asarray(given)


def _versioned(bundle: ScoringBundle | VerificationBundle, folder: Path) -> ScoringBundle | VerificationBundle:
    """Note the version that answers carry: the one that MLflow wrote beside a registered model, else a digest."""
    gate = bundle.gate
    noted = next((one / NOTE for one in folder.parents if (one / NOTE).is_file()), None)
    if noted is None:
        version = unregistered_version(gate)
    else:
        facts = yaml.safe_load(read_text(noted))
        version = f"{facts['model_name']}/{facts['model_version']}"
    gate = replace(gate, metadata={**gate.metadata, VERSION: version})
    return replace(bundle, gate=gate) if isinstance(bundle, VerificationBundle) else gate
