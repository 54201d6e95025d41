from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from adv_detect.serving.bundle import score_images


@pytest.fixture
def model(bundle, tmp_path):
    from adv_detect.serving.pyfunc_model import AdversarialDetector

    bundle.save(tmp_path)
    made = AdversarialDetector()
    made.load_context(SimpleNamespace(artifacts={"bundle": str(tmp_path)}))
    return made


@pytest.mark.parametrize(("params", "fpr"), [(None, None), ({}, None), ({"fpr": 0.1}, 0.1)])
def test_it_scores_as_the_bundle_does(model, bundle, params, fpr):
    images = np.random.default_rng(2).random((3, 1, 28, 28), dtype=np.float32)
    expected = score_images(bundle, images, fpr=fpr)
    got = model.predict(None, images, params)
    np.testing.assert_allclose(got.pop("adversarial_score"), expected.pop("adversarial_score"), atol=1e-6)
    assert got.equals(expected)


@pytest.mark.parametrize(
    ("images", "params", "message"),
    [
        (np.zeros((1, 1, 28, 28)), {"fpr": 1.2}, "fpr: expected a rate above 0 and below 1, .*got 1.2"),
        (np.zeros((1, 1, 28, 28)), {"fpr": 0.0}, "fpr: expected a rate above 0 .*, got 0"),
        (np.full((1, 1, 28, 28), 2.0), None, r"expected pixels in \[0, 1\], got \[2, 2\]"),
    ],
)
def test_what_it_refuses_becomes_a_client_error(model, images, params, message):
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(None, images, params)
    assert caught.value.get_http_status_code() == 400


@pytest.fixture
def _threads_change_often():
    """As on a busy machine: a switch of threads every ten microseconds instead of five milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_change_often")
def test_threads_get_the_scores_of_one(model, bundle):
    images = np.random.default_rng(4).random((50, 1, 28, 28), dtype=np.float32)
    rates = [None, 0.01, 0.1]
    expected = [score_images(bundle, images[row : row + 1], fpr=rates[row % 3]) for row in range(len(images))]
    with ThreadPoolExecutor(4) as pool:
        asked = [(row, {"fpr": rates[row % 3]}) for row in range(len(images))] * 2
        answers = pool.map(lambda one: model.predict(None, images[one[0] : one[0] + 1], one[1]), asked)
        for (row, _), got in zip(asked, answers, strict=True):
            assert got["predicted_index"].equals(expected[row]["predicted_index"])
            assert got["threshold"].equals(expected[row]["threshold"])
            assert got["adversarial_score"].item() == pytest.approx(expected[row]["adversarial_score"].item(), abs=1e-6)
