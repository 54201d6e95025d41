"""How time and memory grow with images, classes and layers; two Ray workers against one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from adv_detect.algorithms.detectors import random_detector
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.trajectories import order_classes
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorParams,
    RayParams,
    RepresentativesParams,
    RuntimeParams,
    SplitParams,
)
from adv_detect.sharding import ShardPlan, ShardStore, execute_plan
from benchmarks.harness import Row, Settings, in_child, peak_mib, seconds

MEMORY_GOAL, RAY_GOAL = 1.10, 1.7
WIDTH, LAYERS, ROWS = 256, 6, 256


class Noise:
    """Images drawn from their index: as many as wanted, none of them stored."""

    class_names = tuple("0123456789")
    identity = "noise"

    def __init__(self, count: int) -> None:
        self.labels = torch.arange(count) % 10
        self.source_ids = [f"noise/{number}" for number in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(int(index))
        return torch.rand(1, 28, 28, generator=generator), int(self.labels[index])


def generation_plan(count: int, *, engine: str = "local", steps: int = 5) -> ShardPlan:
    """Untargeted BIM, all steps, on a random `small`, in shards of 250."""
    from adv_detect.algorithms.features import extract_features
    from adv_detect.algorithms.representatives import fit_representatives
    from adv_detect.images import load_images
    from adv_detect.networks.target import build_target
    from adv_detect.params import NetworkParams
    from adv_detect.pipelines.adversarial_generation.nodes import generate_adversarials, split_sources

    images = Noise(count)
    target = build_target(NetworkParams(name="small"), class_names=images.class_names, image_shape=(1, 28, 28), seed=0)
    target.freeze()
    with torch.no_grad():
        _, features = extract_features(target, load_images(images, range(40), (0.0, 1.0)), target.spec.layers)
    ids = [[f"{label}/{row}" for row in range(4)] for label in range(10)]
    parts = [(label, [one[label::10] for one in features], ids[label]) for label in range(10)]
    representatives = fit_representatives(
        parts, layers=target.spec.layers, class_names=images.class_names, params=RepresentativesParams()
    )
    runtime = RuntimeParams(
        shard_size=250, batch_size=125, engine=engine, ray=RayParams(num_cpus=1), progress=False, device="cpu"
    )
    attacks = AdversarialGenerationParams.model_validate(
        {"attacks": {"bim": {"attack": "bim", "norm": "linf", "epsilon": 0.3, "arguments": {"steps": steps},
                             "return_early": False, "criteria": ["untargeted"]}}}
    )  # fmt: skip
    splits = split_sources(images, SplitParams(), runtime)
    return generate_adversarials(images, target, representatives, splits, attacks, runtime)


def generate(count: int, threads: int) -> float:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        execute_plan(generation_plan(500), ShardStore(str(Path(folder, "before"))))  # libraries and pools are there now
        started = time.perf_counter()
        execute_plan(generation_plan(count), ShardStore(str(Path(folder, "shards"))))
        return time.perf_counter() - started


def measure_memory(settings: Settings) -> Iterator[Row]:
    """Peak memory of generation, whole process, when the data grow tenfold."""
    few = settings.size(1000, 500)
    threads = torch.get_num_threads()
    base = in_child(generate, few, threads)
    more = in_child(generate, 10 * few, threads)
    empty = in_child(_peak_of, few, threads)[0]
    large = in_child(_peak_of, 10 * few, threads)[0]
    note = f"{few:,} against {10 * few:,} images: {empty:.0f} and {large:.0f} MiB of the whole process"
    yield Row("growth", "peak memory of generation, ten times the images", (large / empty,), note, MEMORY_GOAL, True)
    note = f"{few / base[0]:,.0f} and {10 * few / more[0]:,.0f} images a second"
    yield Row("growth", "time of generation, ten times the images", (more[0] / base[0],), note)


def _peak_of(count: int, threads: int) -> float:

    generate(count, threads)
    return peak_mib()


def measure_classes(settings: Settings) -> Iterator[Row]:
    """Trajectories, ranking and scoring of synthetic features from ten to ten thousand classes; then more layers."""
    generator = torch.Generator().manual_seed(0)
    base: dict[str, float] = {}
    for classes in (10, 100, 1000, 10_000) if not settings.quick else (10, 100):
        yield _synthetic(f"{classes:,} classes", classes, LAYERS, generator, settings, base)
    base.clear()
    for layers in (3, 12, 48) if not settings.quick else (3, 12):
        yield _synthetic(f"{layers} layers", 100, layers, generator, settings, base)


def _synthetic(
    label: str, classes: int, layers: int, generator: torch.Generator, settings: Settings, base: dict[str, float]
) -> Row:
    params = DetectorParams(kind="lstm", distance="cosine", order="ranked", top_k=10)
    features = [torch.randn(ROWS, WIDTH, generator=generator).to(settings.device) for _ in range(layers)]
    logits = torch.randn(ROWS, classes, generator=generator).to(settings.device)
    centres = [torch.randn(classes, WIDTH, generator=generator).to(settings.device) for _ in range(layers)]
    measure = ClassDistances(centres, "cosine").to(settings.device)
    detector = random_detector(params, layers, 10, seed=0).to(settings.device)

    @torch.no_grad()
    def work() -> None:
        detector(order_classes(measure(features), logits, order="ranked", top_k=10))

    work()
    spent = [seconds(work, settings.device) for _ in range(2 * settings.rounds + 1)]
    base.setdefault("first", min(spent))
    ratios = tuple(one / base["first"] for one in spent)
    each = 1e6 * min(spent) / ROWS
    note = f"synthetic features, {ROWS} images, width {WIDTH}, top_k 10: {each:.0f} microseconds an image"
    return Row("growth", f"trajectories + detector, {label}: time / that of the first of these rows", ratios, note)


def measure_ray(settings: Settings) -> Iterator[Row]:
    """Generation by two Ray workers of one core each against one."""
    name = "generation: one Ray worker of one core / two"
    if find_spec("ray") is None:
        yield Row("ray", name, (float("nan"),), "ray is not installed")
        return
    import os

    if (os.cpu_count() or 1) < 2:
        yield Row("ray", name, (float("nan"),), "needs two cores")
        return
    shards = settings.size(16, 4)
    ratios = []
    for _ in range(1 if settings.quick else 2):
        one, two = in_child(ray_seconds, 1, shards)[0], in_child(ray_seconds, 2, shards)[0]
        ratios.append(one / two)
    yield Row("ray", name, tuple(ratios), f"{shards} shards of 250 images, start of the cluster not counted", RAY_GOAL)


def ray_seconds(workers: int, shards: int) -> float:
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as folder:
            warm = generation_plan(500, engine="ray")
            execute_plan(warm, ShardStore(str(Path(folder, "before"))))
            plan = generation_plan(250 * shards, engine="ray", steps=20)
            started = time.perf_counter()
            execute_plan(plan, ShardStore(str(Path(folder, "shards"))))
            return time.perf_counter() - started
    finally:
        ray.shutdown()


def measure_growth(settings: Settings) -> Iterator[Row]:
    yield from measure_memory(settings)
    yield from measure_classes(settings)
    yield from measure_ray(settings)
