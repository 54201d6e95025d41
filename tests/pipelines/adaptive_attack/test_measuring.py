from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.pandas import ParquetDataset
from tests.plots.grids import rows_of

from adv_detect.algorithms.detectors import TrajectoryDetector
from adv_detect.algorithms.detectors.stored import CLEAN_SCORES
from adv_detect.datasets.report_part import ReportPartDataset
from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.errors import DataError
from adv_detect.jobs.activations import natural_activations, successful_attacks
from adv_detect.pipelines.adaptive_attack import create_pipeline
from adv_detect.pipelines.adaptive_attack.figures import SHOWN, write_adaptive_part
from adv_detect.pipelines.adaptive_attack.layer_matching import LAYER_MATCHING
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors, collect_adaptive_records
from adv_detect.pipelines.adaptive_attack.tables import TABLES, measure_adaptive, record_matched, reference_figures
from adv_detect.pipelines.reporting import create_pipeline as create_reporting
from adv_detect.reporting import Figure, Note, Report, ReportPart, Section, Text, detectors_identity
from adv_detect.reporting.adaptive import TITLE
from adv_detect.sharding import ShardContent, ShardStore

KEY = "cosine/both/all/0"
STEEP = 1e6
LARGE = 1e4
READOUT = "state.readout."


def plant(finished, folder, change) -> ShardStore:
    """A store with one detector whose read-out was changed; all its clean scores are the same one."""
    content = finished["detectors"][KEY]
    held = {name.removeprefix(READOUT): value.clone() for name, value in content.tensors.items() if READOUT in name}
    changed, score = change(held)
    tensors = {f"{READOUT}{name}": value for name, value in changed.items()}
    tensors |= {CLEAN_SCORES: torch.full_like(content.tensors[CLEAN_SCORES], score)}
    store = ShardStore(str(folder))
    store.write(KEY, ShardContent(content.tensors | tensors, content.metadata), "planted")
    return store


def constant(tensors):
    return tensors | {"classifier.weight": tensors["classifier.weight"] * 0, "classifier.bias": torch.zeros(1)}, 0.0


def masked(finished, blocks):
    """A step function of the last layer's distances: right on ordinary attacks, without a gradient anywhere."""

    def change(tensors):
        params = blocks["detector_training"].active["cosine"]
        attacks, criteria = ("bim", "cw"), ("targeted", "untargeted")
        store, reader = finished["activations"], TrajectoryDetector(finished["representatives"], params)
        natural = natural_activations(store, "train")
        attacked = successful_attacks(store, split="train", attacks=attacks, criteria=criteria)
        rows = torch.cat([reader.trajectories(part) for part in (natural, attacked)])
        seen = ((rows - tensors["mean"]) / tensors["std"])[:, -1].double()
        adversarial = (torch.arange(len(rows)) >= len(natural)).double()
        design = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)
        solution = torch.linalg.lstsq(design, adversarial[:, None] - adversarial.mean()).solution[:, 0]
        limit = (design @ solution)[adversarial == 0].quantile(0.9)
        hidden = tensors["classifier.weight"].shape[1]
        weight, bias = torch.zeros(4 * hidden, seen.shape[1]), torch.zeros(4 * hidden)
        weight[:hidden] = STEEP * solution[:-1]
        bias[:hidden] = STEEP * (solution[-1] - limit)
        bias[hidden : 2 * hidden] = -LARGE
        bias[2 * hidden :] = LARGE
        zero = {name: torch.zeros_like(tensors[name]) for name in ("lstm.weight_hh_l0", "lstm.bias_hh_l0")}
        planted = {"lstm.weight_ih_l0": weight, "lstm.bias_ih_l0": bias, "classifier.bias": torch.tensor([-1.0])}
        return tensors | zero | planted | {"classifier.weight": torch.ones(1, hidden)}, 0.0

    return change


