"""Gradients, logits and images that are no numbers: failures that leave their neighbours alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_detect.algorithms.attacks import AttackContext, build_attack, run_attack
from adv_detect.algorithms.attacks.adaptive import build_adaptive_attack, run_adaptive_attack
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.finite import finite_rows, replace_rows
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError
from adv_detect.networks import build_network
from adv_detect.params import AttackParams

BOUNDS = (-1.0, 2.0)  # nobody is clipped to 0, where the gradient is not a number
ZERO = 1e-6
BROKEN = torch.arange(12) % 3 == 0
STEPS = {"steps": 4}
SEARCH = {"steps": 30, "binary_search_steps": 2, "initial_const": 1.0, "stepsize": 0.1}


class Root(nn.Module):
    """The absolute value, with a gradient of NaN at 0 (and as near to it as tanh space comes)."""

    def forward(self, images):
        images = torch.where(images.abs() < ZERO, images * 0, images)
        return (images * images).sqrt()


class Hole(nn.Module):
    """Logits of NaN where the first pixel is 0."""

    def forward(self, images):
        return images + torch.where(images[:, :1, :1, :1].abs() < ZERO, float("nan"), 0.0)


def attack_params(attack, **more):
    return AttackParams.model_validate({"attack": attack} | more)


def unchecked_params(attack, arguments, **more):
    """A configuration whose arguments no typed block has looked at, as a caller in Python may make it."""
    return attack_params(attack, **more).model_copy(update={"arguments": arguments})


@pytest.fixture
def fragile(tiny_task):
    """Network, images of which every third has an exact zero, labels, targets."""
    network = nn.Sequential(Root(), tiny_task.network).eval().requires_grad_(False)
    images = tiny_task.images[:12].clamp(0.01, 1.0)
    images[BROKEN, :, 0, 0] = 0.0
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    return network, images, labels, (labels + 1) % 4


@pytest.fixture
def context(fragile):
    network, images, labels, _ = fragile
    with torch.no_grad():
        _, (features,) = extract_features(network, images, ["1.4"])
    centres = torch.stack([features[labels == label].mean(0) if (labels == label).any() else -features[0]
                           for label in range(4)])  # fmt: skip
    eye = torch.eye(centres.shape[1])
    return AttackContext(Representatives(("1.4",), tuple("abcd"), [centres], [centres], [eye], [["x"] * 4]), ("1.4",))


CASES = {
    "bim in L2": attack_params("bim", norm="l2", epsilon=3.0, arguments=STEPS),
    "bim": attack_params("bim", norm="linf", epsilon=0.5, arguments=STEPS),
    "bim, all steps": attack_params("bim", norm="l2", epsilon=3.0, arguments=STEPS, return_early=False),
    "mi-fgsm": attack_params("mi-fgsm", norm="l2", epsilon=3.0, arguments=STEPS),
    "fgsm": attack_params("fgsm", norm="linf", epsilon=0.5),
    "adam": attack_params(
        "foolbox.attacks.L2AdamProjectedGradientDescentAttack", epsilon=3.0, arguments={**STEPS, "random_start": False}
    ),
    "cw": attack_params("cw", arguments=SEARCH),
    "minimal-norm": attack_params("minimal-norm", arguments={"steps": 12}),
    "cw of foolbox": attack_params("foolbox.attacks.L2CarliniWagnerAttack", arguments=SEARCH),
    "deepfool": attack_params("deepfool", norm="l2", arguments={"steps": 10}),
    "deep-features": attack_params("deep-features", arguments={"max_thres": 60, "iterations": 10}),
    "deep-features, adam": attack_params(
        "deep-features", arguments={"max_thres": 60, "iterations": 10, "solver": "adam", "dodging": "nearest"}
    ),
    "deep-features, sign": attack_params(
        "deep-features", arguments={"max_thres": 60, "iterations": 10, "solver": "sign"}, return_early=False
    ),
}


def run(name, network, images, labels, targets, context):
    attack = build_attack("tried", CASES[name])
    return run_attack(attack, network, images, labels, targets=targets, bounds=BOUNDS, seed=0, context=context)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:foolbox")
@pytest.mark.parametrize("criterion", ["untargeted", "targeted"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_nan_are_failures_and_neighbours_are_spared(fragile, context, name, criterion):
    network, images, labels, goals = fragile
    targets = goals if criterion == "targeted" else None
    if (name, criterion) == ("deepfool", "targeted"):
        pytest.skip("this attack has no targeted form")
    result = run(name, network, images, labels, targets, context)
    sound = ~BROKEN
    alone = run(name, network, images[sound], labels[sound], None if targets is None else targets[sound], context)

    assert torch.isfinite(result.images).all()
    assert torch.equal(result.non_finite, BROKEN)
    assert not result.success[BROKEN].any()
    assert torch.equal(result.images[BROKEN], images[BROKEN])
    assert torch.equal(result.success[sound], alone.success)
    assert alone.success.any()
    assert torch.allclose(result.images[sound], alone.images, atol=1e-4)


@pytest.mark.parametrize("name", ["bim", "bim, all steps", "cw", "minimal-norm", "cw of foolbox"])
def test_logits_of_nan_are_failures(fragile, context, name):
    network, images, labels, _ = fragile
    holed = nn.Sequential(Hole(), network[1]).eval()
    result = run(name, holed, images, labels, None, context)
    assert torch.equal(result.non_finite, BROKEN)
    assert not result.success[BROKEN].any()
    assert torch.equal(result.images[BROKEN], images[BROKEN])
    assert result.success[~BROKEN].any()


def test_all_images_without_numbers_are_all_failures(fragile, context):
    network, images, labels, _ = fragile
    for name in ("bim in L2", "cw", "minimal-norm", "cw of foolbox", "deep-features"):
        result = run(name, network, images[BROKEN], labels[BROKEN], None, context)
        assert result.non_finite.all()
        assert torch.equal(result.images, images[BROKEN])


class Pair(nn.Module):
    """Class logits, and the detector logit of the first class."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        logits = self.network(images)
        return logits, logits[:, 0]


