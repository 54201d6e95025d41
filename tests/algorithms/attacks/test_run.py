from __future__ import annotations

import gc

import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from adv_detect.algorithms.attacks import build_attack, run_attack, verify_result
from adv_detect.algorithms.attacks.run import _divide
from adv_detect.errors import AttackError
from adv_detect.params import AttackParams

CW = {"binary_search_steps": 3, "steps": 40, "stepsize": 0.05, "initial_const": 1.0}
ATTACKS = {
    "bim-linf": {"attack": "bim", "norm": "linf", "epsilon": 0.15},
    "bim-l2": {"attack": "bim", "norm": "l2", "epsilon": 1.0},
    "pgd-linf": {"attack": "pgd", "epsilon": 0.15},
    "pgd-l2": {"attack": "pgd", "norm": "l2", "epsilon": 1.0},
    "mi-fgsm": {"attack": "mi-fgsm", "epsilon": 0.15},
    "fgsm": {"attack": "fgsm", "epsilon": 0.15},
    "cw": {"attack": "cw", "arguments": CW},
    "minimal-norm": {"attack": "minimal-norm", "arguments": {"steps": 15}},
    "deepfool": {"attack": "deepfool", "arguments": {"steps": 20}},
    "ead": {
        "attack": "foolbox.attacks.EADAttack",
        "arguments": {"binary_search_steps": 2, "steps": 30, "initial_const": 1.0},
    },
    "fmn": {"attack": "foolbox.attacks.LInfFMNAttack", "arguments": {"steps": 30}},
    "noise": {"attack": "foolbox.attacks.LinfAdditiveUniformNoiseAttack", "epsilon": 0.15},
}
FOOLBOX_UNTARGETED = ("deepfool",)
CASES = [
    (name, criterion, early)
    for name in ATTACKS
    for criterion in ("targeted", "untargeted")
    for early in (True, False)
    if not (criterion == "targeted" and name in FOOLBOX_UNTARGETED)
]


def _build(name, early):
    params = dict(ATTACKS[name])
    if name == "cw" and not early:
        params["arguments"] = {**CW, "confidence": 1.0}
    return build_attack(name, AttackParams(**params, return_early=early))


def _run(attack, task, criterion="untargeted", seed=3):
    aim = task.aim(criterion)
    return run_attack(attack, task.network, task.images, task.labels, targets=aim, bounds=task.bounds, seed=seed)


@pytest.mark.parametrize(("name", "criterion", "early"), CASES)
def test_contract(tiny_task, name, criterion, early):
    attack = _build(name, early)
    before, numpy_before = tiny_task.images.clone(), np.random.get_state()[1].copy()
    torch_before = torch.get_rng_state()
    result = _run(attack, tiny_task, criterion)
    count = len(tiny_task.images)

    assert result.images.shape == tiny_task.images.shape
    assert (result.images.dtype, result.images.requires_grad) == (torch.float32, False)
    assert (result.success.shape, result.success.dtype) == ((count,), torch.bool)
    assert (result.adversarial_class.shape, result.adversarial_class.dtype) == ((count,), torch.int64)
    assert (result.gradient_evaluations.shape, result.gradient_evaluations.dtype) == ((count,), torch.int64)
    verify_result(result, tiny_task.images, tiny_task.bounds, attack.epsilon_bound(tiny_task.bounds), attack.norm)

    fresh = torch.cat([tiny_task.network(one) for one in result.images.split(7)]).argmax(1)
    fooled = fresh == tiny_task.targets if criterion == "targeted" else fresh != tiny_task.labels
    assert torch.equal(fooled, result.success)
    assert torch.equal(fresh, result.adversarial_class)

    again = _run(attack, tiny_task, criterion)
    assert torch.equal(again.images, result.images)
    assert torch.equal(tiny_task.images, before)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert all(parameter.grad is None for parameter in tiny_task.network.parameters())


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("noise", "fgsm")])
def test_attacks_succeed_on_an_undefended_network(tiny_task, name):
    result = _run(_build(name, early=True), tiny_task)
    assert float(result.success.float().mean()) > 0.9
    assert int(result.gradient_evaluations.min()) > 0


def test_an_attack_without_gradients_counts_none(tiny_task):
    assert int(_run(_build("noise", early=True), tiny_task).gradient_evaluations.sum()) == 0


def test_iterating_is_at_least_as_strong_as_one_step(tiny_task):
    one, many = (_run(_build(name, early=True), tiny_task, "targeted") for name in ("fgsm", "bim-linf"))
    assert int(many.success.sum()) > int(one.success.sum())


def test_random_starts_follow_the_seed(tiny_task):
    attack = _build("pgd-linf", early=False)
    assert not torch.equal(_run(attack, tiny_task, seed=1).images, _run(attack, tiny_task, seed=2).images)


def test_works_within_no_grad(tiny_task):
    attack = _build("bim-linf", early=True)
    with torch.no_grad():
        result = _run(attack, tiny_task)
        assert not torch.is_grad_enabled()
    assert torch.equal(result.images, _run(attack, tiny_task).images)


