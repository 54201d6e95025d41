"""What holds for every adaptive attack."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest
import torch

from adv_detect.algorithms.attacks.adaptive import (
    AttackKind,
    adaptive_attack_names,
    attack_kind,
    build_adaptive_attack,
    check_budget,
    run_adaptive_attack,
)
from adv_detect.algorithms.attacks.adaptive.selective import SelectiveArguments, selective
from adv_detect.errors import AttackError, ConfigurationError

SHORT = {"steps": 25}
CW = {"steps": 30, "binary_search_steps": 3, "learning_rate": 0.05, "initial_constant": 1.0, "detector_weight": 10.0}
MULTI = {"steps": 12, "restarts": 2, "relative_steps": [2.0]}
QUERIES = {"steps": 1, "initial_gradient_eval_steps": 8, "gamma": 30.0}
DEEP = {"steps": 25, "max_thres": 40, "detector_weight": 1.0}
CASES = [
    ("classifier_only", SHORT, {"norm": "linf", "epsilon": 0.15}),
    ("classifier_only", SHORT, {"norm": "l2", "epsilon": 0.8}),
    ("selective", SHORT, {"norm": "linf", "epsilon": 0.15}),
    ("selective", SHORT, {"norm": "l2", "epsilon": 0.8, "targeted": True}),
    ("orthogonal", SHORT, {"norm": "linf", "epsilon": 0.15, "targeted": True}),
    ("orthogonal", SHORT, {"norm": "l2", "epsilon": 0.8}),
    ("weighted_sum", SHORT, {"norm": "linf", "epsilon": 0.15}),
    ("weighted_sum", SHORT, {"norm": "l2", "epsilon": 0.8, "targeted": True}),
    ("matching", SHORT, {"norm": "linf", "epsilon": 0.15, "guide": "layers"}),
    ("matching", SHORT, {"norm": "l2", "epsilon": 0.8, "targeted": True, "guide": "layers"}),
    ("multi_target", MULTI, {"norm": "linf", "epsilon": 0.15}),
    ("multi_target", MULTI, {"norm": "l2", "epsilon": 0.8, "targeted": True}),
    ("random_noise", {"samples": 60}, {"norm": "linf", "epsilon": 0.4}),
    ("hop_skip_jump", QUERIES, {"norm": "linf", "epsilon": None, "guide": "images"}),
    ("hop_skip_jump_l2", QUERIES, {"norm": "l2", "epsilon": None, "guide": "images", "targeted": True}),
    ("cw_detector", CW, {"norm": "l2", "epsilon": None}),
    ("cw_detector", CW, {"norm": "l2", "epsilon": None, "targeted": True}),
    ("deep_detector", DEEP, {"norm": "linf", "epsilon": 40 / 255, "guide": "features", "targeted": True}),
    ("verification", SHORT, {"norm": "linf", "epsilon": 0.2, "guide": "features", "targeted": True}),
    ("verification", SHORT | {"goal": 0.97}, {"norm": "l2", "epsilon": 0.8, "guide": "features"}),
]
IDS = [f"{name}-{case['norm']}-{'targeted' if case.get('targeted') else 'untargeted'}" for name, _, case in CASES]
FIELDS = ("images", "fooled", "evaded", "detector_score", "l2", "linf", "gradient_evaluations", "zero_gradient_share")


def _shorter(name, arguments, steps, *, restarts=None):
    """The same attack with fewer steps, where it takes steps, and more starting points, where it takes those."""
    known = attack_kind(name).arguments.model_fields
    changes = {"steps": min(steps, arguments.get("steps", steps)), "samples": steps, "restarts": restarts}
    return arguments | {key: value for key, value in changes.items() if key in known and value is not None}


def _without_a_way_in(task):
    starts = task.guide.values.clone()
    starts[::2] = task.images[::2, None]
    return replace(task, guide=replace(task.guide, values=starts))


def test_every_registered_attack_is_among_the_cases():
    apart = {"second_opinion"}  # aims at similarities, whatever the class: test_second_opinion.py
    assert {name for name, _, _ in CASES} | apart == set(adaptive_attack_names())


@pytest.mark.parametrize(("name", "arguments", "case"), CASES, ids=IDS)
def test_images_stay_within_bounds_and_budget_and_are_judged_truly(model, make_task, name, arguments, case):
    task = make_task(**case)
    clean = task.images.clone()
    result = run_adaptive_attack(build_adaptive_attack(name, arguments), model, task)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    check_budget(result, task)
    assert torch.equal(task.images, clean)
    classes, scores = model(result.images)
    expected = classes.argmax(1) == task.targets if case.get("targeted") else classes.argmax(1) != task.labels
    assert torch.equal(result.fooled, expected)
    assert torch.equal(result.evaded, expected & (scores <= task.threshold))
    assert result.fooled.any()
    assert torch.allclose(result.l2, (result.images - clean).flatten(1).norm(dim=1))
    assert torch.allclose(result.linf, (result.images - clean).flatten(1).abs().amax(1))


@pytest.mark.parametrize(("name", "arguments", "case"), CASES, ids=IDS)
def test_images_that_were_not_fooled_come_back_clean(model, make_task, name, arguments, case):
    task = make_task(**(case | {"epsilon": case["epsilon"] and 0.05}))
    few = _shorter(name, arguments, 3) | ({"max_thres": 2} if name == "deep_detector" else {})
    if name.startswith("hop_skip_jump"):  # it searches until it is through: give half of the images no way in
        task = _without_a_way_in(task)
    result = run_adaptive_attack(build_adaptive_attack(name, few), model, task)
    assert not result.fooled.all()
    assert torch.equal(result.images[~result.fooled], task.images[~result.fooled])
    assert (result.l2[~result.fooled] == 0).all()


@pytest.mark.leaves_rng_alone
@pytest.mark.parametrize(("name", "arguments", "case"), CASES, ids=IDS)
def test_the_seed_decides_and_the_global_random_state_is_left_alone(model, make_task, name, arguments, case):
    attack = build_adaptive_attack(name, _shorter(name, arguments, 8, restarts=2))
    state = torch.get_rng_state()
    first = run_adaptive_attack(attack, model, make_task(**case, seed=3))
    second = run_adaptive_attack(attack, model, make_task(**case, seed=3))
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(second, field)), field
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "arguments", "case"), CASES, ids=IDS)
def test_an_image_does_not_feel_its_neighbours(model, make_task, name, arguments, case):
    """Order and batch size change nothing, random starts included, since these hang on the image's index."""
    attack = build_adaptive_attack(name, _shorter(name, arguments, 6, restarts=2))
    task = make_task(**case)
    order = torch.randperm(len(task), generator=torch.Generator().manual_seed(0))
    together = run_adaptive_attack(attack, model, task)
    shuffled = run_adaptive_attack(attack, model, task.select(order), batch_size=7)
    assert torch.allclose(together.images[order], shuffled.images, atol=1e-3)
    assert torch.equal(together.fooled[order], shuffled.fooled)
    assert torch.equal(together.gradient_evaluations[order], shuffled.gradient_evaluations)


