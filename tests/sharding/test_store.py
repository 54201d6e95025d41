from __future__ import annotations

import pickle

import pytest
import torch

from adv_detect.errors import DataError, ShardError
from adv_detect.params import RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore
from adv_detect.sharding.fingerprints import digest_of


def test_round_trip_keeps_values_types_and_metadata(store):
    base = torch.arange(12, dtype=torch.float32)
    tensors = {
        "half": base.to(torch.bfloat16),
        "view": base[2:5],
        "transposed": base.reshape(3, 4).t(),
        "same": base,
        "again": base,
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    metadata = {"seconds": 0.25, "source_ids": ["a", "ü"], "none": None}
    store.write("bim/targeted/test-0000", ShardContent(tensors, metadata), "f1")

    content = store["bim/targeted/test-0000"]

    assert content.metadata == metadata
    assert content.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert content.tensors[name].dtype == tensor.dtype
        assert torch.equal(content.tensors[name], tensor)
    assert store.metadata("bim/targeted/test-0000") == metadata
    assert store.fingerprint("bim/targeted/test-0000") == "f1"


def test_lists_and_iterates_in_order(store):
    for key in ("b/0", "a/1", "a/0"):
        store.write(key, ShardContent({"x": torch.zeros(1)}, {"key": key}), key)
    assert tuple(store) == ("a/0", "a/1", "b/0")
    assert len(store) == 3
    assert "a/1" in store
    assert "c" not in store
    assert [(key, content.metadata["key"]) for key, content in store.items()] == [
        ("a/0", "a/0"),
        ("a/1", "a/1"),
        ("b/0", "b/0"),
    ]
    assert store.fingerprints() == {"a/0": "a/0", "a/1": "a/1", "b/0": "b/0"}


def test_is_picklable_and_keeps_absolute_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ShardStore("folder")
    store.write("k", ShardContent({"x": torch.ones(1)}), "f")
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(store))
    assert tuple(copy) == ("k",)
    assert str(tmp_path / "folder") in repr(copy)


IMAGES = (
    "8bit/bim/targeted/test-0000",
    "benign/jpeg-75/test-0000",
    "bim/targeted/test-0000",
    "bim/targeted/train-0000",
    "bim/untargeted/test-0000",
    "cw/targeted/test-0000",
    "cw/targeted/test-0001",
    "natural/test-0000",
    "natural/train-0000",
)


@pytest.fixture
def images(store):
    for key in IMAGES:
        store.write(key, ShardContent({"x": torch.zeros(1), "y": torch.ones(1)}, {"key": key}), key)
    return store


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({}, [key for key in IMAGES if not key.startswith(("8bit", "benign"))]),
        ({"variant": None}, list(IMAGES)),
        ({"variant": "8bit"}, ["8bit/bim/targeted/test-0000"]),
        ({"variant": "benign"}, ["benign/jpeg-75/test-0000"]),
        ({"variant": ("8bit", "benign/jpeg-75")}, ["benign/jpeg-75/test-0000", "8bit/bim/targeted/test-0000"][::-1]),
        ({"variant": "benign/rotate"}, []),
        ({"natural": True, "variant": None}, ["benign/jpeg-75/test-0000", "natural/test-0000", "natural/train-0000"]),
        ({"natural": True, "split": "train"}, ["natural/train-0000"]),
        ({"natural": False, "criterion": "untargeted"}, ["bim/untargeted/test-0000"]),
        ({"attack": "natural", "criterion": "none", "split": "test"}, ["natural/test-0000"]),
        ({"attack": ()}, []),
        (
            {"attack": ("cw", "bim"), "criterion": ("untargeted", "targeted"), "split": "test"},
            [
                "cw/targeted/test-0000",
                "cw/targeted/test-0001",
                "bim/untargeted/test-0000",
                "bim/targeted/test-0000",
            ],
        ),
    ],
)
def test_shards_of_images_are_selected_by_the_parts_of_their_keys_in_the_order_asked_for(images, wanted, keys):
    view = images.select(**wanted)
    assert list(view) == keys
    assert [content.metadata["key"] for content in view.values()] == keys
    assert view.fingerprints() == {key: key for key in keys}


def test_a_view_is_a_mapping_of_what_it_shows_alone_and_reads_when_asked(images, monkeypatch):
    view = images.select(attack="cw").only("y")
    assert len(view) == 2
    assert set(view["cw/targeted/test-0000"].tensors) == {"y"}
    assert "natural/test-0000" in images
    assert "natural/test-0000" not in view
    assert view.get("natural/test-0000") is None
    with pytest.raises(ShardError, match=r"'natural/test-0000' is not in this selection of 2"):
        view["natural/test-0000"]
    monkeypatch.setattr("adv_detect.sharding.files.read_tensors", lambda *_: pytest.fail("read"))
    assert list(pickle.loads(pickle.dumps(view)).select(split="test")) == list(view)
    assert not view.select(split="train")
    assert view != images
    assert len({view, images}) == 2


def test_a_view_does_not_change_what_belongs_to_the_whole_store(images):
    plan = ShardPlan(
        work=lambda _: None,
        shards=tuple(ShardSpec(key, key, None) for key in IMAGES),
        runtime=RuntimeParams(),
        description="images",
    )
    images.select(attack="cw").finish(plan)
    view = images.select(attack="bim")
    assert list(images) == list(IMAGES)
    assert view.complete
    assert view.progress == f"{len(IMAGES)} of {len(IMAGES)} shards there"
    assert view.digest == images.digest


