"""Every bit of a shard and of its neighbours counts."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch

from adv_detect.errors import DamagedFileError
from adv_detect.sharding import ShardContent, ShardStore, execute_plan, files


def test_every_flipped_byte_is_noticed(tmp_path):
    store = ShardStore(str(tmp_path), remedy="kedro run --pipeline=x")
    store.write("k", ShardContent({"x": torch.arange(3.0), "y": torch.ones(2, dtype=torch.int64)}, {"n": 0.1}), "f")
    path = tmp_path / "k.safetensors"
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ (1 << place % 8)]) + raw[place + 1 :])
        with pytest.raises(DamagedFileError, match=r"k\.safetensors is damaged \(.*\); kedro run --pipeline=x"):
            store["k"]
    path.write_bytes(raw)
    assert store["k"].metadata == {"n": 0.1}


def test_every_flipped_byte_of_a_json_file_is_noticed(tmp_path, store):
    path = f"{store.root}/x.json"
    files.write_json(store.fs, path, {"a": 0.12345678901234567, "b": ["ü", None]})
    raw = store.fs.cat_file(path)
    for place in range(len(raw)):
        store.fs.pipe_file(path, raw[:place] + bytes([raw[place] ^ (1 << place % 8)]) + raw[place + 1 :])
        with pytest.raises(DamagedFileError, match=r"x\.json is damaged"):
            files.read_json(store.fs, path)


def test_only_the_tensors_that_are_read_are_compared(store):
    store.write("k", ShardContent({"x": torch.zeros(64), "y": torch.zeros(64)}), "f")
    path = store.path("k")
    store.fs.pipe_file(path, store.fs.cat_file(path)[:-1] + b"\x01")
    assert torch.equal(store.only("x")["k"].tensors["x"], torch.zeros(64))
    with pytest.raises(DamagedFileError, match="digest of tensor 'y'"):
        store.only("y")["k"]


def test_a_damaged_shard_is_made_again_with_one_warning(store, work, make_plan, caplog):
    execute_plan(make_plan([0, 1, 2]), store)
    path = store.path("part/01")
    store.fs.pipe_file(path, store.fs.cat_file(path)[:-1] + b"\x01")
    with caplog.at_level(logging.WARNING):
        execute_plan(make_plan([0, 1, 2]), store)
    assert work.made == [0, 1, 2, 1]
    assert torch.equal(store["part/01"].tensors["x"], torch.full((2, 3), 1.0))
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["WARNING"]
    assert "part/01.safetensors is damaged (the digest of tensor 'x' is another one); it is made again" in caplog.text


def test_shards_under_each_others_names_are_noticed_and_made_again(tmp_path, work, make_plan):
    store = ShardStore(str(tmp_path / "store"))
    execute_plan(make_plan([0, 1]), store)
    one, two = store.path("part/00"), store.path("part/01")
    shutil.move(one, tmp_path / "x")
    shutil.move(two, one)
    shutil.move(tmp_path / "x", two)
    with pytest.raises(DamagedFileError, match="it holds shard 'part/01'"):
        store["part/00"]
    execute_plan(make_plan([0, 1]), store)
    assert work.made == [0, 1, 0, 1]


def test_a_shard_of_a_former_plan_is_noticed(store, make_plan):
    execute_plan(make_plan([0], version="v1"), store)
    former = store.fs.cat_file(store.path("part/00"))
    execute_plan(make_plan([0], version="v2"), store)
    store.check_fingerprints()
    store.fs.pipe_file(store.path("part/00"), former)
    with pytest.raises(DamagedFileError, match="made from other ingredients"):
        store.check_fingerprints()


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:-5], lambda raw: raw.replace(b"v1-0", b"v1-1")])
def test_a_damaged_marker_is_written_again_and_nothing_else(store, work, make_plan, damage):
    execute_plan(make_plan([0]), store)
    digest = store.digest
    path = f"{store.root}/_complete.json"
    store.fs.pipe_file(path, damage(store.fs.cat_file(path)))
    assert not store.complete
    execute_plan(make_plan([0]), store)
    assert work.made == [0]
    assert store.digest == digest


def test_a_shard_without_digest_is_made_again(store, work, make_plan, caplog):
    from safetensors.torch import save

    execute_plan(make_plan([0]), store)
    store.fs.pipe_file(store.path("part/00"), save({"x": torch.zeros(2)}, {"shard": '{"fingerprint": "v1-0"}'}))
    execute_plan(make_plan([0]), store)
    assert work.made == [0, 0]
    assert "of an older version" in caplog.text


PLAN = """
import torch
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, execute_plan

def work(number):
    return ShardContent({"x": torch.full((64,), float(number))}, {"number": number})

def make(folder):
    shards = tuple(ShardSpec(f"part/{number:02d}", f"v1-{number}", number) for number in range(30))
    execute_plan(ShardPlan(work, shards, RuntimeParams(progress=False), "numbers"), ShardStore(folder))
"""
SLOW = f"""
import sys
from benchmarks.robustness import write_in_two_halves
{PLAN}
write_in_two_halves()
make(sys.argv[1])
"""


def test_kills_while_a_shard_is_half_written_end_like_an_unbroken_run(tmp_path, project):
    environment = os.environ | {"PYTHONPATH": f"{project / 'src'}{os.pathsep}{project}", "OMP_NUM_THREADS": "1"}
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    for wanted in (5, 15):
        process = subprocess.Popen([sys.executable, "-c", SLOW, str(killed)], env=environment)
        while process.poll() is None:
            done, half = (len(list(killed.rglob(name))) for name in ("*.safetensors", "*.tmp-*"))
            if done >= wanted and half:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        assert process.wait() == -signal.SIGKILL
        assert wanted <= len(ShardStore(str(killed))) < 30
        assert not ShardStore(str(killed)).complete

    names: dict[str, Callable[[str], None]] = {}
    exec(PLAN, names)
    for folder in (killed, unbroken):
        names["make"](str(folder))
    one, other = ({path.name: path.read_bytes() for path in root.rglob("*.*")} for root in (killed, unbroken))
    assert one == other
    assert len(one) == 31
