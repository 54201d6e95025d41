"""Attacks against foolbox, torchattacks and the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.bare import LARGE_IMAGE
from benchmarks.libraries import LIBRARIES, Attack, Ours, Search, Task, attack_all, installed
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios
from benchmarks.subjects import digits, faces, other_classes

GOAL, FACE_GOAL, CW_GOAL = 1.4, 5.0, 3.0
SIGN_ATTACKS = ("bim", "pgd", "mi-fgsm")
FACE_EPSILON = 8 / 255
MAIN_JOB = Search(steps=50, rounds=2, step_size=0.3, const=3.0)
PUBLISHED = Search(steps=1000, rounds=10, step_size=0.01, const=0.01)
FACE_SEARCH = Search(steps=50, rounds=2, step_size=0.01, const=1.0)
QUICK_SEARCH = Search(steps=25, rounds=2, step_size=0.3, const=1.0)
QUICK_FACE_SEARCH = Search(steps=5, rounds=1, step_size=0.1, const=1.0)
WARM_IMAGES = 4
FACE_ROUNDS = 2
SUCCESS_SLACK, NORM_SLACK = 0.01, 1.05
CRITERIA = ("targeted", "untargeted")


@dataclass(frozen=True)
class Judgement:
    """What an attack achieved.

    Attributes:
        success: Which images fool the network within the bounds, bool ``(N,)``.
        l2: L2 norm of each perturbation ``(N,)``.
        linf: Largest change of a pixel ``(N,)``.
    """

    success: Tensor
    l2: Tensor
    linf: Tensor

    @property
    def rate(self) -> float:
        return float(self.success.float().mean())


def measure_attacks(settings: Settings) -> Iterator[Row]:
    """All attacks on `small`, and on a face network."""
    for kind in SIGN_ATTACKS:
        for criterion in CRITERIA:
            task = digit_task(settings, kind, criterion, settings.size(256, 32, gpu=1536))
            yield from compare(f"{kind} {criterion}, `small`", task, tuple(LIBRARIES), settings)
    yield from _carlini_wagner(settings)
    yield from _on_faces(settings)


def _carlini_wagner(settings: Settings) -> Iterator[Row]:
    """Settings of the main job, and the published ones, a round of which takes foolbox a minute."""
    search = QUICK_SEARCH if settings.quick else MAIN_JOB
    for criterion in CRITERIA:
        task = digit_task(settings, "cw", criterion, settings.size(48, 8, gpu=512), search)
        yield from compare(f"cw {criterion}, `small`", task, ("foolbox", "torchattacks"), settings)
    for criterion in CRITERIA:
        few = digit_task(settings, "cw", criterion, settings.size(24, 4, gpu=128), search)
        yield from compare(f"cw {criterion}, `small`", few, ("ART",), settings, rounds=1)
    if not settings.quick:
        few = digit_task(settings, "cw", "untargeted", settings.size(8, 0, gpu=512), PUBLISHED)
        yield from compare("cw untargeted, published settings, `small`", few, ("foolbox",), settings, rounds=1)


def _on_faces(settings: Settings) -> Iterator[Row]:
    """A gradient of the face network costs a thousand times that of `small`: few images, few rounds."""
    rounds = min(FACE_ROUNDS, settings.rounds)
    for kind in SIGN_ATTACKS:
        for criterion in CRITERIA:
            task = face_task(settings, kind, criterion, settings.size(16, 2, gpu=256))
            yield from compare(f"{kind} {criterion}, face network", task, tuple(LIBRARIES), settings, rounds=rounds)
    search = face_search(settings)
    for criterion in CRITERIA:
        task = face_task(settings, "cw", criterion, settings.size(8, 2, gpu=128), search)
        yield from compare(f"cw {criterion}, face network", task, ("foolbox", "torchattacks"), settings, rounds=1)


def face_search(settings: Settings) -> Search:
    """Settings of CW on the face network."""
    return QUICK_FACE_SEARCH if settings.quick else FACE_SEARCH


def digit_task(settings: Settings, kind: str, criterion: str, count: int, search: Search | None = None) -> Task:
    """An attack on the first digits that `small` classifies correctly."""
    network, images, labels = digits(settings)
    images, labels = images[:count], labels[:count]
    targets = other_classes(labels, 10) if criterion == "targeted" else None
    size = settings.size(256, 32, gpu=1536)
    return Task(network, images, labels, targets, kind, search=search, batch_size=size)


def face_task(settings: Settings, kind: str, criterion: str, count: int, search: Search | None = None) -> Task:
    """An attack on MobileFaceNet."""
    network, images, labels = faces(settings, count)
    targets = other_classes(labels, len(network.spec.class_names)) if criterion == "targeted" else None
    steps = 3 if settings.quick else 10
    return Task(network, images, labels, targets, kind, epsilon=FACE_EPSILON, steps=steps, search=search)


def compare(label: str, task: Task, libraries: Sequence[str], settings: Settings, *, rounds: int = 0) -> Iterator[Row]:
    """One attack by us and by others, in turns; a row for each other.

    Args:
        label: What is attacked how.
        task: The attack.
        libraries: Names of the others.
        settings: Number of rounds and device.
        rounds: Another number of rounds.
    """
    ours = Ours(task)
    attacks: dict[str, Attack] = {OURS: ours}
    attack_all(ours, task.part(slice(WARM_IMAGES)))
    reasons: dict[str, str] = {}
    for name in libraries:
        try:
            attacks[name] = _warmed_up(name, task)
        except Exception as exc:
            reasons[name] = f"{type(exc).__name__}: {exc}".splitlines()[0]
    found: dict[str, Tensor] = {}

    def run(name: str) -> None:
        ours.evaluations = 0 if name == OURS else ours.evaluations
        found[name] = attack_all(attacks[name], task)

    works: dict[str, Callable[[], None]] = {name: partial(run, name) for name in attacks}
    times = in_turns(works, settings.device, rounds=rounds or settings.rounds, warm=False)
    judged = {name: judge(task, images) for name, images in found.items()}
    goal = goal_of(task)
    for name in libraries:
        title = f"{label}: {name} / ours"
        if name in reasons:
            yield Row("attacks", title, (), reasons[name], goal)
            continue
        outcome = _outcome(judged[OURS], judged[name])
        outcome["gradients"] = ours.evaluations / len(task.images)
        yield Row(
            "attacks", title, ratios(times[name], times[OURS]), _note(task, outcome), goal,
            worse=_worse(task, outcome), weaker=_weaker(task, outcome), outcome=outcome,
        )  # fmt: skip


def goal_of(task: Task) -> float:
    """How many times faster is wanted: what others spend beyond an image's first success is more on faces."""
    if task.kind == "cw":
        return CW_GOAL
    return FACE_GOAL if task.images[0].numel() > LARGE_IMAGE else GOAL


