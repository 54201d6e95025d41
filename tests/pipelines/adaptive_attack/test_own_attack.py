"""Attacks of one's own, named by dotted path, that say what they need."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.attacks.adaptive import AttackKind, Candidates
from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block
from adv_detect.pipelines.adaptive_attack.conditions import check_adaptive
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors

SHIFT = 0.02
SEEN = {}
"""What the tasks of the last run held, by attack."""


class Nothing(Block):
    """No argument."""


class Bounded(Block):
    """The budget as an argument."""

    levels: float = 1.0


def shift(model, task, arguments):
    """Brighten every image a little; keep what the task held."""
    SEEN["guide"], SEEN["epsilon"], SEEN["norm"] = task.guide, task.epsilon, task.norm
    SEEN["arguments"] = arguments
    nothing = torch.zeros(len(task))
    low, high = task.bounds
    images = (task.images + SHIFT).clamp(low, high)
    return Candidates(images=images, gradient_evaluations=nothing.long(), zero_gradient_share=nothing)


towards_clean = AttackKind(attack=shift, arguments=Nothing, guide="clean_images")
towards_medoids = AttackKind(attack=shift, arguments=Nothing, guide="medoids")
smallest = AttackKind(attack=shift, arguments=Nothing, takes_budget=False, norms=("linf",))
by_argument = AttackKind(attack=shift, arguments=Bounded, norms=("linf",), budget_argument="levels")


@pytest.fixture
def run(setting, detectors, blocks, adaptive, carry_out, tmp_path):
    """Runs one attack of this module through the node and gives the shards."""

    def attack(name: str):
        spec = {"attack": f"{__name__}.{name}"}
        params = adaptive(attacks={"mine": spec}, budgets={"linf": [0.3]}, max_images=4, hardening={"rounds": 0})
        check_adaptive(params, blocks["detector_training"], (0.0, 1.0))
        return carry_out(attack_detectors(setting, detectors, blocks["detector_training"], params), tmp_path)

    return attack


@pytest.mark.parametrize(("name", "shape"), [("towards_clean", (5, 3)), ("towards_medoids", (None,))])
def test_an_attack_that_needs_a_guide_is_given_one(run, setting, name, shape):
    (content,) = run(name).values()

    width = setting.representatives.medoids[-1].shape[1]
    assert SEEN["guide"].values.shape == (4, *(width if size is None else size for size in shape))
    assert SEEN["epsilon"] == 0.3
    assert content.metadata["epsilon"] == 0.3
    assert float(content.tensors["linf"].max()) == pytest.approx(SHIFT, rel=1e-4)


def test_an_attack_without_a_budget_runs_once_and_is_given_none(run):
    store = run("smallest")

    (key,) = store
    assert "/mine/linf-free/" in key
    assert store.metadata(key)["epsilon"] is None
    assert (SEEN["epsilon"], SEEN["norm"], SEEN["guide"]) == (None, "linf", None)


def test_a_budget_may_be_an_argument_in_8_bit_units(run):
    run("by_argument")

    assert SEEN["arguments"].levels == pytest.approx(0.3 * 255)


def test_another_set_of_clean_images_makes_only_guided_attacks_anew(setting, detectors, blocks, adaptive, monkeypatch):
    attacks = {name: {"attack": f"{__name__}.{name}"} for name in ("towards_clean", "towards_medoids", "smallest")}
    params = adaptive(attacks=attacks, max_images=2, hardening={"rounds": 0})

    def prints() -> dict[str, str]:
        plan = attack_detectors(setting, detectors, blocks["detector_training"], params)
        return {spec.key: spec.fingerprint for spec in plan.shards}

    before = prints()
    monkeypatch.setattr(type(setting.activations), "digest", "another")
    changed = {key.split("/")[1] for key, value in prints().items() if value != before[key]}

    assert changed == {"towards_clean", "towards_medoids"}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("towards_clean", {"role": "transfer"}, "an attack with a guide .* cannot be transferred"),
        ("towards_clean", {"classifier": "nearest_medoid"}, "classifier: .*towards_clean moves towards clean images"),
        ("smallest", {"budgets": {"linf": [0.1]}}, "budgets: .*searches for the smallest Linf perturbation; leave out"),
        ("by_argument", {"budgets": {"l2": [1.0]}}, "budgets: .*by_argument works in linf only, got l2"),
        ("by_argument", {"arguments": {"levels": 3}}, "arguments.levels: .*takes it from budgets"),
        ("nowhere", {}, "attacks.mine.attack: .*has no 'nowhere'"),
    ],
)
def test_what_an_attack_cannot_use_is_refused_before_work(adaptive, blocks, name, changes, message):
    spec = {"attack": f"{__name__}.{name}"} | changes
    params = adaptive(attacks={"mine": spec}, hardening={"rounds": 0})
    with pytest.raises(ConfigurationError, match=message):
        check_adaptive(params, blocks["detector_training"], (0.0, 1.0))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"guide": "medoid"}, r"AttackKind.guide: .*did you mean 'medoids'|AttackKind.guide: expected one of"),
        ({"norms": ()}, r"AttackKind.norms: expected some of \['l2', 'linf'\], got \[\]"),
        ({"norms": ("l1",)}, r"AttackKind.norms: .*got \['l1'\]"),
        ({"budget_argument": "level"}, "argument that it needs: expected one of .*levels.*'level'"),
        ({"budget_argument": "levels", "takes_budget": False}, "expected None without a budget, got 'levels'"),
        ({"published": True}, "argument that it needs: .*'selection'"),
    ],
)
def test_needs_that_contradict_each_other_are_refused(needs, message):
    with pytest.raises(ConfigurationError, match=message):
        AttackKind(attack=shift, arguments=Bounded, **needs)
