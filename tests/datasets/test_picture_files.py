"""Pictures to score, wherever they lie; listing reads none of them."""

from __future__ import annotations

import os
import time
import zipfile

import pandas as pd
import pytest

from adv_detect.datasets.file_sources import FolderSource
from adv_detect.datasets.picture_files import list_pictures, open_pictures
from adv_detect.errors import ConfigurationError, DataError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    for name in ("b.png", "a.txt", "deep/c.JPG", ".hidden.png", ".git/d.png", "__MACOSX/e.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
        os.utime(place / name, (time.time() - 60,) * 2)
    return place


def test_a_folder_gives_all_visible_files_by_name(folder):
    found = list_pictures(str(folder))
    assert [one.path for one in found.files] == ["a.txt", "b.png", "deep/c.JPG"]
    assert found.source.read("deep/c.JPG") == b"deep/c.JPG"
    assert not any(one.problem for one in found.files)


def test_a_stamp_changes_with_the_file_and_is_that_of_training(folder, monkeypatch):
    monkeypatch.setattr("adv_detect.datasets.file_sources.SETTLED_SECONDS", 0)
    before = {one.path: one.stamp for one in list_pictures(str(folder)).files}
    training = {path: one.stamp for path, one in FolderSource(str(folder)).entries("").items()}
    assert before == {path: training[path] for path in before}
    (folder / "b.png").write_bytes(b"another")
    after = {one.path: one.stamp for one in list_pictures(str(folder)).files}
    assert [path for path in before if before[path] != after[path]] == ["b.png"]


def test_a_zip_and_a_member_that_must_not_be_read(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(folder / "b.png", "x/b.png")
        link = zipfile.ZipInfo("x/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    found = list_pictures(str(tmp_path / "all.zip"))
    assert {one.path: one.problem for one in found.files} == {
        "x/b.png": "", "x/link.png": "a symbolic link, expected a file"
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_keeps_its_order_and_its_repeats(folder, suffix):
    paths = ["deep/c.JPG", "b.png", str(folder / "b.png"), "007", ""]
    table, file = pd.DataFrame({"path": paths, "other": 1}), folder / f"list{suffix}"
    table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file)
    found = list_pictures(str(file))
    assert [one.path for one in found.files] == paths
    assert [found.source.read(one) for one in paths[:3]] == [b"deep/c.JPG", b"b.png", b"b.png"]
    assert found.files[4].problem == "the list has no path here"
    with pytest.raises(FileNotFoundError):
        found.source.read("007")
    with pytest.raises(ConfigurationError, match=r"expected one of \['path', 'other'\].*got 'file'"):
        list_pictures(str(file), column="file")


def test_a_list_on_another_filesystem():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/listed/a.png", b"a")
    memory.pipe_file("/listed/list.csv", b"path\na.png\nmemory://listed/a.png\n")
    try:
        found = list_pictures("memory://listed/list.csv")
        assert [found.source.read(one.path) for one in found.files] == [b"a", b"a"]
        assert open_pictures("memory://listed").read("a.png") == b"a"
    finally:
        memory.rm("/listed", recursive=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", b"", "cannot be read as a table of paths"),
        ("no.parquet", b"none", "cannot be read as a table of paths"),
        ("no.zip", b"none", "no readable zip archive"),
        ("only.csv", b"path\n", "expected at least one picture, got none"),
    ],
)
def test_what_is_no_list_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list_pictures(str(tmp_path / name))


def test_an_address_without_filesystem():
    with pytest.raises(DataError, match="nowhere://x: no filesystem for this address"):
        list_pictures("nowhere://x")


def test_a_link_to_nowhere_is_listed_with_the_reason(tmp_path):
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    assert list_pictures(str(tmp_path)).files[0].problem.startswith("cannot be read (No such file")
