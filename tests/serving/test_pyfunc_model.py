from __future__ import annotations

import base64
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from adv_detect.pictures import PictureInput
from adv_detect.serving.bundle import score_images
from adv_detect.serving.opening import unregistered_version


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
    assert set(got.pop("model_version")) == {unregistered_version(bundle)}
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


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures():
    """Encoded pictures, of the network's size and another."""
    generator = np.random.default_rng(8)
    return [png(generator.integers(0, 256, size, dtype=np.uint8)) for size in ((28, 28), (40, 50), (28, 28))]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_column_of_pictures_is_scored_as_their_tensors(model, bundle, pictures, as_text):
    """As `spark_udf` hands them: batches of bytes or texts under a name of its own, some of them empty."""
    steps = bundle.network.spec.picture_input
    assert isinstance(steps, PictureInput)
    expected = model.predict(None, steps.batch([steps.decode(one)[0] for one in pictures]).numpy())
    cells = [base64.b64encode(one).decode() if as_text else one for one in pictures]
    whole = pd.DataFrame({"0": cells}, index=[7, 8, 9])
    parts = [model.predict(None, whole.iloc[rows]) for rows in (slice(0, 2), slice(2, 2), slice(2, 3))]
    assert [len(one) for one in parts] == [2, 0, 1]
    for got in (pd.concat(parts, ignore_index=True), model.predict(None, whole), model.predict(None, whole["0"])):
        np.testing.assert_allclose(got["adversarial_score"], expected["adversarial_score"], atol=1e-6)
        assert list(got["predicted_class"]) == list(expected["predicted_class"])
    assert list(parts[1].columns) == list(expected.columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": [b"x"], "b": [b"x"]}, r"expected one column of encoded pictures .*, got \['a', 'b'\]"),
        ({"a": [b"x"]}, "row 0: expected an encoded picture .*, got one that cannot be read: not an image file"),
        ({"a": ["no base64!"]}, r"inputs\[0\]: expected an encoded picture"),
        ({"a": [3.0]}, "row 0: expected an encoded picture .* got float"),
        ({"a": [None]}, "row 0: expected an encoded picture .* got NoneType"),
    ],
)
def test_a_cell_without_a_picture_is_named(model, table, message):
    with pytest.raises(MlflowException, match=message):
        model.predict(None, pd.DataFrame(table))


def test_a_verdict_is_explained_where_that_is_asked_for(model, bundle):
    images = np.random.default_rng(2).random((3, 1, 28, 28), dtype=np.float32)
    expected = score_images(bundle, images, explainer=bundle.explainer())
    got = model.predict(None, images, {"explain": True})
    assert {"early_class", "departing_layers"} <= set(got)
    pd.testing.assert_frame_equal(got.drop(columns="model_version"), expected, rtol=1e-5)
    assert "early_class" not in model.predict(None, images, {"explain": False})
    assert len(model.predict(None, images[:0], {"explain": True})) == 0


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
