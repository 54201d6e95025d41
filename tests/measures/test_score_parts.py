"""Scores in shards, against the same table in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
import torch

from adv_detect.algorithms.roc import roc_auc
from adv_detect.errors import DataError
from adv_detect.measures import grouped_bootstrap, score_parts
from adv_detect.measures.detection_metrics import measure_scores
from adv_detect.measures.detector_keys import DETECTOR_COLUMNS
from adv_detect.measures.score_parts import FACTS, SHARED, ScoreParts, score_content
from adv_detect.sharding import ShardContent, ShardStore

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
            "adversarial": not natural and variant != "noise",
            "success": rng.random(N) < 0.8,
            "label": rng.integers(0, 3, N),
            "predicted": rng.integers(0, 3, N),
            "correct": rng.random(N) < 0.9,
            "margin": rng.random(N, dtype=np.float32),
            "l2": rng.random(N, dtype=np.float32),
            "linf": rng.random(N, dtype=np.float32),
        }
    )
    parts = []
    for index, key in enumerate(KEYS):
        scores = np.round(rng.normal(size=N) + (not natural) * (1 + index), 1).astype(np.float32)  # with ties
        parts.append(
            images.assign(
                detector=key, score=scores, p_value=rng.random(N, dtype=np.float32), verdict_fpr_05=scores > 1
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def shards() -> list[pd.DataFrame]:
    return [shard(number, *facts) for number, facts in enumerate(SHARDS)]


def content(rows: pd.DataFrame, limit: float = 1.0) -> ShardContent:
    """The shard of the rows of a table."""
    parts = dict(iter(rows.groupby("detector", sort=False)))
    images = next(iter(parts.values()))
    return score_content(
        {name: torch.tensor(images[name].to_numpy()) for name in FACTS},
        {
            name: images[name].iloc[0].item() if name == "adversarial" else images[name].iloc[0]
            for name in (*SHARED, "adversarial")
        }
        | {"source_ids": images["source_id"].tolist()},
        *({key: torch.tensor(part[name].to_numpy()) for key, part in parts.items()} for name in ("score", "p_value")),
        {key: {"05": limit} for key in parts},
    )


def write(root, tables: Iterable[pd.DataFrame]) -> ShardStore:
    store = ShardStore(str(root))
    for number, rows in enumerate(tables):
        store.write(f"part-{number:05}", content(rows), str(number))
    return store


@pytest.fixture
def store(shards, tmp_path) -> ShardStore:
    return write(tmp_path, shards)


def described() -> pd.DataFrame:
    return pd.DataFrame({name: KEYS if name == "detector" else "x" for name in DETECTOR_COLUMNS})


def sort(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["detector", "attack", "criterion", "form", "variant"]
    return table.sort_values(keys, ignore_index=True)


@pytest.mark.parametrize("counted", [10, 50_000])
def test_metrics_of_parts_are_those_of_the_table_in_memory(shards, store, counted, monkeypatch):
    monkeypatch.setattr(grouped_bootstrap, "COUNTED", counted)
    settings = {"resamples": 50, "seed": 3}
    whole, whole_draws = measure_scores(pd.concat(shards, ignore_index=True), described(), **settings)
    parts, draws = measure_scores(ScoreParts(store), described(), **settings)
    assert len(parts) == len(whole) > 3 * 8
    pd.testing.assert_frame_equal(sort(parts), sort(whole), check_exact=False, rtol=0, atol=1e-12)
    pd.testing.assert_frame_equal(draws, whole_draws, check_exact=False, rtol=0, atol=1e-12)
    assert parts["auc_low"].notna().any()


def test_the_area_is_that_of_scikit_learn(shards, store):
    from sklearn.metrics import roc_auc_score

    table, _ = measure_scores(ScoreParts(store), described(), resamples=0)
    rows = pd.concat(shards).query("detector == 'lstm' and split == 'test' and variant == 'float'")
    rows = rows[(rows["attack"] == "natural") | (rows["attack"].isin(["bim", "cw"]) & rows["success"])]
    flags = rows["attack"] != "natural"
    expected = roc_auc_score(flags, rows["score"])
    found = table.query("detector == 'lstm' and attack == 'all' and variant == 'float'")["auc"].item()
    assert found == pytest.approx(expected, abs=1e-12)
    assert roc_auc(rows["score"], flags) == pytest.approx(expected, abs=1e-12)


def test_the_table_of_parts_is_the_table_in_memory(shards, store):
    order = ["detector", "source_id", "attack", "variant", "split"]
    whole = pd.concat(shards, ignore_index=True)
    found = ScoreParts(store).table()
    assert found["detector"].unique().tolist() == list(KEYS)
    texts = {name: str for name in ("detector", "source_id", *SHARED)}
    pd.testing.assert_frame_equal(
        found.astype(texts).sort_values(order, ignore_index=True),
        whole[found.columns].astype(texts).sort_values(order, ignore_index=True),
    )
    some = ScoreParts(store).table(["mlp"], splits=["test"], attacks=["natural", "cw"])
    assert set(some["detector"]) == {"mlp"}
    assert set(some["attack"]) == {"natural", "cw"}
    assert set(some["split"]) == {"test"}
    assert len(some) == 2 * N
    assert ScoreParts(store).table(["mlp"], attacks=["pgd"]).empty


@pytest.fixture
def read(monkeypatch) -> list[tuple[str, ...]]:
    """The tensors of each shard that is read, in the order of reading."""
    found, get = [], ShardStore.__getitem__
    monkeypatch.setattr(ShardStore, "__getitem__", lambda self, key: found.append(self._tensors) or get(self, key))
    return found


TESTED = sum(split == "test" for *_, split in SHARDS)


def of_scores(read: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [names for names in read if any(name.startswith("score") for name in names)]


def test_detectors_are_read_in_one_pass_over_the_shards(store, read):
    parts = ScoreParts(store)
    for key in KEYS:
        parts.columns(key)
    assert of_scores(read) == [("score.0000", "score.0001", "score.0002")] * TESTED
    read.clear()
    parts.table()
    assert len(read) == 2 * len(SHARDS)  # once what describes the images, once all scores and p-values


@pytest.mark.parametrize(("fitting", "blocks"), [(0.5, [1, 1, 1]), (1, [1, 1, 1]), (2.9, [2, 1])])
def test_a_block_holds_the_detectors_that_fit_and_one_at_least(store, read, monkeypatch, fitting, blocks):
    whole = {key: ScoreParts(store).columns(key).score for key in KEYS}
    read.clear()
    monkeypatch.setattr(score_parts, "BLOCK_BYTES", int(fitting * 4 * N * TESTED))
    parts = ScoreParts(store)
    for key in KEYS:
        np.testing.assert_array_equal(parts.columns(key).score, whole[key])
    assert [len(names) for names in of_scores(read)[::TESTED]] == blocks
    assert len(of_scores(read)) == TESTED * len(blocks)


def test_the_table_does_not_depend_on_the_size_of_blocks(store, monkeypatch):
    whole = ScoreParts(store).table()
    monkeypatch.setattr(score_parts, "BLOCK_BYTES", 1)
    pd.testing.assert_frame_equal(ScoreParts(store).table(), whole)


def test_detectors_may_be_asked_for_in_any_order_and_again(store):
    whole, parts = {key: ScoreParts(store).columns(key).score for key in KEYS}, ScoreParts(store)
    for key in (*reversed(KEYS), *KEYS, KEYS[0]):
        np.testing.assert_array_equal(parts.columns(key).score, whole[key])


def test_rounded_and_noisy_images_come_after_those_that_were_attacked(shards, tmp_path):
    parts = ScoreParts(write(tmp_path, reversed(shards)))
    assert parts.table()["variant"].unique().tolist() == ["float", "noise", "8bit"]
    table, _ = measure_scores(parts, described(), resamples=0)
    for _, rows in table.groupby("detector"):
        own = rows[~rows["attack"].isin(["all", "macro", "worst"])]
        assert own["variant"].unique().tolist() == ["float", "noise", "8bit"]


def test_verdicts_compare_in_double_precision(shards, tmp_path):
    limit = 0.1  # float32(0.1) is above it: an image of just that score is flagged
    store = ShardStore(str(tmp_path))
    store.write("all", content(shards[0].assign(score=np.float32(limit)), limit=limit), "all")
    parts = ScoreParts(store)
    assert parts.columns("mlp").verdicts["05"].all()
    assert parts.table(["mlp"])["verdict_fpr_05"].all()


def test_what_cannot_be_parts_of_one_table(shards, tmp_path):
    with pytest.raises(DataError, match="got none; run evaluation"):
        ScoreParts(ShardStore(str(tmp_path)))
    store = write(tmp_path, shards[1:2])
    with pytest.raises(DataError, match="expected scores of the split 'test'"):
        measure_scores(ScoreParts(store), described())
    store.write("other", content(shards[0].query("detector != 'mlp'")), "other")
    with pytest.raises(
        DataError, match=r"the same detectors and thresholds, got others in 'part-00000' than in 'other'"
    ):
        ScoreParts(store)
    store.write("other", content(shards[0], limit=2.0), "other")
    with pytest.raises(DataError, match="the same detectors and thresholds"):
        ScoreParts(store)
