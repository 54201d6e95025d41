from __future__ import annotations

import logging
import os

import pytest
import torch
from pydantic import ValidationError

from adv_detect.errors import ShardError
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, execute_plan, pool
from adv_detect.sharding.pool import MOST_PROCESSES, processes_for
from adv_detect.workers import close_workers

RUNTIME = RuntimeParams(progress=False, processes=2)


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    close_workers()


def plan_of(work, count, runtime=RUNTIME):
    return ShardPlan(work, tuple(ShardSpec(f"k/{n}", f"f{n}", n) for n in range(count)), runtime, "numbers")


def with_process(number):
    generator = torch.Generator().manual_seed(number)
    return ShardContent({"x": torch.rand(8, 3, generator=generator)}, {"n": number, "process": os.getpid()})


def test_files_equal_those_of_one_process(tmp_path):
    def work(number):
        content = with_process(number)
        return ShardContent(content.tensors | {"y": content.tensors["x"] @ torch.ones(3)}, {"n": number})

    one, other = ShardStore(str(tmp_path / "two")), ShardStore(str(tmp_path / "one"))
    execute_plan(plan_of(work, 5), one)
    execute_plan(plan_of(work, 5, RuntimeParams(progress=False)), other)
    assert one.complete
    assert one.digest == other.digest
    assert list(one) == list(other)
    for key in one:
        assert one.fs.cat_file(one.path(key)) == other.fs.cat_file(other.path(key))


@pytest.mark.parametrize(("count", "elsewhere"), [(1, False), (3, True)])
def test_a_shard_alone_is_made_in_this_process(tmp_path, count, elsewhere):
    store = ShardStore(str(tmp_path))
    execute_plan(plan_of(with_process, count), store)
    made_in = {store.metadata(key)["process"] for key in store}
    assert (os.getpid() not in made_in) is elsewhere
    assert len(made_in) <= 2


def test_memory_storage_is_filled_by_this_process():
    store = ShardStore("memory://pool-test")
    execute_plan(plan_of(with_process, 2), store)
    assert {store.metadata(key)["process"] for key in store} == {os.getpid()}


def test_a_failure_is_told_as_by_one_process_and_the_rest_resumes(tmp_path):
    tries = tmp_path / "tries"
    tries.touch()

    def work(number):
        if number == 2 and not tries.read_text():
            tries.write_text("x")
            raise ValueError("no such image")
        return ShardContent({"x": torch.full((2,), float(number))})

    store = ShardStore(str(tmp_path / "store"))
    with pytest.raises(ShardError) as caught:
        execute_plan(plan_of(work, 4), store)
    assert str(caught.value) == (
        "numbers: shard 'k/2' could not be made (ValueError: no such image); the finished shards are kept, so a new "
        "run goes on from here"
    )
    assert isinstance(caught.value.__cause__, ValueError)
    assert not store.complete
    assert "k/2" not in store
    execute_plan(plan_of(work, 4), store)
    assert tuple(store) == ("k/0", "k/1", "k/2", "k/3")


def test_a_process_that_dies_is_an_error_that_names_a_shard_under_way(tmp_path):
    def work(number):
        if number == 1:
            os._exit(3)
        return with_process(number)

    with pytest.raises(
        ShardError, match=r"shard 'k/[01]' could not be made \(WorkerError: .* by exit code 3 of the one at this task"
    ):
        execute_plan(plan_of(work, 2), ShardStore(str(tmp_path)))


def test_progress_counts_units_as_they_are_done(tmp_path, caplog):
    plan = plan_of(with_process, 4, RuntimeParams(processes=2))
    with caplog.at_level(logging.INFO):
        execute_plan(plan, ShardStore(str(tmp_path)))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in lines[:-1]] == [f"numbers: {n} of 4 shards" for n in range(1, 5)]
    assert lines[-1].startswith("numbers: 4 shards made, 0 kept, in ")


@pytest.mark.parametrize(
    ("processes", "device", "threads", "count", "one_thread", "chosen"),
    [
        ("auto", "cpu", 2, 9, True, 2),
        ("auto", "cpu", 2, 9, False, 1),
        ("auto", "cpu", 1, 9, True, 1),
        ("auto", "cpu", 64, 99, True, MOST_PROCESSES),
        ("auto", "cpu", 64, 3, True, 3),
        ("auto", "auto", 2, 9, True, 2),
        ("auto", "cuda", 2, 9, True, 1),
        (1, "cpu", 2, 9, True, 1),
        (20, "cpu", 2, 99, False, 20),
        (3, "cuda", 2, 9, True, 3),
    ],
)
def test_choice_of_a_number(monkeypatch, processes, device, threads, count, one_thread, chosen):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pool.os, "sysconf", lambda name: 2**40 if name == "SC_PHYS_PAGES" else 4096)
    runtime = RuntimeParams(processes=processes, device=device)
    assert processes_for(runtime, count, one_thread=one_thread) == chosen


@pytest.mark.parametrize(("gibibytes", "chosen"), [(2, 1), (8, 2), (24, 6), (512, MOST_PROCESSES)])
def test_memory_bounds_the_number(monkeypatch, gibibytes, chosen):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pool.os, "sysconf", lambda name: gibibytes * 2**18 if name == "SC_PHYS_PAGES" else 4096)
    assert processes_for(RuntimeParams(processes="auto"), 99, one_thread=True) == chosen


def test_a_gpu_is_used_by_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_for(RuntimeParams(processes="auto"), 9, one_thread=True) == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, "all", None, True])
def test_other_numbers_are_refused(value):
    with pytest.raises(ValidationError, match="processes"):
        RuntimeParams(processes=value)
