"""Judging of the answers to a load."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.latency import as_jpeg
from benchmarks.serving import Answer, Outcome, pick

from adv_detect.pictures import PictureInput
from adv_detect.serving.decoding import decode_request


def answer(*scores, status=200, seconds=0.1):
    rows = [{"adversarial_score": score} for score in scores]
    return Answer(status, {"predictions": rows} if status == 200 else {"message": "no"}, seconds)


def test_answers_are_compared_with_those_of_their_own_request():
    expected = [[np.array([1.0]), np.array([2.0])], [np.array([3.0]), np.array([4.0])]]
    right = [[answer(1.0), answer(2.0), answer(1.0)], [answer(3.0), answer(4.0), answer(3.0 + 5e-7)]]
    assert Outcome(right, 1.0).compare(expected) == (0, pytest.approx(5e-7, abs=1e-9))
    swapped = [[answer(2.0), answer(2.0), answer(1.0)], [answer(3.0), answer(4.0), answer(3.0)]]
    assert Outcome(swapped, 1.0).compare(expected) == (1, 1.0)


@pytest.mark.parametrize("bad", [answer(status=400), answer(), answer(1.0, 1.0), answer(1.0 + 2e-6), answer(np.nan)])
def test_what_is_no_right_answer(bad):
    assert Outcome([[bad]], 1.0).compare([[np.array([1.0])]])[0] == 1


def test_percentiles_are_those_of_all_clients():
    spent = [[answer(1.0, seconds=second) for second in client] for client in ([1.0, 2.0], [3.0])]
    assert Outcome(spent, 3.0).percentile(50) == 2.0


def test_each_request_has_images_of_its_own():
    images = np.arange(12).reshape(12, 1, 1, 1)
    sent = pick(images, clients=2, size=2, different=3)
    assert [[one.flatten().tolist() for one in client] for client in sent] == [
        [[0, 1], [2, 3], [4, 5]],
        [[6, 7], [8, 9], [10, 11]],
    ]
    assert pick(images, clients=1, size=8, different=2)[0][1].flatten().tolist() == [8, 9, 10, 11, 0, 1, 2, 3]


def test_a_body_of_jpegs_is_decoded_to_nearly_the_images():
    images = np.linspace(0, 1, 2 * 28 * 28, dtype=np.float32).reshape(2, 1, 28, 28)
    steps = PictureInput.of(None, (1, 28, 28), (0.0, 1.0))
    decoded, _ = decode_request(as_jpeg(images), image_shape=(1, 28, 28), max_images=2, pictures=steps)
    assert np.abs(decoded - images).max() < 0.05