def test_other_pixel_ranges(tiny_task):
    class Scaled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, images):
            return self.inner((images + 10) / 40)

    attack = build_attack("bim", AttackParams(attack="bim", epsilon=0.15 * 40))
    network = Scaled(tiny_task.network).eval()
    images = (tiny_task.images * 40 - 10).clamp(-10, 30)
    result = run_attack(attack, network, images, tiny_task.labels, bounds=(-10, 30), seed=0)
    verify_result(result, images, (-10, 30), 6.0, "linf")
    assert int(result.success.sum()) == int(_run(_build("bim-linf", early=True), tiny_task).success.sum())


class _Returns(foolbox.attacks.base.MinimizationAttack):
    """Gives fixed images, whatever the network says."""

    distance = foolbox.distances.l2

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, model, inputs, criterion, *, early_stop=None, **kwargs):
        if self.kind == "source":
            return inputs
        return inputs * (0.0 if self.kind == "black" else float("nan"))


@pytest.mark.parametrize("kind", ["black", "source", "broken"])
def test_false_successes_of_foolbox_are_marked_and_undone(tiny_task, kind, monkeypatch):
    monkeypatch.setattr(foolbox.attacks, "Returns", _Returns, raising=False)
    attack = build_attack("odd", AttackParams(attack="foolbox.attacks.Returns", arguments={"kind": kind}))
    black = tiny_task.network(torch.zeros_like(tiny_task.images)).argmax(1)
    assert bool((black != tiny_task.labels).any()), "the black image must look like a success somewhere"
    result = _run(attack, tiny_task)
    assert not bool(result.success.any())
    assert torch.equal(result.images, tiny_task.images)
    assert torch.equal(result.adversarial_class, tiny_task.labels)


def test_a_criterion_that_the_attack_lacks_is_named(tiny_task):
    attack = build_attack(
        "vat", AttackParams(attack="foolbox.attacks.VirtualAdversarialAttack", epsilon=0.5, arguments={"steps": 2})
    )
    with pytest.raises(AttackError, match=r"attack 'vat' failed on a batch \(targeted\): unsupported criterion"):
        _run(attack, tiny_task, "targeted")


def test_evaluations_are_divided_without_loss():
    assert _divide(11, torch.zeros(4, dtype=torch.int64)).tolist() == [3, 3, 3, 2]


def test_deep_features_needs_representatives(tiny_task):
    attack = build_attack("deep", AttackParams(attack="deep-features"))
    with pytest.raises(ValueError, match="attack 'deep': expected class representatives in context, got None"):
        _run(attack, tiny_task)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.full((2, 1, 10, 10), 1.5)}, r"within bounds \[0, 1\], got 1\.5 to 1\.5"),
        ({"images": torch.full((2, 1, 10, 10), float("nan"))}, r"within bounds \[0, 1\], got nan"),
        ({"images": torch.zeros(2, 10, 10)}, r"expected images \(N, channels, H, W\).*got \(2, 10, 10\)"),
        ({"images": torch.zeros(0, 1, 10, 10), "labels": torch.zeros(0).long()}, "with N > 0"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels \(N,\).*\(3,\)"),
        ({"targets": torch.tensor([1, 0])}, r"the label itself in 1 rows \[1\]"),
        ({"targets": torch.tensor([1])}, r"expected targets of shape \(2,\), got \(1,\)"),
    ],
)
def test_wrong_input(tiny_task, change, message):
    given = {"images": torch.full((2, 1, 10, 10), 0.5), "labels": torch.zeros(2, dtype=torch.int64), "targets": None}
    given.update(change)
    with pytest.raises(ValueError, match=message):
        run_attack(
            _build("bim-linf", early=True),
            tiny_task.network,
            given["images"],
            given["labels"],
            targets=given["targets"],
            bounds=(0, 1),
            seed=0,
        )


def test_a_network_in_training_mode_is_refused(tiny_task):
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 4))
    attack = _build("bim-linf", early=True)
    images, labels = tiny_task.images[:2], tiny_task.labels[:2]
    with pytest.raises(ValueError, match=r"got training mode; call network\.eval\(\)"):
        run_attack(attack, network, images, labels, bounds=(0, 1), seed=0)
    with pytest.raises(ValueError, match=r"got trainable ones; call network\.requires_grad_\(False\)"):
        run_attack(attack, network.eval(), images, labels, bounds=(0, 1), seed=0)


@pytest.mark.parametrize("name", ["bim", "cw", "fgsm"])
def test_nothing_of_a_batch_stays_in_memory_after_an_attack(tiny_task, name):
    """Without the help of Python's search for cycles, which may come many batches later."""
    norm = "l2" if name == "cw" else "linf"
    short = {"steps": 3} | ({"binary_search_steps": 1} if name == "cw" else {})
    epsilon = None if name == "cw" else 0.3
    params = AttackParams(attack=name, norm=norm, epsilon=epsilon, arguments={} if name == "fgsm" else short)
    attack = build_attack(name, params)
    _run(attack, tiny_task)  # what is loaded and made once
    gc.collect()
    gc.disable()
    try:
        before = _tensors_in_memory()
        result = _run(attack, tiny_task)
        kept = _tensors_in_memory() - before - len(vars(result))
    finally:
        gc.enable()
    assert kept <= 0


def _tensors_in_memory():
    return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())