def test_other_stores_than_those_of_images_cannot_be_selected_from(store):
    store.write("lstm/targeted/all/0", ShardContent({"x": torch.zeros(1)}), "f")
    with pytest.raises(ShardError, match=r"expected .*<split>-<number>.*, got 'lstm/targeted/all/0'"):
        store.select(split="test")


def test_missing_shard_names_the_closest(store):
    store.write("bim/test-0001", ShardContent({"x": torch.ones(1)}), "f")
    with pytest.raises(ShardError, match=r"no shard 'bim/test-0002' among 1; closest: \['bim/test-0001'\]"):
        store["bim/test-0002"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"", lambda b: b"\xff" * 40])
def test_damaged_shard_is_an_error_and_has_no_fingerprint(store, damage):
    store.write("k", ShardContent({"x": torch.ones(8)}), "f")
    path = store.path("k")
    store.fs.pipe_file(path, damage(store.fs.cat_file(path)))
    with pytest.raises(DataError, match="damaged"):
        store["k"]
    assert store.fingerprints() == {}


def test_header_that_is_no_json_is_damage(store):
    store.fs.makedirs(store.root, exist_ok=True)
    store.fs.pipe_file(store.path("k"), (4).to_bytes(8, "little") + b"nope")
    with pytest.raises(DataError, match="unreadable header"):
        store.metadata("k")


def test_a_damaged_marker_of_completeness_counts_as_none_and_is_named(store, caplog):
    store.fs.makedirs(store.root, exist_ok=True)
    store.fs.pipe_file(f"{store.root}/_complete.json", b"{")
    assert not store.complete
    assert "_complete.json is damaged" in caplog.text


def test_overwriting_replaces_whole_file_and_leaves_no_other(store):
    store.write("k", ShardContent({"x": torch.ones(4), "y": torch.ones(4)}), "old")
    store.write("k", ShardContent({"x": torch.zeros(2)}), "new")
    assert list(store["k"].tensors) == ["x"]
    assert [path.rsplit("/", 1)[-1] for path in store.fs.find(store.root)] == ["k.safetensors"]


def test_failed_write_keeps_the_old_file_and_no_temporary(store, monkeypatch):
    store.write("k", ShardContent({"x": torch.ones(2)}), "old")

    def fill_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("adv_detect.sharding.files.save_file", fill_disk)
    monkeypatch.setattr("adv_detect.sharding.files.save", fill_disk)
    with pytest.raises(OSError, match="no space left"):
        store.write("k", ShardContent({"x": torch.zeros(2)}), "new")
    assert store.fingerprints() == {"k": "old"}
    assert len(store.fs.find(store.root)) == 1


def test_interrupted_rename_leaves_nothing_half_written(store, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    monkeypatch.setattr(store.fs, "mv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write("k", ShardContent({"x": torch.zeros(2)}), "new")
    assert store.fs.find(store.root) == []


def test_digest_depends_on_content_not_on_order(make_plan, store, tmp_path):
    from adv_detect.sharding import execute_plan

    execute_plan(make_plan([1, 2]), store)
    other = ShardStore(str(tmp_path / "other"))
    execute_plan(make_plan([2, 1]), other)
    assert store.digest == other.digest == digest_of({"part/02": "v1-2", "part/01": "v1-1"})
    execute_plan(make_plan([1, 2], version="v2"), other)
    assert store.digest != other.digest


def test_digest_needs_completeness(store):
    with pytest.raises(ShardError, match="needs a complete data set; 0 shards and no record of a run there"):
        _ = store.digest


def test_reading_tensors_of_a_damaged_file_is_an_error(store):
    from adv_detect.sharding import files

    store.write("k", ShardContent({"x": torch.ones(8)}), "f")
    path = store.path("k")
    store.fs.pipe_file(path, store.fs.cat_file(path)[:-1])
    with pytest.raises(DataError, match=r"k\.safetensors is damaged"):
        files.read_tensors(store.fs, path)


def test_equal_shards_are_equal_files(store):
    content = ShardContent({"x": torch.ones(3), "y": torch.zeros(2)}, {"a": 1, "b": [2]})
    written = set()
    for _ in range(20):
        store.write("k", content, "f")
        written.add(store.fs.cat_file(store.path("k")))
    assert len(written) == 1


def test_files_of_another_origin_have_no_fingerprint(store):
    from adv_detect.sharding import files

    files.write_tensors(store.fs, store.path("k"), {"x": torch.ones(1)}, {"format": "pt"})
    assert store.fingerprint("k") is None
    assert store.metadata("k") == {}
    assert store.fingerprints() == {}


@pytest.mark.parametrize("root", ["disk", "memory://some-tensors"])
def test_single_tensors_are_read_without_the_others(tmp_path, monkeypatch, root):
    there = ShardStore(root if "://" in root else str(tmp_path / root))
    tensors = {
        "images": torch.rand(3, 50),
        "label": torch.arange(3),
        "none": torch.zeros(0, 4),
        "flag": torch.ones(3).bool(),
    }
    there.write("a", ShardContent(tensors, {"n": 3}), "f")
    fetched = []
    whole = there.fs.cat_file

    def cat(path, start=None, end=None, **more):
        fetched.append((start, end))
        return whole(path, start, end, **more)

    monkeypatch.setattr(there.fs, "cat_file", cat)

    content = there.only("flag", "none", "label")["a"]

    assert content.metadata == {"n": 3}
    assert set(content.tensors) == {"flag", "none", "label"}
    for name, value in content.tensors.items():
        assert torch.equal(value, tensors[name])
        assert value.dtype == tensors[name].dtype
    assert sum(end - start for start, end in fetched) <= 3 * 8 + 3
    with pytest.raises(DataError, match="no tensor 'nothing'"):
        there.only("nothing")["a"]