GRADIENTS = [number for number, (name, _, _) in enumerate(CASES) if attack_kind(name).follows == "gradients"]


@pytest.mark.parametrize(
    ("name", "arguments", "case"), [CASES[one] for one in GRADIENTS], ids=[IDS[one] for one in GRADIENTS]
)
def test_done_images_leave_the_batch(model, make_task, name, arguments, case):
    result = run_adaptive_attack(build_adaptive_attack(name, arguments), model, make_task(**case))
    assert result.gradient_evaluations.unique().numel() > 1
    if name != "cw_detector" and result.evaded.any() and not result.evaded.all():
        through, stuck = result.gradient_evaluations[result.evaded], result.gradient_evaluations[~result.evaded]
        assert through.float().mean() < stuck.float().mean()


@pytest.mark.parametrize("name", ["selective", "orthogonal", "weighted_sum", "matching", "multi_target"])
def test_without_return_early_all_steps_are_taken_and_scores_fall_further(model, make_task, name):
    task = make_task(norm="l2", epsilon=0.8, guide="layers" if name == "matching" else None)
    early = run_adaptive_attack(build_adaptive_attack(name, SHORT), model, task)
    full = run_adaptive_attack(build_adaptive_attack(name, SHORT | {"return_early": False}), model, task)
    assert full.gradient_evaluations.unique().numel() == 1
    assert (full.detector_score <= early.detector_score + 1e-5)[early.fooled].all()
    assert full.evaded.sum() >= early.evaded.sum()


