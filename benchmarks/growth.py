"""How time and memory grow with images, classes and layers."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors import random_readout
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import ClassFeatures, Representatives, fit_representatives
from adv_detect.algorithms.trajectories import order_classes
from adv_detect.images import load_images
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorParams,
    DetectorTrainingParams,
    NetworkParams,
    RayParams,
    RepresentativesParams,
    RuntimeParams,
    SplitParams,
)
from adv_detect.sharding import ShardPlan, ShardStore, execute_plan
from benchmarks.measure import MIB, Measured, Row, Settings, in_child, in_turns, ratios

GROUP = "growth"
GOAL = 1.10
WIDTH, LAYERS, ROWS, KEPT = 256, 6, 256, 10
CLASSES = (10, 100, 1000, 10_000)
DEPTHS = (3, 12, 48)
CLASSES_OF_DEPTHS = 100
FITTED_CLASSES = (10, 1000, 10_000)
FITTED_WIDTH, IMAGES_A_CLASS = 64, 5
IMAGE = (3, 112, 96)
IMAGES, SHARD, STEPS = 500, 125, 1
WARM_IMAGES = 50
FIRST_CLASS_BIAS = 5.0
BYTES_A_VALUE = 4


class Tiny(nn.Module):
    """Three convolutions that halve the image; noise is always of the first class.

    Attributes:
        default_layers: Names of the layers read.
    """

    default_layers = ("relu2", "relu3")

    def __init__(self, *, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(IMAGE[0], width, 3, stride=2), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(width, 2 * width, 3, stride=2), nn.ReLU()
        self.conv3, self.relu3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2), nn.ReLU()
        self.head = nn.Linear(2 * width, num_classes)
        with torch.no_grad():
            self.head.bias[0] += FIRST_CLASS_BIAS

    def forward(self, images: Tensor) -> Tensor:
        inner = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        logits: Tensor = self.head(self.relu3(self.conv3(inner)).mean(dim=(2, 3)))
        return logits


class Noise:
    """Images drawn from their index: as many as wanted, none of them stored.

    All are labelled as the class that `Tiny` gives them, so that all are attacked.
    """

    class_names = tuple("0123456789")
    identity = "noise"

    def __init__(self, count: int) -> None:
        self.labels = torch.zeros(count, dtype=torch.int64)
        self.source_ids: Sequence[str] = [f"noise/{number}" for number in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(int(index))
        return torch.rand(IMAGE, generator=generator), int(self.labels[index])


def generation_plan(
    count: int, *, engine: str = "local", steps: int = STEPS, shard: int = SHARD, width: int = 8
) -> ShardPlan:
    """Untargeted BIM, all steps, on a random `Tiny` of some width, by the nodes of the main job."""
    from adv_detect.pipelines.adversarial_generation.nodes import generate_adversarials, split_sources

    images = Noise(count)
    params = NetworkParams(name="benchmarks.growth.Tiny", arguments={"width": width})
    target = build_target(params, class_names=images.class_names, image_shape=IMAGE, seed=0).freeze()
    runtime = RuntimeParams.model_validate(
        {"shard_size": shard, "batch_size": shard, "engine": engine, "ray": RayParams(num_cpus=1), "progress": False,
         "device": "cpu"}
    )  # fmt: skip
    attack = {
        "attack": "bim", "norm": "linf", "epsilon": 0.3, "arguments": {"steps": steps}, "return_early": False,
        "criteria": ["untargeted"],
    }  # fmt: skip
    attacks = AdversarialGenerationParams.model_validate({"attacks": {"bim": attack}})
    detectors = DetectorTrainingParams.model_validate(
        {"configurations": {"lstm": {"kind": "lstm", "train_forms": ["early", "confident"]}}}  # all splits are attacked
    )
    splits = split_sources(images, SplitParams(), runtime)
    return generate_adversarials(images, target, _representatives(target, images), splits, attacks, runtime, detectors)


@torch.no_grad()
def _representatives(target: TargetNetwork, images: Noise) -> Representatives:
    _, features = extract_features(target, load_images(images, range(40), (0.0, 1.0)), target.spec.layers)
    parts = [
        (label, [one[label::10] for one in features], [f"{label}/{row}" for row in range(4)]) for label in range(10)
    ]
    return fit_representatives(
        parts, layers=target.spec.layers, class_names=images.class_names, params=RepresentativesParams()
    )


def generate(count: int) -> float:
    """Seconds of the generation of so many images' adversarials, shards written to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        plan = generation_plan(count)
        started = time.perf_counter()
        execute_plan(plan, ShardStore(str(Path(folder, "shards"))))
        return time.perf_counter() - started


def measure_growth(settings: Settings) -> Iterator[Row]:
    """Generation on the processor with more images; trajectories and scores with more classes and layers."""
    yield from _with_images(settings)
    yield from _synthetic(settings, [(f"{classes:,} classes", classes, LAYERS) for classes in CLASSES])
    yield from _synthetic(settings, [(f"{layers} layers", CLASSES_OF_DEPTHS, layers) for layers in DEPTHS])
    yield from _representatives_of(settings, FITTED_CLASSES[:2] if settings.quick else FITTED_CLASSES)


