"""What is remembered of files: an unchanged one is not read again, a changed one always."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from adv_detect.datasets import content_cache
from adv_detect.datasets.content_cache import FileFacts, cache_folder, remember, remembered
from adv_detect.datasets.file_sources import FolderSource
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.datasets.torchvision_images import TorchvisionImages

FORMATS = [".bmp", ".png", ".jpg", ".tif", ".ppm", ".webp"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own; what the process knows is forgotten."""
    monkeypatch.setenv("ADV_DETECT_CACHE", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache"


def forget(monkeypatch):
    monkeypatch.setattr(content_cache, "_FACTS", {})


def settle(monkeypatch):
    """Let files that were just written count as old."""
    monkeypatch.setattr("adv_detect.datasets.file_sources.SETTLED_SECONDS", 0)


@pytest.fixture
def reads(monkeypatch):
    """Paths that are read."""
    read, paths = FolderSource.read, []

    def noted(self, path):
        paths.append(path)
        return read(self, path)

    monkeypatch.setattr(FolderSource, "read", noted)
    return paths


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)


def make(root, suffix):
    for index, name in enumerate(("a/0", "a/1", "b/0")):
        write(root / f"{name}{suffix}", index)
    return root


@pytest.mark.parametrize("suffix", FORMATS)
def test_replaced_pixels_are_another_identity_in_every_format(cache, tmp_path, suffix):
    root = make(tmp_path / "images", suffix)
    before = ImageFolderDataset(filepath=root).load().identity
    assert ImageFolderDataset(filepath=root).load().identity == before
    size = (root / f"a/0{suffix}").stat().st_size
    write(root / f"a/0{suffix}", 77)
    if suffix in (".bmp", ".ppm", ".tif"):
        assert (root / f"a/0{suffix}").stat().st_size == size
    assert ImageFolderDataset(filepath=root).load().identity != before
    write(root / f"a/0{suffix}", 0)
    assert ImageFolderDataset(filepath=root).load().identity == before


def test_a_time_that_was_put_back_hides_nothing(cache, tmp_path, monkeypatch):
    settle(monkeypatch)
    root = make(tmp_path / "images", ".bmp")
    before, old = ImageFolderDataset(filepath=root).load().identity, (root / "a/0.bmp").stat()
    time.sleep(0.02)
    write(root / "a/0.bmp", 77)
    os.utime(root / "a/0.bmp", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert ImageFolderDataset(filepath=root).load().identity != before


def test_an_unchanged_file_is_read_once_for_all_runs(cache, tmp_path, monkeypatch, reads):
    settle(monkeypatch)
    root = make(tmp_path / "images", ".png")
    first = ImageFolderDataset(filepath=root).load().identity
    assert sorted(reads) == ["a/0.png", "a/1.png", "b/0.png"]
    for _ in range(2):  # as another process would
        forget(monkeypatch)
        assert ImageFolderDataset(filepath=root).load().identity == first
    assert len(reads) == 3
    write(root / "b/0.png", 5)
    ImageFolderDataset(filepath=root).load()
    assert reads[3:] == ["b/0.png"]
    forget(monkeypatch)
    ImageFolderDataset(filepath=root, verify="decode").load()
    assert len(reads) == 7
    ImageFolderDataset(filepath=root, verify="header").load()
    assert len(reads) == 7


def test_a_file_that_was_just_written_is_not_remembered(cache, tmp_path, reads):
    root = make(tmp_path / "images", ".png")
    for _ in range(2):
        ImageFolderDataset(filepath=root).load()
    assert len(reads) == 6
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace('"', "'", 1), lambda _: "", None])
def test_a_damaged_cache_costs_time_only(cache, tmp_path, monkeypatch, reads, damage):
    settle(monkeypatch)
    root = make(tmp_path / "images", ".png")
    before = ImageFolderDataset(filepath=root).load().identity
    (file,) = cache.rglob("*.json")
    if damage is None:  # one digest is another one
        facts = remembered(FolderSource(str(root)).place)["a/0.png"]
        file.write_text(file.read_text().replace(facts.digest, "0" * 32))
    else:
        file.write_text(damage(file.read_text()))
    forget(monkeypatch)
    assert ImageFolderDataset(filepath=root).load().identity == before
    assert len(reads) == 6


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    forget(monkeypatch)
    settle(monkeypatch)
    (tmp_path / "taken").write_text("a file, no folder")
    monkeypatch.setenv("ADV_DETECT_CACHE", str(tmp_path / "taken"))
    root = make(tmp_path / "images", ".png")
    assert ImageFolderDataset(filepath=root).load().identity == ImageFolderDataset(filepath=root).load().identity


