"""Archives that lead out of their folder, declare too much, or hold a name twice."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from adv_detect.datasets import file_sources
from adv_detect.datasets.file_sources import SingleFiles, ZipSource, open_source
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.errors import DataError


def png(seed=0):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path):
    """Writes an archive of two good classes and further members."""

    def write(*members, compression=zipfile.ZIP_STORED):
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of names that occur twice
            for index, name in enumerate(("a/0.png", "a/1.png", "b/0.png")):
                archive.writestr(name, png(index))
            for name, content in members:
                archive.writestr(name, content)
        return path

    return write


@pytest.mark.parametrize(
    "name",
    ["/etc/evil/z.png", "../x/z.png", "a/../../z.png", "C:/x/z.png", "c:z.png", "x\\y\\z.png", "x//z.png", "./x/z.png"],
)
def test_members_outside_the_folder_are_refused_by_name(pack, name, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("was read"))
    with pytest.raises(DatasetError, match="1 of them lie outside its folder: ") as refusal:
        ImageFolderDataset(filepath=pack((name, png()))).load()
    assert repr(name) in str(refusal.value)


def test_a_name_that_occurs_twice_is_refused(pack):
    with pytest.raises(DatasetError, match=r"occur more than once: 'a/0\.png'"):
        ImageFolderDataset(filepath=pack(("a/0.png", png(9)))).load()


def test_what_a_mac_adds_is_not_read(pack):
    path = pack(("__MACOSX/a/._0.png", b"x"), (".hidden/0.png", b"x"), ("a/.DS_Store", b"x"))
    assert len(ImageFolderDataset(filepath=path).load()) == 3


def declare(path, member, size):
    """Write another unpacked size into the directory of an archive; the content stays as it is."""
    content = path.read_bytes()
    start = content.index(member.encode(), content.index(b"PK\x01\x02"))
    head = content.rindex(b"PK\x01\x02", 0, start)
    path.write_bytes(content[: head + 24] + size.to_bytes(4, "little") + content[head + 28 :])


@pytest.mark.parametrize("verify", ["header", False])
def test_a_member_that_declares_too_much_is_refused_before_it_is_read(pack, verify):
    path = pack(("b/huge.bmp", png(5) * 60_000))
    declare(path, "b/huge.bmp", 2_000_000_000)
    with pytest.raises(DatasetError, match=r"1 of 4 .*b/huge\.bmp: declares 2,000,000,000 bytes, expected fewer than"):
        ImageFolderDataset(filepath=path, verify=verify).load()
    with pytest.raises(DataError, match=r"b/huge\.bmp: declares 2,000,000,000 bytes"):
        ZipSource(str(path)).read("b/huge.bmp")


def test_a_decompression_bomb_is_refused_and_an_even_picture_is_not(pack, monkeypatch):
    monkeypatch.setattr(file_sources, "RATIO_FROM", 1_000_000)
    path = pack(("b/bomb.png", bytes(1_000_000)), ("c/even.png", bytes(999_999)), compression=zipfile.ZIP_DEFLATED)
    found = ZipSource(str(path)).entries("")
    assert "declares 1,000,000 bytes packed into" in found["b/bomb.png"].problem
    assert found["c/even.png"].problem == ""
    images = ImageFolderDataset(filepath=path, on_error="skip").load()
    assert "b/bomb.png" not in images.source_ids


def test_a_symbolic_link_and_an_encrypted_member_are_refused(pack):
    link = zipfile.ZipInfo("b/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = pack((link, "/etc/passwd"), ("b/secret.png", png(8)))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"b/secret.png") - 46 + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"b/link\.png: a symbolic link.*b/secret\.png: encrypted; pack it without"):
        ImageFolderDataset(filepath=path).load()


def test_large_files_of_a_folder_are_refused_too(folder, monkeypatch):
    monkeypatch.setattr(file_sources, "MAX_BYTES", (folder / "ant" / "0.png").stat().st_size)
    with pytest.raises(DatasetError, match=r"11 of 11 .*ant/0\.png: declares \d+ bytes, expected fewer than"):
        ImageFolderDataset(filepath=folder, verify=False).load()


def test_other_archives_are_named(tmp_path):
    (tmp_path / "images.tar.gz").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"images\.tar\.gz; .*of archives only \.zip is read, so unpack this one"):
        ImageFolderDataset(filepath=tmp_path / "images.tar.gz").load()


def test_the_ending_of_an_archive_may_be_in_capitals(pack):
    path = pack()
    assert isinstance(open_source(str(path.rename(path.with_suffix(".ZIP")))), ZipSource)


def test_single_files_are_read_where_they_lie(folder):
    source = SingleFiles([folder / "ant" / "0.png"], "somewhere")
    (path, entry), *others = source.entries().items()
    assert not others
    assert entry.size == len(source.read(path)) == (folder / "ant" / "0.png").stat().st_size
