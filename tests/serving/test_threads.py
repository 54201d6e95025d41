"""One model asked by several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from adv_detect.serving.pyfunc_model import AdversarialDetector

THREADS, PREDICTIONS = 4, 150


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_concurrent_predictions_are_those_of_one_thread(bundle, tmp_path):
    bundle.save(tmp_path)
    model = AdversarialDetector()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(tmp_path)}))
    images = np.random.default_rng(5).random((THREADS, 1, 28, 28), dtype=np.float32)
    wanted = [model.predict(None, images[row : row + 1]) for row in range(THREADS)]

    def ask(row):
        return [model.predict(None, images[row : row + 1]) for _ in range(PREDICTIONS)]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(ask, range(THREADS)))

    for row, found in enumerate(answers):
        scores = np.concatenate([one["adversarial_score"] for one in found])
        assert scores.shape == (PREDICTIONS,)
        np.testing.assert_allclose(scores, wanted[row]["adversarial_score"].item(), rtol=0, atol=1e-6)
        assert {name for one in found for name in one["predicted_class"]} == set(wanted[row]["predicted_class"])
