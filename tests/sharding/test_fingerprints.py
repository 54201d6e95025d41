from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from adv_detect.params import RayParams, RuntimeParams
from adv_detect.sharding import fingerprint


@dataclass(frozen=True)
class Point:
    x: int
    y: float


class Colour(Enum):
    RED = "red"


def test_is_the_sha256_of_canonical_json():
    expected = json.dumps([{"a": [1, 2.5], "b": None}, "x"], sort_keys=True, separators=(",", ":"))
    assert fingerprint({"b": None, "a": (1, 2.5)}, "x") == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, {2, 3, 1}),
        (RuntimeParams(seed=3), RuntimeParams(seed=3)),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        (np.float64(0.5), 0.5),
        (torch.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)),
        (torch.arange(6).reshape(2, 3).t(), torch.arange(6).reshape(2, 3).t().contiguous()),
        (torch.tensor(2.0), np.array(2.0, dtype=np.float32)),
    ],
)
def test_equal_things_agree(one, same):
    assert fingerprint(one) == fingerprint(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RuntimeParams(), RuntimeParams(ray=RayParams(num_cpus=2))),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2), torch.tensor([0.0, 1e-30])),
        (0.1, 0.1 + 1e-17 * 2),
        (1, "1"),
        (b"a", b"b"),
        (None, "null"),
        ([1, [2]], [[1], 2]),
        ({"a": None}, {}),
    ],
)
def test_different_things_differ(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_bfloat16_and_empty_tensors_have_one():
    assert fingerprint(torch.zeros(3, dtype=torch.bfloat16)) != fingerprint(torch.zeros(0, 3))


@pytest.mark.parametrize(("value", "name"), [(object(), "object"), ([lambda: 0], "function"), (Point, "type")])
def test_unknown_types_are_refused_by_name(value, name):
    with pytest.raises(TypeError, match=name):
        fingerprint(value)


def test_keys_that_are_no_text_are_refused():
    with pytest.raises(TypeError, match="text as keys of a mapping, got int 1"):
        fingerprint({1: "a"})
