"""Adversarial training of the twin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_detect.algorithms.fitting import FitSettings
from adv_detect.algorithms.target_training import fit_target
from adv_detect.algorithms.twin_training import (
    CHOSEN_BY,
    AdversarialTraining,
    HeldOut,
    fit_twin,
    measure_robustness,
    relative_step,
)
from adv_detect.errors import DataError
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, build_target, target_tensors
from adv_detect.params import NetworkParams, TargetTrainingParams, TwinTrainingParams

SETTINGS = FitSettings(seed=0, device=torch.device("cpu"), progress=False)
FIT = {"epochs": 10, "batch_size": 16, "learning_rate": 1e-2, "steps": 3, "epsilon": 0.2, "ramp": 0.3}


class Patches:
    """A patch that is dark or bright tells the class and survives a change of .2; a faint pattern tells it better."""

    class_names = ("dark", "bright")

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        pattern = torch.randint(0, 2, (1, 12, 12), generator=torch.Generator().manual_seed(9)) * 2.0 - 1
        sign = (2.0 * self.labels - 1)[:, None, None, None]
        self.pixels = 0.5 + 0.1 * sign * pattern + 0.05 * torch.rand(count, 1, 12, 12, generator=generator)
        self.pixels[:, :, 4:8, 4:8] = 0.5 + 0.4 * sign
        self.source_ids = tuple(str(index) for index in range(count))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.pixels[index], int(self.labels[index])


def fresh(head="softmax"):
    params = NetworkParams(name="strided", arguments={"image_shape": [12, 12], "width": 4, "hidden": 16})
    target = build_target(params, class_names=Patches.class_names, image_shape=(1, 12, 12))
    target.spec = target.spec.model_copy(update={"head": head})
    return target


@pytest.fixture(scope="module")
def held_out():
    images = Patches(40, seed=1)
    return HeldOut(images.pixels, images.labels)


def train(held_out, head="softmax", **values):
    target = fresh(head)
    params = TwinTrainingParams(**(FIT | values))
    return target, fit_twin(target, Patches(96), held_out, params=params, settings=SETTINGS)


@pytest.mark.parametrize(
    ("head", "values"),
    [
        ("softmax", {"method": "pgd", "ramp_steps": True}),
        ("softmax", {"method": "trades", "averaging": 0.8}),
        ("softmax", {"method": "fast"}),
        ("one_vs_all", {}),
    ],
)
def test_every_form_holds_where_a_plainly_trained_network_does_not(held_out, head, values):
    target, history = train(held_out, head, **values)
    params = TwinTrainingParams(**(FIT | values))
    plain = fresh(head)
    fit = {name: FIT[name] for name in ("epochs", "batch_size", "learning_rate")}
    fit_target(plain, Patches(96), params=TargetTrainingParams(**fit), settings=SETTINGS)

    found = measure_robustness(target, held_out, params, SETTINGS)
    before = measure_robustness(plain, held_out, params, SETTINGS)

    assert found["held_out_accuracy"] == before["held_out_accuracy"] == 1.0
    assert found[CHOSEN_BY] > 0.99
    assert before[CHOSEN_BY] < 0.98
    assert max(row.get(CHOSEN_BY, 0.0) for row in history) == pytest.approx(found[CHOSEN_BY])


def test_the_weights_are_those_of_the_best_epoch_at_full_epsilon(held_out):
    target, history = train(held_out, learning_rate=0.05, schedule="constant", epochs=6)
    measured = [row[CHOSEN_BY] for row in history if CHOSEN_BY in row]

    assert [CHOSEN_BY in row for row in history] == [False, True, True, True, True, True]
    assert measure_robustness(target, held_out, TwinTrainingParams(**FIT), SETTINGS)[CHOSEN_BY] == max(measured)


def test_without_held_out_images_the_average_of_the_last_epoch_is_kept():
    target, history = train(None, averaging=0.9, epochs=2)
    task = AdversarialTraining(fresh(), TwinTrainingParams(**FIT, averaging=0.9), None, SETTINGS)
    last, _ = train(None, averaging=0.0, epochs=2)

    assert CHOSEN_BY not in history[-1]
    assert task.average is not None
    weights, others = target_tensors(target), target_tensors(last)
    assert not any(torch.equal(weights[name], others[name]) for name in weights)


def test_the_average_moves_by_one_minus_its_decay():
    target = fresh()
    task = AdversarialTraining(target, TwinTrainingParams(**FIT, averaging=0.75), None, SETTINGS)
    task.after_step(target)
    weight = target.network.dense.fc2.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(4.0)
    task.after_step(target)

    torch.testing.assert_close(task.average.module.dense.fc2.weight, before + 1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"steps": 8}, 0.25), ({"method": "fast"}, 1.25), ({"relative_step": 0.1}, 0.1)],
)
def test_the_steps_together_can_cross_the_ball_unless_their_length_is_stated(values, expected):
    assert relative_step(TwinTrainingParams(**values), 8) == pytest.approx(expected)


def test_robustness_is_that_of_a_network_that_can_be_worked_out():
    """Logits (x, -x) of one pixel: epsilon .2 turns a pixel of .1 and not one of .3."""

    class Pixel(nn.Module):
        def forward(self, images):
            value = images.flatten(1)[:, :1]
            return torch.cat([value, -value], dim=1)

    spec = NetworkSpec(
        name="strided", num_classes=2, layers=("",), bounds=(-1, 1), class_names=("a", "b"), image_shape=(1, 1, 1)
    )
    images = torch.tensor([0.1, 0.3, -0.3, -0.1]).view(4, 1, 1, 1)
    params = TwinTrainingParams(epsilon=0.2, holdout_steps=4)

    found = measure_robustness(
        TargetNetwork(spec, Pixel()).freeze(), HeldOut(images, torch.tensor([0, 0, 1, 1])), params, SETTINGS
    )

    assert found["held_out_accuracy"] == 1.0
    assert found["held_out_robust_accuracy"] == 0.5
    # Clean: margins .2 and .6, so scores log(1 + exp(-.2 or -.6)); attacked: of the wrong class, margins +.2 and -.2.
    assert found[CHOSEN_BY] == pytest.approx((0.5 * 0.5 + 0.5 + 0.5 + 1.0 * 0.5) / 2, abs=0.26)


def test_frozen_statistics_stay_and_all_weights_move(held_out):
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    spec = fresh().spec.model_copy(update={"layers": ("0",), "readings": ()})
    target = TargetNetwork(spec, layers)
    before = {name: value.clone() for name, value in layers.state_dict().items()}

    fit_twin(
        target,
        Patches(32),
        held_out,
        params=TwinTrainingParams(**(FIT | {"epochs": 2, "frozen_statistics": True})),
        settings=SETTINGS,
    )

    kept = {name for name, value in layers.state_dict().items() if torch.equal(value, before[name])}
    assert kept == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_a_training_that_diverges_ends_at_once():
    arguments = {"image_shape": [12, 12], "width": 4, "hidden": 16}
    params = NetworkParams(name="strided", arguments=arguments, preprocessing={"scale": 1e30})
    target = build_target(params, class_names=Patches.class_names, image_shape=(1, 12, 12))
    fit = TwinTrainingParams(**(FIT | {"optimizer": "sgd", "learning_rate": 1.0, "epochs": 50}))

    with pytest.raises(DataError, match=r"twin_training: expected a finite loss, got \w+ in epoch [12]; lower .*\(1\)"):
        fit_twin(target, Patches(32), None, params=fit, settings=SETTINGS)