def _warmed_up(library: str, task: Task) -> Attack:
    """Build an attack of another library and run it on a few images."""
    if not installed(library):
        raise ModuleNotFoundError(f"{library} is not installed (extra `bench`)")
    attack = LIBRARIES[library][1](task)
    attack_all(attack, task.part(slice(WARM_IMAGES)))
    return attack


@torch.no_grad()
def judge(task: Task, attacked: Tensor) -> Judgement:
    """Judge all alike: finite, within bounds and epsilon, not blacked out, and the network fooled."""
    shift = (attacked - task.images).flatten(1)
    predicted = task.network(attacked.nan_to_num()).argmax(dim=1)
    fooled = predicted != task.labels if task.targets is None else predicted == task.targets
    usable = attacked.flatten(1).isfinite().all(dim=1) & attacked.flatten(1).any(dim=1)
    linf = shift.abs().amax(dim=1)
    if task.kind != "cw":
        usable &= linf <= task.epsilon * (1 + 1e-4)
    return Judgement(fooled & usable, shift.norm(dim=1), linf)


def _outcome(mine: Judgement, theirs: Judgement) -> dict[str, float]:
    """Success rates, and mean distortions over the images on which both succeed."""
    both = mine.success & theirs.success
    return {
        "success": mine.rate,
        "other_success": theirs.rate,
        "l2": float(mine.l2[both].mean()),
        "other_l2": float(theirs.l2[both].mean()),
        "linf": float(mine.linf[both].mean()),
        "other_linf": float(theirs.linf[both].mean()),
    }


def _note(task: Task, outcome: dict[str, float]) -> str:
    settings = f"{task.search}" if task.search else f"epsilon {task.epsilon:.3g}, {task.steps} steps"
    both = f"mean L2 {outcome['l2']:.2f} / {outcome['other_l2']:.2f}, "
    both += f"mean Linf {outcome['linf']:.3f} / {outcome['other_linf']:.3f}"
    if math.isnan(outcome["l2"]):
        both = "no image on which both succeed"
    return (
        f"n = {len(task.images)}, {settings}; ours / theirs: success {outcome['success']:.3f} / "
        f"{outcome['other_success']:.3f}, {both}; {outcome['gradients']:.1f} gradients an image of ours"
    )


def _worse(task: Task, outcome: dict[str, float]) -> str:
    """In what ours falls behind; an image's worth of success, or 5 % of distortion, counts as equal."""
    if outcome["success"] < outcome["other_success"] - _slack(task):
        return "fewer successes"
    larger = task.kind == "cw" and outcome["l2"] > NORM_SLACK * outcome["other_l2"]
    return "larger distortion" if larger else ""


def _weaker(task: Task, outcome: dict[str, float]) -> str:
    if outcome["other_success"] < outcome["success"] - _slack(task):
        return "fewer successes"
    larger = task.kind == "cw" and outcome["other_l2"] > NORM_SLACK * outcome["l2"]
    return "larger distortion" if larger else ""


def _slack(task: Task) -> float:
    return max(SUCCESS_SLACK, 1.001 / len(task.images))
