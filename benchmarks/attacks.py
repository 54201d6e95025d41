"""Attacks against foolbox, torchattacks and the Adversarial Robustness Toolbox, and against the bare gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.registry import build_attack
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.params import AttackParams
from benchmarks.harness import Row, Settings, alternate, seconds
from benchmarks.subjects import digits, faces, other_classes

EPSILON, STEPS = 0.3, 10
FACE_EPSILON = 8 / 255
LIGHT = {"steps": 100, "binary_search_steps": 3, "stepsize": 0.1, "initial_const": 1.0}
PUBLISHED = {"steps": 1000, "binary_search_steps": 10, "stepsize": 0.01, "initial_const": 0.01}
BATCH_SIZES = (32, 64, 128, 256, 512)
GOAL, CW_GOAL, GRADIENT_GOAL = 2.0, 3.0, 1.15
BATCH = 256
PUBLISHED_IMAGES = 16


@dataclass
class Task:
    """What every library gets: network, images, classes; and the last outcome of each."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor | None
    epsilon: float
    steps: int = STEPS
    search: dict[str, Any] = field(default_factory=lambda: LIGHT)

    @property
    def classes(self) -> Tensor:
        return self.labels if self.targets is None else self.targets

    def judge(self, attacked: Tensor) -> tuple[float, float]:
        """Success rate, and mean L2 norm of the successes."""
        with torch.no_grad():
            found = self.network(attacked).argmax(dim=1)
        success = found != self.labels if self.targets is None else found == self.targets
        norms = (attacked - self.images).flatten(1).norm(dim=1)[success]
        return float(success.float().mean()), float(norms.mean()) if len(norms) else float("nan")


def ours(task: Task, name: str, *, early: bool = True) -> tuple[Tensor, float]:
    """Images, and gradient evaluations an image."""
    arguments: dict[str, Any] = {"steps": task.steps}
    params: dict[str, Any] = {"norm": "linf", "epsilon": task.epsilon}
    if name == "cw":
        arguments = task.search
        params = {"norm": "l2"}
    attack = build_attack(name, AttackParams(attack=name, arguments=arguments, return_early=early, **params))
    parts = []
    for start in range(0, len(task.images), BATCH):
        rows = slice(start, start + BATCH)
        targets = None if task.targets is None else task.targets[rows]
        images, labels = task.images[rows], task.labels[rows]
        parts.append(run_attack(attack, task.network, images, labels, targets=targets, bounds=(0.0, 1.0), seed=0))
    evaluations = torch.cat([part.gradient_evaluations for part in parts])
    return torch.cat([part.images for part in parts]), float(evaluations.float().mean())


def foolbox(task: Task, name: str) -> Tensor:
    import foolbox as fb

    model = fb.PyTorchModel(task.network, bounds=(0, 1), device=task.images.device)
    criterion = (
        fb.Misclassification(task.labels) if task.targets is None else fb.TargetedMisclassification(task.targets)
    )
    torch.manual_seed(0)
    if name == "cw":
        attack = fb.attacks.L2CarliniWagnerAttack(**task.search)
        return attack(model, task.images, criterion, epsilons=None)[1]
    step = 2 * task.epsilon / task.steps
    kinds = {
        "bim": fb.attacks.LinfBasicIterativeAttack,
        "pgd": fb.attacks.LinfProjectedGradientDescentAttack,
        "mi-fgsm": fb.attacks.mi_fgsm.LinfMomentumIterativeFastGradientMethod,
    }
    attack = kinds[name](abs_stepsize=step, steps=task.steps)
    return attack(model, task.images, criterion, epsilons=task.epsilon)[1]


