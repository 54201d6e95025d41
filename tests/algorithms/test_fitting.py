"""A training that was killed between two epochs ends with the weights of one that was not."""

from __future__ import annotations

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from adv_detect.algorithms.fitting import FitSettings
from adv_detect.algorithms.target_training import fit_target
from adv_detect.algorithms.twin_training import HeldOut, fit_twin
from adv_detect.networks.target import build_target, target_digest
from adv_detect.params import NetworkParams, TargetTrainingParams, TwinTrainingParams
from adv_detect.sharding.checkpoint import SUFFIX, FileCheckpoint

SETTINGS = FitSettings(seed=3, device=torch.device("cpu"), progress=False)
COMMON = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "augmentation": "shift"}
VARIANTS = {
    "adam": {"optimizer": "adam", "schedule": "onecycle"},
    "sgd": {"optimizer": "sgd", "schedule": "cosine", "learning_rate": 0.02},
    "workers": {"workers": 1, "schedule": "constant"},
}


class Shades:
    """Dark and bright noise, 12 x 12 pixels."""

    class_names = ("dark", "bright")

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        noise = torch.randint(0, 100, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
        self._images = noise + 120 * self.labels.to(torch.uint8)[:, None, None, None]
        self.source_ids = tuple(str(index) for index in range(count))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self._images[index], int(self.labels[index])


class Killed(FileCheckpoint):
    """Ends the process, as it were, after so many epochs."""

    left = 2

    def write(self, tensors, facts):
        super().write(tensors, facts)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def fresh():
    params = NetworkParams(name="strided", arguments={"image_shape": [12, 12], "width": 4, "hidden": 8})
    return build_target(params, class_names=Shades.class_names, image_shape=(1, 12, 12), seed=0)


def train_network(checkpoint, **values):
    target = fresh()
    params = TargetTrainingParams(**(COMMON | values))
    return target, fit_target(target, Shades(40), params=params, settings=SETTINGS, checkpoint=checkpoint)


def train_twin(checkpoint, **values):
    target, images = fresh(), Shades(20, seed=5)
    held_out = HeldOut(torch.stack([images[index][0] for index in range(20)]) / 255, images.labels)
    params = TwinTrainingParams(
        **(COMMON | {"epsilon": 0.2, "steps": 2, "ramp": 0.25, "averaging": 0.8, "holdout_steps": 2} | values)
    )
    history = fit_twin(target, Shades(40), held_out, params=params, settings=SETTINGS, checkpoint=checkpoint)
    return target, history


@pytest.mark.leaves_rng_alone
@pytest.mark.parametrize("train", [train_network, train_twin])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_training_goes_on_to_the_same_weights(train, variant, tmp_path):
    values = VARIANTS[variant]
    whole, history = train(None, **values)
    stem = str(tmp_path / "network")
    with pytest.raises(KeyboardInterrupt):
        train(Killed(LocalFileSystem(), stem, "one"), **values)

    kept = FileCheckpoint(LocalFileSystem(), stem, "one")
    assert len(kept.read()[1]["history"]) == 2
    resumed, again = train(kept, **values)

    assert target_digest(resumed) == target_digest(whole)
    assert again == history
    assert [row["epoch"] for row in again] == [1.0, 2.0, 3.0, 4.0]


def test_a_finished_training_is_not_repeated(tmp_path, monkeypatch):
    checkpoint = FileCheckpoint(LocalFileSystem(), str(tmp_path / "network"), "one")
    first, history = train_twin(checkpoint)
    monkeypatch.setattr("adv_detect.algorithms.fitting._epoch", lambda *_: pytest.fail("trained again"))

    second, again = train_twin(checkpoint)

    assert target_digest(second) == target_digest(first)
    assert again == history


def test_a_checkpoint_of_other_ingredients_is_not_taken(tmp_path):
    fs, stem = LocalFileSystem(), str(tmp_path / "network")
    FileCheckpoint(fs, stem, "one").write({"a": torch.ones(2)}, {"b": 1})

    assert FileCheckpoint(fs, stem, "two").read() is None
    tensors, facts = FileCheckpoint(fs, stem, "one").read()
    assert tensors["a"].tolist() == [1.0, 1.0]
    assert facts == {"b": 1}


def test_a_damaged_checkpoint_starts_the_work_anew_and_says_so(tmp_path, caplog):
    checkpoint = FileCheckpoint(LocalFileSystem(), str(tmp_path / "network"), "one")
    checkpoint.write({"a": torch.ones(200)}, {})
    file = tmp_path / f"network{SUFFIX}"
    file.write_bytes(file.read_bytes()[:-8])

    assert checkpoint.read() is None
    assert "the work starts anew" in caplog.text


def test_parts_have_files_of_their_own_and_go_together(tmp_path):
    checkpoint = FileCheckpoint(LocalFileSystem(), str(tmp_path / "network"), "one")
    other = FileCheckpoint(LocalFileSystem(), str(tmp_path / "networks"), "one")
    for one in (checkpoint, checkpoint.part("softmax"), checkpoint.part("one_vs_all"), other):
        one.write({"a": torch.ones(1)}, {"path": one.path})

    assert checkpoint.part("softmax").read()[1]["path"] != checkpoint.read()[1]["path"]
    checkpoint.remove()
    assert [file.name for file in tmp_path.iterdir()] == [f"networks{SUFFIX}"]
