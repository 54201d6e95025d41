"""Features and trajectories: against a bare forward pass, and against one image, layer and class at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.features import extract_features
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios
from benchmarks.subjects import digit_representatives, digits, faces, random_representatives

GROUP = "extraction"
GOAL = 1.10
BATCH = 256
DISTANCES = ("cosine", "mahalanobis")


def measure_extraction(settings: Settings) -> Iterator[Row]:
    """Both networks, two distances; then the loop."""
    network, images, _ = digits(settings)
    representatives = digit_representatives(settings)
    count = settings.size(1024, 128, gpu=1792)
    for name in DISTANCES:
        distances = ClassDistances(representatives.centroids, name, whitening=representatives.whitening)
        yield _against_forward(f"`small`, {name}", network, images[:count], distances.to(settings.device), settings)
    face, pictures, _ = faces(settings, settings.size(32, 4, gpu=1024))
    distances = ClassDistances(random_representatives(face, pictures).medoids, "cosine").to(settings.device)
    yield _against_forward("face network, cosine", face, pictures, distances, settings)
    few = settings.size(50, 10)
    yield _against_loop(network, images[:count], few, representatives.medoids, settings)


def _against_forward(
    label: str, network: TargetNetwork, images: Tensor, distances: ClassDistances, settings: Settings
) -> Row:
    layers = network.spec.layers
    fast = working_form(network, settings.device)

    @torch.no_grad()
    def ours() -> None:
        for batch in torch.split(images, BATCH):
            distances(extract_features(fast, batch, layers)[1])

    @torch.no_grad()
    def bare() -> None:
        for batch in torch.split(images, BATCH):
            fast(batch)

    times = in_turns({OURS: ours, "bare": bare}, settings.device, rounds=settings.many_rounds)
    note = (
        f"n = {len(images)}, batch size {min(BATCH, len(images))}, {len(layers)} layers, "
        f"{len(network.spec.class_names)} classes; {len(images) / min(times[OURS]):,.0f} images a second"
    )
    name = f"features + trajectories, {label}: time / bare forward"
    return Row(GROUP, name, ratios(times[OURS], times["bare"]), note, GOAL, at_most=True)


def _against_loop(network: TargetNetwork, images: Tensor, few: int, centres: list[Tensor], settings: Settings) -> Row:
    layers = network.spec.layers
    distances = ClassDistances(centres, "cosine").to(settings.device)

    @torch.no_grad()
    def looped() -> None:
        for image in images[:few]:
            features = extract_features(network, image[None], layers)[1]
            for one, points in zip(features, centres, strict=True):
                for centre in points:
                    nn.functional.cosine_similarity(one, centre[None])

    @torch.no_grad()
    def ours() -> None:
        for batch in torch.split(images, BATCH):
            distances(extract_features(working_form(network, settings.device), batch, layers)[1])

    times = in_turns({OURS: ours, "loop": looped}, settings.device, rounds=settings.rounds)
    values = ratios(times["loop"], times[OURS], scale=len(images) / few)
    note = f"per image, over {few} images by the loop (the way of the published code) and {len(images)} by ours"
    return Row(GROUP, "one image, layer and class at a time / ours, `small`, cosine", values, note)
