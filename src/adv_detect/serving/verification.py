"""A gate for 1:1 verification: two pictures in, same person or not, and neither flagged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import device_of
from adv_detect.algorithms.features import capture_activations, extract_features
from adv_detect.algorithms.similarity_thresholds import carries, threshold_at_rejection
from adv_detect.errors import ConfigurationError, DamagedFileError, DataError
from adv_detect.names import GATE_DETECTOR, GATE_SIMILARITY
from adv_detect.networks.target import TargetNetwork
from adv_detect.serving.bundle import ScoringBundle, check_images
from adv_detect.serving.part_files import read_part, write_part
from adv_detect.serving.passes import check_scores, chunked
from adv_detect.serving.servable import with_version

FORM = "gate"
"""Metadatum of a model: the form of the gate."""
PART = "pairs"
"""Name of the part beside those of a scoring bundle."""
SIDES = ("first", "second")
REMEDY = "make and register it again with: kedro run --pipeline=face_recognition"


@dataclass(frozen=True)
class VerificationBundle:
    """Everything that verifying a pair of pictures takes.

    Attributes:
        gate: Network, representatives and detector; its metadata are those of the model, with ``far`` (the default
            false-accept rate) and ``mirror`` (whether the embedding of the mirror image is added).
        same: Similarities of clean pairs of the same person, ``(n,)``, ascending.
        different: Similarities of clean pairs of different people, ``(m,)``, ascending.
        twin_same: Similarities in the twin of clean pairs of the same person, ``(k,)``, ascending; None where it is not
            asked.
    """

    gate: ScoringBundle
    same: Tensor
    different: Tensor
    twin_same: Tensor | None = None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Facts on the model."""
        return self.gate.metadata

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape ``(2, channels, H, W)`` of a pair."""
        return (len(SIDES), *self.gate.input_shape)

    @property
    def rates(self) -> tuple[str, ...]:
        """The rates that a request may give: of false accepts, and of clean pictures flagged."""
        return ("far", "fpr")

    @property
    def switches(self) -> tuple[str, ...]:
        """Return no truth values that a request may give."""
        return ()

    def similarity_threshold(self, far: float | None = None) -> float:
        """Return the similarity from which two pictures count as the same person.

        Args:
            far: False-accept rate in (0, 1); None means the default of the bundle.

        Returns:
            The least similarity of a clean pair at which no larger share of the pairs of different people is accepted;
            infinite where there is none.

        Raises:
            ConfigurationError: The rate is outside (0, 1).
        """
        rate = float(self.metadata["far"] if far is None else far)
        if not 0 < rate < 1:
            raise ConfigurationError(f"far: expected a rate above 0 and below 1, such as 0.001, got {rate:g}")
        seen = torch.unique(torch.cat([self.same, self.different]))  # ascending
        accepted = len(self.different) - torch.searchsorted(self.different.contiguous(), seen)
        allowed = seen[accepted / len(self.different) <= rate]
        return float(allowed[0]) if len(allowed) else float("inf")

    @property
    def form(self) -> str:
        """Return the form of the gate: ``detector``, ``similarity`` or ``both``."""
        return str(self.metadata.get(FORM, GATE_DETECTOR))

    def twin_threshold(self, fpr: float | None = None) -> float:
        """Return the similarity in the twin from which two pictures pass.

        Args:
            fpr: Share of clean pairs of the same person that may be turned away; None means the default of the bundle.

        Returns:
            The threshold.

        Raises:
            ConfigurationError: The clean pairs cannot carry the rate.
        """
        assert self.twin_same is not None
        rate = float(self.metadata["fpr"] if fpr is None else fpr)
        if not carries(len(self.twin_same), rate):
            raise ConfigurationError(
                f"fpr: the twin's threshold rests on {len(self.twin_same)} clean pairs, expected a rate of at least "
                f"{1 / len(self.twin_same):.2g}, got {rate:g}"
            )
        return threshold_at_rejection(self.twin_same, rate)

    def model(self) -> DetectionModel:
        """Join networks and detector."""
        return self.gate.model()

    def score(
        self,
        images: NDArray[Any],
        rates: Mapping[str, float],
        *,
        model: DetectionModel | None = None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> pd.DataFrame:
        """Verify pairs; see :func:`verify_pairs`."""
        return with_version(verify_pairs(self, images, rates, model=model, unwanted=unwanted), self.metadata)

    def save(self, folder: Path) -> None:
        """Write the parts.

        Args:
            folder: Existing folder to write into.
        """
        self.gate.save(folder)
        tensors = {"same": self.same, "different": self.different}
        tensors |= {} if self.twin_same is None else {"twin_same": self.twin_same}
        write_part(folder, PART, tensors, {"of": "clean pairs"})

    @classmethod
    def load(cls, folder: Path) -> VerificationBundle:
        """Read what :meth:`save` wrote.

        Args:
            folder: The folder.

        Returns:
            The bundle, on the CPU, in evaluation mode.

        Raises:
            DataError: A file is missing, or not what was written.
        """
        missing = [name for name in (f"{PART}.safetensors", f"{PART}.json") if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder}: expected the files of a verification bundle, missing: {missing}")
        try:
            tensors, _ = read_part(folder, PART)
            found = cls(ScoringBundle.load(folder), tensors["same"], tensors["different"], tensors.get("twin_same"))
        except DamagedFileError as exc:
            raise exc.remade_by(REMEDY) from exc
        if found.form != GATE_DETECTOR and (found.twin_same is None or found.gate.twin is None):
            raise DataError(f"{folder}: expected the twin and its clean pairs, as the gate asks it; {REMEDY}")
        return found


def verify_pairs(
    bundle: VerificationBundle,
    pairs: NDArray[Any],
    rates: Mapping[str, float],
    *,
    model: DetectionModel | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """Verify pairs of pictures behind the detector; may run in several threads at once.

    Args:
        bundle: What it takes.
        pairs: Shape ``(N, 2, channels, H, W)``, in the pixel range of the network.
        rates: ``far`` and ``fpr`` where they are not the defaults.
        model: Network and detector joined, on the device to run on; None joins them here.
        unwanted: Asked before each forward pass; true when nobody waits for the answer any more.

    Returns:
        One row per pair: ``similarity`` (cosine), ``similarity_threshold``, ``same_person``, for each picture
        ``first_score``, ``first_p_value``, ``first_is_adversarial``, ``second_...``, the detector's ``threshold``,
        ``n_clean`` (clean images that it rests on), ``n_pairs`` (pairs of different people that the similarity
        threshold rests on), ``accepted`` (the same person, and neither picture flagged). Where the gate asks the twin
        also ``twin_similarity``, ``twin_threshold``, ``twin_same_person`` and ``n_same_pairs`` (pairs of the same
        person that its threshold rests on); ``accepted`` asks for ``twin_same_person`` then, and in the form
        ``similarity`` whatever the detector says.

    Raises:
        DataError: The pairs are not usable, or get a score that is not finite.
        ConfigurationError: A rate is outside (0, 1).
        CancelledError: The answer is unwanted.
    """
    images = check_images(_sides(pairs, bundle.input_shape), bundle.gate.network.spec)
    threshold, similarity = bundle.gate.threshold(rates.get("fpr")), bundle.similarity_threshold(rates.get("far"))
    model = bundle.model().eval() if model is None else model
    second = None if bundle.form == GATE_DETECTOR else bundle.twin_threshold(rates.get("fpr"))
    seen = _pass(model, images, mirror=bool(bundle.metadata["mirror"]), twin=second is not None, unwanted=unwanted)
    scores = seen.scores
    check_scores(scores.numpy())
    found = _similarities(seen.templates)
    flagged, p_values = (scores > threshold).numpy(), bundle.gate.stored.p_values(scores).numpy()
    columns: dict[str, Any] = {"similarity": found, "similarity_threshold": similarity}
    columns["same_person"] = found >= similarity
    for offset, side in enumerate(SIDES):
        columns |= {
            f"{side}_score": scores[offset::2].numpy(),
            f"{side}_p_value": p_values[offset::2],
            f"{side}_is_adversarial": flagged[offset::2],
        }
    columns |= {"threshold": threshold, "n_clean": len(bundle.gate.stored.clean_scores)}
    columns |= {"n_pairs": len(bundle.different)}
    accepted = columns["same_person"]
    if bundle.form != GATE_SIMILARITY:
        accepted = accepted & ~flagged[0::2] & ~flagged[1::2]
    if second is not None and bundle.twin_same is not None:
        in_twin = _similarities(seen.twin)
        columns |= {"twin_similarity": in_twin, "twin_threshold": second, "twin_same_person": in_twin >= second}
        columns |= {"n_same_pairs": len(bundle.twin_same)}
        accepted = accepted & columns["twin_same_person"]
    return pd.DataFrame(columns | {"accepted": accepted})


def _similarities(templates: Tensor) -> NDArray[np.float64]:
    """Cosine similarities ``(N,)`` of templates ``(2 N, D)``, the sides of a pair below each other."""
    found: NDArray[np.float64] = functional.cosine_similarity(
        templates[0::2].double(), templates[1::2].double(), dim=1
    ).numpy()
    return found


def _sides(pairs: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Put the pictures of pairs ``(N, 2, ...)`` below each other, ``(2 N, ...)``."""
    if pairs.ndim != len(shape) + 1 or pairs.shape[1:] != shape:
        raise DataError(f"expected pairs of shape (N, {', '.join(map(str, shape))}), got {tuple(pairs.shape)}")
    return pairs.reshape(-1, *shape[1:])


