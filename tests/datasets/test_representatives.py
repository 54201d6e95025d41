"""Representatives on disk are made again only when their ingredients changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adv_detect.datasets.representatives import RepresentativesDataset
from adv_detect.deferred import Deferred


@pytest.fixture
def dataset(tmp_path):
    return RepresentativesDataset(filepath=str(tmp_path / "r.safetensors"))


def test_made_once_per_fingerprint(dataset, representatives):
    made = []

    def make(layer):
        made.append(layer)
        return replace(representatives, layers=(layer, *representatives.layers[1:]))

    dataset.save(Deferred("one", lambda: make("first")))
    dataset.save(Deferred("one", lambda: make("second")))
    assert dataset.load().layers[0] == "first"
    dataset.save(Deferred("two", lambda: make("third")))
    assert dataset.load().layers[0] == "third"
    assert made == ["first", "third"]


def test_representatives_of_unknown_origin_are_replaced(dataset, representatives):
    dataset.save(replace(representatives, layers=("old", *representatives.layers[1:])))

    dataset.save(Deferred("one", lambda: representatives))

    assert dataset.load().layers == representatives.layers