@pytest.mark.parametrize(("kind", "failed"), [("constant", "scores vary"), ("masked", "gradients present")])
def test_a_planted_detector_is_called_unreliable(
    kind, failed, finished, setting, blocks, adaptive, carry_out, tmp_path
) -> None:
    detectors = plant(finished, tmp_path / "planted", constant if kind == "constant" else masked(finished, blocks))
    params = adaptive(
        attacks={name: adaptive().attacks[name] for name in ("selective", "one-step")},
        max_images=12,
        hardening={"rounds": 0},
    )
    attacked = carry_out(attack_detectors(setting, detectors, blocks["detector_training"], params), tmp_path / "made")
    none = ShardStore(str(tmp_path / "none"))
    records = collect_adaptive_records(attacked, none)
    tables = measure_adaptive(
        records,
        detectors,
        none,
        record_matched(none, setting, records, detectors, none),
        setting,
        params,
        blocks["adversarial_generation"],
        blocks["evaluation"],
    )
    assert not tables["summary"]["reliable"].any()
    checks = tables["checks"]
    assert failed in set(checks.loc[~checks["passed"], "name"])
    part = write_adaptive_part(tables, {}, none, {}, finished["detector_summary"])
    notes = [block.text for block in part.report.sections[0].blocks if isinstance(block, Note)]
    assert any(f"Unreliable: `{KEY}`" in text and failed in text for text in notes)
    if kind == "masked":
        assert not records[records["fooled"]]["evaded_fpr_05"].all()


def test_the_three_published_figures_by_hand() -> None:
    rows = []
    for form, fooled, reference, five in (
        ("reference", [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]),
        ("correct", [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]),
    ):
        for index in range(4):
            rows.append(
                {
                    "source_id": f"i{index}",
                    "detector": "d",
                    "method": "cw_detector",
                    "form": form,
                    "attack": f"cw-{form}",
                    "role": "white_box",
                    "norm": "l2",
                    "epsilon": np.nan,
                    "criterion": "untargeted",
                    "fooled": bool(fooled[index]),
                    "evaded_reference": bool(reference[index]),
                    "evaded_fpr_05": bool(five[index]),
                    "evaded_fpr_01": bool(five[index]),
                    "l2": float(index),
                }
            )
    table = reference_figures(pd.DataFrame(rows), confidence_level=0.95).set_index(["form", "passes"])
    published = table.loc[("reference", "probability below 0.5")]
    assert (published["success"], published["detected"], published["evaded"]) == pytest.approx((0.75, 2 / 3, 1 / 3))
    assert published["lost"] == pytest.approx(0.25)
    assert published["median_l2"] == 1.0
    assert table.loc[("reference", "FPR 5 %"), "evaded"] == pytest.approx(2 / 3)
    correct = table.loc[("correct", "FPR 5 %")]
    assert (correct["success"], correct["detected"], correct["evaded"], correct["n"]) == pytest.approx((0.5, 0, 1, 4))
    assert table.loc[("correct", "probability below 0.5"), "evaded"] == 0


class Kept(MemoryDataset):
    """Stays when the last node has read it, to be looked at."""

    def release(self) -> None:
        """Keep the data."""

    _release = release


