"""How soon minimal-norm attacks find perturbations as small as those of the published Carlini-Wagner attack."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.attacks import PUBLISHED, QUICK_SEARCH, WARM_IMAGES, digit_task, face_task, judge
from benchmarks.libraries import Attack, Ours, Task, attack_all
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios, seconds
from benchmarks.minimal_norm_attacks import Contender, Length, contenders

GROUP, FACE_GROUP = "minimal norm", "minimal norm on faces"
CW_GOAL, GOAL = 5.0, 1.0
NEAR = 1.02
"""A median L2 norm within 2 % of the one of the published CW counts as reached."""
PATIENCE = 0.2
"""An attack is not tried at greater lengths once all so far took this share of the time of the published CW."""
QUICK_LENGTHS = 2


@dataclass(frozen=True)
class Outcome:
    """What an attack achieved at one length.

    Attributes:
        length: Its settings.
        l2: Median L2 norm over all images; infinite where most fail.
        rate: Share of images that fool the network.
        seconds: Time that it took.
    """

    length: Length
    l2: float
    rate: float
    seconds: float

    def reaches(self, wanted: Outcome, count: int) -> bool:
        """Whether it is as good as another: the median within 2 %, less than one success in ``count`` images fewer."""
        return self.l2 <= NEAR * wanted.l2 and self.rate > wanted.rate - 0.999 / count

    def __str__(self) -> str:
        return f"{self.length}: {self.l2:.3f} in {self.seconds:.2f} s" + (
            f" ({self.rate:.3f})" if self.rate < 1 else ""
        )


@dataclass(frozen=True)
class Climb:
    """An attack at growing lengths, up to the one that reached what was wanted.

    Attributes:
        attack: At the last length.
        outcomes: Shortest first.
        reached: Whether the last one did.
    """

    attack: Attack
    outcomes: tuple[Outcome, ...]
    reached: bool


def measure_minimal_norm(settings: Settings) -> Iterator[Row]:
    """Both criteria on `small`."""
    for criterion in ("untargeted", "targeted"):
        task = digit_task(settings, "cw", criterion, settings.size(32, 6, gpu=512))
        yield from race(f"{criterion}, `small`", task, settings, faces=False)


def measure_minimal_norm_faces(settings: Settings) -> Iterator[Row]:
    """Untargeted on the face network, whose gradient costs a thousand times that of `small`."""
    task = face_task(settings, "cw", "untargeted", settings.size(8, 2, gpu=64))
    yield from race("untargeted, face network", task, settings, faces=True)


def race(label: str, task: Task, settings: Settings, *, faces: bool) -> Iterator[Row]:
    """Find for each attack the shortest length at which it reaches the published CW, then time these in turns.

    Args:
        label: What is attacked how.
        task: Images and network.
        settings: Number of rounds, device, sizes.
        faces: As for :func:`contenders`.

    Yields:
        A row for each other attack: its time over ours. Where it never came so far, its one time at the greatest length
        tried, which is a lower bound.
    """
    wanted = _published(task, settings)
    climbs: dict[str, Climb] = {}
    reasons: dict[str, str] = {}
    for one in contenders(faces=faces):
        try:
            climbs[one.name] = _climb(one, task, wanted, settings)
        except Exception as exc:
            reasons[one.name] = f"{type(exc).__name__}: {exc}".splitlines()[0]
    works: dict[str, Callable[[], object]] = {
        name: partial(attack_all, climb.attack, task) for name, climb in climbs.items() if climb.reached or name == OURS
    }
    times = in_turns(works, settings.device, rounds=settings.rounds, warm=False, clock=clock_of(settings))
    late = {name: (climb.outcomes[-1].seconds,) for name, climb in climbs.items() if name not in times}
    ours = statistics.median(times[OURS])
    group = FACE_GROUP if faces else GROUP
    yield _row_of_ours(group, label, task, climbs[OURS], wanted, times[OURS])
    for one in contenders(faces=faces)[1:]:
        title, goal = f"{label}: {one.name} / ours", _goal(one)
        if one.name in reasons:
            yield Row(group, title, (), reasons[one.name], goal)
        else:
            values = ratios(times[one.name], times[OURS]) if one.name in times else ratios(late[one.name], [ours])
            yield _row(group, title, goal, climbs[one.name], climbs[OURS], values)


def clock_of(settings: Settings) -> Callable[[], float]:
    """Time of the processor, which other work on the machine does not lengthen; with a GPU, time as it passes."""
    return time.perf_counter if settings.device.type == "cuda" else time.process_time


def _goal(one: Contender) -> float | None:
    if one.module == "adv_detect":
        return None
    return CW_GOAL if one.searches else GOAL


def _published(task: Task, settings: Settings) -> Outcome:
    """This project's CW by the published settings, which ends a round early and leaves out nothing else."""
    search = QUICK_SEARCH if settings.quick else PUBLISHED
    return _outcome(Ours(replace(task, search=search)), search, task, settings)


def _climb(one: Contender, task: Task, wanted: Outcome, settings: Settings) -> Climb:
    """Try greater lengths until the norms are small enough, or it has taken too long."""
    if not one.installed:
        raise ModuleNotFoundError(f"{one.module} is not installed (extra `bench`)")
    attack_all(one.build(task, one.lengths[0]), task.part(slice(WARM_IMAGES)))
    outcomes: list[Outcome] = []
    for length in one.lengths[: QUICK_LENGTHS if settings.quick else None]:
        attack = one.build(task, length)
        outcomes.append(_outcome(attack, length, task, settings))
        reached = outcomes[-1].reaches(wanted, len(task.images))
        if reached or sum(one.seconds for one in outcomes) > PATIENCE * wanted.seconds:
            break
    return Climb(attack, tuple(outcomes), reached)


def _outcome(attack: Attack, length: Length, task: Task, settings: Settings) -> Outcome:
    """Run an attack once; an image on which it fails counts as infinitely far away."""
    found: list[torch.Tensor] = []
    spent = seconds(lambda: found.append(attack_all(attack, task)), settings.device, clock=clock_of(settings))
    judged = judge(task, found[0])
    norms = torch.where(judged.success, judged.l2, torch.inf)
    return Outcome(length, statistics.median(norms.tolist()), judged.rate, spent)


def _row_of_ours(group: str, label: str, task: Task, climb: Climb, wanted: Outcome, times: tuple[float, ...]) -> Row:
    last = climb.outcomes[-1]
    spent = {"l2": last.l2, "success": last.rate, "seconds": statistics.median(times)}
    note = f"n = {len(task.images)}; published CW {wanted}; ours, {_steps(climb)}"
    values = ratios([wanted.seconds] * len(times), times)
    worse = "" if climb.reached else "larger distortion"
    return Row(group, f"{label}: published CW / ours", values, note, worse=worse, outcome=spent)


def _row(group: str, title: str, goal: float | None, climb: Climb, ours: Climb, values: tuple[float, ...]) -> Row:
    last, own = climb.outcomes[-1], ours.outcomes[-1]
    bound = "" if climb.reached else "; did not come so far, so the ratio is a lower bound"
    outcome = {"success": own.rate, "other_success": last.rate, "l2": own.l2, "other_l2": last.l2}
    worse = "" if ours.reached else "larger distortion"
    weaker = "" if climb.reached else "larger distortion"
    return Row(group, title, values, _steps(climb) + bound, goal, worse=worse, weaker=weaker, outcome=outcome)


def _steps(climb: Climb) -> str:
    """The curve: median L2 norm against time, and the rate of success below 1."""
    return "; ".join(str(one) for one in climb.outcomes)
