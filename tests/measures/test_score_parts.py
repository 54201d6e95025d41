"""Scores in parquet files, against the same table in memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from adv_detect.algorithms.roc import roc_auc
from adv_detect.errors import DataError
from adv_detect.measures import grouped_bootstrap
from adv_detect.measures.detection_metrics import measure_scores
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS
from adv_detect.measures.score_parts import ScoreParts, write_part

KEYS = ("lstm", "margin", "mlp")
SHARDS = [  # attack, variant, split; a part each
    ("natural", "float", "test"), ("natural", "float", "validation"), ("bim", "float", "test"), ("cw", "float", "test"),
    ("bim", "8bit", "test"), ("bim", "noise", "test"),
]  # fmt: skip
N = 70


def shard(number: int, attack: str, variant: str, split: str) -> pd.DataFrame:
    """Scores of a shard; images of the test split come in another order in each."""
    rng = np.random.default_rng(number)
    natural = attack == "natural"
    images = pd.DataFrame(
        {
            "source_id": [f"{split}-{place}" for place in (rng.permutation(N) if number % 2 else range(N))],
            "attack": attack,
            "criterion": "none" if natural else "targeted",
            "form": "none" if natural else "early",
            "variant": variant,
            "split": split,
            "success": rng.random(N) < 0.8,
            "correct": rng.random(N) < 0.9,
        }
    )
    parts = []
    for index, key in enumerate(KEYS):
        scores = np.round(rng.normal(size=N) + (not natural) * (1 + index), 1).astype(np.float32)  # with ties
        parts.append(images.assign(detector=key, score=scores, verdict_fpr_05=scores > 1))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def shards() -> list[pd.DataFrame]:
    return [shard(number, *facts) for number, facts in enumerate(SHARDS)]


@pytest.fixture
def folder(shards, tmp_path):
    for number, part in enumerate(shards):
        write_part(tmp_path / f"part-{number:05}.parquet", part)
    return tmp_path


def described() -> pd.DataFrame:
    return pd.DataFrame({name: KEYS if name == "detector" else "x" for name in DETECTOR_COLUMNS})


def sort(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["detector", "attack", "criterion", "form", "variant"]
    return table.sort_values(keys, ignore_index=True)


@pytest.mark.parametrize("counted", [10, 50_000])
def test_metrics_of_parts_are_those_of_the_table_in_memory(shards, folder, counted, monkeypatch):
    monkeypatch.setattr(grouped_bootstrap, "COUNTED", counted)
    settings = {"resamples": 50, "seed": 3}
    whole, whole_draws = measure_scores(pd.concat(shards, ignore_index=True), described(), **settings)
    parts, draws = measure_scores(ScoreParts(folder), described(), **settings)
    assert len(parts) == len(whole) > 3 * 8
    pd.testing.assert_frame_equal(sort(parts), sort(whole), check_exact=False, rtol=0, atol=1e-12)
    pd.testing.assert_frame_equal(draws, whole_draws, check_exact=False, rtol=0, atol=1e-12)
    assert parts["auc_low"].notna().any()


def test_the_area_is_that_of_scikit_learn(shards, folder):
    from sklearn.metrics import roc_auc_score

    table, _ = measure_scores(ScoreParts(folder), described(), resamples=0)
    rows = pd.concat(shards).query("detector == 'lstm' and split == 'test' and variant == 'float'")
    rows = rows[(rows["attack"] == "natural") | (rows["attack"].isin(["bim", "cw"]) & rows["success"])]
    flags = rows["attack"] != "natural"
    expected = roc_auc_score(flags, rows["score"])
    found = table.query("detector == 'lstm' and attack == 'all' and variant == 'float'")["auc"].item()
    assert found == pytest.approx(expected, abs=1e-12)
    assert roc_auc(rows["score"], flags) == pytest.approx(expected, abs=1e-12)


def test_files_are_plain_parquet(shards, folder):
    read = pd.read_parquet(folder)  # as a whole, by any reader
    assert len(read) == sum(map(len, shards))
    assert read.groupby("detector")["score"].sum().to_dict() == pytest.approx(
        pd.concat(shards).groupby("detector")["score"].sum().to_dict(), rel=1e-5
    )
    assert pq.ParquetFile(folder / "part-00000.parquet").num_row_groups == len(KEYS)


def test_what_cannot_be_parts_of_one_table(shards, tmp_path):
    with pytest.raises(DataError, match="got none; run evaluation"):
        ScoreParts(tmp_path)
    other = shards[0].copy()
    other.loc[other["detector"] == "mlp", "source_id"] = "another"
    with pytest.raises(DataError, match="'mlp' and 'lstm' to have scored the same images"):
        write_part(tmp_path / "a.parquet", other)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="empty table"):
        write_part(tmp_path / "a.parquet", shards[0].head(0))
    write_part(tmp_path / "a.parquet", shards[1])
    with pytest.raises(DataError, match="expected rows of the split 'test'"):
        measure_scores(ScoreParts(tmp_path), described())
    write_part(tmp_path / "b.parquet", shards[0].query("detector != 'mlp'"))
    with pytest.raises(DataError, match=r"others in b\.parquet than in a\.parquet"):
        ScoreParts(tmp_path)
    shards[0].drop(columns="success").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"missing are \['success'\]"):
        ScoreParts(tmp_path)
    shards[0].to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="one detector per row group"):
        ScoreParts(tmp_path)
