"""Verification and identification behind the detectors of tiny faces."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from adv_detect.absent import ABSENT, Absent
from adv_detect.errors import ConfigurationError
from adv_detect.images import load_images
from adv_detect.jobs.detectors import restore
from adv_detect.measures.faces.decisions import clean_threshold
from adv_detect.params import FaceRecognitionParams, RuntimeParams, ServingParams
from adv_detect.pipelines import face_recognition
from adv_detect.pipelines.face_recognition.adaptive_faces import embed_adaptive_faces
from adv_detect.pipelines.face_recognition.checks import check_gate
from adv_detect.pipelines.face_recognition.clean_pairs import gather_clean_pairs
from adv_detect.pipelines.face_recognition.gate import identify_through_gate, measure_gate, pair_gate_faces
from adv_detect.pipelines.face_recognition.gate_model import assemble_verifier
from adv_detect.reporting import render_report
from adv_detect.serving.verification import verify_pairs
from adv_detect.sharding import ShardContent, ShardStore

KEYS = [f"{name}/{criterion}/all/0" for name in ("cosine", "other") for criterion in ("targeted", "untargeted")]


def threshold_of(shop, key, fpr):
    return restore(shop["detectors"], key, shop["representatives"]).threshold(fpr)


def test_each_configuration_stands_in_the_gate(identified):
    table = identified["face_gate"]
    assert list(table["detector"].unique()) == KEYS
    assert set(table["calibrated_on"]) == {"validation", "pairs"}
    assert set(table["fpr"]) == {0.01, 0.05}
    assert set(table.loc[table["attack"] == "natural", "kind"]) == {"false_accept", "false_reject"}
    assert set(table.loc[table["attack"] != "natural", "kind"]) == {"impersonation", "dodging"}
    assert {"bim", "deep-features", "deep-confident"} <= set(table["attack"])


def test_attacked_pairs_agree_with_scores_and_verdicts_of_the_evaluation(identified):
    pairs, scores = identified["attacked_pair_scores"], identified.scores
    clean = identified["verification_scores"]
    similarity = clean_threshold(clean["score"].to_numpy(), clean["same"].to_numpy(bool), rule=0.01)
    own = scores[(scores["detector"] == KEYS[0]) & (scores["variant"] == "float")]
    flagged = own[own["score"] > threshold_of(identified, KEYS[0], 0.05)]
    attacked = set(map(tuple, flagged[["attack", "criterion", "source_id"]].astype(str).to_numpy()))
    natural = identified["gate_scores"]
    natural = natural[(natural["attack"] == "natural") & (natural["detector"] == KEYS[0])].set_index("source_id")
    expected = [
        row.attacked_score >= similarity
        and (row.attack, row.criterion, row.source_id) not in attacked
        and natural.loc[row.reference_id, "score"] <= threshold_of(identified, KEYS[0], 0.05)
        for row in pairs[(pairs["attack"] == "bim") & (pairs["criterion"] == "targeted")].itertuples()
    ]
    table = identified["face_gate"]
    chosen = (table["detector"] == KEYS[0]) & (table["fpr"] == 0.05) & (table["calibrated_on"] == "validation")
    (found,) = table[chosen & (table["attack"] == "bim") & (table["kind"] == "impersonation")].to_dict("records")
    assert found["n"] == len(expected) > 0
    assert found["after"] == pytest.approx(np.mean(expected))
    assert found["similarity_threshold"] == similarity


def test_images_of_pairs_have_the_scores_of_the_evaluation(identified):
    """The same picture is an image of a pair and a natural test image: both ways give one score."""
    content = identified["pair_image_scores"]
    images = identified["verification_images"]
    found = {}
    for shard in content.values():
        assert shard.metadata["detectors"] == KEYS
        names = [images.source_ids[index] for index in shard.tensors["source_index"].tolist()]
        found |= dict(zip(names, shard.tensors["scores"][:, 1].tolist(), strict=True))
    scores = identified["gate_scores"]
    scores = scores[(scores["detector"] == KEYS[1]) & (scores["attack"] == "natural")].set_index("source_id")["score"]
    common = sorted(set(found) & set(scores.index))
    assert len(common) > 5
    np.testing.assert_allclose([found[name] for name in common], scores[common], rtol=1e-4, atol=1e-4)


def test_clean_pairs_are_counted(identified):
    table, clean = identified["face_gate"], identified["verification_scores"]
    rows = table[(table["people"] == "protocol") & (table["detector"] == KEYS[0])]
    assert set(rows.loc[rows["kind"] == "false_reject", "n"]) == {int(clean["same"].sum())}
    assert (
        rows.loc[rows["kind"] == "false_reject", "after"] >= rows.loc[rows["kind"] == "false_reject", "before"]
    ).all()
    assert (
        rows.loc[rows["kind"] == "false_accept", "after"] <= rows.loc[rows["kind"] == "false_accept", "before"]
    ).all()
    known = table[(table["people"] == "known") & (table["attack"] == "natural")]
    splits = identified["source_splits"]
    assert set(known["n"]) == {int((splits["split"] == "test").sum())}


def test_identification_before_the_gate_is_that_of_the_table_without(identified):
    before = identified["face_identification"]
    table = identified["face_gate_identification"]
    assert set(table["kind"]) == {"named_target", "misnamed", "false_reject"}
    for gallery in ("medoid", "images"):
        own = table[(table["gallery"] == gallery) & (table["detector"] == KEYS[0]) & (table["fpr"] == 0.05)]
        (clean,) = own[own["attack"] == "natural"].to_dict("records")
        plain = before[before["gallery"] == gallery].set_index(["attack", "criterion"])
        assert clean["before"] == pytest.approx(1 - plain.loc[("natural", "none"), "accuracy"])
        assert clean["after"] >= clean["before"]
        (deep,) = own[(own["attack"] == "deep-features") & (own["kind"] == "named_target")].to_dict("records")
        assert deep["before"] == pytest.approx(plain.loc[("deep-features", "targeted"), "named_target"])
        assert deep["after"] <= deep["before"]


def test_metrics_and_section(identified):
    metrics, table = identified["face_metrics"], identified["face_gate"]
    rows = table[(table["attack"] == "bim") & (table["kind"] == "dodging") & (table["fpr"] == 0.05)]
    (row,) = rows[(rows["detector"] == KEYS[0]) & (rows["calibrated_on"] == "validation")].to_dict("records")
    assert metrics["gate/cosine targeted/validation/fpr_0.05/known/dodging/bim/early/after"] == row["after"]
    page = render_report(identified["face_recognition_part"].report)
    assert "A gate for faces" in page
    assert "Dodging: not recognised, and no alarm" in page
    assert f"{row['after']:.1%} (" in page


def adaptive_store(shop, folder, *, score, threshold=None):
    """Images of a targeted attack as adaptive_attack would have left them."""
    store, stored = ShardStore(str(folder)), shop["adversarials"]
    key = next(iter(stored.select(attack=("bim",), criterion=("targeted",), split="test")))
    content = stored[key]
    tensors = {name: content.tensors[name] for name in ("images", "source_index", "label", "target")}
    tensors |= {"fooled": content.tensors["success"], "detector_score": torch.full((len(tensors["label"]),), score)}
    limit = threshold_of(shop, KEYS[0], 0.05) if threshold is None else threshold
    facts = {"detector": KEYS[0], "attack": "selective", "norm": "linf", "epsilon": 0.3, "criterion": "targeted"}
    facts |= {"form": "correct", "threshold_fpr_05": limit, "source_ids": content.metadata["source_ids"]}
    store.write("one", ShardContent(tensors, facts), "mark")
    return store


@pytest.fixture
def embedded(identified, blocks, tmp_path):
    """Embeds a store of adaptive images."""

    def make(store):
        summary, runtime = identified["detector_summary"], blocks["runtime"]
        params = identified["params:face_recognition"]
        plan = embed_adaptive_faces(
            store, identified["detectors"], summary, identified["network_weights"], ABSENT, params, runtime
        )
        if isinstance(plan, Absent):
            return plan
        result = ShardStore(str(tmp_path / "embedded"))
        for spec in plan.shards:
            result.write(spec.key, plan.work(spec.arguments), spec.fingerprint)
        return result

    return make


@pytest.mark.parametrize("score", [-1e6, 1e6])
def test_attacks_that_know_the_detector_are_judged_by_its_own_score(identified, embedded, tmp_path, score):
    found = embedded(adaptive_store(identified, tmp_path / "store", score=score))
    parts = [identified[name] for name in ("attacked_pair_scores", "attack_embeddings", "representatives")]
    pairs = pair_gate_faces(parts[0], found, parts[1], parts[2], RuntimeParams(seed=0))
    summary = identified["detector_summary"]
    summary = summary[summary["detector"].isin(KEYS[:2])]
    names = ("validation_pair_scores", "verification_scores", "pair_image_scores", "gate_scores", "detectors")
    params = identified["params:face_recognition"]
    table, _ = measure_gate(pairs, *(identified[name] for name in names), summary, params)
    own = table[(table["attack"] == "selective") & (table["calibrated_on"] == "validation") & (table["fpr"] == 0.05)]
    (row,) = own.to_dict("records")  # the other detectors were not attacked
    assert (row["detector"], row["kind"], row["form"], row["epsilon"]) == (KEYS[0], "impersonation", "adaptive", 0.3)
    same = (table["calibrated_on"] == "validation") & (table["fpr"] == 0.05) & (table["detector"] == KEYS[0])
    (plain,) = table[same & (table["attack"] == "bim") & (table["kind"] == "impersonation")].to_dict("records")
    assert row["before"] == plain["before"]  # the images are the same
    if score > 0:
        assert (row["flagged"], row["after"]) == (1.0, 0.0)
    else:
        assert row["flagged"] <= plain["flagged"]  # only references are left to be flagged
        assert row["before"] >= row["after"] >= plain["after"]

    others = ("gate_scores", "representatives", "features", "detectors")
    named, _ = identify_through_gate(parts[1], found, *(identified[name] for name in others), summary, params)
    chosen = named[(named["attack"] == "selective") & (named["gallery"] == "medoid") & (named["fpr"] == 0.05)]
    (row,) = chosen.to_dict("records")
    assert row["after"] == (0.0 if score > 0 else row["before"])


def test_attacks_on_a_detector_of_before_are_left_out(identified, embedded, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = embedded(adaptive_store(identified, tmp_path / "store", score=0.0, threshold=123.0))
    assert isinstance(found, Absent)
    assert f"adaptive attacks on {KEYS[0]} are left out of the gate" in caplog.text


@pytest.mark.parametrize(("chosen", "configurations"), [(None, {"cosine", "other"}), ("other", {"other"})])
def test_the_registered_gate_decides_as_the_table_does(identified, chosen, configurations):
    params = identified["params:face_recognition"]
    params = params.model_copy(update={"gate": params.gate.model_copy(update={"detector": chosen})})
    serving = ServingParams(name="faces", max_images=9)
    pairs = [identified[name] for name in ("verification_scores", "validation_pair_scores")]
    names = ("detectors", "detector_summary", "network_weights", "representatives", "twin")
    known = gather_clean_pairs(*pairs, params, serving)
    bundle = assemble_verifier(known, *(identified[name] for name in names), params, serving)
    table = identified["face_gate"]
    assert bundle.similarity_threshold() == table["similarity_threshold"].iloc[0]
    assert bundle.gate.stored.key.split("/")[0] in configurations
    assert (bundle.metadata["name"], bundle.metadata["max_images"]) == ("faces-verification", 4)

    clean = identified["verification_scores"].head(6)
    images = identified["verification_images"]
    sides = [load_images(images, clean[name].tolist(), (0.0, 1.0)) for name in ("first_index", "second_index")]
    found = verify_pairs(bundle, torch.stack(sides, dim=1).numpy(), {})
    np.testing.assert_allclose(found["similarity"], clean["score"], rtol=1e-4)
    store = identified["pair_image_scores"]
    column = KEYS.index(bundle.gate.stored.key)
    known = {
        index: score
        for shard in store.values()
        for index, score in zip(
            shard.tensors["source_index"].tolist(), shard.tensors["scores"][:, column].tolist(), strict=True
        )
    }
    np.testing.assert_allclose(found["second_score"], clean["second_index"].map(known), rtol=1e-4, atol=1e-4)


def test_a_detector_that_is_not_trained_is_refused(identified):
    params = FaceRecognitionParams.model_validate({"gate": {"detector": "othr"}})
    with pytest.raises(
        ConfigurationError, match=r"gate.detector: expected one of \[cosine, other\], got 'othr' \(did you"
    ):
        check_gate(params, identified["params:detector_training"], None)


def test_nothing_is_scored_twice(identified, tmp_path):
    before = identified["pair_image_scores"].fingerprints()
    identified.run(face_recognition.create_pipeline().only_nodes("score_pair_images"))
    assert identified["pair_image_scores"].fingerprints() == before


def test_pairs_without_adaptive_attacks_know_no_detector(identified):
    pairs = identified["gate_pairs"]
    assert set(pairs["detector"]) == {""}
    assert isinstance(pairs, pd.DataFrame)
    assert pairs["probe_score"].isna().all()
