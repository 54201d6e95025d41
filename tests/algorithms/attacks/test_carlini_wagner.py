from __future__ import annotations

import copy

import foolbox
import pytest
import torch

from adv_detect.algorithms.attacks import build_attack, perturbation_norms, run_attack
from adv_detect.algorithms.attacks.carlini_wagner import L2CarliniWagner
from adv_detect.algorithms.attacks.carlini_wagner_search import ConstantSearch, SearchSettings
from adv_detect.algorithms.attacks.foolbox_model import CountingModel, make_criterion
from adv_detect.params import AttackParams

SETTINGS = {"binary_search_steps": 5, "steps": 40, "stepsize": 0.1, "initial_const": 0.3}


def _run(task, criterion, **arguments):
    attack = build_attack("cw", AttackParams(attack="cw", arguments={**SETTINGS, **arguments}))
    aim = task.aim(criterion)
    return run_attack(attack, task.network, task.images, task.labels, targets=aim, bounds=task.bounds, seed=0)


def _gap(task, images, criterion):
    """How far the wanted class leads, in logits."""
    logits = task.network(images)
    classes = (task.targets if criterion == "targeted" else task.labels)[:, None]
    own, other = logits.gather(1, classes)[:, 0], logits.scatter(1, classes, -torch.inf).amax(1)
    return own - other if criterion == "targeted" else other - own


def test_defaults_are_the_published_ones():
    attack = L2CarliniWagner()
    assert isinstance(attack, foolbox.attacks.L2CarliniWagnerAttack)
    assert (attack.stepsize, attack.initial_const, attack.binary_search_steps) == (0.01, 0.01, 10)
    assert (attack.confidence, attack.abort_early) == (0, True)


@pytest.mark.parametrize("criterion", ["targeted", "untargeted"])
def test_as_good_as_foolbox_with_fewer_evaluations(tiny_task, criterion):
    task = tiny_task.first(12)
    settings = {"binary_search_steps": 9, "steps": 100, "stepsize": 0.05, "initial_const": 0.01}
    ours = _run(task, criterion, **settings)
    model = CountingModel(task.network, task.bounds, torch.device("cpu"))
    reference = foolbox.attacks.L2CarliniWagnerAttack(**settings)
    theirs, _, success = reference(model, task.images, make_criterion(task.labels, task.aim(criterion)), epsilons=None)
    success &= theirs.flatten(1).any(1)
    both = ours.success & success
    our_norms, their_norms = (perturbation_norms(task.images, one)["l2"][both] for one in (ours.images, theirs))
    assert int(ours.success.sum()) >= int(success.sum()) > 0
    assert float(our_norms.mean()) <= 1.02 * float(their_norms.mean())
    assert int(ours.gradient_evaluations.sum()) < 0.7 * model.gradient_rows


