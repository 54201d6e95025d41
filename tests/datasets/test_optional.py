from __future__ import annotations

from uuid import uuid4

import pytest
import torch
from kedro.io import DatasetError

from adv_detect.absent import ABSENT, Absent, pass_on_absent
from adv_detect.datasets.optional import OptionalDataset
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec

SHARDS = "adv_detect.datasets.sharded.ShardedSafetensorsDataset"


def make(number: int) -> ShardContent:
    return ShardContent({"x": torch.full((2,), number)})


PLAN = ShardPlan(make, (ShardSpec("one", "1", 1),), RuntimeParams(progress=False), "numbers")


@pytest.fixture(params=["local", "memory"])
def dataset(request, tmp_path):
    place = str(tmp_path) if request.param == "local" else f"memory://{uuid4().hex}"
    return OptionalDataset(dataset=SHARDS, filepath=f"{place}/folder/shards", made_by="adaptive_attack")


def test_nothing_is_there_before_something_is_saved(dataset):
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="kedro run --pipeline=adaptive_attack"):
        dataset.load()


def test_what_another_pipeline_may_have_left_is_absent_while_it_is_not_there(tmp_path):
    place = str(tmp_path / "shards")
    found = OptionalDataset(dataset=SHARDS, filepath=place, missing_is_absent=True)
    assert found.exists()
    assert isinstance(found.load(), Absent)
    OptionalDataset(dataset=SHARDS, filepath=place).save(PLAN)
    assert tuple(found.load()) == ("one",)


def test_what_is_there_and_what_is_absent_are_told_apart(dataset):
    dataset.save(PLAN)
    assert tuple(dataset.load()) == ("one",)

    dataset.save(ABSENT)
    assert dataset.exists()
    assert isinstance(dataset.load(), Absent)

    dataset.save(PLAN)
    assert dataset.exists()
    assert dataset.load()["one"].tensors["x"].tolist() == [1, 1]


def test_what_was_made_is_kept_while_it_is_absent(dataset):
    calls = []

    def count(number: int) -> ShardContent:
        calls.append(number)
        return make(number)

    plan = ShardPlan(count, PLAN.shards, PLAN.runtime, "numbers")
    for data in (plan, ABSENT, plan):
        dataset.save(data)

    assert calls == [1]


def test_what_the_other_dataset_does_not_take_is_refused(dataset):
    with pytest.raises(DatasetError, match="expected a ShardPlan, got int"):
        dataset.save(3)


def test_a_function_passes_on_what_is_absent_and_keeps_its_signature():
    def add(one: int, other: int) -> int:
        """Add."""
        return one + other

    adds = pass_on_absent(add)

    assert adds(1, 2) == adds(1, other=2) == 3
    assert adds(ABSENT, 2) is ABSENT
    assert adds(1, other=ABSENT) is ABSENT
    assert (adds.__name__, adds.__doc__) == ("add", "Add.")
    assert repr(ABSENT) == "ABSENT"