def test_where_facts_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("ADV_DETECT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "adv-detect"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "adv-detect"

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert cache_folder() is None
    forget(monkeypatch)
    remember("nowhere", {"x": FileFacts("s", "d")})
    assert remembered("nowhere")["x"].digest == "d"


def test_writers_at_once_leave_a_sound_file(cache, monkeypatch):
    def write_some(number):
        for index in range(10):
            remember("place", {f"{number}-{index}": FileFacts("stamp", "digest", 1, 2)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_some, range(8)))
    forget(monkeypatch)
    found = remembered("place")
    assert set(found.values()) == {FileFacts("stamp", "digest", 1, 2)}
    assert 10 <= len(found) <= 80
    assert not list(cache.rglob("*.tmp-*"))


def test_processes_at_once_agree(cache, tmp_path):
    root = make(tmp_path / "images", ".bmp")
    code = (
        "from adv_detect.datasets.image_folder import ImageFolderDataset\n"
        "from adv_detect.datasets import file_sources\n"
        "file_sources.SETTLED_SECONDS = 0\n"
        f"print(ImageFolderDataset(filepath={str(root)!r}).load().identity)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1
    (file,) = cache.rglob("*.json")
    assert len(json.loads(file.read_text().partition("\n")[2])) == 3


def test_members_of_an_archive_count_by_content(cache, tmp_path, monkeypatch):
    settle(monkeypatch)
    root, found = make(tmp_path / "images", ".bmp"), []
    for seed in (0, 77, 0):
        write(root / "a/0.bmp", seed)
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for file in sorted(root.rglob("*.bmp")):
                archive.writestr(str(file.relative_to(root)), file.read_bytes())
        found.append(ImageFolderDataset(filepath=tmp_path / "images.zip").load().identity)
        time.sleep(0.02)
    assert found[0] == found[2] != found[1]


def test_files_of_a_remote_folder_count_by_content(cache):
    import fsspec

    memory, found = fsspec.filesystem("memory"), []
    for content in (0, 77, 0):
        for index, name in enumerate(("a/0", "b/0")):
            pixels = np.random.default_rng(index or content).integers(0, 255, (4, 4), dtype=np.uint8)
            memory.pipe_file(f"/counted/{name}.pgm", b"P5 4 4 255\n" + pixels.tobytes())
        found.append(ImageFolderDataset(filepath="memory://counted").load().identity)
    assert found[0] == found[2] != found[1]


def test_a_part_keeps_its_identity_when_another_part_changes(cache, tmp_path):
    root = tmp_path / "images"
    for name in ("a", "b"):
        for index in range(6):
            write(root / name / f"{index}.bmp", hash(name) % 1000 + index)

    def part(which):
        return ImageFolderDataset(filepath=root, part=which, test_fraction=0.5).load()

    train, test = part("train"), part("test")
    write(root / test.source_ids[0], 4242)
    again = part("train"), part("test")
    assert again[0].source_ids == train.source_ids
    assert again[0].identity == train.identity
    assert again[1].identity != test.identity


def test_files_that_are_not_looked_into_count_too(cache, tmp_path):
    root = make(tmp_path / "images", ".bmp")
    before = ImageFolderDataset(filepath=root, verify=False).load().identity
    write(root / "b/0.bmp", 9)
    assert ImageFolderDataset(filepath=root, verify=False).load().identity != before


class InMemory:
    classes = ("a", "b")
    targets = (0, 1)

    def __init__(self, data):
        self.data = data


class OfFiles:
    classes = ("a", "b")
    targets = (0, 1)

    def __init__(self, paths):
        self.samples = [(str(path), label) for label, path in enumerate(paths)]


def test_sets_of_torchvision_count_by_content(cache, tmp_path):
    data = np.zeros((2, 4, 4), dtype=np.uint8)
    before = TorchvisionImages(InMemory(data.copy()), name="x").identity
    assert TorchvisionImages(InMemory(data.copy()), name="x").identity == before
    data[1, 3, 3] = 1
    assert TorchvisionImages(InMemory(data), name="x").identity != before

    paths = [tmp_path / "0.bmp", tmp_path / "1.bmp"]
    found = []
    for seed in (1, 2, 1):
        write(paths[0], seed)
        write(paths[1], 3)
        images = TorchvisionImages(OfFiles(paths), name="x")
        assert images.contents([0]).form == "file"
        found.append(images.identity)
    assert found[0] == found[2] != found[1]
