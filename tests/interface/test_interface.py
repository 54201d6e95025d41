"""Five lines of Python: open a model and score; fit a detector to a network of one's own."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.workshop import Stripes
from torch import nn

import adv_detect
from adv_detect.algorithms.roc import roc_auc
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import load_images
from adv_detect.interface.gate import Gate
from adv_detect.serving.bundle import score_images

CLASSES = 3


class Tiny(nn.Module):
    """Two convolutions, with weights that are drawn; reads the place of the stripe."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.first = nn.Conv2d(1, 6, 5, stride=2)
            self.second = nn.Conv2d(6, 8, 3, stride=2)
            self.head = nn.Linear(8 * 5 * 5, num_classes)

    def forward(self, images):
        hidden = torch.relu(self.second(torch.relu(self.first(images))))
        return self.head(hidden.flatten(1))


@pytest.fixture(scope="module")
def network() -> Tiny:
    """A network that has learnt the stripes, in a second."""
    images, model = Stripes(60, seed=3, name="learn"), Tiny()
    pixels, labels = load_images(images, range(len(images)), (0.0, 1.0)), images.labels
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(pixels), labels).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def clean() -> tuple[torch.Tensor, torch.Tensor]:
    images = Stripes(80, seed=4, name="clean")
    return torch.stack([images[index][0] for index in range(len(images))]), images.labels


@pytest.fixture(scope="module")
def gate(network, clean) -> Gate:
    return adv_detect.fit(network, *clean, layers=["first", "second"])


