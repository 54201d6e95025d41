"""Network, class representatives and detector as one thing that can be stored, loaded and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.algorithms.detectors import TrajectoryDetector, build_detector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.representatives import (
    Representatives,
    representatives_from_tensors,
    representatives_tensors,
)
from adv_detect.errors import ConfigurationError, DamagedFileError, DataError
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import NetworkSpec, TargetNetwork, target_from_spec, target_tensors
from adv_detect.params import DetectorParams
from adv_detect.sharding import files, fingerprint

PARTS = ("network", "representatives", "detector")
RANGE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ScoringBundle:
    """Everything that scoring an image takes.

    Attributes:
        network: The network under attack.
        representatives: Its class representatives.
        detector: The detector that reads trajectories.
        about: Facts on the detector: ``params``, ``layers``, ``classes``, ``thresholds`` by false-positive rate,
            ``fpr`` (the default one), ``detector`` (its key), ``name`` (of the registered model).
    """

    network: TargetNetwork
    representatives: Representatives
    detector: TrajectoryDetector
    about: Mapping[str, Any]

    @property
    def thresholds(self) -> dict[float, float]:
        """Scores above which an image counts as adversarial, by false-positive rate on clean images."""
        return {float(fpr): float(value) for fpr, value in self.about["thresholds"].items()}

    def threshold(self, fpr: float | None = None) -> float:
        """Return the threshold at a false-positive rate.

        Args:
            fpr: One of the rates that thresholds were fixed for; None means the default rate of the bundle.

        Returns:
            The threshold, in units of the score.

        Raises:
            ConfigurationError: No threshold was fixed for that rate.
        """
        rate = float(self.about["fpr"] if fpr is None else fpr)
        near = [value for known, value in self.thresholds.items() if np.isclose(known, rate)]
        if not near:
            raise ConfigurationError(f"fpr: expected one of {sorted(self.thresholds)}, got {rate:g}")
        return near[0]

    def model(self) -> DetectionModel:
        """Join the parts into one differentiable model: images to class logits and adversarial scores."""
        params = DetectorParams.model_validate(self.about["params"])
        device = self.representatives.medoids[0].device
        return DetectionModel(working_form(self.network, device), self.representatives, self.detector, params)

    def save(self, folder: Path) -> None:
        """Write the parts as safetensors files, each with its facts as JSON beside it.

        Args:
            folder: Existing folder to write into.
        """
        tensors, about = representatives_tensors(self.representatives)
        _write(folder, "network", target_tensors(self.network), self.network.spec.model_dump(mode="json"))
        _write(folder, "representatives", tensors, about)
        _write(folder, "detector", self.detector.state_dict(), dict(self.about))

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
        kept = [f"{name}{suffix}" for name in PARTS for suffix in (".safetensors", ".json")]
        missing = [name for name in kept if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder}: expected the files of a scoring bundle, missing: {missing}")
        try:
            network, representatives, detector = (_read(folder, name) for name in PARTS)
        except DamagedFileError as exc:
            raise exc.remade_by("make and register it again with: kedro run --pipeline=detector_training") from exc
        return cls(
            network=target_from_spec(NetworkSpec.model_validate(network[1]), network[0]).freeze(),
            representatives=representatives_from_tensors(*representatives),
            detector=restore_detector(detector[1], detector[0]),
            about=detector[1],
        )


def restore_detector(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> TrajectoryDetector:
    """Build a trained detector from its facts and state dict.

    Args:
        about: Holds ``params``, ``layers`` and ``classes``.
        state: The state dict.

    Returns:
        The detector in evaluation mode, frozen.
    """
    params = DetectorParams.model_validate(about["params"])
    detector = build_detector(params, layers=about["layers"], classes=about["classes"])
    detector.load_state_dict(dict(state))
    detector.eval().requires_grad_(False)
    return detector


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
    tensor = torch.as_tensor(np.ascontiguousarray(images), dtype=torch.float32)
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
    batch_size: int = 256,
    model: DetectionModel | None = None,
) -> pd.DataFrame:
    """Classify images and say which look attacked.

    Args:
        bundle: Network, representatives and detector.
        images: Shape ``(N, channels, H, W)``, in the pixel range of the network.
        fpr: False-positive rate of the verdict; None means the default of the bundle.
        batch_size: Images a forward pass.
        model: The joined parts, where they were joined before, on the device to run on; None joins them here.

    Returns:
        One row per image: ``predicted_class`` (name), ``predicted_index``, ``adversarial_score`` (higher is more
        likely adversarial), ``threshold``, ``is_adversarial``.
    """
    tensor = check_images(images, bundle.network.spec)
    threshold = bundle.threshold(fpr)
    model = bundle.model().eval() if model is None else model
    device = next(model.distances.buffers()).device
    predicted, scores = [], []
    with torch.no_grad():
        for start in range(0, len(tensor), batch_size):
            logits, score = model(tensor[start : start + batch_size].to(device))
            predicted.append(logits.argmax(dim=1).cpu())
            scores.append(score.cpu())
    index = torch.cat(predicted).numpy() if predicted else np.zeros(0, dtype=np.int64)
    score_column = torch.cat(scores).double().numpy() if scores else np.zeros(0)
    names = np.array(bundle.network.spec.class_names, dtype=object)
    return pd.DataFrame(
        {
            "predicted_class": names[index],
            "predicted_index": index,
            "adversarial_score": score_column,
            "threshold": np.full(len(index), threshold),
            "is_adversarial": score_column > threshold,
        }
    )


def _write(folder: Path, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and facts, each with its digest; the tensors name the facts that they belong to."""
    fs = LocalFileSystem()
    files.write_tensors(fs, str(folder / f"{name}.safetensors"), tensors, {"name": name, "about": fingerprint(about)})
    files.write_json(fs, str(folder / f"{name}.json"), dict(about))


def _read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    fs, path = LocalFileSystem(), str(folder / f"{name}.safetensors")
    about = files.read_json(fs, str(folder / f"{name}.json"))
    if files.read_header(fs, path) != {"name": name, "about": fingerprint(about)}:
        raise DamagedFileError(path, f"it does not belong to {name}.json")
    return files.read_tensors(fs, path), about
