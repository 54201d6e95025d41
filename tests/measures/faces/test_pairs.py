from __future__ import annotations

import pytest

from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.faces.pairs import Pair, fold_sizes, locate_pairs, parse_pairs

TWO_FOLDS = """2\t1
Ann\t1\t2
Ann\t1\tBob\t12
Bob\t1\t3
Bob\t3\tCy\t1
"""
IDS = ["faces/Ann/Ann_0001.jpg", "faces/Ann/Ann_0002.jpg", "faces/Bob/Bob_0001.jpg", "faces/Bob/Bob_0003.png"]


def test_folds_and_kinds():
    assert parse_pairs(TWO_FOLDS) == (
        Pair("Ann/Ann_0001", "Ann/Ann_0002", True, 0),
        Pair("Ann/Ann_0001", "Bob/Bob_0012", False, 0),
        Pair("Bob/Bob_0001", "Bob/Bob_0003", True, 1),
        Pair("Bob/Bob_0003", "Cy/Cy_0001", False, 1),
    )


def test_a_header_of_one_number_is_one_fold():
    pairs = parse_pairs("2\nAnn 1 2\nBob 1 2\nAnn 1 Bob 1\nAnn 2 Bob 2\n")
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0), (True, 0), (False, 0), (False, 0)]


def test_blank_lines_and_windows_line_ends():
    assert parse_pairs(TWO_FOLDS.replace("\n", "\r\n\r\n")) == parse_pairs(TWO_FOLDS)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_skipped(encoding, ends):
    content = TWO_FOLDS.replace("Cy", "Zoë").replace("\n", ends).encode(encoding)
    assert parse_pairs(content) == parse_pairs(content.decode()) == parse_pairs(TWO_FOLDS.replace("Cy", "Zoë"))


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (TWO_FOLDS.encode("utf-16"), "UTF-16"),
        (TWO_FOLDS.encode("utf-16-le"), "NUL characters"),
        (TWO_FOLDS.replace("Cy", "Zoë").encode("latin-1"), "another encoding"),
    ],
)
def test_other_encodings_are_named(content, got):
    with pytest.raises(DataError, match=rf"my\.txt: expected text in UTF-8, got {got}.*save it as UTF-8"):
        parse_pairs(content, source="my.txt")


def test_the_real_protocol(shared_data):
    pairs = parse_pairs((shared_data / "lfw-pairs.txt").read_text())
    assert len(pairs) == 6000
    for fold in range(10):
        flags = [pair.same for pair in pairs if pair.fold == fold]
        assert flags == [True] * 300 + [False] * 300
    assert pairs[0] == Pair("Abel_Pacheco/Abel_Pacheco_0001", "Abel_Pacheco/Abel_Pacheco_0004", True, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pairs file, line 1: expected a header such as '10 300', got an empty file"),
        ("Ann 1 2\n", "line 1: expected a header 'folds n' .* got 'Ann 1 2'"),
        ("0 300\n", "line 1: expected a header .* got '0 300'"),
        ("1 1\nAnn 1 2\n", r"expected 2 pairs \(1 folds of 1 same and 1 different\).* got 1; the file is cut off"),
        ("1\nAnn 1\nAnn 1 Bob 1\n", r"line 2: expected 'name i j' \(same person\), got 'Ann 1'"),
        ("1\nAnn 1 2\nAnn 1 2\n", r"line 3: expected 'name1 i name2 j' \(different people\), got 'Ann 1 2'"),
        ("1\nAnn 1 two\nAnn 1 Bob 1\n", "line 2: .* image numbers from 1, got 'two'"),
        ("1\nAnn 1 0\nAnn 1 Bob 1\n", "line 2: .* image numbers from 1, got '0'"),
        ("1\nAnn 1 1\nAnn 1 Bob 1\n", "line 2: expected two different images .* got 'Ann 1 1'"),
        ("1\nAnn 1 2\nAnn 1 Ann 2\n", "line 3: expected two different images .* got 'Ann 1 Ann 2'"),
    ],
)
def test_wrong_files(text, message):
    with pytest.raises(DataError, match=message):
        parse_pairs(text)


def test_errors_name_the_file_and_the_line_in_it():
    with pytest.raises(DataError, match=r"my\.txt, line 4: expected 'name i j'"):
        parse_pairs("\n\n1\nAnn 1\nAnn 1 Bob 1\n", source="my.txt")


def test_located_by_folder_and_name_whatever_the_suffix():
    located = locate_pairs(parse_pairs(TWO_FOLDS), IDS)
    assert located.pairs == (Pair(IDS[0], IDS[1], True, 0), Pair(IDS[2], IDS[3], True, 1))
    assert (located.first, located.second) == ((0, 2), (1, 3))


def test_missing_images_are_reported():
    located = locate_pairs(parse_pairs(TWO_FOLDS), IDS)
    assert [pair.second for pair in located.missing] == ["Bob/Bob_0012", "Cy/Cy_0001"]
    assert located.missing_images(IDS) == ("Bob/Bob_0012", "Cy/Cy_0001")


def test_no_pair_found():
    with pytest.raises(DataError, match="none of 4 pairs is in the data: asked for example 'Ann/Ann_0001'"):
        locate_pairs(parse_pairs(TWO_FOLDS), ["Zoe/Zoe_0001.jpg"])


def test_two_images_of_one_name():
    with pytest.raises(DataError, match="several called 'Ann/Ann_0001'"):
        locate_pairs(parse_pairs(TWO_FOLDS), [*IDS, "other/Ann/Ann_0001.png"])


def test_fold_sizes():
    assert list(fold_sizes(11, 4)) == [3, 3, 3, 2]
    with pytest.raises(ConfigurationError, match="at least one pair of each kind per fold, got 3 in 4"):
        list(fold_sizes(3, 4))
