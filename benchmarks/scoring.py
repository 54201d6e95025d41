"""Latency and throughput of network with detector against the network alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors import TrajectoryDetector, random_readout
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.representatives import Representatives
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import DetectorParams
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios
from benchmarks.subjects import digit_representatives, digits, faces, random_representatives

GOAL, GOAL_BATCH = 1.10, 256
CONFIGURATIONS = (
    DetectorParams(kind="lstm", representative="medoid", distance="cosine"),
    DetectorParams(kind="lstm", representative="centroid", distance="mahalanobis", order="ranked"),
)


def measure_scoring(settings: Settings) -> Iterator[Row]:
    """`small` with two detectors, MobileFaceNet with one; batch 1 and a large one."""
    network, images, _ = digits(settings)
    fast = working_form(network, settings.device)
    for params in CONFIGURATIONS:
        model = digit_model(params, settings)
        for size, repeats in ((1, settings.size(100, 5)), (GOAL_BATCH, settings.size(5, 1, gpu=50))):
            label = f"`small`, {params.kind} {params.distance} {params.order}"
            yield _scored(label, model, fast, images[:size], repeats, settings)
    plain, pictures, _ = faces(settings, settings.size(GOAL_BATCH, 4))
    face = working_form(plain, settings.device)
    params = CONFIGURATIONS[0]
    model = _with_detector(face, random_representatives(face, pictures), params)
    label = f"face network, {params.kind} {params.distance}"
    yield _scored(label, model, face, pictures[:1], settings.size(10, 1, gpu=50), settings)
    yield _scored(label, model, face, pictures, 1, settings, rounds=settings.rounds)


def digit_model(params: DetectorParams, settings: Settings) -> nn.Module:
    """`small` with an untrained detector."""
    network, _, _ = digits(settings)
    return _with_detector(working_form(network, settings.device), digit_representatives(settings), params)


def _with_detector(network: TargetNetwork, representatives: Representatives, params: DetectorParams) -> nn.Module:
    """A network on its device with an untrained detector."""
    spec = network.spec
    readout = random_readout(params, len(spec.layers), len(spec.class_names), seed=0)
    detector = TrajectoryDetector(representatives, params, readout)
    device = next(network.parameters()).device
    return DetectionModel(network, detector, spec.layers).eval().to(device)


def _scored(
    label: str,
    model: nn.Module,
    network: nn.Module,
    batch: Tensor,
    repeats: int,
    settings: Settings,
    *,
    rounds: int = 0,
) -> Row:
    """A row; few rounds where a batch takes many seconds."""

    @torch.no_grad()
    def run(module: nn.Module) -> None:
        for _ in range(repeats):
            module(batch)

    works = {OURS: lambda: run(model), "alone": lambda: run(network)}
    times = in_turns(works, settings.device, rounds=rounds or settings.many_rounds)
    with_detector, alone = (min(times[name]) / repeats for name in (OURS, "alone"))
    size = len(batch)
    note = (
        f"with / without: {1000 * with_detector:.2f} / {1000 * alone:.2f} ms a batch, {size / with_detector:,.0f} / "
        f"{size / alone:,.0f} images a second"
    )
    goal = GOAL if size == GOAL_BATCH else None
    name = f"{label}, batch {size}: with detector / without"
    return Row("scoring", name, ratios(times[OURS], times["alone"]), note, goal, at_most=True)
