"""The same attack, at the same settings, by this project and by three other libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.algorithms.attacks.foolbox_model import make_criterion
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AttackParams

BOUNDS = (0.0, 1.0)
SEED = 0


@dataclass(frozen=True)
class Search:
    """Settings of the Carlini-Wagner attack."""

    steps: int
    rounds: int
    step_size: float
    const: float

    def __str__(self) -> str:
        return f"{self.steps} steps x {self.rounds} constants from {self.const:g}, step {self.step_size:g}"


@dataclass(frozen=True)
class Task:
    """What every library gets.

    Attributes:
        network: Frozen network, pixel range 0 to 1.
        images: Source images ``(N, channels, H, W)``, all classified correctly.
        labels: Their classes ``(N,)``.
        targets: Classes aimed at ``(N,)``; None for untargeted.
        kind: ``bim``, ``pgd``, ``mi-fgsm``, ``cw`` or, by this project alone, ``minimal-norm``.
        epsilon: Linf bound; not read by ``cw`` and ``minimal-norm``.
        steps: Steps of twice epsilon over their number; for ``minimal-norm`` the most of them; not read by ``cw``.
        search: Read by ``cw``.
        batch_size: Images at a time.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor | None
    kind: str
    epsilon: float = 0.3
    steps: int = 10
    search: Search | None = None
    batch_size: int = 256

    @property
    def step_size(self) -> float:
        return 2 * self.epsilon / self.steps

    @property
    def searched(self) -> Search:
        if self.search is None:
            raise ValueError("expected the settings of the search for 'cw', got None")
        return self.search

    def part(self, rows: slice) -> Task:
        """The same task on some of the images."""
        targets = None if self.targets is None else self.targets[rows]
        return replace(self, images=self.images[rows], labels=self.labels[rows], targets=targets)

    def batches(self) -> list[Task]:
        return [
            self.part(slice(start, start + self.batch_size)) for start in range(0, len(self.images), self.batch_size)
        ]


Attack = Callable[[Task], Tensor]
"""Attacks one batch, gives the attacked images."""


class Ours:
    """This project's attack; counts the gradient evaluations of the last call."""

    def __init__(self, task: Task, *, early: bool = True) -> None:
        arguments: dict[str, Any] = {"steps": task.steps}
        params: dict[str, Any] = {"norm": "linf", "epsilon": task.epsilon}
        if task.kind == "minimal-norm":
            params, arguments = {"norm": "l2"}, {"steps": task.steps}
        if task.kind == "cw":
            search = task.searched
            params = {"norm": "l2"}
            arguments = {
                "steps": search.steps, "binary_search_steps": search.rounds, "stepsize": search.step_size,
                "initial_const": search.const,
            }  # fmt: skip
        self._attack = build_attack(
            task.kind, AttackParams(attack=task.kind, arguments=arguments, return_early=early, **params)
        )
        self.network = own_form(task.network, task.images.device)
        self.evaluations = 0

    def __call__(self, batch: Task) -> Tensor:
        result = run_attack(
            self._attack, self.network, batch.images, batch.labels, targets=batch.targets, bounds=BOUNDS, seed=SEED
        )
        self.evaluations += int(result.gradient_evaluations.sum())
        return result.images


def own_form(network: nn.Module, device: torch.device) -> nn.Module:
    """The form in which this project attacks and reads a network."""
    return working_form(network, device) if isinstance(network, TargetNetwork) else network


def foolbox(task: Task) -> Attack:
    fb = importlib.import_module("foolbox")
    model = fb.PyTorchModel(task.network, bounds=BOUNDS, device=task.images.device)
    if task.kind == "cw":
        search = task.searched
        attack = fb.attacks.L2CarliniWagnerAttack(
            steps=search.steps, binary_search_steps=search.rounds, stepsize=search.step_size, initial_const=search.const
        )
    else:
        attack = {
            "bim": fb.attacks.LinfBasicIterativeAttack,
            "pgd": fb.attacks.LinfProjectedGradientDescentAttack,
            "mi-fgsm": fb.attacks.mi_fgsm.LinfMomentumIterativeFastGradientMethod,
        }[task.kind](abs_stepsize=task.step_size, steps=task.steps)

    epsilon = None if task.kind == "cw" else task.epsilon
    return partial(run_foolbox, model, attack, epsilon)


def run_foolbox(model: Any, attack: Any, epsilon: float | None, batch: Task) -> Tensor:
    """Run an attack of foolbox on one batch."""
    criterion = make_criterion(batch.labels, batch.targets)
    attacked: Tensor = attack(model, batch.images, criterion, epsilons=epsilon)[1]
    return attacked


def torchattacks(task: Task) -> Attack:
    ta = importlib.import_module("torchattacks")
    if task.kind == "cw":
        search = task.searched
        attack = ta.CW(task.network, c=search.const, steps=search.steps * search.rounds, lr=search.step_size)
    else:
        kinds = {"bim": ta.BIM, "pgd": ta.PGD, "mi-fgsm": ta.MIFGSM}
        attack = kinds[task.kind](task.network, eps=task.epsilon, alpha=task.step_size, steps=task.steps)

    def run(batch: Task) -> Tensor:
        if batch.targets is not None:
            with redirect_stdout(StringIO()):
                attack.set_mode_targeted_by_function(lambda _images, _labels: batch.targets)
        attacked: Tensor = attack(batch.images, batch.labels)
        return attacked

    return run


def toolbox(task: Task) -> Attack:
    evasion = importlib.import_module("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    with torch.no_grad():
        classes = task.network(task.images[:1]).shape[1]
    model = estimators.PyTorchClassifier(
        task.network, nn.CrossEntropyLoss(), tuple(task.images.shape[1:]), classes, clip_values=BOUNDS,
        device_type="gpu" if task.images.is_cuda else "cpu",
    )  # fmt: skip
    shared: dict[str, Any] = {"targeted": task.targets is not None, "batch_size": task.batch_size, "verbose": False}
    if task.kind == "cw":
        search = task.searched
        attack = evasion.CarliniL2Method(
            model, learning_rate=search.step_size, binary_search_steps=search.rounds, max_iter=search.steps,
            initial_const=search.const, **shared,
        )  # fmt: skip
    else:
        starts = {"num_random_init": 1} if task.kind == "pgd" else {}
        attack = {
            "bim": evasion.BasicIterativeMethod,
            "pgd": evasion.ProjectedGradientDescentPyTorch,
            "mi-fgsm": evasion.MomentumIterativeMethod,
        }[task.kind](model, eps=task.epsilon, eps_step=task.step_size, max_iter=task.steps, **starts, **shared)

    def run(batch: Task) -> Tensor:
        wanted = batch.labels if batch.targets is None else batch.targets
        attacked = attack.generate(x=batch.images.cpu().numpy(), y=wanted.cpu().numpy())
        return torch.from_numpy(attacked).to(batch.images)

    return run


LIBRARIES: dict[str, tuple[str, Callable[[Task], Attack]]] = {
    "foolbox": ("foolbox", foolbox),
    "torchattacks": ("torchattacks", torchattacks),
    "ART": ("art", toolbox),
}
"""Name in the table: module to import, and what builds the attack."""


def installed(library: str) -> bool:
    return find_spec(LIBRARIES[library][0]) is not None


def attack_all(attack: Attack, task: Task) -> Tensor:
    """Attack batch by batch, from the same seeds each time."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    return torch.cat([attack(batch) for batch in task.batches()])
