"""The walk along the boundary, against closed forms and against the published search."""

from __future__ import annotations

import copy

import foolbox
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from adv_detect.algorithms.attacks import build_attack, perturbation_norms, run_attack
from adv_detect.algorithms.attacks.foolbox_model import CountingModel, make_criterion
from adv_detect.algorithms.attacks.minimal_norm import MinimalNorm
from adv_detect.errors import ConfigurationError
from adv_detect.params import AttackParams

CPU = torch.device("cpu")


def _run(task, criterion, **arguments):
    attack = build_attack("mine", AttackParams(attack="minimal-norm", arguments=arguments))
    aim = task.aim(criterion)
    return run_attack(attack, task.network, task.images, task.labels, targets=aim, bounds=task.bounds, seed=0)


def _linear(classes: int, pixels: int) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    network[1].weight.data = torch.randn(classes, pixels, generator=generator)
    network[1].bias.data = torch.zeros(classes)
    return network.eval().requires_grad_(False)


def _nearest(image: np.ndarray, normal: np.ndarray, offset: float) -> float:
    """Distance to the plane ``normal @ x = offset`` within [0, 1]: the root of its Lagrange multiplier."""
    size = brentq(lambda one: normal @ np.clip(image + one * normal, 0, 1) - offset, 0, 1e4, xtol=1e-14)
    return float(np.linalg.norm(np.clip(image + size * normal, 0, 1) - image))


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.0, 1.0)])
@pytest.mark.parametrize("targeted", [False, True])
def test_closed_form_on_a_linear_classifier(low, high, targeted):
    """Grey images keep off the bounds, where the distance is the gap over the norm; others run into them."""
    network = _linear(2, 16)
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * (high - low) + low
    logits = network(images)
    labels = logits.argmax(dim=1)
    weight = network[1].weight.double()
    attack = MinimalNorm(steps=30)
    classes = 1 - labels if targeted else labels
    result = attack.search(CountingModel(network, (0.0, 1.0), CPU), images, classes, targeted=targeted)
    norms = perturbation_norms(images, result.images)["l2"]
    assert bool(result.success.all())
    for row, label in enumerate(labels.tolist()):
        normal = (weight[1 - label] - weight[label]).numpy()
        wanted = _nearest(images[row].flatten().double().numpy(), normal, 0.0)
        if low > 0:
            gap = float(logits[row, label] - logits[row, 1 - label])
            assert wanted == pytest.approx(gap / float(np.linalg.norm(normal)), rel=1e-4)
        assert float(norms[row]) == pytest.approx(wanted, rel=2e-3)


def test_images_leave_the_batch_when_a_plane_says_all():
    """On a linear network that is soon; how many images the network sees falls with each that is done."""
    network = _linear(2, 16)
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = network(images).argmax(dim=1)
    seen = []
    network.register_forward_hook(lambda _module, given, _output: seen.append(len(given[0])))
    result = MinimalNorm(steps=30).search(CountingModel(network, (0.0, 1.0), CPU), images, labels, targeted=False)
    assert sum(seen) == int(result.gradient_evaluations.sum())
    assert seen == sorted(seen, reverse=True)
    assert len(seen) < 10
    assert len(set(result.gradient_evaluations.tolist())) > 1


@pytest.mark.parametrize("criterion", ["targeted", "untargeted"])
def test_an_image_does_not_depend_on_its_batch(tiny_task, criterion):
    network = copy.deepcopy(tiny_task.network).double()
    model = CountingModel(network, tiny_task.bounds, CPU)
    images = tiny_task.images[:12].double()
    classes = (tiny_task.targets if criterion == "targeted" else tiny_task.labels)[:12]

    def search(rows):
        return MinimalNorm(steps=40, tolerance=0.02).search(
            model, images[rows], classes[rows], targeted=criterion == "targeted"
        )

    whole = search(torch.arange(12))
    assert len(set(whole.gradient_evaluations.tolist())) > 1
    for rows in (torch.tensor([7, 2, 11, 0, 5]), torch.tensor([3])):
        part = search(rows)
        torch.testing.assert_close(part.images, whole.images[rows], rtol=0, atol=1e-8)
        assert torch.equal(part.gradient_evaluations, whole.gradient_evaluations[rows])


