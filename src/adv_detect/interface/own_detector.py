"""Fit of a detector to a network of one's own, on clean images alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adv_detect.algorithms.bands import natural_bands
from adv_detect.algorithms.detectors import (
    Activations,
    Detector,
    FitData,
    LearnsFrom,
    StoredDetector,
    build_detector,
    score_activations,
)
from adv_detect.algorithms.detectors.registry import detector_class
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.representatives import ClassFeatures, Representatives, fit_representatives
from adv_detect.errors import ConfigurationError
from adv_detect.interface.gate import Gate, Scorable
from adv_detect.interface.own_images import bring_into_range, check_labels, hold_out
from adv_detect.interface.own_network import activation_reader, describe_network
from adv_detect.interface.own_twin import fit_own_twin
from adv_detect.networks.spec import NetworkSpec
from adv_detect.params import DetectorParams, RepresentativesParams
from adv_detect.serving.bundle import ScoringBundle

FPRS = (0.01, 0.03, 0.05, 0.10)
NAME = "own-network"
MOST_NEIGHBOURS, NEIGHBOUR_SHARE = 75, 5
"""Published number of neighbours; at most one in so many images of the smallest class."""


def fit(  # noqa: PLR0913 - the one call that a user makes
    model: nn.Module,
    images: Tensor | np.ndarray | Iterable[Scorable],
    labels: Sequence[int] | Tensor | np.ndarray,
    *,
    layers: Sequence[str],
    detector: str | Mapping[str, Any] = "dknn",
    twin: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    image_shape: tuple[int, int, int] | None = None,
    output: str | int | None = None,
    holdout: float = 0.3,
    constructor: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Gate:
    """Fit a detector to a trained network with clean images; no attack is needed.

    Representatives and detector learn from one part of the images, thresholds rest on the other.

    Args:
        model: The network: images ``(N, channels, H, W)`` within ``bounds`` to logits ``(N, C)``, its preprocessing
            inside. It is copied, and stays as it is.
        images: Clean images, best ones that the network was not trained on: an array ``(N, channels, H, W)``, uint8 or
            numbers within ``bounds``; or pictures (paths, bytes, PIL images).
        labels: Class of each, ``(N,)``; of each class at least a handful.
        layers: Names of the modules that are read, in network order.
        detector: A kind that learns from clean images or nothing: ``dknn``, ``kde``, ``nic``, ``twin``, or the dotted
            path of one; or ``{kind: ..., arguments: ...}``.
        twin: For a detector that reads the twin: its training, keys as under ``twin_training`` (``epsilon``,
            ``epochs``, ``network``); None takes a copy of the network, trained on for five epochs at 8/255 of the
            range.
        class_names: Name of each class; None for their numbers.
        bounds: Lowest and highest pixel value that the network takes.
        image_shape: Channels, height and width of its input, where images are pictures; None for those of the first.
        output: Key, attribute or index of the logits where the network gives more than them.
        holdout: Share of each class that thresholds rest on, in (0, 1).
        constructor: Dotted path of what builds the network, for :meth:`Gate.save`.
        arguments: Its arguments.
        seed: Decides everything random; the global random state stays as it is.
        device: Where to compute: ``auto``, ``cpu``, ``cuda``.

    Returns:
        The gate, ready to score.

    Raises:
        ConfigurationError: A layer does not exist, or the detector is none that clean images are enough for.
        DataError: Images and labels do not fit together, or are too few.
    """
    configured, place = _configured(detector), resolve_device(device)
    pixels = bring_into_range(images, bounds, image_shape)
    target = describe_network(
        model,
        pixels,
        layers=layers,
        class_names=class_names,
        bounds=bounds,
        output=output,
        constructor=constructor,
        arguments=arguments,
    )
    classes = check_labels(labels, len(pixels), target.spec.num_classes)
    learnt, held = hold_out(classes, holdout, seed)
    second = None
    if detector_class(configured.kind).needs(configured.arguments)[1].twin:
        second = fit_own_twin(target, pixels[learnt], classes[learnt], params=twin, seed=seed, device=place)
    read = activation_reader(target, second, place)
    clean, calibration = read(pixels[learnt]), read(pixels[held])
    representatives = _representatives(clean, classes[learnt], target.spec)
    bundle = ScoringBundle(
        network=target,
        representatives=representatives,
        stored=_fitted(_with_neighbours(configured, classes[learnt]), representatives, clean, calibration, seed),
        metadata={"name": NAME, "fpr": FPRS[2], "fprs": list(FPRS)},
        twin=second,
        bands=natural_bands(calibration, representatives),
    )
    return Gate(bundle, f"{NAME}/{configured.kind}", device=device)


def _fitted(
    params: DetectorParams,
    representatives: Representatives,
    clean: Activations,
    calibration: Activations,
    seed: int,
) -> StoredDetector:
    """Fit a detector on clean images; its thresholds rest on others."""
    made = build_detector(params, representatives, seed=seed)
    _refuse_views(made, params)
    if made.learns_from is not LearnsFrom.NOTHING:
        made.fit_chosen(FitData(clean, None, calibration, None), seed=seed)
    made.cpu().eval().requires_grad_(False)
    facts: dict[str, Any] = {"params": params.model_dump(mode="json"), "trained_on": made.learns_from.value}
    scores = score_activations(made, calibration).double().sort().values
    return StoredDetector(params.kind, made, params, facts, scores)


def _configured(detector: str | Mapping[str, Any]) -> DetectorParams:
    configured = DetectorParams.model_validate({"kind": detector} if isinstance(detector, str) else dict(detector))
    learns, _ = detector_class(configured.kind).needs(configured.arguments)
    if learns is LearnsFrom.ATTACKS:
        raise ConfigurationError(
            f"detector: expected one that learns from clean images or nothing, such as dknn, kde, nic or twin, got "
            f"{configured.kind!r}, which learns from attacks; train that with the pipelines (kedro run)"
        )
    return configured


def _representatives(clean: Activations, classes: Tensor, spec: NetworkSpec) -> Representatives:
    correct = clean.logits.argmax(dim=1) == classes

    def parts() -> Iterator[ClassFeatures]:
        for label in range(spec.num_classes):
            rows = torch.nonzero(correct & (classes == label)).flatten()
            features = [part[rows] for part in clean.of_layers(spec.layers)]
            yield label, features, [f"image {row}" for row in rows.tolist()]

    return fit_representatives(parts, layers=spec.layers, class_names=spec.class_names, params=RepresentativesParams())


def _with_neighbours(params: DetectorParams, classes: Tensor) -> DetectorParams:
    """Choose the number of neighbours where it is not stated: the published one is for thousands of images a class."""
    if params.kind != "dknn" or "k" in params.arguments:
        return params
    smallest = int(torch.bincount(classes)[torch.unique(classes)].min())
    k = max(1, min(MOST_NEIGHBOURS, smallest // NEIGHBOUR_SHARE))
    return params.model_copy(update={"arguments": {**params.arguments, "k": k}})


def _refuse_views(made: Detector, params: DetectorParams) -> None:
    if made.reads.views:
        raise ConfigurationError(
            f"detector: expected one that reads no views, got {params.kind!r}, which reads {list(made.reads.views)}; "
            "train that with the pipelines (kedro run)"
        )
