"""Comparison of the finished run's detectors: costs counted by hand, figures that other tables hold too."""

from __future__ import annotations

import pytest
import torch

from adv_detect.absent import ABSENT
from adv_detect.algorithms.detectors import Activations, Detector, LearnsFrom, Reads, StoredDetector
from adv_detect.jobs.detectors import restore
from adv_detect.jobs.joint_models import COSTS, TIMED, measure_costs
from adv_detect.measures.detection_metrics import measure_scores
from adv_detect.measures.detector_keys import describe_detectors
from adv_detect.names import MARGIN
from adv_detect.networks.twin import build_twin
from adv_detect.params import DetectorParams, TwinNetworkParams
from adv_detect.pipelines.evaluation.comparison import compare_detectors, measure_detector_costs

STORED = ("adversarials", "network_weights", "representatives")


class SecondOpinion(Detector):
    """Reads a twin, and one number of its own."""

    learns_from = LearnsFrom.NOTHING
    reads = Reads(layers=False, twin=True)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(1))

    def forward(self, activations: Activations) -> torch.Tensor:
        assert activations.twin is not None
        return -activations.twin.amax(dim=1) * self.weight


@pytest.fixture(scope="module")
def costs(finished, blocks):
    given = (finished[name] for name in STORED)
    stores = (finished["detectors"], finished["control_detectors"], finished["detection_metrics"])
    return measure_detector_costs(*given, ABSENT, *stores, blocks["runtime"])


def test_one_detector_of_each_compared_configuration_is_timed(costs, finished):
    assert set(costs["detector"]) == {"cosine/both/all/0", "ranked/both/all/0", MARGIN}
    assert list(costs.columns) == ["detector", *COSTS]
    assert (costs["ms_per_image"] > 0).all()
    known = costs.set_index("detector")
    assert known.loc[MARGIN, "bytes"] == 0
    state = restore(finished["detectors"], "cosine/both/all/0", finished["representatives"]).detector.state_dict()
    assert known.loc["cosine/both/all/0", "bytes"] == sum(len(one.numpy().tobytes()) for one in state.values())
    assert (costs["forward_passes"] == 1).all()
    assert costs["differentiable"].all()


def test_a_second_network_counts_as_a_pass_and_in_bytes(finished):
    network = finished["network_weights"]
    twin = build_twin(network, TwinNetworkParams(), head="softmax", seed=0)
    stored = StoredDetector("mine", SecondOpinion().eval(), DetectorParams(kind="dknn"), {}, torch.zeros(1))
    images = torch.rand(TIMED + 5, *network.spec.image_shape)
    seen = []
    twin.register_forward_hook(lambda module, given, made: seen.append(len(given[0])))

    (row,) = measure_costs([stored], network, twin, images, device="cpu").to_dict("records")

    weights = sum(one.numel() * one.element_size() for one in twin.state_dict().values())
    assert (row["forward_passes"], row["bytes"], row["differentiable"]) == (2.0, weights + 4, False)


def test_the_comparison_holds_what_the_metrics_say(costs, finished, blocks):
    table, resamples = measure_scores(finished.scores, describe_detectors(finished["detector_summary"]), resamples=20)
    found = compare_detectors(table, resamples, finished["benign_changes"], costs, blocks["evaluation"])

    own = found.set_index("configuration").loc["ranked"]
    mine = table[(table["detector"] == "ranked/both/all/0") & (table["variant"] == "float")]
    macro = mine[(mine["attack"] == "macro") & (mine["form"] == "early")]
    counts = macro["n_attacks"].to_numpy()
    assert own["early_auc_mean"] == pytest.approx((macro["auc"] * counts).sum() / counts.sum())
    assert own["early_attacks"] == counts.sum()
    worst = mine[(mine["attack"] == "worst") & (mine["form"] == "confident")]
    assert own["confident_auc_worst"] == pytest.approx(worst["auc"].min())
    benign = finished["benign_changes"]
    changed = benign[(benign["detector"] == "ranked/both/all/0") & (benign["change"] != "unchanged")]
    assert own["benign_fpr_05"] == pytest.approx(changed["fpr_05"].max())
    assert found["configuration"].tolist()[-1] in {MARGIN, "cosine", "ranked"}
    assert set(found["configuration"]) == {MARGIN, "cosine", "ranked"}
