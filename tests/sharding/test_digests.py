from __future__ import annotations

import hashlib
import json

import pytest
import torch

from adv_detect.sharding import fingerprint
from adv_detect.sharding.digests import tensor_digest, tensors_digest

ROWS = torch.arange(6, dtype=torch.int16).reshape(2, 3)


def test_a_tensor_counts_by_the_bytes_that_lie_in_a_file():
    expected = hashlib.sha256(bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0])).hexdigest()

    assert tensor_digest(ROWS) == expected
    assert tensor_digest(ROWS.T.contiguous().T) == expected
    assert (
        tensor_digest(ROWS.float().requires_grad_(True)) == hashlib.sha256(ROWS.float().numpy().tobytes()).hexdigest()
    )


def test_named_tensors_by_hand():
    text = json.dumps({"classes": ["a"], "layers": 2}).encode() + b"rows torch.int16 (2, 3)" + ROWS.numpy().tobytes()

    assert tensors_digest({"rows": ROWS}, {"layers": 2, "classes": ["a"]}) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"b": ROWS}, {}),
        ({"a": ROWS.reshape(3, 2)}, {}),
        ({"a": ROWS.view(torch.uint16)}, {}),
        ({"a": ROWS + 1}, {}),
        ({"a": ROWS, "b": torch.zeros(0)}, {}),
        ({"a": ROWS}, {"name": "x"}),
    ],
)
def test_names_shapes_dtypes_values_and_facts_count(tensors, metadata):
    assert tensors_digest(tensors, metadata) != tensors_digest({"a": ROWS}, {})


def test_order_does_not_count():
    first, second = {"a": ROWS, "b": ROWS + 1}, {"b": ROWS + 1, "a": ROWS}
    assert tensors_digest(first, {"x": 1, "y": 2}) == tensors_digest(second, {"y": 2, "x": 1})


def test_fingerprints_rest_on_the_same_digest():
    form = {"tensor": [[2, 3], "int16"], "bytes": tensor_digest(ROWS)}
    text = json.dumps([form], sort_keys=True, separators=(",", ":"))
    assert fingerprint(ROWS) == hashlib.sha256(text.encode()).hexdigest()