def test_adaptive_attacks_on_images_without_numbers_are_failures_that_spare_neighbours(fragile):
    network, images, labels, _ = fragile
    task = AdaptiveTask(images=images, labels=labels, threshold=1e9, bounds=BOUNDS, norm="l2", epsilon=3.0)

    def spoil(model, batch):
        found = build_adaptive_attack("selective", {"steps": 5})(model, batch)
        rows = torch.isin(batch.indices, torch.nonzero(BROKEN).flatten())
        return type(found)(**vars(found) | {"images": replace_rows(found.images, found.images * float("nan"), rows)})

    result = run_adaptive_attack(spoil, Pair(network).eval(), task)
    honest = run_adaptive_attack(build_adaptive_attack("selective", {"steps": 5}), Pair(network).eval(), task)
    assert torch.equal(result.non_finite, BROKEN)
    assert not (result.fooled | result.evaded)[BROKEN].any()
    assert torch.equal(result.images[BROKEN], images[BROKEN])
    assert torch.equal(result.images[~BROKEN], honest.images[~BROKEN])
    assert honest.fooled[~BROKEN].any()
    assert torch.isfinite(result.detector_score).all()


def test_detector_logits_of_nan_are_no_evasion(fragile):
    network, images, labels, _ = fragile

    class Silent(Pair):
        def forward(self, images):
            logits, score = super().forward(images)
            return logits, torch.where(logits.argmax(dim=1) == labels[: len(images)], score, float("nan"))

    task = AdaptiveTask(images=images, labels=labels, threshold=1e9, bounds=BOUNDS, norm="l2", epsilon=3.0)
    result = run_adaptive_attack(
        lambda model, batch: build_adaptive_attack("classifier_only", {"steps": 5})(Pair(network).eval(), batch),
        Silent(network).eval(), task,
    )  # fmt: skip
    assert result.non_finite.any()
    assert not result.evaded[result.non_finite].any()
    assert torch.isfinite(result.detector_score).all()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("attack", "arguments", "message"),
    [
        ("bim", {"rel_stepsize": NAN}, r"attacks\.tried\.arguments\.rel_stepsize: expected a finite number, got nan"),
        ("bim", {"rel_stepsize": ".nan"}, "rel_stepsize: expected a finite number|expected a number"),
        ("bim", {"rel_stepsize": "nan"}, r"rel_stepsize: expected a finite number, got nan"),
        ("bim", {"abs_stepsize": INF}, r"abs_stepsize: expected a finite number, got inf"),
        ("minimal-norm", {"tolerance": INF}, r"tolerance: expected a finite number, got inf"),
        ("cw", {"stepsize": -INF}, r"stepsize: expected a finite number, got -inf"),
        (
            "foolbox.attacks.L2CarliniWagnerAttack",
            {"confidence": NAN},
            r"confidence: expected a finite number, got nan",
        ),
        ("deep-features", {"max_thres": INF}, r"max_thres: expected a finite number, got inf"),
        ("deep-features", {"tolerance": "nan"}, r"tolerance: expected a finite number, got nan"),
    ],
)
def test_arguments_that_are_no_numbers_are_refused(attack, arguments, message):
    norm = {"norm": "linf", "epsilon": 0.3} if attack == "bim" else {}
    with pytest.raises(ConfigurationError, match=message):
        build_attack("tried", unchecked_params(attack, arguments, **norm))


@pytest.mark.parametrize(
    ("name", "arguments"), [("selective", {"relative_step": NAN}), ("weighted_sum", {"weights": [0.1, INF]})]
)
def test_arguments_of_adaptive_attacks_that_are_no_numbers_are_refused(name, arguments):
    with pytest.raises(
        ConfigurationError, match=r"(relative_step|weights\[1\]): expected a finite number, got (nan|inf)"
    ):
        build_adaptive_attack(name, arguments)


def test_arguments_of_networks_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigurationError, match=r"network\.arguments\.norm\.eps: expected a finite number, got nan"):
        build_network("torchvision.models.resnet18", norm={"eps": NAN})


def test_rows_are_told_apart():
    values = torch.tensor([[1.0, 2.0], [NAN, 0.0], [0.0, INF]])
    assert finite_rows(values).tolist() == [True, False, False]
    assert finite_rows(values[:, 0], torch.tensor([NAN, 0.0, 1.0])).tolist() == [False, False, True]
    assert finite_rows(torch.zeros(0, 3)).tolist() == []
