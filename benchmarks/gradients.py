"""Our attacks against their limit: the gradient evaluations that they need, done bare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from benchmarks.attacks import MAIN_JOB, QUICK_SEARCH, digit_task, face_search, face_task
from benchmarks.bare import best_gradient
from benchmarks.deep_features import digit_impersonation, solve_ours
from benchmarks.libraries import Ours, Task, attack_all
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios

GOAL = 1.10


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
    walk = digit_task(settings, "minimal-norm", "untargeted", count)
    yield _against_gradient("minimal-norm untargeted, `small`", walk, settings, early=True)
    yield from _on_faces(settings)
    yield _deep_features(settings)


def _on_faces(settings: Settings) -> Iterator[Row]:
    """As many faces at once as make the most gradients a second: on small batches every network is slower."""
    _, count = best_gradient(face_task(settings, "bim", "untargeted", settings.size(16, 2, gpu=256)), settings)
    count = settings.size(count, 2, gpu=count)
    face = face_task(settings, "bim", "untargeted", count)
    yield _against_gradient("bim untargeted, all steps, face network", face, settings, early=False)
    few = face_task(settings, "cw", "untargeted", count, replace(face_search(settings), rounds=1))
    yield _against_gradient("cw untargeted, face network", few, settings, early=True, rounds=1)
    walk = face_task(settings, "minimal-norm", "untargeted", count)
    yield _against_gradient("minimal-norm untargeted, face network", walk, settings, early=True, rounds=1)


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
