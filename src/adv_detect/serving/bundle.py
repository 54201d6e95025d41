"""Network, class representatives and detector as one thing that can be stored, loaded and asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.algorithms.bands import NaturalBands
from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import device_of
from adv_detect.algorithms.representatives import (
    Representatives,
    representatives_from_tensors,
    representatives_tensors,
)
from adv_detect.algorithms.views import Views
from adv_detect.errors import ConfigurationError, DamagedFileError, DataError
from adv_detect.networks.frozen import working_form
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, target_from_spec, target_tensors
from adv_detect.serving.defaults import plain_defaults
from adv_detect.serving.explanation import Explainer, explanation_table
from adv_detect.serving.part_files import read_part as _read
from adv_detect.serving.part_files import write_part as _write
from adv_detect.serving.passes import check_scores, pass_through
from adv_detect.serving.servable import with_version

PARTS = ("network", "representatives", "detector")
TWIN, BANDS = "twin", "bands"
"""Further parts: where the detector reads the twin; where verdicts can be explained by layers."""
EXPLAIN = "explain"
PROMOTE, CALIBRATION = "promote", "calibration"
"""In the metadata: whether the version becomes the champion (absent: it does); facts on a calibration."""
RANGE_TOLERANCE = 1e-4
REMEDY = "make and register it again with: kedro run --pipeline=detector_training"


@dataclass(frozen=True)
class ScoringBundle:
    """Everything that scoring an image takes.

    Attributes:
        network: The network under attack.
        representatives: Its class representatives.
        stored: The detector, with the clean scores that its thresholds rest on.
        metadata: Facts on the model: ``fpr`` (the default rate), ``fprs`` (rates at which thresholds are reported),
            ``name`` (of the registered model), validation figures, ``max_images`` and ``max_bytes`` (of a request to a
            server; absent means the defaults).
        twin: The second network; None where the detector does not read it.
        bands: Distances of natural images to their class, which explain verdicts; None in a model of before.
    """

    network: TargetNetwork
    representatives: Representatives
    stored: StoredDetector
    metadata: Mapping[str, Any]
    twin: TargetNetwork | None = None
    bands: NaturalBands | None = None

    @property
    def gate(self) -> ScoringBundle:
        """The bundle itself."""
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape ``(channels, H, W)`` of an image."""
        return tuple(self.network.spec.image_shape)

    @property
    def rates(self) -> tuple[str, ...]:
        """The one rate that a request may give, ``fpr``."""
        return ("fpr",)

    @property
    def switches(self) -> tuple[str, ...]:
        """The one truth value that a request may give, ``explain``."""
        return (EXPLAIN,)

    def score(
        self,
        images: NDArray[Any],
        rates: Mapping[str, float],
        *,
        model: DetectionModel | None = None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> pd.DataFrame:
        """Score images; see :func:`score_images`. The rates hold ``explain`` too, where it is asked for."""
        model = self.model().eval() if model is None else model
        explainer = self._placed_explainer(device_of(model.network)) if rates.get(EXPLAIN) and len(images) else None
        fpr = rates.get("fpr")
        table = score_images(self, images, fpr=fpr, model=model, explainer=explainer, unwanted=unwanted)
        return with_version(table, self.metadata)

    @property
    def thresholds(self) -> dict[float, float]:
        """Scores above which an image counts as adversarial, at the reported rates."""
        return {float(fpr): self.stored.threshold(float(fpr)) for fpr in self.metadata["fprs"]}

    def threshold(self, fpr: float | None = None) -> float:
        """Return the threshold at a false-positive rate.

        Args:
            fpr: Any rate in (0, 1); None means the default rate of the bundle.

        Returns:
            The threshold, in units of the score; below a rate of 1 / n the largest of the n clean scores.

        Raises:
            ConfigurationError: The rate is outside (0, 1).
        """
        rate = float(self.metadata["fpr"] if fpr is None else fpr)
        if not 0 < rate < 1:
            raise ConfigurationError(f"fpr: expected a rate above 0 and below 1, such as 0.05, got {rate:g}")
        return self.stored.threshold(rate)

    def model(self) -> DetectionModel:
        """Join the parts into one differentiable model: images to class logits and adversarial scores."""
        with plain_defaults():
            network = working_form(self.network, torch.device("cpu"))
            views = Views.build(self.stored.views, self.network.spec.bounds)
            twin = None if self.twin is None else working_form(self.twin, torch.device("cpu"))
            return DetectionModel(network, self.stored.detector, self.network.spec.layers, views=views, twin=twin)

    def explainer(self) -> Explainer:
        """Make what explains verdicts."""
        return Explainer(self.representatives, self.bands)

    def _placed_explainer(self, device: torch.device) -> Explainer:
        """Make it once for a device: its constants take a while. Two threads may both do so, to the same end."""
        made: Explainer | None = self.__dict__.get("_explainer")
        if made is None:
            made = self.__dict__["_explainer"] = self.explainer().to(device)
        return made

    def save(self, folder: Path) -> None:
        """Write the parts as safetensors files, each with its facts as JSON beside it.

        Args:
            folder: Existing folder to write into.
        """
        tensors, metadata = representatives_tensors(self.representatives)
        facts = {"key": self.stored.key, "facts": dict(self.stored.facts), "metadata": dict(self.metadata)}
        _write(folder, "network", target_tensors(self.network), self.network.spec.model_dump(mode="json"))
        _write(folder, "representatives", tensors, metadata)
        _write(folder, "detector", self.stored.tensors(), facts)
        if self.twin is not None:
            _write(folder, TWIN, target_tensors(self.twin), self.twin.spec.model_dump(mode="json"))
        if self.bands is not None:
            _write(folder, BANDS, self.bands.tensors(), {"layers": list(self.representatives.layers)})

    @classmethod
    def load(cls, folder: Path) -> ScoringBundle:
        """Read what :meth:`save` wrote.

        Args:
            folder: The folder.

        Returns:
            The bundle, on the CPU, in evaluation mode.

        Raises:
            DataError: A file is missing, or not what was written.
        """
        names = (*PARTS, *(one for one in (TWIN, BANDS) if (folder / f"{one}.json").is_file()))
        kept = [f"{name}{suffix}" for name in names for suffix in (".safetensors", ".json")]
        missing = [name for name in kept if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder}: expected the files of a scoring bundle, missing: {missing}")
        try:
            read = {name: _read(folder, name) for name in names}
        except DamagedFileError as exc:
            raise exc.remade_by(REMEDY) from exc
        with plain_defaults():
            (state, facts), classes = read["detector"], representatives_from_tensors(*read["representatives"])
            return _complete(
                cls(
                    network=_network(*read["network"]),
                    representatives=classes,
                    stored=StoredDetector.restore(facts["key"], facts["facts"], state, classes),
                    metadata=facts["metadata"],
                    twin=_network(*read[TWIN]) if TWIN in read else None,
                    bands=NaturalBands.restore(read[BANDS][0]) if BANDS in read else None,
                ),
                folder,
            )


def _network(tensors: Mapping[str, Tensor], spec: Mapping[str, Any]) -> TargetNetwork:
    return target_from_spec(NetworkSpec.model_validate(spec), tensors).freeze()


def _complete(bundle: ScoringBundle, folder: Path) -> ScoringBundle:
    """Refuse a detector that reads a twin without its files."""
    if bundle.stored.detector.reads.twin and bundle.twin is None:
        raise DataError(
            f"{folder}: expected the files of a scoring bundle, missing: ['{TWIN}.safetensors', '{TWIN}.json']"
        )
    return bundle


def check_images(images: NDArray[Any], spec: NetworkSpec) -> Tensor:
    """Refuse images that the network cannot mean.

    Args:
        images: Shape ``(N, channels, H, W)``.
        spec: Facts on the network: image shape and pixel bounds.

    Returns:
        The images as a float32 tensor.

    Raises:
        DataError: The shape is another one, or pixels are outside the bounds or not finite.
    """
    low, high = spec.bounds
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(spec.image_shape):
        raise DataError(
            f"expected images of shape (N, {', '.join(map(str, spec.image_shape))}), got {tuple(images.shape)}"
        )
    tensor = torch.from_numpy(np.array(images, dtype=np.float32))  # a copy: it may not be ours to write to
    if len(tensor) and not bool(torch.isfinite(tensor).all()):
        raise DataError("expected finite pixels, got NaN or infinity")
    if len(tensor) and (float(tensor.min()) < low - RANGE_TOLERANCE or float(tensor.max()) > high + RANGE_TOLERANCE):
        raise DataError(
            f"expected pixels in [{low:g}, {high:g}], got [{float(tensor.min()):g}, {float(tensor.max()):g}]; "
            "divide 8-bit pixels by 255 when the range ends at 1"
        )
    return tensor.clamp(low, high)


def score_images(
    bundle: ScoringBundle,
    images: NDArray[Any],
    *,
    fpr: float | None = None,
    batch_size: int | None = None,
    model: DetectionModel | None = None,
    explainer: Explainer | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """Classify images and say which look attacked; may run in several threads at once.

    Args:
        bundle: Network, representatives and detector.
        images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
        fpr: False-positive rate of the verdict; None means the default of the bundle.
        batch_size: Images a forward pass; None means what suits the device.
        model: The joined parts, where they were joined before, on the device to run on; None joins them here.
        explainer: Explains verdicts, on the device of the model; None leaves that out.
        unwanted: Asked before each forward pass; true when nobody waits for the answer any more.

    Returns:
        One row per image: ``predicted_class`` (name), ``predicted_index``, ``adversarial_score`` (higher is more
        likely adversarial), ``p_value`` (conformal), ``threshold``, ``is_adversarial``, ``n_clean`` (clean images that
        the threshold rests on); with an explainer the columns of
        :func:`~adv_detect.serving.explanation.explanation_table`.

    Raises:
        DataError: The images are not usable, or get a score that is not finite.
        ConfigurationError: The rate is outside (0, 1).
        CancelledError: The answer is unwanted.
    """
    tensor = check_images(images, bundle.network.spec)
    threshold = bundle.threshold(fpr)
    model = bundle.model().eval() if model is None else model
    found = pass_through(model, tensor, batch_size=batch_size, explainer=explainer, unwanted=unwanted)
    index, score_column = found.predicted.numpy(), found.scores.numpy()
    check_scores(score_column)
    names = np.array(bundle.network.spec.class_names, dtype=object)
    table = pd.DataFrame(
        {
            "predicted_class": names[index],
            "predicted_index": index,
            "adversarial_score": score_column,
            "p_value": bundle.stored.p_values(found.scores).numpy(),
            "threshold": np.full(len(index), threshold),
            "is_adversarial": score_column > threshold,
            "n_clean": np.full(len(index), len(bundle.stored.clean_scores)),
        }
    )
    if explainer is None:
        return table
    layers = bundle.network.spec.layers
    told = explanation_table(found.explanation, class_names=names.tolist(), layers=layers, predicted=found.predicted)
    return pd.concat([table, told], axis=1)
