"""The floor: found images really lie in the middle of clean ones, and what a budget allows counts at larger ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.jobs.activations import natural_activations
from adv_detect.measures.intervals import wilson_interval
from adv_detect.pipelines.adaptive_attack.floor import FLOOR_COLUMNS, floor_table, match_activations, with_floor
from adv_detect.sharding import ShardContent, ShardStore

FEW = {"steps": 10, "restarts": 1, "targets": 2, "max_images": 6}


def settings(adaptive, **changes):
    attacks = {"selective": {"attack": "selective"}, "unbounded": {"attack": "selective", "budgets": {"linf": [1.0]}}}
    plain = {"attacks": attacks, "budgets": {"linf": [0.02, 0.5]}, "hardening": {"rounds": 0}, "floor": FEW}
    return adaptive(**(plain | changes))


@pytest.fixture(scope="module")
def found(setting, adaptive, carry_out, tmp_path_factory) -> ShardStore:
    return carry_out(match_activations(setting, settings(adaptive)), tmp_path_factory.mktemp("floor"))


def distances(setting, activations, classes: torch.Tensor) -> np.ndarray:
    given = setting.representatives
    measure = ClassDistances(given.centroids, "mahalanobis", whitening=given.whitening)
    every = measure(activations.of_layers(given.layers)).numpy()
    return every[np.arange(len(every)), :, classes.numpy()]


def test_what_is_found_lies_in_the_middle_of_clean_images_of_another_class(found, setting):
    clean = [natural_activations(setting.activations, split) for split in ("train", "validation")]
    stored = np.concatenate([distances(setting, one, one.logits.argmax(dim=1)) for one in clean])
    low, high = np.quantile(stored, [0.025, 0.975], axis=0)
    (content,) = (found[key] for key in found if key.startswith("linf-0.5/"))
    with torch.no_grad():
        seen = network_activations(setting.network, content.tensors["images"], setting.network.spec.layers)
    predicted = seen.logits.argmax(dim=1)
    labels = setting.images.labels[content.tensors["source_index"]]
    measured = distances(setting, seen, predicted)
    edge = 1e-3 * (high - low)
    inside = ((measured >= low - edge) & (measured <= high + edge)).all(axis=1)
    matched = content.tensors["matched"].numpy()

    assert len(matched) == 6
    assert matched.any()
    assert (inside & (predicted != labels).numpy())[matched].all()
    assert float(content.tensors["linf"].max()) <= 0.5 + 1e-6


def test_each_budget_that_bounds_something_is_tried_and_the_floor_rises_with_it(found):
    table = floor_table(found, confidence_level=0.95)

    assert table[["norm", "epsilon", "criterion", "floor_n"]].to_numpy().tolist() == [
        ["linf", 0.02, "untargeted", 6],
        ["linf", 0.5, "untargeted", 6],
    ]
    assert table["floor"].tolist()[0] <= table["floor"].tolist()[1]
    assert table["floor"].tolist()[1] > 0


def write(store: ShardStore, key: str, matched: list[bool], linf: list[float]) -> None:
    norm, epsilon = key.split("/", maxsplit=1)[0].split("-")
    content = ShardContent(
        {"matched": torch.tensor(matched), "l2": torch.tensor(linf), "linf": torch.tensor(linf)},
        {"norm": norm, "epsilon": float(epsilon), "criterion": key.split("/")[1], "source_ids": ["a", "b", "c", "d"]},
    )
    store.write(key, content, key)


def test_small_finds_count_at_larger_budgets_and_targeted_ones_as_untargeted(tmp_path):
    store = ShardStore(str(tmp_path))
    write(store, "linf-0.1/untargeted/0000", [True, False, False, False], [0.1] * 4)
    write(store, "linf-0.3/untargeted/0000", [False, True, False, False], [0.3, 0.09, 0.3, 0.3])
    write(store, "linf-0.3/targeted/0000", [False, False, True, False], [0.3] * 4)

    table = floor_table(store, confidence_level=0.9).set_index(["criterion", "epsilon"])

    assert table["floor"].to_dict() == {("targeted", 0.3): 0.25, ("untargeted", 0.1): 0.5, ("untargeted", 0.3): 0.75}
    low, high = wilson_interval(3, 4, confidence_level=0.9)
    assert table.loc[("untargeted", 0.3), ["floor_low", "floor_high"]].tolist() == pytest.approx([low, high])


def test_it_stands_beside_what_is_lost_and_is_empty_where_it_was_left_out(tmp_path, setting, adaptive):
    summary = pd.DataFrame({"norm": ["linf", "l2"], "epsilon": [0.1, np.nan], "criterion": ["untargeted"] * 2})
    store = ShardStore(str(tmp_path))
    write(store, "linf-0.1/untargeted/0000", [True, False, False, False], [0.1] * 4)

    joined = with_floor(summary, floor_table(store, confidence_level=0.95))
    without = with_floor(summary, floor_table(ShardStore(str(tmp_path / "none")), confidence_level=0.95))

    assert joined["floor"].tolist()[0] == 0.25
    assert np.isnan(joined["floor"].tolist()[1])
    assert list(without.columns) == list(FLOOR_COLUMNS)
    assert without["floor"].isna().all()
    assert match_activations(setting, settings(adaptive, floor=None)).keys == ()