def torchattacks(task: Task, name: str) -> Tensor:
    import torchattacks as ta

    torch.manual_seed(0)
    step = 2 * task.epsilon / task.steps
    attack = {
        "bim": lambda: ta.BIM(task.network, eps=task.epsilon, alpha=step, steps=task.steps),
        "pgd": lambda: ta.PGD(task.network, eps=task.epsilon, alpha=step, steps=task.steps),
        "mi-fgsm": lambda: ta.MIFGSM(task.network, eps=task.epsilon, alpha=step, steps=task.steps),
        "cw": lambda: ta.CW(
            task.network,
            c=task.search["initial_const"],
            steps=task.search["steps"] * task.search["binary_search_steps"],
            lr=task.search["stepsize"],
        ),
    }[name]()
    if task.targets is not None:
        attack.set_mode_targeted_by_function(lambda _images, _labels: task.targets)
    attacked: Tensor = attack(task.images, task.labels)
    return attacked


def toolbox(task: Task, name: str) -> Tensor:
    import numpy as np
    from art.attacks.evasion import BasicIterativeMethod, CarliniL2Method, MomentumIterativeMethod
    from art.attacks.evasion import ProjectedGradientDescentPyTorch as Descent
    from art.estimators.classification import PyTorchClassifier

    np.random.seed(0)
    torch.manual_seed(0)
    count = int(task.network(task.images[:1]).shape[1])
    model = PyTorchClassifier(
        task.network, nn.CrossEntropyLoss(), tuple(task.images.shape[1:]), count, clip_values=(0.0, 1.0),
        device_type="gpu" if task.images.is_cuda else "cpu",
    )  # fmt: skip
    search = task.search
    shared: dict[str, Any] = {"targeted": task.targets is not None, "batch_size": len(task.images), "verbose": False}
    steps: dict[str, Any] = {"eps": task.epsilon, "eps_step": 2 * task.epsilon / task.steps, "max_iter": task.steps}
    attack = {
        "bim": lambda: BasicIterativeMethod(model, **steps, **shared),
        "pgd": lambda: Descent(model, num_random_init=1, **steps, **shared),
        "mi-fgsm": lambda: MomentumIterativeMethod(model, **steps, **shared),
        "cw": lambda: CarliniL2Method(
            model, learning_rate=search["stepsize"], binary_search_steps=search["binary_search_steps"],
            max_iter=search["steps"], initial_const=search["initial_const"], **shared,
        ),
    }[name]()  # fmt: skip
    attacked = attack.generate(x=task.images.cpu().numpy(), y=task.classes.cpu().numpy())
    return torch.from_numpy(attacked).to(task.images)


LIBRARIES: dict[str, tuple[str, Callable[[Task, str], Tensor]]] = {
    "foolbox": ("foolbox", foolbox),
    "torchattacks": ("torchattacks", torchattacks),
    "art": ("ART", toolbox),
}


def measure_attacks(settings: Settings) -> Iterator[Row]:
    """All attacks on `small`, then BIM and CW on a face network."""
    network, images, labels = digits(str(settings.device))
    for name in ("bim", "pgd", "mi-fgsm", "cw"):
        count = settings.size(64, 16) if name == "cw" else settings.size(512, 64)
        for criterion in ("targeted", "untargeted"):
            targets = other_classes(labels[:count], 10) if criterion == "targeted" else None
            task = Task(network, images[:count], labels[:count], targets, EPSILON)
            label = f"{name} {criterion}, `small`"
            yield from _against_all(label, task, name, settings, tuple(LIBRARIES))
            if name == "cw" and not settings.quick:
                few = None if targets is None else targets[:PUBLISHED_IMAGES]
                long = Task(
                    network, images[:PUBLISHED_IMAGES], labels[:PUBLISHED_IMAGES], few, EPSILON, search=PUBLISHED
                )
                yield from _against_all(f"{label}, published steps", long, name, settings, ("foolbox",))
    count = settings.size(16, 4)
    network, images, labels = faces(str(settings.device), count)
    task = Task(network, images, labels, None, FACE_EPSILON, steps=5 if settings.quick else STEPS)
    yield from _against_all("bim untargeted, face network", task, "bim", settings, ("foolbox", "torchattacks"))