def encoded(pixels: torch.Tensor, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[0].numpy()).save(buffer, form)
    return buffer.getvalue()


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, adv_detect; print([one for one in ('torch', 'kedro', 'mlflow', 'pandas') if one in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert {"fit", "load", "Gate"} <= set(dir(adv_detect))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = adv_detect.lode


def test_a_stored_model_scores_paths_bytes_and_pictures(bundle, tmp_path):
    bundle.save(tmp_path)
    pixels = (torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(8)) * 255).to(torch.uint8)
    (tmp_path / "a.png").write_bytes(encoded(pixels[0]))
    given = [tmp_path / "a.png", encoded(pixels[1]), Image.fromarray(pixels[1, 0].numpy()), tmp_path / "b.png", b"?"]
    table = adv_detect.load(tmp_path).score(given)
    expected = score_images(bundle, (pixels.float() / 255).numpy())["adversarial_score"].to_numpy()
    assert table["score"].to_numpy()[:3] == pytest.approx(expected[[0, 1, 1]], abs=1e-5)
    assert table["path"].tolist() == [
        str(tmp_path / "a.png"),
        "picture 1",
        "picture 2",
        str(tmp_path / "b.png"),
        "picture 4",
    ]
    assert table["error"].tolist()[3:] == ["no such file", "not an image file"]
    assert table["verdict"].isna().tolist() == [False, False, False, True, True]


def test_images_in_the_networks_range_are_taken_as_they_are(gate, clean):
    images = clean[0][:4].float() / 255
    by_picture = gate.score([encoded(one) for one in clean[0][:4]])
    for given in (images, images.numpy()):
        assert gate.score(given)["score"].to_numpy() == pytest.approx(by_picture["score"].to_numpy(), abs=1e-5)
    with pytest.raises(DataError, match=r"expected images of shape \(N, 1, 28, 28\)"):
        gate.score(np.zeros((2, 3, 28, 28), dtype=np.float32))


def test_rates_are_chosen_when_asked(gate, clean):
    table = gate.at(review=0.5, reject=0.25).score(encoded(clean[0][0]))
    assert len(table) == 1
    assert {"flagged_at_fpr_50", "flagged_at_fpr_25"} <= set(table)
    with pytest.raises(ConfigurationError, match="0 < reject < review < 1"):
        gate.at(review=0.1, reject=0.2).score(encoded(clean[0][0]))


def attacked(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Ascend the loss for ten steps within 0.3 a pixel; the images that then have another class."""
    changed = images.clone()
    for _ in range(10):
        changed.requires_grad_(True)
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(network(changed), labels), changed)
        changed = (images + (changed + 0.05 * slope.sign() - images).clamp(-0.3, 0.3)).clamp(0, 1).detach()
    return changed[network(changed).argmax(dim=1) != labels]


def test_clean_images_are_enough_to_tell_attacked_ones(gate, network, clean):
    natural = Stripes(40, seed=6, name="new")
    images = load_images(natural, range(len(natural)), (0.0, 1.0))
    known, found = gate.score(images), gate.score(attacked(network, images, natural.labels))
    assert len(found) > 50
    assert known["flagged_at_fpr_05"].mean() < 0.2
    scores = np.concatenate([known["score"], found["score"]])
    assert roc_auc(scores, np.arange(len(scores)) >= len(known)) > 0.8
    assert len(gate.bundle.stored.clean_scores) == pytest.approx(0.3 * len(clean[0]), abs=2)
    assert next(network.parameters()).requires_grad  # the user's network stays as it is


@pytest.mark.parametrize("detector", ["kde", {"kind": "dknn", "arguments": {"k": 3}}])
def test_other_detectors_of_clean_images(network, clean, detector):
    fitted = adv_detect.fit(network, *clean, layers=["first", "second"], detector=detector, seed=1)
    again = adv_detect.fit(network, *clean, layers=["first", "second"], detector=detector, seed=1)
    table = fitted.score(clean[0][:3].float() / 255)
    pd.testing.assert_frame_equal(
        table.drop(columns="seconds"), again.score(clean[0][:3].float() / 255).drop(columns="seconds")
    )


def test_a_twin_of_ones_own(network, clean):
    fitted = adv_detect.fit(
        network, *clean, layers=["second"], detector="twin", twin={"epochs": 1, "steps": 1, "epsilon": 0.1}
    )
    table = fitted.score(clean[0][:3].float() / 255)
    assert table["twin_belief"].between(0, 1).all()
    assert fitted.version == "own-network/twin"


def test_pictures_and_a_constructor_make_a_model_that_is_stored(network, clean, tmp_path):
    pictures = [encoded(one) for one in clean[0]]
    constructor = f"{__name__}.Tiny"
    sys.modules.setdefault(__name__, sys.modules[Tiny.__module__])
    fitted = adv_detect.fit(network, pictures, clean[1], layers=["second"], constructor=constructor)
    fitted.save(tmp_path / "model")
    again = adv_detect.load(tmp_path / "model")
    assert again.score(pictures[:3])["score"].tolist() == fitted.score(pictures[:3])["score"].tolist()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": ["third"]}, ConfigurationError, "no module 'third'"),
        ({"detector": "lid"}, ConfigurationError, "'lid', which learns from attacks"),
        ({"detector": "dkn"}, ConfigurationError, "did you mean 'dknn'"),
        ({"detector": "feature-squeezing"}, ConfigurationError, "reads no views"),
        ({"labels": [0, 1]}, DataError, r"one per image, shape \(240,\), got \(2,\)"),
        ({"labels": [7] * 240}, DataError, "classes from 0 to 2, got 7 to 7"),
        ({"class_names": ["a"]}, DataError, "expected 3, one per logit"),
        ({"holdout": 0.05}, DataError, "at least 20 to rest thresholds on, got 12 of 240"),
        ({"holdout": 1.0}, ConfigurationError, "a share above 0 and below 1"),
        ({"images": torch.zeros(240, 28, 28)}, DataError, r"shape \(N, channels, H, W\)"),
        ({"images": torch.full((240, 1, 28, 28), 9.0)}, DataError, r"pixels in \[0, 1\]"),
    ],
)
def test_bad_input_is_named(network, clean, changes, error, message):
    given = {"images": clean[0], "labels": clean[1], "layers": ["second"]} | changes
    with pytest.raises(error, match=message):
        adv_detect.fit(network, **given)


def test_what_cannot_be_built_again_is_not_stored(network, clean, tmp_path, gate):
    fitted = adv_detect.fit(network, *clean, layers=["second"], constructor="no_such_module.network")
    with pytest.raises(ConfigurationError, match="constructor"):
        fitted.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
