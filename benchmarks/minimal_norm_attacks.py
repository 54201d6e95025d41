"""Attacks that look for the smallest perturbation, by this project and by others, at lengths that grow."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from benchmarks.libraries import LIBRARIES, Attack, Ours, Search, Task, run_foolbox

STEPS = (10, 20, 40, 80, 160, 320, 640)
SEARCHES = (
    Search(steps=50, rounds=2, step_size=0.3, const=3.0),
    Search(steps=50, rounds=4, step_size=0.1, const=1.0),
    Search(steps=100, rounds=5, step_size=0.1, const=1.0),
    Search(steps=200, rounds=6, step_size=0.05, const=1.0),
    Search(steps=400, rounds=8, step_size=0.02, const=0.1),
    Search(steps=1000, rounds=10, step_size=0.01, const=0.01),
)  # fmt: skip
"""From the settings of the main job to the published ones."""
FACE_SEARCHES = (
    Search(steps=50, rounds=2, step_size=0.01, const=1.0),
    Search(steps=50, rounds=4, step_size=0.01, const=0.1),
    Search(steps=100, rounds=5, step_size=0.01, const=0.1),
    Search(steps=200, rounds=6, step_size=0.01, const=0.1),
    Search(steps=1000, rounds=10, step_size=0.01, const=0.01),
)  # fmt: skip
Length = int | Search


@dataclass(frozen=True)
class Contender:
    """One attack of one library.

    Attributes:
        name: Name in the table.
        module: What has to be importable.
        lengths: Settings, the shortest first: numbers of steps, or searches of CW.
        build: Makes the attack at a length.
    """

    name: str
    module: str
    lengths: tuple[Length, ...]
    build: Callable[[Task, Any], Attack]

    @property
    def searches(self) -> bool:
        """Whether it is a CW attack."""
        return isinstance(self.lengths[0], Search)

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


def contenders(*, faces: bool) -> tuple[Contender, ...]:
    """List what is compared; the first one is this project's.

    Args:
        faces: Whether the searches of CW suit the face network, where perturbations are a tenth as large.
    """
    searches = FACE_SEARCHES if faces else SEARCHES
    return (
        Contender(
            "ours", "adv_detect", STEPS, lambda task, steps: Ours(replace(task, kind="minimal-norm", steps=steps))
        ),
        Contender("our CW", "adv_detect", searches, lambda task, search: Ours(replace(task, kind="cw", search=search))),
        *(Contender(f"{name} CW", LIBRARIES[name][0], searches, partial(_search, name)) for name in LIBRARIES),
        Contender("adv-lib CW", "adv_lib", searches, _adv_lib_search),
        Contender("foolbox DDN", "foolbox", STEPS, partial(_foolbox, "DDNAttack")),
        Contender("foolbox FMN", "foolbox", STEPS, partial(_foolbox, "L2FMNAttack")),
        Contender("adv-lib DDN", "adv_lib", STEPS, partial(_adv_lib, "ddn", "steps", levels=None)),
        Contender("adv-lib FMN", "adv_lib", STEPS, partial(_adv_lib, "fmn", "steps", norm=2)),
        Contender("adv-lib ALMA", "adv_lib", STEPS, partial(_adv_lib, "alma", "num_steps", init_lr_distance=1.0)),
        Contender("adv-lib PDGD", "adv_lib", STEPS, partial(_adv_lib, "pdgd", "num_steps")),
    )


def _search(library: str, task: Task, search: Search) -> Attack:
    """CW of a library by the settings of the table of attacks."""
    return LIBRARIES[library][1](replace(task, kind="cw", search=search))


def _foolbox(kind: str, task: Task, steps: int) -> Attack:
    fb = importlib.import_module("foolbox")
    model = fb.PyTorchModel(task.network, bounds=(0.0, 1.0), device=task.images.device)
    attack = getattr(fb.attacks, kind)(steps=steps)

    return partial(run_foolbox, model, attack, None)


def _adv_lib(kind: str, count: str, task: Task, steps: int, **arguments: Any) -> Attack:
    attack = getattr(importlib.import_module("adv_lib.attacks"), kind)
    return partial(_run_adv_lib, attack, **{count: steps}, **arguments)


def _adv_lib_search(task: Task, search: Search) -> Attack:
    attack = importlib.import_module("adv_lib.attacks").carlini_wagner_l2
    return partial(
        _run_adv_lib, attack, learning_rate=search.step_size, initial_const=search.const,
        binary_search_steps=search.rounds, max_iterations=search.steps,
    )  # fmt: skip


def _run_adv_lib(attack: Callable[..., Tensor], batch: Task, **arguments: Any) -> Tensor:
    wanted = batch.labels if batch.targets is None else batch.targets
    return attack(batch.network, batch.images, wanted, targeted=batch.targets is not None, **arguments).detach()