def _against_all(label: str, task: Task, name: str, settings: Settings, libraries: tuple[str, ...]) -> Iterator[Row]:
    for library in libraries:
        module, run = LIBRARIES[library]
        if find_spec(library) is None:
            yield Row("attacks", f"{label}: {module} / ours", (float("nan"),), f"{library} is not installed")
            continue
        outcomes: dict[str, Any] = {}

        def mine(outcomes: dict[str, Any] = outcomes) -> None:
            outcomes["ours"], outcomes["evaluations"] = ours(task, name)

        def theirs(outcomes: dict[str, Any] = outcomes, run: Callable[[Task, str], Tensor] = run) -> None:
            outcomes["other"] = run(task, name)

        slow = name == "cw" and (library == "art" or task.search is PUBLISHED)
        ratios = alternate(mine, theirs, settings, rounds=1 if slow else None)
        (success, norm), (their_success, their_norm) = task.judge(outcomes["ours"]), task.judge(outcomes["other"])
        note = (
            f"n = {len(task.images)}; success {success:.3f} / {their_success:.3f}, mean L2 {norm:.2f} / "
            f"{their_norm:.2f} (ours / theirs), {outcomes['evaluations']:.1f} gradients an image"
        )
        yield Row("attacks", f"{label}: {module} / ours", ratios, note, CW_GOAL if name == "cw" else GOAL)


def measure_gradients(settings: Settings) -> Iterator[Row]:
    """Our time over gradient evaluations times the time of a bare one at the best batch size."""
    network, images, labels = digits(str(settings.device))
    count = settings.size(512, 64)
    task = Task(network, images[:count], labels[:count], None, EPSILON)
    targeted = Task(network, task.images, task.labels, other_classes(task.labels, 10), EPSILON)
    small = Task(network, images[:64], labels[:64], None, EPSILON)
    for label, one, name, early in (
        ("bim untargeted, all steps", task, "bim", False),
        ("pgd targeted, all steps", targeted, "pgd", False),
        ("bim untargeted, stopped early", task, "bim", True),
        ("cw untargeted", small, "cw", True),
    ):
        yield _against_gradient(label, one, name, settings, early=early)
    network, images, labels = faces(str(settings.device), settings.size(16, 4))
    face = Task(network, images, labels, None, FACE_EPSILON, steps=3 if settings.quick else STEPS)
    yield _against_gradient("bim untargeted, all steps, face network", face, "bim", settings, early=False)


def _against_gradient(label: str, task: Task, name: str, settings: Settings, *, early: bool) -> Row:
    ratios, evaluations, best = [], 0.0, 0
    ours(task, name, early=early)
    for _ in range(settings.rounds):
        bare, best = bare_gradient(task, settings)
        outcome: list[float] = []
        spent = seconds(lambda: outcome.append(ours(task, name, early=early)[1]), settings.device)  # noqa: B023
        evaluations = outcome[0]
        ratios.append(spent / (evaluations * len(task.images) * bare))
    note = f"n = {len(task.images)}, {evaluations:.1f} gradients an image, bare gradient at batch size {best}"
    name = f"{label}: time / (gradients x time of a bare one)"
    return Row("bare gradient", name, tuple(ratios), note, GRADIENT_GOAL, at_most=True)


def bare_gradient(task: Task, settings: Settings) -> tuple[float, int]:
    """Seconds an image of one forward and backward pass at the best batch size, and that size."""
    found = {}
    for size in (*(size for size in BATCH_SIZES if size < len(task.images)), len(task.images)):
        batch, labels = task.images[:size], task.labels[:size]

        def work(batch: Tensor = batch, labels: Tensor = labels) -> None:
            leaf = batch.clone().requires_grad_(True)
            loss = nn.functional.cross_entropy(task.network(leaf), labels, reduction="sum")
            torch.autograd.grad(loss, leaf)

        work()
        found[size] = min(seconds(work, settings.device) for _ in range(3)) / size
    best = min(found, key=found.__getitem__)
    return found[best], best