def test_the_whole_pipeline(finished, detectors, blocks, adaptive, attackers_datasets, tmp_path) -> None:
    inputs = ("train_images", "test_images", "network_weights", "representatives", "source_splits", "activations",
              "detector_summary", "twin")  # fmt: skip
    first = ReportPart(
        Report("Title", "subtitle", [Section("Summary", [Text("one")]), Section("Limits", [Text("last")])]),
        detectors_identity(finished["detector_summary"]),
    )
    stores = ("adaptive_adversarials", "hardened_detectors", "hardened_adversarials", "matched_adversarials")
    params = adaptive(
        max_images=5,
        layer_matching={"steps": 3, "restarts": 1, "targets": 1, "max_images": 4},
        attacks={name: adaptive().attacks[name] for name in ("selective", "transfer", "cw", "cw-reference")},
    )
    catalog = DataCatalog(
        {name: MemoryDataset(finished[name], copy_mode="assign") for name in inputs}
        | {"adaptive_records": ParquetDataset(filepath=str(tmp_path / "records.parquet"))}
        | {"detectors": MemoryDataset(detectors, copy_mode="assign")}
        | {name: ShardedSafetensorsDataset(filepath=str(tmp_path / name)) for name in stores}
        | attackers_datasets(tmp_path)
        | {f"params:{name}": MemoryDataset(block) for name, block in blocks.items()}
        | {
            "params:adaptive_attack": MemoryDataset(params),
            "evaluation_part": MemoryDataset(first, copy_mode="assign"),
            "face_recognition_part": ReportPartDataset(filepath=str(tmp_path / "face_recognition.json")),
            "calibration_part": ReportPartDataset(filepath=str(tmp_path / "calibration.json")),
        }
        | {
            name: Kept(copy_mode="assign")
            for name in ("adaptive_tables", "adaptive_figures", "adaptive_pictures", "report", "leaderboard",
                         "adaptive_metrics", "attack_setting", "adaptive_attack_part",
                         *(f"adaptive_{table}_{form}" for table in TABLES for form in ("table", "csv")))
        }
    )  # fmt: skip
    outputs = SequentialRunner().run(create_pipeline() + create_reporting(), catalog)
    tables = {name: catalog.load(f"adaptive_{name}_table") for name in TABLES}
    summary = tables["summary"]
    union = summary[summary["attack"] == "union"].set_index(["detector", "norm", "epsilon"])["success_fpr_05"]
    singles = summary[summary["attack"] == "selective"].set_index(["detector", "norm", "epsilon"])["success_fpr_05"]
    assert (union.loc[singles.index] >= singles).all()
    assert set(tables["hardening"]["when"]) == {"before", "after"}
    assert set(tables["reference"]["form"]) == {"reference", "correct"}
    assert set(catalog.load("adaptive_records")["detector"]) == {KEY, f"{KEY}/hardened-1"}
    metrics = catalog.load("adaptive_metrics")
    assert metrics[f"adaptive/{KEY}/untargeted/linf-0.3/union/success_fpr_05"] == union.loc[(KEY, "linf", 0.3)]
    bounded = summary[summary["epsilon"].notna()]
    assert bounded["matched"].between(0, 1).all()
    assert (bounded["matched_passed"] <= bounded["matched"]).all()
    matched = summary[summary["attack"] == LAYER_MATCHING].set_index(["detector", "norm", "epsilon"])
    assert (matched["n"] == 4).all()
    assert set(matched.index) == set(singles.index)
    page = catalog.load("report")
    assert page.index("Summary") < page.index(TITLE) < page.rindex("Limits")
    check_figures(catalog.load("adaptive_figures"))
    pictures = catalog.load("adaptive_pictures")
    section = catalog.load("adaptive_attack_part").report.sections[0]
    assert [block.figure for block in section.blocks if isinstance(block, Figure)] == list(pictures.values())
    assert {outputs[f"{name}_figure"].load() for name in SHOWN} <= set(pictures.values())


def check_figures(figures) -> None:
    """Each figure says on its axes what it shows."""
    curves, steps = "adaptive_curves", "adaptive_steps"
    grid, scores = "adaptive_grid", f"adaptive_scores/{KEY}"
    assert figures.keys() == {curves, steps, grid, scores}
    drawn = {name: [axes for axes in figure.axes if axes.lines or axes.patches] for name, figure in figures.items()}
    assert any("epsilon, " in axes.get_xlabel() for axes in drawn[curves])
    assert drawn[curves][0].get_ylabel() == "share of images lost"
    assert {axes.get_xlabel() for axes in drawn[steps]} == {"steps"}
    assert all("cosine" in axes.get_title(loc="left") for axes in drawn[curves])
    assert drawn[scores][0].get_ylabel() == "share of images"
    assert any(axes.get_xlabel() == "score (logit)" for axes in drawn[scores])
    pictured = [cell for row in rows_of(figures[grid]).values() for cell in row]
    assert len(pictured) % 2 == 0 < len(pictured)
    assert all(caption for _, caption in pictured)


def test_a_detector_that_passes_nothing_is_refused_and_an_attack_without_images_left_out(
    finished, setting, blocks, adaptive, tmp_path, caplog
) -> None:
    def raised(tensors):
        return tensors | {"classifier.bias": tensors["classifier.bias"] + LARGE}, 2 * LARGE

    detectors = plant(finished, tmp_path / "high", raised)
    plan = attack_detectors(setting, detectors, blocks["detector_training"], adaptive())
    assert {key.split("/")[1] for key in plan.keys} == set(adaptive().attacks) - {"cw", "cw-reference"}
    assert "cw-reference" in caplog.text
    content = detectors[KEY]
    low = {CLEAN_SCORES: torch.full_like(content.tensors[CLEAN_SCORES], -LARGE)}
    detectors.write(KEY, ShardContent(content.tensors | low, content.metadata), "low")
    with pytest.raises(DataError, match="no clean test image"):
        attack_detectors(setting, detectors, blocks["detector_training"], adaptive())
