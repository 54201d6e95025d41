"""Our attacks against their limit: the gradient evaluations that they need, done bare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.attacks import MAIN_JOB, QUICK_SEARCH, digit_task, face_search, face_task
from benchmarks.deep_features import digit_impersonation, solve_ours
from benchmarks.libraries import Ours, Task, attack_all, own_form
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios, seconds

GOAL = 1.15
BATCH_SIZES = (16, 32, 64, 128, 256, 512)
GPU_BATCH_SIZES = (256, 1024, 2048, 4096)
LARGE_IMAGE = 10_000
LARGE_SIZES, QUICK_SIZES = 3, 2
PROBES = 3


def measure_gradients(settings: Settings) -> Iterator[Row]:
    """Our time over gradient evaluations times the time of a bare one at the best batch size."""
    count = settings.size(256, 32, gpu=1536)
    for label, kind, criterion, early in (
        ("bim untargeted, all steps", "bim", "untargeted", False),
        ("pgd targeted, all steps", "pgd", "targeted", False),
        ("mi-fgsm untargeted, all steps", "mi-fgsm", "untargeted", False),
        ("bim untargeted, stopped early", "bim", "untargeted", True),
    ):
        yield _against_gradient(
            f"{label}, `small`", digit_task(settings, kind, criterion, count), settings, early=early
        )
    search = QUICK_SEARCH if settings.quick else MAIN_JOB
    few = digit_task(settings, "cw", "untargeted", settings.size(96, 16, gpu=1536), search)
    yield _against_gradient("cw untargeted, `small`", few, settings, early=True)
    face = face_task(settings, "bim", "untargeted", settings.size(8, 2, gpu=256))
    yield _against_gradient("bim untargeted, all steps, face network", face, settings, early=False)
    few = face_task(settings, "cw", "untargeted", settings.size(8, 2, gpu=128), face_search(settings))
    yield _against_gradient("cw untargeted, face network", few, settings, early=True, rounds=1)
    yield _deep_features(settings)


def _against_gradient(label: str, task: Task, settings: Settings, *, early: bool, rounds: int = 0) -> Row:
    ours = Ours(task, early=early)
    attack_all(ours, task)
    needed = ours.evaluations
    return _row(label, task, partial(attack_all, ours, task), needed, settings, rounds=rounds)


def _deep_features(settings: Settings) -> Row:
    """L-BFGS to the end; the bare gradient is that of the logits, one layer above the features."""
    aim = digit_impersonation(settings, early=False)
    task = Task(aim.network, aim.images, aim.labels, aim.targets, "deep-features")
    each = solve_ours(aim)[1]
    label = "deep features (L-BFGS), all iterations, `small`"
    return _row(label, task, partial(solve_ours, aim), round(each * len(aim.images)), settings)


def _row(
    label: str, task: Task, attack: Callable[[], object], needed: int, settings: Settings, *, rounds: int = 0
) -> Row:
    bare, size = best_gradient(task, settings)
    repeats = math.ceil(needed / size)
    works: dict[str, Callable[[], object]] = {OURS: attack, "bare": partial(_repeat, bare, repeats)}
    times = in_turns(works, settings.device, rounds=rounds or settings.rounds, warm=False)
    values = ratios(times[OURS], times["bare"], scale=repeats * size / needed)
    each = needed / len(task.images)
    rate = size * repeats / min(times["bare"])
    note = (
        f"n = {len(task.images)}, {each:.1f} gradients an image; bare: {size} images at a time, {rate:,.0f} gradients "
        "a second"
    )
    name = f"{label}: time / (gradients x time of a bare one)"
    return Row("bare gradient", name, values, note, GOAL, at_most=True, outcome={"gradients": each})


def _repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def best_gradient(task: Task, settings: Settings) -> tuple[Callable[[], Tensor], int]:
    """One forward and backward pass at the batch size that makes most images a second, and that size."""
    large = task.images[0].numel() > LARGE_IMAGE
    few = QUICK_SIZES if settings.quick else LARGE_SIZES if large else None
    sizes = (GPU_BATCH_SIZES if settings.device.type == "cuda" else BATCH_SIZES)[:few]
    works = {size: gradient(task, size) for size in sizes}
    found = {}
    for size, work in works.items():
        work()
        found[size] = min(seconds(work, settings.device) for _ in range(settings.size(PROBES, 1))) / size
    best = min(found, key=found.__getitem__)
    return works[best], best


def gradient(task: Task, size: int) -> Callable[[], Tensor]:
    """One forward and backward pass of so many of the task's images."""
    copies = math.ceil(size / len(task.images))
    images = task.images.repeat(copies, 1, 1, 1)[:size]
    labels = task.labels.repeat(copies)[:size]
    network = own_form(task.network, images.device)

    def work() -> Tensor:
        leaf = images.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(network(leaf), labels, reduction="sum")
        return torch.autograd.grad(loss, leaf)[0]

    return work
