from __future__ import annotations

import logging

import pytest
import torch

from adv_detect.errors import ShardError
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, execute_plan

QUIET = RuntimeParams(progress=False)


def contents(store):
    return {key: (store.fingerprint(key), content.tensors["x"].tolist()) for key, content in store.items()}


def test_makes_all_shards_and_marks_the_end(store, work, make_plan):
    execute_plan(make_plan([0, 1, 2]), store)
    assert work.made == [0, 1, 2]
    assert store.complete
    assert tuple(store) == ("part/00", "part/01", "part/02")
    assert torch.equal(store["part/02"].tensors["x"], torch.full((2, 3), 2.0))
    assert store.metadata("part/02") == {"number": 2, "names": ["é"]}


def test_second_run_touches_nothing(store, work, make_plan):
    execute_plan(make_plan([0, 1]), store)
    before = {
        path: store.fs.info(path).get("mtime", store.fs.info(path).get("created")) for path in store.fs.find(store.root)
    }
    execute_plan(make_plan([0, 1]), store)
    after = {
        path: store.fs.info(path).get("mtime", store.fs.info(path).get("created")) for path in store.fs.find(store.root)
    }
    assert work.made == [0, 1]
    assert before == after


@pytest.mark.parametrize("error", [ValueError("no such image"), KeyboardInterrupt()])
def test_resumes_after_a_failure_with_the_same_result_as_an_unbroken_run(store, work, make_plan, tmp_path, error):
    from adv_detect.sharding import ShardStore

    work.fail_at, work.error = 2, error
    with pytest.raises((ShardError, KeyboardInterrupt)):
        execute_plan(make_plan(range(4)), store)
    assert work.made == [0, 1]
    assert not store.complete
    assert store.progress == "2 of 4 shards there"

    work.fail_at = None
    execute_plan(make_plan(range(4)), store)
    assert work.made == [0, 1, 2, 3]

    unbroken = ShardStore(str(tmp_path / "unbroken"))
    execute_plan(make_plan(range(4)), unbroken)
    assert contents(store) == contents(unbroken)
    assert store.digest == unbroken.digest


def test_failure_names_data_set_and_shard_and_is_chained(store, work, make_plan):
    work.fail_at = 1
    with pytest.raises(
        ShardError, match=r"numbers: shard 'part/01' could not be made \(ValueError: no such image\)"
    ) as caught:
        execute_plan(make_plan([0, 1]), store)
    assert caught.value.__cause__ is work.error


def test_only_changed_fingerprints_are_made_again(store, work, make_plan):
    execute_plan(make_plan([0, 1, 2]), store)
    execute_plan(make_plan([0, 1, 2], versions={1: "v2"}), store)
    assert work.made == [0, 1, 2, 1]
    assert store.fingerprint("part/01") == "v2-1"
    assert store.complete


def test_failure_after_completeness_takes_the_mark_away(store, work, make_plan):
    execute_plan(make_plan([0, 1]), store)
    work.fail_at = 1
    with pytest.raises(ShardError):
        execute_plan(make_plan([0, 1], versions={1: "v2"}), store)
    assert not store.complete
    assert store.progress == "1 of 2 shards there"


def test_shards_no_longer_planned_are_deleted(store, work, make_plan):
    execute_plan(make_plan([0, 1, 2]), store)
    execute_plan(make_plan([1]), store)
    assert tuple(store) == ("part/01",)
    assert work.made == [0, 1, 2]
    assert store.complete


def test_a_shard_of_nobody_is_told_apart_from_missing_ones(store, work, make_plan):
    execute_plan(make_plan([0, 1]), store)
    store.write("part/07", store["part/00"], "v1-7")

    assert not store.complete
    assert store.progress == "2 of 2 shards there, 1 of no plan"


def test_shards_beyond_the_plan_stay_while_it_fails(store, work, make_plan):
    execute_plan(make_plan([0, 1]), store)
    work.fail_at = 2
    with pytest.raises(ShardError):
        execute_plan(make_plan([2]), store)
    assert tuple(store) == ("part/00", "part/01")


def test_a_deleted_or_damaged_shard_is_made_again(store, work, make_plan):
    execute_plan(make_plan([0, 1, 2]), store)
    store.fs.rm_file(store.path("part/00"))
    assert not store.complete
    path = store.path("part/02")
    store.fs.pipe_file(path, store.fs.cat_file(path)[:-3])
    execute_plan(make_plan([0, 1, 2]), store)
    assert work.made == [0, 1, 2, 0, 2]
    assert store.complete