def test_one_row_by_hand():
    """Logits (-x, x), label 0: the boundary is at x = 0, so the nearest adversarial of -0.5 lies 0.5 away."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
    network[1].weight.data = torch.tensor([[-1.0], [1.0]])
    model = CountingModel(network.eval().requires_grad_(False), (-1.0, 1.0), torch.device("cpu"))
    attack = L2CarliniWagner(binary_search_steps=9, steps=200, stepsize=0.02)
    images = torch.full((1, 1, 1, 1), -0.5)
    for classes, targeted in ((torch.tensor([0]), False), (torch.tensor([1]), True)):
        result = attack.search(model, images, classes, targeted=targeted)
        assert bool(result.success)
        assert float(result.images) == pytest.approx(0.0, abs=0.02)
        assert float(result.images) > 0
        assert int(result.adversarial_class) == 1


@pytest.mark.parametrize(("criterion", "median"), [("targeted", 0.82539), ("untargeted", 0.69944)])
def test_strength_stays_what_it_was(tiny_task, criterion, median):
    result = _run(tiny_task, criterion)
    assert bool(result.success.all())
    norms = perturbation_norms(tiny_task.images, result.images)["l2"]
    assert float(norms.median()) == pytest.approx(median, rel=0.005)


@pytest.mark.parametrize("criterion", ["targeted", "untargeted"])
def test_an_image_does_not_depend_on_its_batch(tiny_task, criterion):
    network = copy.deepcopy(tiny_task.network).double()
    model = CountingModel(network, tiny_task.bounds, torch.device("cpu"))
    images = tiny_task.images[:12].double()
    classes = (tiny_task.targets if criterion == "targeted" else tiny_task.labels)[:12]
    attack = L2CarliniWagner(**{**SETTINGS, "steps": 40})

    def search(rows):
        return attack.search(model, images[rows], classes[rows], targeted=criterion == "targeted")

    whole = search(torch.arange(12))
    assert len(set(whole.gradient_evaluations.tolist())) > 1
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for rows in (order, order[:5], torch.tensor([3])):
        part = search(rows)
        torch.testing.assert_close(part.images, whole.images[rows], rtol=0, atol=1e-8)
        assert torch.equal(part.gradient_evaluations, whole.gradient_evaluations[rows])
        assert torch.equal(part.success, whole.success[rows])


@pytest.mark.parametrize("criterion", ["targeted", "untargeted"])
@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_confidence_is_the_margin_of_every_success(tiny_task, criterion, confidence):
    finer = {"initial_const": 1.0, "binary_search_steps": 3, "steps": 60, "stepsize": 0.05}
    result = _run(tiny_task, criterion, confidence=confidence, **finer)
    assert float(result.success.float().mean()) > 0.8
    alone = _gap(tiny_task, result.images, criterion)[result.success]
    assert float(alone.min()) > confidence
    assert float(alone.median()) < confidence + 1.0


def test_failures_give_back_the_source(tiny_task):
    result = _run(tiny_task, "targeted", confidence=1e4, binary_search_steps=2, steps=10)
    assert not bool(result.success.any())
    assert torch.equal(result.images, tiny_task.images)
    assert torch.equal(result.adversarial_class, tiny_task.labels)


def test_foolbox_interface_gives_the_same_images(tiny_task):
    task = tiny_task.first(8)
    attack = L2CarliniWagner(**SETTINGS)
    model = foolbox.PyTorchModel(task.network, bounds=task.bounds, device="cpu")
    raw, clipped, success = attack(model, task.images, make_criterion(task.labels, task.targets), epsilons=[None, 1e-6])
    expected = _run(task, "targeted")
    assert torch.equal(raw[0], expected.images)
    assert torch.equal(success[0], expected.success)
    assert float((clipped[1] - task.images).flatten(1).norm(dim=1).max()) < 2e-6
    failing = L2CarliniWagner(confidence=1e4, binary_search_steps=1, steps=5)
    assert torch.equal(failing.run(model, task.images, task.labels), task.images)


def test_an_epsilon_caps_what_counts_as_success(tiny_task):
    free = _run(tiny_task, "untargeted")
    cap = float(perturbation_norms(tiny_task.images, free.images)["l2"].median())
    attack = build_attack("cw", AttackParams(attack="cw", arguments=SETTINGS, epsilon=cap))
    result = run_attack(attack, tiny_task.network, tiny_task.images, tiny_task.labels, bounds=(0, 1), seed=0)
    assert 0 < int(result.success.sum()) < int(free.success.sum())
    assert torch.equal(result.images[~result.success], tiny_task.images[~result.success])
    assert float(perturbation_norms(tiny_task.images, result.images)["l2"].max()) <= cap


def test_more_rounds_never_hurt(tiny_task):
    norms = []
    for rounds in (1, 3, 6):
        result = _run(tiny_task, "untargeted", binary_search_steps=rounds, initial_const=10.0)
        assert bool(result.success.all())
        norms.append(perturbation_norms(tiny_task.images, result.images)["l2"])
    assert bool((norms[1] <= norms[0]).all())
    assert bool((norms[2] <= norms[1]).all())
    assert float(norms[2].mean()) < 0.95 * float(norms[0].mean())


def test_without_early_abort_every_round_runs_to_its_end(tiny_task):
    result = _run(tiny_task.first(4), "untargeted", abort_early=False, binary_search_steps=2, initial_const=1.0)
    assert result.gradient_evaluations.tolist() == [80] * 4


def test_the_last_of_ten_rounds_uses_the_largest_constant(tiny_task):
    seen = []

    class Spy(ConstantSearch):
        def _advance(self, state):
            seen.append(float(state.bisection.constant[0]))
            super()._advance(state)

    settings = SearchSettings(10, 1, 0.01, confidence=1e4, initial_const=0.01, abort_early=True)
    model = CountingModel(tiny_task.network, tiny_task.bounds, torch.device("cpu"))
    Spy(model, settings, targeted=True).run(tiny_task.images[:1], tiny_task.targets[:1])
    assert seen[:3] == pytest.approx([0.01, 0.1, 1.0])
    assert seen[-1] == pytest.approx(1e10)
