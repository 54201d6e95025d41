from __future__ import annotations

from uuid import uuid4

import pytest
import torch

from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore

QUIET = RuntimeParams(progress=False)


class Work:
    """Makes the shard of a number, notes what it made, fails on demand."""

    def __init__(self):
        self.made = []
        self.fail_at = None
        self.error = ValueError("no such image")

    def __call__(self, number):
        if number == self.fail_at:
            raise self.error
        self.made.append(number)
        return ShardContent({"x": torch.full((2, 3), float(number))}, {"number": number, "names": ["é"]})


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def make_plan(work):
    def make(numbers, *, version="v1", versions=None, runtime=QUIET):
        versions = versions or {}
        shards = tuple(ShardSpec(f"part/{n:02d}", f"{versions.get(n, version)}-{n}", n) for n in numbers)
        return ShardPlan(work=work, shards=shards, runtime=runtime, description="numbers")

    return make


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    root = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid4().hex}/store"
    return ShardStore(root)
