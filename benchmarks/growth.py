"""How time and memory grow with images, classes and layers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from adv_detect.algorithms.detectors import random_detector
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives, fit_representatives
from adv_detect.algorithms.trajectories import order_classes
from adv_detect.images import load_images
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorParams,
    NetworkParams,
    RayParams,
    RepresentativesParams,
    RuntimeParams,
    SplitParams,
)
from adv_detect.sharding import ShardPlan, ShardStore, execute_plan
from benchmarks.measure import Row, Settings, in_child, seconds

GROUP = "growth"
GOAL = 1.10
WIDTH, LAYERS, ROWS, KEPT = 256, 6, 256, 10
CLASSES = (10, 100, 1000, 10_000)
DEPTHS = (3, 12, 48)
CLASSES_OF_DEPTHS = 100
SHARD, BATCH = 250, 125
WARM_IMAGES = 500


class Noise:
    """Images drawn from their index: as many as wanted, none of them stored."""

    class_names = tuple("0123456789")
    identity = "noise"

    def __init__(self, count: int) -> None:
        self.labels = torch.arange(count) % 10
        self.source_ids: Sequence[str] = [f"noise/{number}" for number in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(int(index))
        return torch.rand(1, 28, 28, generator=generator), int(self.labels[index])


def generation_plan(count: int, *, engine: str = "local", steps: int = 3) -> ShardPlan:
    """Untargeted BIM, all steps, on a random `small`, by the nodes of the main job."""
    from adv_detect.pipelines.adversarial_generation.nodes import generate_adversarials, split_sources

    images = Noise(count)
    target = build_target(NetworkParams(name="small"), class_names=images.class_names, image_shape=(1, 28, 28), seed=0)
    target.freeze()
    runtime = RuntimeParams.model_validate(
        {"shard_size": SHARD, "batch_size": BATCH, "engine": engine, "ray": RayParams(num_cpus=1), "progress": False,
         "device": "cpu"}
    )  # fmt: skip
    attack = {
        "attack": "bim", "norm": "linf", "epsilon": 0.3, "arguments": {"steps": steps}, "return_early": False,
        "criteria": ["untargeted"],
    }  # fmt: skip
    attacks = AdversarialGenerationParams.model_validate({"attacks": {"bim": attack}})
    splits = split_sources(images, SplitParams(), runtime)
    return generate_adversarials(images, target, _representatives(target, images), splits, attacks, runtime)


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


def _with_images(settings: Settings) -> Iterator[Row]:
    few = settings.size(500, 250)
    base, more = (in_child(generate, count, warm=(WARM_IMAGES,)) for count in (few, 10 * few))
    note = (
        f"synthetic images, shards of {SHARD}, {few:,} and {10 * few:,} images: {base.peak_mib:.0f} and "
        f"{more.peak_mib:.0f} MiB of the whole process"
    )
    outcome = {"peak_mib": more.peak_mib, "other_peak_mib": base.peak_mib}
    memory = (more.peak_mib / base.peak_mib,)
    yield Row(GROUP, "peak memory of generation, ten times the images", memory, note, GOAL, True, outcome=outcome)
    note = f"synthetic images; {few / base.result:,.0f} and {10 * few / more.result:,.0f} images a second"
    yield Row(GROUP, "time of generation, ten times the images", (more.result / base.result,), note)


def _synthetic(settings: Settings, cases: Sequence[tuple[str, int, int]]) -> Iterator[Row]:
    """Time of each case over that of the first, round by round."""
    cases = cases[:2] if settings.quick else cases
    works = {label: _Trajectories(classes, layers, settings.device) for label, classes, layers in cases}
    first = cases[0][0]
    base = _best(works[first], settings)
    for label, work in works.items():
        spent = base if label == first else _best(work, settings)
        note = f"synthetic features, {ROWS} images, width {WIDTH}, the {KEPT} classes ranked first kept"
        note += f": {1e6 * min(spent) / ROWS:.0f} microseconds an image"
        values = tuple(one / min(base) for one in spent)
        yield Row(GROUP, f"trajectories + detector, {label} / {first}", values, note)


def _best(work: _Trajectories, settings: Settings) -> list[float]:
    work()
    return [seconds(work, settings.device) for _ in range(settings.many_rounds)]


class _Trajectories:
    """Distances, ranking and scores of random features."""

    def __init__(self, classes: int, layers: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.features = [torch.randn(ROWS, WIDTH, generator=generator).to(device) for _ in range(layers)]
        self.logits = torch.randn(ROWS, classes, generator=generator).to(device)
        centres = [torch.randn(classes, WIDTH, generator=generator) for _ in range(layers)]
        self.distances = ClassDistances(centres, "cosine").to(device)
        params = DetectorParams(kind="lstm", distance="cosine", order="ranked", top_k=KEPT)
        self.detector = random_detector(params, layers, KEPT, seed=0).to(device)

    @torch.no_grad()
    def __call__(self) -> None:
        measured = self.distances(self.features)
        self.detector(order_classes(measured, self.logits, order="ranked", top_k=KEPT))