@pytest.mark.parametrize("criterion", ["targeted", "untargeted"])
def test_as_near_as_the_carlini_wagner_attack_in_a_fraction_of_its_gradients(tiny_task, criterion):
    task = tiny_task.first(10)
    ours = _run(task, criterion)
    settings = {"binary_search_steps": 6, "steps": 100, "stepsize": 0.1, "initial_const": 0.3}
    search = build_attack("cw", AttackParams(attack="cw", arguments=settings))
    aim = task.aim(criterion)
    theirs = run_attack(search, task.network, task.images, task.labels, targets=aim, bounds=task.bounds, seed=0)
    near, far = (perturbation_norms(task.images, one.images)["l2"] for one in (ours, theirs))
    assert bool(ours.success.all())
    assert float(near.median()) <= 1.02 * float(far[theirs.success].median())
    assert int(ours.gradient_evaluations.sum()) * 5 < int(theirs.gradient_evaluations.sum())


def test_the_scale_of_logits_does_not_matter(tiny_task):
    """Where all classes are nearly as probable, as with a head that is not trained, the same boundary is found."""
    flat = copy.deepcopy(tiny_task.network).double()
    images, labels = tiny_task.images[:12].double(), tiny_task.labels[:12]
    sharp = MinimalNorm().search(CountingModel(flat, tiny_task.bounds, CPU), images, labels, targeted=False)
    flat[-1].weight.data *= 0.01
    flat[-1].bias.data *= 0.01
    found = MinimalNorm().search(CountingModel(flat, tiny_task.bounds, CPU), images, labels, targeted=False)
    norms = [perturbation_norms(images, one.images)["l2"] for one in (sharp, found)]
    torch.testing.assert_close(norms[1], norms[0], rtol=0.01, atol=0)


def test_confidence_is_the_margin_of_every_success(tiny_task):
    result = _run(tiny_task, "untargeted", confidence=2.0)
    logits = tiny_task.network(result.images)
    own = logits.gather(1, tiny_task.labels[:, None])[:, 0]
    beyond = (logits.scatter(1, tiny_task.labels[:, None], -torch.inf).amax(dim=1) - own)[result.success]
    assert float(result.success.float().mean()) > 0.8
    assert float(beyond.min()) > 2.0
    assert float(beyond.median()) < 2.5


def test_failures_give_back_the_source(tiny_task):
    result = _run(tiny_task.first(6), "targeted", confidence=1e4, steps=5)
    assert not bool(result.success.any())
    assert torch.equal(result.images, tiny_task.images[:6])
    assert result.gradient_evaluations.tolist() == [5] * 6


def test_foolbox_interface_gives_the_same_images(tiny_task):
    task = tiny_task.first(6)
    model = foolbox.PyTorchModel(task.network, bounds=task.bounds, device="cpu")
    _, images, success = MinimalNorm(steps=20)(
        model, task.images, make_criterion(task.labels, task.targets), epsilons=None
    )
    expected = _run(task, "targeted", steps=20)
    assert torch.equal(images, expected.images)
    assert torch.equal(success, expected.success)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected more than 0, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
        ({"stepsize": -1}, "stepsize: expected more than 0, got -1"),
        ({"confidence": -0.5}, "confidence: expected 0 or more, got -0.5"),
        ({"tolerance": 1.5}, r"tolerance in \[0, 1\), got 40, 1, 0 and 1.5"),
        ({"binary_search_steps": 3}, "expected names of"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        build_attack("mine", AttackParams(attack="minimal-norm", arguments=arguments))


def test_only_the_euclidean_norm():
    with pytest.raises(ConfigurationError, match="l2"):
        build_attack("mine", AttackParams(attack="minimal-norm", norm="linf"))
