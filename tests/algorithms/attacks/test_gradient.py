from __future__ import annotations

import warnings

import foolbox
import pytest
import torch

from adv_detect.algorithms.attacks import build_attack, run_attack
from adv_detect.algorithms.attacks.foolbox_model import _Counter, make_criterion
from adv_detect.params import AttackParams

SEED = 11
EPSILON = {"linf": 0.12, "l2": 0.9}
DESCENTS = [
    ("bim", "linf", {}),
    ("bim", "l2", {}),
    ("pgd", "linf", {}),
    ("pgd", "l2", {"steps": 6}),
    ("mi-fgsm", "linf", {"momentum": 0.9}),
    ("fgsm", "linf", {}),
    ("foolbox.attacks.LinfAdamProjectedGradientDescentAttack", "linf", {"steps": 8, "abs_stepsize": "5/255"}),
]
CRITERIA = ["targeted", "untargeted"]
RETURN_EARLY = [True, False]


def _configured(name, norm, arguments, *, early, epsilon=None):
    params = AttackParams(
        attack=name, norm=norm, epsilon=epsilon or EPSILON[norm], arguments=arguments, return_early=early
    )
    return build_attack("mine", params)


def _run(attack, task, criterion):
    aim = task.aim(criterion)
    return run_attack(attack, task.network, task.images, task.labels, targets=aim, bounds=(0, 1), seed=SEED)


def _foolbox(instance, task, criterion, epsilon, steps=None):
    """Raw images and success of foolbox's own loop, after some of the steps."""
    model = foolbox.PyTorchModel(task.network, bounds=task.bounds, device="cpu")
    original, instance.steps = instance.steps, steps or instance.steps
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        run = foolbox.attacks.gradient_descent_base.BaseGradientDescent.run
        judge = make_criterion(task.labels, task.aim(criterion))
        images = run(instance, model, task.images, judge, epsilon=epsilon)
    instance.steps = original
    return images, judge(images, task.network(images))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("name", "norm", "arguments"), DESCENTS)
def test_all_steps_give_what_foolbox_gives(tiny_task, name, norm, arguments, criterion):
    attack = _configured(name, norm, arguments, early=False)
    result = _run(attack, tiny_task, criterion)
    images, success = _foolbox(attack.instance, tiny_task, criterion, attack.epsilon)
    assert torch.equal(result.images, images)
    assert torch.equal(result.success, success)
    assert bool((result.gradient_evaluations == attack.instance.steps).all())


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("name", "norm", "arguments"), DESCENTS)
def test_early_return_gives_the_first_successful_iterate(tiny_task, name, norm, arguments, criterion):
    attack = _configured(name, norm, arguments, early=True)
    steps = attack.instance.steps
    result = _run(attack, tiny_task, criterion)
    expected, found = tiny_task.images.clone(), torch.zeros(len(tiny_task.images), dtype=torch.bool)
    evaluations = torch.zeros_like(result.gradient_evaluations)
    for done in range(1, steps + 1):
        images, success = _foolbox(attack.instance, tiny_task, criterion, attack.epsilon, steps=done)
        expected[~found], evaluations[~found] = images[~found], min(done + 1, steps)
        found |= success
    torch.testing.assert_close(result.images, expected, rtol=0, atol=1e-5)
    assert torch.equal(result.success, found)
    assert torch.equal(result.gradient_evaluations, evaluations)
    assert int(found.sum()) > 0


@pytest.mark.parametrize("early", RETURN_EARLY)
def test_a_check_costs_no_further_forward_pass(tiny_task, early, monkeypatch):
    calls = []
    original = _Counter.__call__

    def counted(self, images):
        calls.append((len(images), images.requires_grad))
        return original(self, images)

    monkeypatch.setattr(_Counter, "__call__", counted)
    attack = _configured("bim", "linf", {}, early=early)
    result = _run(attack, tiny_task, "targeted")
    assert sum(rows for rows, gradient in calls if gradient) == int(result.gradient_evaluations.sum())
    assert sum(1 for _, gradient in calls if not gradient) <= 1
    sizes = [rows for rows, _ in calls]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[-1] < sizes[0]) is early


class _TwicePerStep(foolbox.attacks.LinfBasicIterativeAttack):
    """Looks at another point as well, last: its logits must not be taken for those of the iterate."""

    def value_and_grad(self, loss_fn, x):
        result = super().value_and_grad(loss_fn, x)
        super().value_and_grad(loss_fn, x * 0)
        return result


def test_a_gradient_of_ones_own_is_judged_at_the_iterate(tiny_task, monkeypatch):
    monkeypatch.setattr(foolbox.attacks, "TwicePerStep", _TwicePerStep, raising=False)
    own = _configured("foolbox.attacks.TwicePerStep", "linf", {}, early=True)
    plain = _configured("bim", "linf", {}, early=True)
    assert own.runner == "gradient"
    expected = _run(plain, tiny_task, "untargeted")
    result = _run(own, tiny_task, "untargeted")
    torch.testing.assert_close(result.images, expected.images, rtol=0, atol=1e-5)
    assert torch.equal(result.success, expected.success)


def test_all_images_done_at_once_ends_the_attack(tiny_task):
    attack = _configured("bim", "linf", {}, early=True, epsilon=1.0)
    result = _run(attack, tiny_task, "untargeted")
    assert bool(result.success.all())
    assert int(result.gradient_evaluations.max()) < 10


def test_without_success_the_last_iterate_comes_back(tiny_task):
    attack = _configured("bim", "linf", {}, early=True, epsilon=1e-4)
    result = _run(attack, tiny_task, "targeted")
    images, success = _foolbox(attack.instance, tiny_task, "targeted", 1e-4)
    assert not bool(success.any() | result.success.any())
    assert torch.equal(result.images, images)
    assert torch.equal(result.adversarial_class, tiny_task.labels)


def test_no_warning_leaks(tiny_task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(_configured("pgd", "linf", {}, early=True), tiny_task, "targeted")
