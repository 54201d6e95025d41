"""Layer matching: found images lie in the middle of clean ones, and what a budget allows counts at larger ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.images import load_images
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.detectors import restore
from adv_detect.jobs.joint_models import join
from adv_detect.measures.adaptive_metrics import attack_summary
from adv_detect.measures.intervals import wilson_interval
from adv_detect.pipelines.adaptive_attack.layer_matching import (
    LAYER_MATCHING,
    MATCHING_COLUMNS,
    attacked_alike,
    judge_matched,
    match_activations,
    matching_table,
    with_matching,
)
from adv_detect.sharding import ShardContent, ShardStore

FEW = {"steps": 6, "restarts": 1, "targets": 2, "max_images": 6}


def settings(adaptive, **changes):
    attacks = {"selective": {"attack": "selective"}, "unbounded": {"attack": "selective", "budgets": {"linf": [1.0]}}}
    plain = {"attacks": attacks, "budgets": {"linf": [0.02, 0.5]}, "hardening": {"rounds": 0}, "layer_matching": FEW}
    return adaptive(**(plain | changes))


@pytest.fixture(scope="module")
def found(setting, adaptive, carry_out, tmp_path_factory) -> ShardStore:
    return carry_out(match_activations(setting, settings(adaptive)), tmp_path_factory.mktemp("matching"))


def distances(setting, activations, classes: torch.Tensor) -> np.ndarray:
    given = setting.representatives
    measure = ClassDistances(given.centroids, "mahalanobis", whitening=given.whitening)
    every = measure(activations.of_layers(given.layers)).numpy()
    return every[np.arange(len(every)), :, classes.numpy()]


@pytest.mark.parametrize("epsilon", ["0.02", "0.5"])
def test_matched_are_those_in_the_middle_of_clean_images_of_another_class(found, setting, epsilon):
    clean = [natural_activations(setting.activations, split) for split in ("train", "validation")]
    known = np.concatenate([distances(setting, one, one.logits.argmax(dim=1)) for one in clean])
    low, high = np.quantile(known, [0.025, 0.975], axis=0)
    (content,) = (found[key] for key in found if key.startswith(f"linf-{epsilon}/"))
    with torch.no_grad():
        seen = network_activations(setting.network, content.tensors["images"], setting.network.spec.layers)
    predicted = seen.logits.argmax(dim=1)
    labels = setting.images.labels[content.tensors["source_index"]]
    outside = (np.abs(2 * distances(setting, seen, predicted) - low - high) / (high - low) - 1).max(axis=1)
    clear = np.abs(outside) > 1e-3
    matched = content.tensors["matched"].numpy()

    assert len(matched) == 6
    assert clear.sum() >= 4
    assert (((outside < 0) & (predicted != labels).numpy()) == matched)[clear].all()
    assert float(content.tensors["linf"].max()) <= float(epsilon) + 1e-6


@pytest.fixture(scope="module")
def stored(setting, detectors):
    return restore(detectors, next(iter(detectors)), setting.representatives)


def table_of(store, setting, detectors, *, confidence_level=0.95) -> pd.DataFrame:
    return matching_table(judge_matched(store, setting, detectors), confidence_level=confidence_level)


def judged_by(threshold: float, stored: StoredDetector) -> StoredDetector:
    return replace(stored, clean_scores=torch.full_like(stored.clean_scores, threshold))


def test_each_budget_that_bounds_something_is_tried_and_no_larger_one_matches_fewer(found, setting, stored):
    table = table_of(found, setting, {"a": stored})

    assert table[["detector", "norm", "epsilon", "criterion", "matching_n"]].to_numpy().tolist() == [
        ["a", "linf", 0.02, "untargeted", 6],
        ["a", "linf", 0.5, "untargeted", 6],
    ]
    matched = [found[key].tensors["matched"] for key in sorted(found)]
    assert table["matched"].tolist() == pytest.approx(
        [float(matched[0].float().mean()), float((matched[0] | matched[1]).float().mean())]
    )


def write(store: ShardStore, key: str, matched: list[bool], linf: list[float], images: torch.Tensor) -> None:
    norm, epsilon = key.split("/", maxsplit=1)[0].split("-")
    content = ShardContent(
        {
            "matched": torch.tensor(matched),
            "fooled": torch.tensor([True, True, True, False]),
            "l2": torch.tensor(linf),
            "linf": torch.tensor(linf),
            "images": images,
        },
        {"norm": norm, "epsilon": float(epsilon), "criterion": key.split("/")[1], "source_ids": ["a", "b", "c", "d"]},
    )
    store.write(key, content, key)


@pytest.fixture(scope="module")
def four(setting) -> torch.Tensor:
    return load_images(setting.images, (0, 1, 2, 3), setting.network.spec.bounds)


def test_passed_are_the_matched_images_up_to_the_threshold_of_each_detector(tmp_path, setting, stored, four):
    store = ShardStore(str(tmp_path))
    write(store, "linf-0.3/untargeted/0000", [True, True, True, False], [0.3] * 4, four)
    with torch.no_grad():
        _, scores = join(stored, setting.network, torch.device("cpu"))(four)
    lowest = scores[:3].sort().values
    by_threshold = {"all": 1e6, "none": -1e6, "lowest": float(lowest[:2].mean())}
    detectors = {name: judged_by(value, stored) for name, value in by_threshold.items()}

    table = table_of(store, setting, detectors).set_index("detector")

    assert lowest[0] < lowest[1]
    assert table["matched"].tolist() == [0.75] * 3
    assert table["matched_passed"].to_dict() == {"all": 0.75, "none": 0.0, "lowest": 0.25}


def test_small_finds_count_at_larger_budgets_and_targeted_ones_as_untargeted(tmp_path, setting, stored, four):
    store = ShardStore(str(tmp_path))
    write(store, "linf-0.1/untargeted/0000", [True, False, False, False], [0.1] * 4, four)
    write(store, "linf-0.3/untargeted/0000", [False, True, False, False], [0.3, 0.09, 0.3, 0.3], four)
    write(store, "linf-0.3/targeted/0000", [False, False, True, False], [0.3] * 4, four)

    whole = table_of(store, setting, {"a": judged_by(1e6, stored)}, confidence_level=0.9)
    table = whole.set_index(["criterion", "epsilon"])

    expected = {("targeted", 0.3): 0.25, ("untargeted", 0.1): 0.5, ("untargeted", 0.3): 0.75}
    assert table["matched"].to_dict() == expected
    assert table["matched_passed"].to_dict() == expected
    low, high = wilson_interval(3, 4, confidence_level=0.9)
    assert table.loc[("untargeted", 0.3), ["matched_low", "matched_high"]].tolist() == pytest.approx([low, high])


def test_it_stands_beside_what_is_lost_and_is_empty_where_it_was_left_out(tmp_path, setting, adaptive, stored, four):
    summary = pd.DataFrame(
        {"detector": "a", "norm": ["linf", "l2"], "epsilon": [0.1, np.nan], "criterion": ["untargeted"] * 2}
    )
    store = ShardStore(str(tmp_path))
    write(store, "linf-0.1/untargeted/0000", [True, False, False, False], [0.1] * 4, four)

    joined = with_matching(summary, table_of(store, setting, {"a": stored}))
    nothing = table_of(ShardStore(str(tmp_path / "none")), setting, {"a": stored})
    without = with_matching(summary, nothing)

    assert joined["matched"].tolist()[0] == 0.25
    assert np.isnan(joined["matched"].tolist()[1])
    assert list(without.columns) == list(MATCHING_COLUMNS)
    assert without["matched"].isna().all()
    assert match_activations(setting, settings(adaptive, layer_matching=None)).keys == ()


def test_what_a_detector_passes_of_them_is_lost_though_no_attack_on_it_found_it(tmp_path, setting, stored, four):
    store = ShardStore(str(tmp_path))
    write(store, "linf-0.3/untargeted/0000", [True, False, False, False], [0.3] * 4, four)
    judged = judge_matched(store, setting, {"a": judged_by(1e6, stored), "b": judged_by(-1e6, stored)})
    blank = {name: 0.0 for name in ("detector_score", "l2", "linf", "gradient_evaluations", "zero_gradient_share")}
    condition = {"classifier": "network", "norm": "linf", "criterion": "untargeted", "attack": "selective"}
    failed = pd.DataFrame({"source_id": ["a", "b", "c", "d"]}).assign(
        **condition, **blank, fooled=False, evaded_fpr_01=False, evaded_fpr_05=False
    )
    attacks = pd.concat([failed.assign(detector=name, epsilon=size) for name in "ab" for size in (0.2, 0.3)])

    alike = attacked_alike(judged, attacks)
    records = pd.concat([attacks, alike], ignore_index=True)
    lost = (
        attack_summary(records, sparse=[LAYER_MATCHING]).query("attack == 'union'").set_index(["detector", "epsilon"])
    )
    elsewhere = attacked_alike(judged, attacks[attacks["epsilon"] == 0.2])

    assert lost["success_fpr_05"].to_dict() == {("a", 0.2): 0.0, ("a", 0.3): 0.75, ("b", 0.2): 0.0, ("b", 0.3): 0.0}
    assert elsewhere.empty
