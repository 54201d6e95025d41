"""False alarms on benign changes, recomputed from what lies on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from adv_detect import plots
from adv_detect.algorithms.detectors import score_activations
from adv_detect.algorithms.features import extract_features
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore
from adv_detect.params import EvaluationParams
from adv_detect.pipelines.evaluation.benign import compute_benign_activations
from adv_detect.validation.image_changes import check_benign_changes

PLANNED = ("adversarials", "network_weights", "representatives", "twin", "detectors")


def test_changed_images_are_those_of_a_file(finished):
    network = finished["network_weights"]
    natural = finished["adversarials"]["natural/test-0000"]
    blurred = transforms.gaussian_blur(natural.tensors["images"], [7, 7], [1.0, 1.0])
    logits, features = extract_features(network, torch.round(blurred * 255) / 255, network.spec.layers)

    stored = finished["benign_activations"]["benign/blur-1/test-0000"]
    found = read_activations(stored)

    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(list(found.features.values()), features, rtol=1e-4, atol=1e-4)
    assert stored.metadata["source_ids"] == natural.metadata["source_ids"]


def test_there_is_a_shard_per_change_and_natural_test_shard(finished):
    numbers = [key.removeprefix("natural/") for key in finished["adversarials"].select(natural=True, split="test")]

    wanted = {f"benign/{change}/{one}" for change in ("blur-1", "noise-10") for one in numbers}
    assert set(finished["benign_activations"]) == wanted


@pytest.mark.parametrize("detector", ["ranked/both/all/0", "cosine/targeted/all/0"])
@pytest.mark.parametrize("change", ["unchanged", "blur-1", "noise-10"])
def test_the_rates_follow_from_what_is_stored(finished, detector, change):
    stored = restore(finished["detectors"], detector, finished["representatives"])
    flagged, same, right = [], [], []
    for key in finished["activations"].select(natural=True, split="test"):
        plain = finished["activations"][key]
        number = key.removeprefix("natural/")
        images = plain if change == "unchanged" else finished["benign_activations"][f"benign/{change}/{number}"]
        flagged += (score_activations(stored.detector, read_activations(images)) > stored.threshold(0.05)).tolist()
        same += (images.tensors["predicted"] == plain.tensors["predicted"]).tolist()
        right += (images.tensors["predicted"] == plain.tensors["label"]).tolist()

    table = finished["benign_changes"]
    row = table[(table["detector"] == detector) & (table["change"] == change)].iloc[0]

    assert row["n"] == sum(same)
    assert row["n_images"] == len(same)
    assert row["accuracy"] == pytest.approx(np.mean(right))
    assert row["fpr_05"] == pytest.approx(np.mean(np.array(flagged)[np.array(same)]))
    assert row["fpr_05_low"] <= row["fpr_05"] <= row["fpr_05_high"]
    assert row["train"] == (change != "noise-10")


def test_each_configuration_and_the_margin_are_measured(finished):
    table = finished["benign_changes"]

    wanted = {f"{name}/{one}/all/0" for name in ("cosine", "ranked") for one in ("targeted", "untargeted", "both")}
    assert set(table["detector"]) == {*wanted, "margin"}
    assert set(table["change"]) == {"unchanged", "blur-1", "noise-10"}
    metrics = finished["benign_metrics"]
    assert 0 <= metrics["champion/benign/worst/fpr_05"] <= 1
    assert {"margin/benign/blur-1/fpr_05", "network/benign/noise-10/accuracy"} <= set(metrics)


def test_another_strength_remakes_the_shards_of_that_change_alone(finished, blocks):
    changes = {name: one.model_dump() for name, one in blocks["evaluation"].active_benign_changes.items()}
    blur, noise = changes["blur-1"], changes["noise-10"]
    held = finished["benign_activations"].fingerprints()

    def remade(**changed: object) -> set[str]:
        params = EvaluationParams.model_validate({"benign_changes": changes | changed})
        plan = compute_benign_activations(*(finished[name] for name in PLANNED), params, blocks["runtime"])
        return {key.split("/")[1] for key, made_from in plan.fingerprints.items() if held.get(key) != made_from}

    assert remade() == set()
    assert remade(**{"blur-1": blur | {"train": False}}) == set()
    assert remade(**{"blur-1": blur | {"arguments": {"sigma": 1.5}}}) == {"blur-1"}
    assert remade(more=noise) == {"more"}


def test_the_heat_map_shows_every_rate(finished):
    table = finished["benign_changes"]

    axes = plots.benign_heat_map(table).axes[0]

    texts = {text.get_text() for text in axes.texts}
    assert {f"{100 * value:.0f}" for value in table["fpr_05"]} == texts
    labels = [one.get_text() for one in axes.get_xticklabels()]
    assert [one.split(" ")[0] for one in labels] == ["unchanged", "blur-1", "noise-10*"]
    assert "LSTM + M + cos, targeted" in [one.get_text() for one in axes.get_yticklabels()]


def test_an_empty_heat_map_is_refused(finished):
    with pytest.raises(DataError, match="expected false alarms of at least one detector"):
        plots.benign_heat_map(finished["benign_changes"].iloc[:0])


def test_a_change_that_cannot_be_made_is_refused_before_work():
    params = EvaluationParams.model_validate({"benign_changes": {"x": {"kind": "jpeg", "arguments": {"quality": 0}}}})

    with pytest.raises(
        ConfigurationError, match=r"evaluation\.benign_changes\.x\.arguments: quality: expected .*got 0"
    ):
        check_benign_changes(params)


def test_the_name_of_unchanged_images_is_taken():
    with pytest.raises(ValueError, match=r"none of .*'unchanged'"):
        EvaluationParams.model_validate({"benign_changes": {"unchanged": {"kind": "median"}}})
