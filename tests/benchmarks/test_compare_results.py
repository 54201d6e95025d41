from __future__ import annotations

import subprocess

import numpy as np
import pandas as pd
import pytest
from benchmarks.compare_results import KEYS, checkout, compare_tables, now

ROWS = [("a/both/all/0", "bim"), ("a/both/all/0", "cw"), ("margin", "bim")]


def table(aucs, **columns):
    keys = pd.DataFrame([(name, attack, "targeted", "early", "float") for name, attack in ROWS], columns=KEYS)
    return keys.assign(auc=aucs, **columns)


def test_the_largest_difference_of_each_column_is_named_with_its_row():
    before = table([0.9, 0.8, 0.5], n=[3, 4, 5], worst_attack=["", "cw", np.nan])
    after = table([0.9, 0.8002, 0.50001], n=[3, 4, 5], worst_attack=["", "bim", np.nan])

    found = compare_tables(before, after.sample(frac=1, random_state=0)[[*KEYS, "worst_attack", "n", "auc"]])

    columns = found.differences.set_index("column")
    assert (found.rows, found.only_before, found.only_after, found.columns) == (3, [], [], [])
    assert columns.loc["auc", "largest"] == pytest.approx(2e-4)
    assert columns.loc["auc", "differing"] == 1
    assert columns.loc["auc", "row"] == "a/both/all/0 cw targeted early float"
    assert (columns.loc["n", "largest"], columns.loc["n", "row"]) == (0.0, "")
    assert columns.loc["worst_attack", "differing"] == 1
    assert not found.agrees()
    assert found.agrees(3e-4)


def test_rows_and_columns_of_one_table_alone_are_named():
    before, after = table([0.9, 0.8, 0.5]), table([0.9, 0.8, 0.5], further=1)

    found = compare_tables(before.iloc[1:], after.iloc[:2])

    assert found.only_before == ["margin bim targeted early float"]
    assert found.only_after == ["a/both/all/0 bim targeted early float"]
    assert found.columns == ["further"]
    assert not found.agrees()
    assert not found.agrees(grown=True)


def test_a_table_that_grew_agrees_only_where_that_is_asked_for():
    found = compare_tables(table([0.9, 0.8, 0.5]).iloc[:2], table([0.9, 0.8, 0.5]))

    assert not found.agrees()
    assert found.agrees(grown=True)


@pytest.mark.parametrize(("other", "agrees"), [([0.9, np.nan, 0.5], True), ([0.9, 0.8, 0.5], False)])
def test_a_missing_number_differs_from_all_but_another_missing_one(other, agrees):
    assert compare_tables(table([0.9, np.nan, 0.5]), table(other)).agrees() is agrees


def test_tables_without_a_common_row_do_not_agree():
    assert not compare_tables(table([1, 1, 1]).iloc[:0], table([1, 1, 1]).iloc[:0]).agrees()


def test_a_key_that_stands_twice_is_an_error():
    with pytest.raises(SystemExit, match="expected each row once, got 'margin bim"):
        compare_tables(pd.concat([table([1, 1, 1])] * 2).iloc[2:], table([1, 1, 1]))


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "data/01_raw").mkdir(parents=True)
    (tmp_path / "data/01_raw/images.bin").write_bytes(b"raw")
    (tmp_path / ".gitignore").write_text("data\n")
    (tmp_path / "code.py").write_text("first\n")
    git("init", "--quiet")
    git("config", "user.name", "test")
    git("config", "user.email", "test@example.org")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_commit_is_laid_out_with_the_raw_data_and_taken_away(repository):
    (repository / "code.py").write_text("second\n")

    with checkout("HEAD", repository) as before, checkout(now(repository), repository) as after:
        assert (before / "code.py").read_text() == "first\n"
        assert (after / "code.py").read_text() == "second\n"
        assert (before / "data/01_raw/images.bin").read_bytes() == b"raw"

    assert not before.exists()
    assert (repository / "data/01_raw/images.bin").read_bytes() == b"raw"
    assert list((repository / ".git/worktrees").glob("*")) == []


def test_an_unknown_commit_is_said(repository):
    with pytest.raises(SystemExit, match=r"git worktree add .*nowhere"), checkout("nowhere", repository):
        pass
