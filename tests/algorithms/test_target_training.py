"""Training of a network under attack."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.augmentation import augment
from adv_detect.algorithms.fitting import FitSettings
from adv_detect.algorithms.target_training import fit_target, measure_accuracy
from adv_detect.errors import DataError
from adv_detect.images import load_images
from adv_detect.networks.target import build_target, target_digest
from adv_detect.params import NetworkParams, TargetTrainingParams

CPU = torch.device("cpu")
NAMES = ("dark", "bright")


class Shades:
    """Dark and bright noise, 16 x 16 pixels."""

    class_names = NAMES

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        noise = torch.randint(0, 100, (count, 1, 16, 16), generator=generator, dtype=torch.uint8)
        self._images = noise + 120 * self.labels.to(torch.uint8)[:, None, None, None]
        self.source_ids = tuple(str(index) for index in range(count))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self._images[index], int(self.labels[index])


def fresh(seed=0):
    params = NetworkParams(name="small", arguments={"image_size": 16})
    return build_target(params, class_names=NAMES, image_shape=(1, 16, 16), seed=seed)


def fit(images, *, seed=0, network_seed=0, **values):
    target = fresh(network_seed)
    defaults = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3}
    params = TargetTrainingParams(**(defaults | values))
    history = fit_target(target, images, params=params, settings=FitSettings(seed=seed, device=CPU, progress=False))
    return target, history


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "adam", "schedule": "onecycle"},
        {"optimizer": "sgd", "schedule": "cosine", "learning_rate": 0.05, "epochs": 4},
        {"optimizer": "adam", "schedule": "constant", "augmentation": "shift"},
        {"optimizer": "adam", "schedule": "constant", "augmentation": "crop_flip", "epochs": 5},
    ],
)
def test_two_shades_are_learnt(values):
    target, history = fit(Shades(64), **values)

    assert measure_accuracy(target, Shades(40, seed=1), batch_size=16, device=CPU) > 0.9
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["epoch"] for row in history] == [float(epoch + 1) for epoch in range(values.get("epochs", 2))]


def test_a_training_that_diverges_ends_at_once_with_its_learning_rate():
    target = build_target(
        NetworkParams(name="small", arguments={"image_size": 16}, preprocessing={"scale": 1e30}),
        class_names=NAMES,
        image_shape=(1, 16, 16),
    )
    params = TargetTrainingParams(epochs=50, batch_size=8, optimizer="sgd", learning_rate=1.0)

    with pytest.raises(DataError, match=r"target_training: expected a finite loss, got \w+ in epoch [12]; .*\(1\)"):
        fit_target(target, Shades(16), params=params, settings=FitSettings(seed=0, device=CPU, progress=False))


def test_the_trained_network_is_frozen():
    target, _ = fit(Shades(16), epochs=1)

    assert not target.training
    assert not any(parameter.requires_grad for parameter in target.parameters())


@pytest.mark.leaves_rng_alone
def test_the_seed_decides_the_weights_and_no_global_draw_does():
    images = Shades(24)
    first = target_digest(fit(images, epochs=1, augmentation="shift")[0])
    second = target_digest(fit(images, epochs=1, augmentation="shift")[0])
    other = target_digest(fit(images, epochs=1, augmentation="shift", seed=1)[0])

    assert first == second
    assert first != other


def test_the_learning_rate_follows_the_schedule():
    images = Shades(32)
    rates = {
        name: [row["learning_rate"] for row in fit(images, schedule=name, learning_rate=1e-3, epochs=2)[1]]
        for name in ("constant", "cosine", "onecycle")
    }

    assert rates["constant"] == [1e-3, 1e-3]
    assert rates["cosine"] == pytest.approx([5e-4, 0.0], abs=1e-9)
    assert 0 < rates["onecycle"][1] < 1e-4 < rates["onecycle"][0] <= 1e-3


def test_the_history_counts_images_seen_in_whole_batches_only():
    """19 images in batches of 8: two batches an epoch, so accuracies are multiples of 1/16."""
    _, history = fit(Shades(19), epochs=1)

    assert history[0]["accuracy"] * 16 == pytest.approx(round(history[0]["accuracy"] * 16))


def test_fewer_images_than_a_batch_are_still_trained_on():
    _, history = fit(Shades(5), epochs=1, batch_size=64)

    assert history[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "the last layer starts from zero"


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_accuracy_is_the_share_of_correct_images(batch_size):
    target, images = fit(Shades(16), epochs=1)[0], Shades(20, seed=3)
    predicted = target(load_images(images, range(20), (0.0, 1.0))).argmax(dim=1)

    expected = (predicted == images.labels).float().mean()

    assert measure_accuracy(target, images, batch_size=batch_size, device=CPU) == pytest.approx(float(expected))


def ramp(count=40, size=12):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (100.0 * rows + columns).expand(count, 1, size, size).clone()


def test_no_augmentation_gives_the_images_back():
    images = ramp(2)

    assert augment(images, "none") is images


def test_a_shift_moves_by_at_most_two_pixels_and_repeats_edges():
    images = ramp()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = augment(images, "shift")

    shifts = (moved - images)[:, 0, 5, 5]
    down, right = (shifts / 100).round(), shifts - 100 * (shifts / 100).round()
    assert set(down.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert set(right.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    torch.testing.assert_close(moved[:, 0, 4:8, 4:8] - images[:, 0, 4:8, 4:8], shifts[:, None, None].expand(-1, 4, 4))
    assert float(moved.min()) == 0.0
    assert float(moved.max()) == 1111.0
    assert torch.equal(images, ramp())


def test_crop_and_flip_pad_with_zeros_and_mirror_about_half():
    images = ramp(200) + 1.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        varied = augment(images, "crop_flip")

    centre = varied[:, 0, 6, 5:8]
    mirrored = centre[:, 2] < centre[:, 0]
    assert varied.shape == images.shape
    assert 70 < int(mirrored.sum()) < 130
    assert bool((varied == 0).any())
    steps = varied[:, 0, 6, 5] // 100 - 6
    assert float(steps.min()) >= -4
    assert float(steps.max()) <= 4
    assert len(steps.unique()) == 9
