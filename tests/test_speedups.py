"""The main job gives the same results with its speed-ups and without."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.projects import NETWORK, TWIN, new_project, session, take_over

from adv_detect.measures.detector_keys import SUMMARY_ROWS
from adv_detect.networks import frozen
from adv_detect.networks.frozen import FrozenNorm
from adv_detect.sharding import ShardStore

PARAMETERS = {
    # normalisation in every block: in `small` there is nothing to fold
    "network": {"name": "wide", "arguments": {"depth": 10, "widen": 1, "in_channels": 1}},
    "target_training": {"epochs": 5},
    "twin_training": {"epochs": 1, "losses": ["softmax"], "min_accuracy": 0.0},
    "adversarial_generation": {"attacks": {"cw": {"max_images": 40}, "cw-confident": None, "deepfool": None}},
    "detector_training": {
        "fit": {"epochs": 4},
        "leave_one_out": [],
        "configurations": dict.fromkeys(("density", "multiview")),
    },
    "evaluation": {"bootstrap": 0},
}
WANTED = ("detection_metrics_csv", "detector_histories", "attack_records")
"""The tables that are compared, and what MLflow logs beside them; figures and the report are drawn from it alike."""
SAME_OUTCOME = 0.99
"""Share of attacks that must end alike; the others stood on the decision boundary."""
AUC_TOLERANCE = 0.01
"""Largest difference of an AUC, where one attacked image is not more: a score that moves by rounding changes the side
of few pairs, an image that stood on the decision boundary counts on one side and not on the other."""


@pytest.fixture(scope="module")
def folders(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The main job with the fast form of the networks, and with them as they are; both from the same weights."""
    fast, plain = (new_project(tmp_path_factory.mktemp(name), project) for name in ("fast", "plain"))
    used: list[int] = []
    fast_form = frozen.fast_form

    def counted(target, **options):
        form = fast_form(target, **options)
        used.append(sum(isinstance(module, (FrozenNorm, torch.nn.Identity)) for module in form.modules()))
        return form

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "fast_form", counted)
        with session(fast, **PARAMETERS) as one:
            one.run(to_outputs=WANTED)
    assert used, "the fast form was not asked for"
    assert all(used), "the fast form is the plain one"
    take_over(plain, fast, *NETWORK, *TWIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "fast_form", lambda target, **_: target)
        with session(plain, **PARAMETERS) as one:
            one.run(to_outputs=WANTED)
    return fast, plain


def records(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "data/test/03_primary/attack_records.parquet")


def test_the_same_images_are_attacked_with_the_same_outcome(folders):
    fast, plain = (records(folder) for folder in folders)
    keys = ["source_id", "split", "original_class", "attack", "criterion", "target_class"]
    pd.testing.assert_frame_equal(fast[keys], plain[keys])

    attacked = fast["attack"] != "natural"
    for column in ("success", "adversarial_class"):
        same = (fast[column] == plain[column])[attacked]
        assert same.mean() >= SAME_OUTCOME, f"{column}: {same.mean():.4f} of {len(same)} agree"
    same = (fast["gradient_evaluations"] - plain["gradient_evaluations"]).abs() <= 1
    assert same.mean() >= SAME_OUTCOME


def test_clean_images_get_the_same_prediction_and_features(folders):
    fast, plain = (records(folder).query("attack == 'natural'") for folder in folders)
    assert (fast["adversarial_class"] == plain["adversarial_class"]).all()

    stores = [ShardStore(str(folder / "data/test/04_feature/features")) for folder in folders]
    for key, content in stores[0].items():
        other = stores[1][key]
        for name, value in content.tensors.items():
            torch.testing.assert_close(value, other.tensors[name], rtol=1e-3, atol=1e-4, msg=f"{key}: {name}")


def test_detection_is_measured_alike(folders):
    tables = [pd.read_csv(folder / "data/test/08_reporting/detection_metrics.csv") for folder in folders]
    keys = ["detector", "attack", "criterion", "form", "variant"]
    fast, plain = (table.dropna(subset=["auc"]).set_index(keys) for table in tables)

    assert fast.index.equals(plain.index)
    difference = (fast["auc"] - plain["auc"]).abs()
    single = ~fast.index.get_level_values("attack").isin(SUMMARY_ROWS)  # which follow from the single ones
    allowed = (1 / plain["n_adversarial"]).clip(lower=AUC_TOLERANCE)
    assert single.any()
    assert (difference <= allowed)[single].all(), difference.nlargest(5)
