from __future__ import annotations

import os
import sys

import pytest
import torch

from adv_detect.errors import ConfigurationError, ShardError
from adv_detect.params import RayParams, RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, execute_plan

RUNTIME = RuntimeParams(progress=False, engine="ray", ray=RayParams(num_cpus=1, max_retries=2))


def plan_of(work, count, runtime=RUNTIME):
    return ShardPlan(work, tuple(ShardSpec(f"k/{n}", f"f{n}", n) for n in range(count)), runtime, "numbers")


@pytest.fixture(scope="module")
def cluster():
    """Two workers, enough to run tasks side by side."""
    ray = pytest.importorskip("ray", reason="needs the extra adv-detect[ray]")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_missing_ray_is_a_configuration_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"ray is not installed; pip install -e '\.\[ray\]'"):
        execute_plan(plan_of(print, 1), ShardStore(str(tmp_path)))


def test_memory_storage_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="storage that all workers reach"):
        execute_plan(plan_of(print, 1), ShardStore("memory://nowhere"))


@pytest.mark.slow
def test_files_equal_those_of_the_local_engine(tmp_path, cluster):
    def work(number):
        generator = torch.Generator().manual_seed(number)
        images = torch.rand(8, 3, 4, 4, generator=generator)
        return ShardContent({"x": images, "y": images.flatten(1) @ torch.ones(48)}, {"n": number})

    one, other = ShardStore(str(tmp_path / "ray")), ShardStore(str(tmp_path / "local"))
    execute_plan(plan_of(work, 5), one)
    execute_plan(plan_of(work, 5, RuntimeParams(progress=False)), other)
    assert one.complete
    assert one.digest == other.digest
    assert list(one) == list(other)
    for spec in plan_of(work, 5).shards:
        assert one.fs.cat_file(one.path(spec.key)) == other.fs.cat_file(other.path(spec.key))


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nothing_is_lost(tmp_path, cluster):
    marker = tmp_path / "killed"

    def work(number):
        if number == 1 and not marker.exists():
            marker.touch()
            os._exit(1)
        return ShardContent({"x": torch.full((2,), float(number))}, {"threads": torch.get_num_threads()})

    store = ShardStore(str(tmp_path / "store"))
    execute_plan(plan_of(work, 4), store)
    assert marker.exists()
    assert store.complete
    assert [content.tensors["x"][0].item() for content in store.values()] == [0.0, 1.0, 2.0, 3.0]
    assert {content.metadata["threads"] for content in store.values()} == {1}


@pytest.mark.slow
def test_failing_work_is_not_retried_and_the_rest_resumes(tmp_path, cluster):
    tries = tmp_path / "tries"
    tries.touch()

    def work(number):
        if number == 2 and len(tries.read_text()) == 0:
            tries.write_text("x")
            raise ValueError("no such image")
        return ShardContent({"x": torch.full((2,), float(number))})

    store = ShardStore(str(tmp_path / "store"))
    with pytest.raises(ShardError, match=r"numbers: shard 'k/2' could not be made \(ValueError: no such image\)"):
        execute_plan(plan_of(work, 4), store)
    assert not store.complete
    assert "k/2" not in store
    execute_plan(plan_of(work, 4), store)
    assert store.complete
    assert tuple(store) == ("k/0", "k/1", "k/2", "k/3")


@pytest.mark.slow
def test_a_worker_that_always_dies_is_an_error(tmp_path, cluster):
    def work(_):
        os._exit(1)

    runtime = RuntimeParams(progress=False, engine="ray", ray=RayParams(max_retries=0))
    with pytest.raises(ShardError, match="numbers: shard 'k/0' could not be made"):
        execute_plan(plan_of(work, 1, runtime), ShardStore(str(tmp_path / "store")))