def test_unknown_attack_lists_the_valid_names():
    with pytest.raises(ConfigurationError, match=r"adaptive attack: expected one of \[.*cw_detector.*selective"):
        build_adaptive_attack("pgdd")


def test_unknown_dotted_path_and_wrong_object_are_refused():
    with pytest.raises(ConfigurationError, match="expected one of"):
        build_adaptive_attack("no.such.module")
    with pytest.raises(ConfigurationError, match="to be an AttackKind, got function"):
        build_adaptive_attack("adv_detect.algorithms.attacks.adaptive.selective.selective")


def test_a_dotted_path_names_an_attack_of_ones_own(model, make_task, monkeypatch):
    module = types.ModuleType("my_attacks")
    module.mine = AttackKind(attack=selective, arguments=SelectiveArguments)
    monkeypatch.setitem(sys.modules, "my_attacks", module)
    task, arguments = make_task(norm="l2", epsilon=0.8), {"steps": 5}
    named = run_adaptive_attack(build_adaptive_attack("selective", arguments), model, task)
    dotted = run_adaptive_attack(build_adaptive_attack("my_attacks.mine", arguments), model, task)
    assert torch.equal(named.images, dotted.images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 3}, r"'selective': .*restarts.*got 'step'.*did you mean 'steps'"),
        ({"steps": 0}, "steps: .*greater than or equal to 1"),
        ({"loss": "mse"}, "loss: .*'margin'"),
    ],
)
def test_bad_arguments_name_key_and_choices(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        build_adaptive_attack("selective", arguments)


@pytest.mark.parametrize(
    ("name", "case", "message"),
    [
        ("selective", {"epsilon": None}, "epsilon: this attack needs a perturbation budget"),
        ("cw_detector", {"norm": "linf"}, "searches the smallest L2 perturbation, got 'linf'"),
        ("deep_detector", {"norm": "l2", "guide": "features"}, "expected linf, got 'l2'"),
        ("matching", {}, "moves images towards a guide, got none"),
        ("verification", {}, "moves images towards a guide, got none"),
    ],
)
def test_a_task_that_lacks_what_the_attack_needs_is_refused(model, make_task, name, case, message):
    with pytest.raises(ConfigurationError, match=message):
        run_adaptive_attack(build_adaptive_attack(name), model, make_task(**case))


def test_a_model_in_training_mode_and_an_empty_task_are_refused(model, make_task):
    attack = build_adaptive_attack("selective", SHORT)
    model.train()
    try:
        with pytest.raises(ConfigurationError, match="got training mode"):
            run_adaptive_attack(attack, model, make_task())
    finally:
        model.eval()
    with pytest.raises(ConfigurationError, match="at least one image"):
        run_adaptive_attack(attack, model, make_task().select(torch.arange(0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l1"}, r"norm: expected one of \[l2, linf\], got 'l1'"),
        ({"epsilon": 0.0}, "epsilon: expected a number above 0"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected low < high"),
        ({"bounds": (0.4, 0.6)}, "images: expected pixels within bounds"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels: expected shape \(24,\).* got \(3,\)"),
    ],
)
def test_bad_tasks_are_refused(make_task, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        make_task(**changes)


def test_targets_equal_to_labels_are_refused(make_task):
    labels = make_task().labels
    with pytest.raises(ConfigurationError, match="a target equal to its label"):
        make_task(targets=labels)


def test_an_attack_that_leaves_bounds_or_budget_is_refused(model, make_task):
    task = make_task(epsilon=0.1)
    honest = build_adaptive_attack("selective", {"steps": 2})

    def moved(by):
        def attack(victim, batch):
            found = honest(victim, batch)
            return type(found)(**(vars(found) | {"images": batch.images + by}))

        return attack

    with pytest.raises(AttackError, match="expected pixels within"):
        run_adaptive_attack(moved(2.0), model, task)
    with pytest.raises(AttackError, match=r"expected images of shape \(24, 1, 6, 6\), got \(24, 24, 6, 6\)"):
        run_adaptive_attack(moved(torch.zeros(24, 24, 1, 1)), model, task)
    inside = make_task(epsilon=0.1, bounds=(-1.0, 3.0))
    with pytest.raises(AttackError, match=r"within linf 0\.1, got 0\.5"):
        check_budget(run_adaptive_attack(moved(0.5), model, inside), inside)