def _with_images(settings: Settings) -> Iterator[Row]:
    few = settings.size(IMAGES, WARM_IMAGES)
    rounds = [_pair(few, 10 * few, few_first=number % 2 == 0) for number in range(settings.size(2, 1))]
    base, more = rounds[0]
    held = 9 * few * math.prod(IMAGE) * BYTES_A_VALUE / MIB
    note = (
        f"noise of {IMAGE[0]} x {IMAGE[1]} x {IMAGE[2]}, network of three convolutions, shards of {SHARD}, {few:,} and "
        f"{10 * few:,} images: {base.peak_mib:.0f} and {more.peak_mib:.0f} MiB of the whole process, "
        f"+{base.added_mib:.0f} and +{more.added_mib:.0f} MiB over a run on {WARM_IMAGES}; to hold all adversarials "
        f"would add {held:.0f} MiB"
    )
    outcome = {
        "peak_mib": more.peak_mib, "other_peak_mib": base.peak_mib, "added_mib": more.added_mib,
        "other_added_mib": base.added_mib,
    }  # fmt: skip
    memory = tuple(second.peak_mib / first.peak_mib for first, second in rounds)
    yield Row(GROUP, "peak memory of generation, ten times the images", memory, note, GOAL, True, outcome=outcome)
    note = f"the same; {few / base.result:,.0f} and {10 * few / more.result:,.0f} images a second"
    times = tuple(second.result / first.result for first, second in rounds)
    yield Row(GROUP, "time of generation, ten times the images", times, note)


def _pair(few: int, many: int, *, few_first: bool) -> tuple[Measured, Measured]:
    """Generation of few and of many images, each in a process of its own."""
    counts = (few, many) if few_first else (many, few)
    found = {count: in_child(generate, count, warm=(WARM_IMAGES,)) for count in counts}
    return found[few], found[many]


def _synthetic(settings: Settings, cases: Sequence[tuple[str, int, int]]) -> Iterator[Row]:
    """Time of each case over that of the first, round by round."""
    cases = cases[:2] if settings.quick else cases
    works = {label: _Trajectories(classes, layers, settings.device) for label, classes, layers in cases}
    times = in_turns(works, settings.device, rounds=settings.many_rounds)
    first = cases[0][0]
    for label, spent in times.items():
        note = f"synthetic features, {ROWS} images, width {WIDTH}, the {KEPT} classes ranked first kept"
        note += f": {1e6 * min(spent) / ROWS:.0f} microseconds an image"
        yield Row(GROUP, f"trajectories + detector, {label} / {first}", ratios(spent, times[first]), note)


def _representatives_of(settings: Settings, counts: Sequence[int]) -> Iterator[Row]:
    """Time of each number of classes over that of the first, round by round."""
    works = {classes: partial(_fit, _class_features(classes)) for classes in counts}
    names = {f"{classes:,} classes": work for classes, work in works.items()}
    times = in_turns(names, settings.device, rounds=settings.rounds)
    first = f"{counts[0]:,} classes"
    for classes, (label, spent) in zip(counts, times.items(), strict=True):
        note = (
            f"synthetic features on the processor, one layer of width {FITTED_WIDTH}, {IMAGES_A_CLASS} images a class"
        )
        note += f": {1e6 * min(spent) / classes:.0f} microseconds a class"
        yield Row(GROUP, f"medoids, centroids and whitening, {label} / {first}", ratios(spent, times[first]), note)


def _class_features(classes: int) -> list[ClassFeatures]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(classes, IMAGES_A_CLASS, FITTED_WIDTH, generator=generator)
    ids = [str(row) for row in range(IMAGES_A_CLASS)]
    return [(label, [one], ids) for label, one in enumerate(features)]


def _fit(parts: Sequence[ClassFeatures]) -> Representatives:
    names = [str(label) for label, _, _ in parts]
    return fit_representatives(parts, layers=("synthetic",), class_names=names, params=RepresentativesParams())


class _Trajectories:
    """Distances, ranking and scores of random features."""

    def __init__(self, classes: int, layers: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.features = [torch.randn(ROWS, WIDTH, generator=generator).to(device) for _ in range(layers)]
        self.logits = torch.randn(ROWS, classes, generator=generator).to(device)
        centres = [torch.randn(classes, WIDTH, generator=generator) for _ in range(layers)]
        self.distances = ClassDistances(centres, "cosine").to(device)
        params = DetectorParams(kind="lstm", distance="cosine", order="ranked", top_k=KEPT)
        self.detector = random_readout(params, layers, KEPT, seed=0).to(device)

    @torch.no_grad()
    def __call__(self) -> None:
        measured = self.distances(self.features)
        self.detector(order_classes(measured, self.logits, order="ranked", top_k=KEPT))
