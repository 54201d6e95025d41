from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
import torch

from adv_detect.algorithms.detectors import TrajectoryDetector, random_readout
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorParams
from adv_detect.serving.bundle import PARTS, ScoringBundle, check_images, score_images

COLUMNS = [
    "predicted_class",
    "predicted_index",
    "adversarial_score",
    "p_value",
    "threshold",
    "is_adversarial",
    "n_clean",
]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((7, 1, 28, 28), dtype=np.float32)


def test_a_stored_bundle_scores_as_before(bundle, images, tmp_path):
    bundle.save(tmp_path)
    restored = ScoringBundle.load(tmp_path)
    assert restored.network.spec == bundle.network.spec
    assert score_images(restored, images).equals(score_images(bundle, images))


def test_scores_are_those_of_network_and_detector(bundle, images):
    table = score_images(bundle, images)
    logits, scores = bundle.model().eval()(torch.from_numpy(images))
    assert list(table.columns) == COLUMNS
    np.testing.assert_array_equal(table["predicted_index"], logits.argmax(dim=1).numpy())
    np.testing.assert_allclose(table["adversarial_score"], scores.detach().numpy(), rtol=1e-6)
    assert [bundle.network.spec.class_names[index] for index in table["predicted_index"]] == list(
        table["predicted_class"]
    )


def test_batches_change_nothing(bundle, images):
    whole, parts = score_images(bundle, images), score_images(bundle, images, batch_size=3)
    np.testing.assert_allclose(whole["adversarial_score"], parts["adversarial_score"], atol=1e-6)


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.125])
def test_the_verdict_follows_the_rate_asked_for(bundle, images, fpr):
    table = score_images(bundle, images, fpr=fpr)
    clean = bundle.stored.clean_scores
    assert set(table["threshold"]) == {float(clean.sort(descending=True).values[int(fpr * len(clean))])}
    assert set(table["n_clean"]) == {len(clean)}
    at_least = [(1 + int((clean >= score).sum())) / (len(clean) + 1) for score in table["adversarial_score"]]
    np.testing.assert_allclose(table["p_value"], at_least)
    np.testing.assert_array_equal(table["is_adversarial"], table["adversarial_score"] > table["threshold"])


def test_the_default_rate_is_that_of_the_bundle(bundle, images):
    assert score_images(bundle, images).equals(score_images(bundle, images, fpr=0.05))


@pytest.mark.parametrize("fpr", [0.0, -1.0, 1.0, 5.0])
def test_a_rate_that_is_none(bundle, images, fpr):
    with pytest.raises(ConfigurationError, match=r"fpr: expected a rate above 0 and below 1, such as 0\.05, got"):
        score_images(bundle, images, fpr=fpr)


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33])
def test_scores_do_not_depend_on_how_images_come(bundle, size):
    many = np.random.default_rng(1).random((70, 1, 28, 28), dtype=np.float32)
    model = bundle.model().eval()
    parts = [score_images(bundle, many[row : row + size], model=model) for row in range(0, len(many), size)]
    alone = [score_images(bundle, many[row : row + 1], model=model) for row in range(len(many))]
    scores, expected = (np.concatenate([one["adversarial_score"] for one in tables]) for tables in (parts, alone))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_an_unwanted_answer_ends_before_the_next_chunk(bundle, images):
    asked = []
    with pytest.raises(CancelledError):
        score_images(bundle, images, batch_size=2, unwanted=lambda: asked.append(1) or len(asked) > 2)
    assert len(asked) == 3  # two chunks of the four were scored


def test_a_score_that_is_none_gets_no_verdict(bundle, images):
    class Broken(torch.nn.Module):
        network = bundle.model().network

        def forward(self, chunk):
            scores = torch.zeros(len(chunk))
            scores[[1, 4]] = torch.nan
            return torch.zeros(len(chunk), 10), scores

    with pytest.raises(DataError, match="expected a finite score for each image, got nan for image 1 and 1 others"):
        score_images(bundle, images, model=Broken())


@pytest.fixture
def _defaults_are_put_back():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("_defaults_are_put_back")
@pytest.mark.parametrize(
    "change", [lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_device("meta")]
)
@pytest.mark.parametrize("kind", ["lstm", "bilstm", "mlp"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine", "mahalanobis"])
def test_defaults_of_the_process_change_nothing(bundle, images, tmp_path, change, kind, distance):
    params = DetectorParams(kind=kind, representative="medoid", distance=distance)
    readout = random_readout(params, layers=len(bundle.representatives.layers), classes=10, seed=1)
    detector = TrajectoryDetector(bundle.representatives, params, readout).eval().requires_grad_(False)
    facts = dict(bundle.stored.facts) | {"params": params.model_dump(mode="json")}
    stored = replace(bundle, stored=replace(bundle.stored, detector=detector, params=params, facts=facts))
    stored.save(tmp_path)
    expected = score_images(stored, images)
    change()
    before = torch.get_default_dtype(), torch.get_default_device()
    restored = ScoringBundle.load(tmp_path)
    assert score_images(restored, images).equals(expected)
    assert (torch.get_default_dtype(), torch.get_default_device()) == before


def test_no_images_give_an_empty_table(bundle):
    table = score_images(bundle, np.zeros((0, 1, 28, 28), dtype=np.float32))
    assert len(table) == 0
    assert list(table.columns) == COLUMNS


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 3, 28, 28), (2, 1, 28, 27), (784,)])
def test_images_of_another_shape(bundle, shape):
    with pytest.raises(DataError, match=r"expected images of shape \(N, 1, 28, 28\), got"):
        score_images(bundle, np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize(("value", "got"), [(255.0, r"\[0, 255\]"), (-0.1, r"\[-0.1, 0\]")])
def test_pixels_out_of_range(bundle, value, got):
    images = np.zeros((1, 1, 28, 28), dtype=np.float32)
    images[0, 0, 3, 4] = value
    with pytest.raises(DataError, match=rf"expected pixels in \[0, 1\], got {got}; divide 8-bit pixels by 255"):
        score_images(bundle, images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite(bundle, value):
    with pytest.raises(DataError, match="expected finite pixels"):
        score_images(bundle, np.full((1, 1, 28, 28), value, dtype=np.float32))


def test_rounding_beyond_the_range_is_forgiven_and_the_input_stays(bundle):
    images = np.full((1, 1, 28, 28), 1 + 1e-6, dtype=np.float32)
    assert float(check_images(images, bundle.network.spec).max()) == 1.0
    assert float(images.max()) > 1.0


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(bundle, tmp_path, part):
    bundle.save(tmp_path)
    (tmp_path / f"{part}.safetensors").unlink()
    with pytest.raises(DataError, match=f"missing: .*{part}"):
        ScoringBundle.load(tmp_path)