def test_temporary_files_of_a_killed_run_are_removed(store, make_plan):
    store.fs.makedirs(f"{store.root}/part", exist_ok=True)
    left = f"{store.root}/part/00.safetensors.tmp-0123"
    store.fs.pipe_file(left, b"half")
    assert tuple(store) == ()
    execute_plan(make_plan([0]), store)
    assert not store.fs.exists(left)


def test_empty_plan_gives_a_complete_store(store, make_plan):
    execute_plan(make_plan([]), store)
    assert store.complete
    assert list(store) == []


def test_work_that_returns_something_else_is_an_error(store):
    plan = ShardPlan(lambda _: {"x": 1}, (ShardSpec("k", "f", None),), RuntimeParams(progress=False), "things")
    with pytest.raises(ShardError, match="expected the work function to return a ShardContent, got dict"):
        execute_plan(plan, store)


def test_metadata_that_is_no_json_is_an_error(store):
    plan = ShardPlan(
        lambda _: ShardContent({"x": torch.ones(1)}, {"bad": object()}),
        (ShardSpec("k", "f", None),),
        RuntimeParams(progress=False),
        "things",
    )
    with pytest.raises(ShardError, match="not JSON serializable"):
        execute_plan(plan, store)
    assert tuple(store) == ()


def test_repeated_keys_are_refused(make_plan):
    with pytest.raises(ShardError, match=r"numbers: expected each shard key once.*'part/01'"):
        make_plan([1, 1])


BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/./b", "_complete", "a/_b", "a\\b", "a.tmp-1", "a*b", "a/b?", "[a]"]
UNPRINTABLE_KEYS = ["a\0b", "a\nb", "bim/tar\tgeted", "a\x7f", "a\ud800"]
LONG_KEYS = ["a" * 300, "é" * 101, "/".join(["a" * 200] * 5)]


@pytest.mark.parametrize("key", [*BAD_KEYS, *UNPRINTABLE_KEYS, *LONG_KEYS])
def test_keys_that_cannot_name_a_file_are_refused(key):
    with pytest.raises(ShardError) as caught:
        ShardPlan(print, (ShardSpec("good", "f", None), ShardSpec(key, "f", None)), RuntimeParams(), "things")

    message = str(caught.value)
    assert message.startswith(
        f"things: shard key {key!r}: expected" if len(key) <= 80 else f"things: shard key '{key[:80]}"
    )
    assert "expected names joined by '/', 900 bytes at most" in message
    assert "1 to 200 bytes of printable characters" in message
    assert len(message) < 500
    assert message.isprintable()


@pytest.mark.parametrize("key", ["a" * 200, "é" * 100, "a b/ü.x-1", "a%20b", "a#b", "{a}", "-a"])
def test_keys_within_the_rule_can_be_written_and_read(store, key):
    plan = ShardPlan(lambda _: ShardContent({"x": torch.ones(2)}), (ShardSpec(key, "f", None),), QUIET, "things")

    execute_plan(plan, store)

    assert tuple(store) == (key,)
    assert store.fingerprints() == {key: "f"}
    assert torch.equal(store[key].tensors["x"], torch.ones(2))


@pytest.mark.parametrize("progress", [True, False])
def test_progress_counts_kept_shards(store, make_plan, caplog, progress):
    execute_plan(make_plan([0]), store)
    with caplog.at_level(logging.INFO, logger="adv_detect.progress"):
        execute_plan(make_plan([0, 1, 2], runtime=RuntimeParams(progress=progress)), store)

    lines = [record.getMessage() for record in caplog.records if record.name == "adv_detect.progress"]
    expected = ["numbers (1 kept): 2 of 3 shards", "numbers (1 kept): 3 of 3 shards"]
    assert [line.split(", ")[0] for line in lines] == (expected if progress else [])


def test_one_line_is_logged_at_the_end(store, make_plan, caplog):
    execute_plan(make_plan([0]), store)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="adv_detect.sharding"):
        execute_plan(make_plan([0, 1]), store)
    assert [record.getMessage().split(", in ")[0] for record in caplog.records] == ["numbers: 1 shards made, 1 kept"]