@dataclass(frozen=True)
class _Seen:
    """Scores ``(N,)``, float64, and templates ``(N, D)`` of network and twin."""

    scores: Tensor
    templates: Tensor
    twin: Tensor


@torch.no_grad()
def _pass(model: DetectionModel, images: Tensor, *, mirror: bool, twin: bool, unwanted: Callable[[], bool]) -> _Seen:
    """Score images and embed them in the last layer, together with their mirror images where these count."""
    scores, templates, seconds = [torch.zeros(0)], [], [torch.zeros(0)]
    for batch in chunked(images, device_of(model.network), unwanted=unwanted):
        with _last_of(model.twin if twin else None) as second:
            seen = model.activations(batch)
        template = seen.features[model.layers[-1]]
        if mirror:
            template = template + extract_features(model.network, batch.flip(-1), model.layers[-1:])[1][0]
        scores.append(model.detector(seen).cpu())
        templates.append(template.cpu())
        if twin and model.twin is not None:
            (own,) = second.values()
            last = model.twin.spec.layers[-1:]
            seconds.append((own + extract_features(model.twin, batch.flip(-1), last)[1][0] if mirror else own).cpu())
    return _Seen(torch.cat(scores).double(), torch.cat(templates), torch.cat(seconds[1:] or seconds))


def _last_of(network: TargetNetwork | None) -> AbstractContextManager[dict[str, Tensor]]:
    """Read the last layer of a network that runs inside the context."""
    return nullcontext({}) if network is None else capture_activations(network, network.spec.layers[-1:])
