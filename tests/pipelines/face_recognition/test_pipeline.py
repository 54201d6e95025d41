"""Every figure of the pipeline, computed again in another way from what lies on disk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import paired_distances
from sklearn.neighbors import KNeighborsClassifier

from adv_detect.absent import ABSENT
from adv_detect.algorithms.features import extract_features
from adv_detect.images import load_images
from adv_detect.params import DetectorTrainingParams, FacePairsParams, FaceRecognitionParams, RuntimeParams
from adv_detect.pipelines import face_recognition
from adv_detect.pipelines.face_recognition.detection import compare_detection
from adv_detect.pipelines.face_recognition.nodes import choose_pairs, embed_attacked_faces, embed_faces, verify_clean
from adv_detect.pipelines.reporting.nodes import render_report
from adv_detect.reporting import Figure, Report, ReportPart, Section, Table, Text, detectors_identity
from adv_detect.sharding import ShardStore, execute_plan


def embed(shop, images, *, flip=False):
    target = shop["network_weights"]
    with torch.no_grad():
        _, features = extract_features(target, images.flip(-1) if flip else images, target.spec.layers)
    return features[-1]


def one_row(table, **wanted):
    (found,) = table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])].to_dict("records")
    return found


def test_clean_pairs_are_compared_by_the_cosine_of_their_embeddings(identified):
    scores, images = identified["verification_scores"], identified["verification_images"]
    first, second = (
        embed(identified, load_images(images, scores[name].tolist(), (0.0, 1.0))).numpy()
        for name in ("first_index", "second_index")
    )
    np.testing.assert_allclose(scores["score"], 1 - paired_distances(first, second, metric="cosine"), atol=1e-5)
    people = [
        (one.split("/")[0], two.split("/")[0]) for one, two in zip(scores["first"], scores["second"], strict=True)
    ]
    assert [one == two for one, two in people] == scores["same"].tolist()


def test_protocol_figures(identified):
    figures, scores = identified["verification_metrics"], identified["verification_scores"]
    assert figures["verification/auc"] == pytest.approx(roc_auc_score(scores["same"], scores["score"]))
    assert (figures["verification/n_same"], figures["verification/n_different"]) == (20, 19)
    assert figures["verification/n_missing"] == 1
    assert figures["verification/fold_accuracy"] > 0.7


def test_only_images_in_pairs_are_embedded(identified):
    scores = identified["verification_scores"]
    names = [
        name for content in identified["verification_embeddings"].values() for name in content.metadata["source_ids"]
    ]
    assert len(names) == len(set(names))
    assert set(names) == {*scores["first"], *scores["second"]}


def test_each_attacked_image_meets_another_clean_image_of_the_right_person(identified):
    pairs, records = identified["attacked_pair_scores"], identified["attack_records"]
    joined = pairs.merge(records, on=["source_id", "attack", "criterion"])
    classes = identified["network_weights"].spec.class_names
    person = joined["reference_id"].str.split("/").str[0]

    assert len(joined) == len(pairs) > 0
    assert (joined["source_id"] != joined["reference_id"]).all()
    targeted = joined["kind"] == "impersonation"
    assert (targeted == (joined["criterion"] == "targeted")).all()
    wanted = joined["target_class"].where(targeted, joined["original_class"])
    assert person.tolist() == [classes[int(index)] for index in wanted]
    assert set(joined["split"]) == {"test"}


def test_attacks_of_one_criterion_meet_the_same_pairs(identified):
    pairs = identified["attacked_pair_scores"]
    dodging = pairs[pairs["kind"] == "dodging"].pivot_table(index="source_id", columns="attack", values="clean_score")
    assert dodging.shape[1] == 3
    assert (dodging.nunique(axis=1) == 1).all()


def test_fooled_shares_count_wrong_decisions_at_the_clean_threshold(identified):
    table, pairs = identified["face_verification"], identified["attacked_pair_scores"]
    clean = identified["verification_scores"]
    for row in table[table["attack"] != "natural"].to_dict("records"):
        mine = pairs[(pairs["attack"] == row["attack"]) & (pairs["criterion"] == row["criterion"])]
        accepted = mine["attacked_score"] >= row["threshold"]
        wrong = accepted if row["kind"] == "impersonation" else ~accepted
        assert (row["n"], row["fooled"]) == (len(mine), pytest.approx(wrong.mean()))
        assert row["fooled_low"] < row["fooled"] + 1e-12
        assert row["fooled"] - 1e-12 < row["fooled_high"]
        assert row["n_success"] == mine["success"].sum()
        kept = clean[clean["same"] == (row["kind"] == "impersonation")]["score"]
        same = np.repeat([row["kind"] == "dodging", row["kind"] != "dodging"], [len(mine), len(kept)])
        assert row["auc"] == pytest.approx(roc_auc_score(same, [*mine["attacked_score"], *kept]))
        assert row["clean_auc"] == pytest.approx(roc_auc_score(same, [*mine["clean_score"], *kept]))


def test_clean_rows_are_the_errors_of_clean_pairs(identified):
    table, scores = identified["face_verification"], identified["verification_scores"]
    row = one_row(table, attack="natural", kind="impersonation", threshold_rule="eer")
    different = scores[~scores["same"]]["score"]
    assert row["fooled"] == row["clean"] == pytest.approx((different >= row["threshold"]).mean())
    assert np.isnan(row["fooled_of_right"])


@pytest.mark.parametrize("gallery", ["medoid", "images"])
def test_identification_agrees_with_scikit_learn(identified, gallery):
    table, store = identified["face_identification"], identified["attack_embeddings"]
    known, labels = identified["representatives"].medoids[-1], np.arange(5)
    if gallery == "images":
        parts = [content for content in identified["features"].values()]
        known = torch.cat([part.tensors["layer.004"] for part in parts])
        labels = np.concatenate([[part.metadata["label"]] * len(part.tensors["layer.004"]) for part in parts])
    nearest = KNeighborsClassifier(n_neighbors=1).fit(known.numpy(), labels)
    for attack, criterion in (("natural", "none"), ("bim", "untargeted"), ("deep-features", "targeted")):
        tensors = [one.tensors for one in store.select(attack=attack, criterion=criterion, split="test").values()]
        rows = {name: torch.cat([one[name] for one in tensors]).numpy() for name in ("embedding", "label", "target")}
        named = nearest.predict(rows["embedding"])
        found = one_row(table, gallery=gallery, attack=attack, criterion=criterion)
        assert found["n"] == len(named)
        assert found["accuracy"] == pytest.approx((named == rows["label"]).mean())
        assert found["rank_1"] == pytest.approx((named == rows["label"]).mean())
        if criterion == "targeted":
            assert found["named_target"] == pytest.approx((named == rows["target"]).mean())
        else:
            assert np.isnan(found["named_target"])


def test_deep_features_attacks_fool_the_neighbours_they_aim_at(identified):
    table, records = identified["face_identification"], identified["attack_records"]
    row = one_row(table, gallery="medoid", attack="deep-features", criterion="targeted")
    mine = records[(records["attack"] == "deep-features") & (records["criterion"] == "targeted")]
    assert row["named_target"] == pytest.approx(mine[mine["split"] == "test"]["success"].mean())
    assert row["named_target"] > 0.5
    assert row["fooled"] >= row["named_target"] - 0.2


def test_embeddings_of_attacked_images_are_those_of_the_stored_pixels(identified):
    stored = identified["adversarials"]["bim/targeted/test-0000"].tensors
    found = identified["attack_embeddings"]["bim/targeted/test-0000"].tensors
    torch.testing.assert_close(found["embedding"], embed(identified, stored["images"]))
    assert torch.equal(found["target"], stored["target"])
    keys = identified["attack_embeddings"]
    assert any(key.startswith("natural/train-") for key in keys)
    assert not any("/train-" in key for key in keys if not key.startswith("natural/"))


def test_distances_are_those_to_the_target_medoid(identified):
    distances, store = identified["representative_distances"], identified["attack_embeddings"]
    tensors = [one.tensors for one in store.select(attack="deep-features", criterion="targeted", split="test").values()]
    rows = {name: torch.cat([one[name] for one in tensors]) for name in ("embedding", "target", "success")}
    far = torch.cdist(rows["embedding"].double(), identified["representatives"].medoids[-1].double())
    expected = far.gather(1, rows["target"][:, None])[:, 0][rows["success"]]
    mine = distances[distances["attack"] == "deep-features"]
    np.testing.assert_allclose(mine["distance"], expected.numpy(), rtol=1e-6)

    summary = identified["face_distances_csv"].set_index("attack")
    assert summary.loc["deep-features", "median"] == pytest.approx(mine["distance"].median())
    assert summary.loc["deep-features", "n"] == len(mine)
    nearer, early = (summary.loc[name, "median"] for name in ("deep-confident", "deep-features"))
    assert nearer < early


def test_detection_compares_training_with_and_without_deep_features(identified):
    table, metrics = identified["deep_features_detection_csv"], identified["detection_metrics"]
    assert set(table["attack"]) == {"deep-features", "deep-confident", "macro"}
    assert table["configuration"].nunique() == 1
    kept = table[(table["attack"] == "deep-features") & (table["criterion"] == "targeted")].set_index("training")["auc"]
    for training, trained_on in (("classifier attacks only", "without-deep-features"), ("with deep features", "all")):
        key = f"cosine/targeted/{trained_on}/0"
        wanted = one_row(metrics, detector=key, attack="deep-features", criterion="targeted", variant="float")
        assert kept[training] == pytest.approx(wanted["auc"])


def test_detection_without_attacks_on_deep_features_is_empty(identified, blocks):
    table = compare_detection(
        identified["detection_metrics"], blocks["adversarial_generation"], blocks["detector_training"]
    )
    assert table.empty
    assert {"training", "auc", "auc_low", "tpr_at_fpr_05"} <= set(table.columns)


def test_detectors_that_never_saw_deep_features_are_all_shown(identified):
    attacks = identified["params:adversarial_generation"]
    unseen = attacks.model_copy(
        update={
            "attacks": {
                name: one.model_copy(update={"train": one.attack == "bim"}) for name, one in attacks.attacks.items()
            }
        }
    )
    training = DetectorTrainingParams.model_validate(
        identified["params:detector_training"].model_dump() | {"leave_one_out": []}
    )
    table = compare_detection(identified["detection_metrics"], unseen, training)
    assert set(table["training"]) == {"classifier attacks only"}
    assert table["configuration"].nunique() == 2


def test_metrics_for_tracking_are_finite_numbers(identified):
    figures = identified["face_metrics"]
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["impersonation/deep-features/fooled_at_eer"] == pytest.approx(
        one_row(identified["face_verification"], attack="deep-features", kind="impersonation", threshold_rule="eer")[
            "fooled"
        ]
    )
    assert "identification/medoid/bim/untargeted/named_target" not in figures


def test_a_second_run_makes_no_embedding_again(identified, tmp_path):
    store = identified["attack_embeddings"]
    plan = embed_attacked_faces(
        identified["adversarials"],
        identified["network_weights"],
        ABSENT,
        identified["params:face_recognition"],
        identified["params:runtime"],
    )
    assert plan.fingerprints == store.fingerprints()
    mirrored = embed_attacked_faces(
        identified["adversarials"],
        identified["network_weights"],
        ABSENT,
        FaceRecognitionParams(mirror=True),
        identified["params:runtime"],
    )
    assert not set(mirrored.fingerprints.values()) & set(store.fingerprints().values())


@pytest.mark.parametrize("mirror", [False, True])
def test_mirror_images_count_in_templates_only(identified, mirror):
    plan = embed_attacked_faces(
        identified["adversarials"],
        identified["network_weights"],
        ABSENT,
        FaceRecognitionParams(mirror=mirror),
        RuntimeParams(device="cpu", batch_size=3),
    )
    made = plan.work("natural/test-0000").tensors
    images = identified["adversarials"]["natural/test-0000"].tensors["images"]
    own = embed(identified, images)
    torch.testing.assert_close(made["embedding"], own)
    torch.testing.assert_close(made["template"], own + embed(identified, images, flip=True) if mirror else own)


def test_a_shard_without_images_keeps_its_width(identified, tmp_path):
    stored = identified["adversarials"]["bim/targeted/test-0000"]
    empty = ShardStore(str(tmp_path / "empty"))
    nothing = type(stored)({name: value[:0] for name, value in stored.tensors.items()}, stored.metadata)
    empty.write("bim/targeted/test-0000", nothing, "mark")
    plan = embed_attacked_faces(
        empty, identified["network_weights"], ABSENT, FaceRecognitionParams(), identified["params:runtime"]
    )
    assert plan.work("bim/targeted/test-0000").tensors["embedding"].shape == (0, 200)


def test_pairs_are_drawn_where_no_file_is_configured(identified):
    images = identified["verification_images"]
    params = FaceRecognitionParams(pairs=FacePairsParams(source="drawn", number=40, folds=2))
    table = choose_pairs(images, "not a pairs file", params, RuntimeParams(seed=3))
    assert table["same"].sum() == 20
    assert table["fold"].nunique() == 2
    assert table.equals(choose_pairs(images, "", params, RuntimeParams(seed=3)))
    labels = images.labels[torch.from_numpy(table[["first_index", "second_index"]].to_numpy().copy())]
    assert (labels[:, 0] == labels[:, 1]).tolist() == table["same"].tolist()


def test_one_fold_gives_no_fold_accuracy(identified):
    pairs = identified["verification_pair_table"].assign(fold=0)
    _, figures = verify_clean(identified["verification_embeddings"], pairs, FaceRecognitionParams())
    assert "verification/auc" in figures
    assert "verification/fold_accuracy" not in figures


def test_report_joins_the_sections_on_faces(identified):
    part, summary = identified["face_recognition_part"], identified["detector_summary"]
    first = ReportPart(
        Report("Title", "", [Section("Summary", [Text("here")]), Section("Limits", [])]), detectors_identity(summary)
    )
    page = render_report(
        summary, pd.DataFrame(), evaluation_part=first, adaptive_attack_part=None, face_recognition_part=part
    )
    assert page.index("Summary") < page.index("Face verification") < page.index("Limits")
    assert page.count("<img") == 3
    assert "FAR 0.001" in page
    assert "False-accept rates of 0.1 rest on fewer than 10 of 19 clean pairs" in page
    tables = [block for section in part.report.sections for block in section.blocks if isinstance(block, Table)]
    assert [len(table.frame) > 0 for table in tables] == [True] * 13
    drawn = [block.figure for section in part.report.sections for block in section.blocks if isinstance(block, Figure)]
    figures = ("face_verification", "representative_distances", "face_gate")
    assert drawn == [identified[f"{name}_figure"] for name in figures]


def test_every_node_is_named_after_its_function():
    for node in face_recognition.create_pipeline().nodes:
        assert node.name == node.func.__name__


@pytest.mark.slow
def first_pairs(text, count):
    """The first pairs of each kind in each fold of a protocol."""
    (folds, half), *lines = (line.split("\t") for line in text.splitlines())
    parts = [lines[start : start + count] for start in range(0, len(lines), int(half))]
    assert len(parts) == 2 * int(folds)
    return "\n".join("\t".join(line) for line in [[folds, str(count)], *(line for part in parts for line in part)])


def test_the_protocol_of_lfw_on_the_shared_data(shared_data, tmp_path):
    """A tenth of the pairs of each fold, by the real network: at least 98 % over the ten folds."""
    from adv_detect.datasets.image_folder import ImageFolderDataset
    from adv_detect.networks.target import build_target
    from adv_detect.params import NetworkParams, PreprocessingParams

    images = ImageFolderDataset(filepath=str(shared_data / "lfw-112x96.zip"), folder="lfw-112x96").load()
    preprocessing = PreprocessingParams(scale=255.0, mean=(127.5,) * 3, std=(128.0,) * 3)
    network = NetworkParams(
        name="mobilefacenet",
        checkpoint=str(shared_data / "mobilefacenet-casia.safetensors"),
        preprocessing=preprocessing,
    )
    target = build_target(network, class_names=images.class_names, image_shape=(3, 112, 96), strict_head=False)
    runtime = RuntimeParams(device="cpu", batch_size=32, shard_size=512, progress=False)
    params = FaceRecognitionParams(pairs=FacePairsParams(source="file"))

    text = first_pairs((shared_data / "lfw-pairs.txt").read_text(encoding="utf-8"), 30)
    pairs = choose_pairs(images, text, params, runtime)
    store = ShardStore(str(tmp_path / "embeddings"))
    execute_plan(embed_faces(images, target.freeze(), ABSENT, pairs, params, runtime), store)
    scores, figures = verify_clean(store, pairs, params)

    assert len(scores) == 600
    assert scores.groupby("same").size().tolist() == [300, 300]
    assert figures["verification/fold_accuracy"] >= 0.98
    assert figures["verification/eer"] < 0.02
