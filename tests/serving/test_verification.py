"""A gate for pairs of pictures, on a network and a detector with random weights."""

from __future__ import annotations

import json
from concurrent.futures import CancelledError
from dataclasses import replace

import mlflow
import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from mlflow.exceptions import MlflowException
from tests.served import draw_images
from tests.serving.servers import JSON, in_thread, post

from adv_detect.algorithms.features import extract_features
from adv_detect.datasets.champion import ChampionModelDataset
from adv_detect.errors import ConfigurationError, DamagedFileError, DataError
from adv_detect.measures.faces.verification import verify
from adv_detect.serving.bundle import score_images
from adv_detect.serving.registration import example_images, model_signature
from adv_detect.serving.server import scoring_app
from adv_detect.serving.verification import VerificationBundle, verify_pairs

SAME = torch.tensor([0.2, 0.6, 0.7, 0.8, 0.9], dtype=torch.float64)
DIFFERENT = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.65, 0.65, 0.7, 0.75], dtype=torch.float64)


@pytest.fixture(scope="module")
def gate(bundle):
    facts = dict(bundle.metadata) | {"name": "adv-detect-verification", "far": 0.25, "mirror": False}
    return VerificationBundle(replace(bundle, metadata=facts), SAME, DIFFERENT)


@pytest.fixture(scope="module")
def pairs():
    return draw_images(8, 3).reshape(4, 2, 1, 28, 28).numpy()


@pytest.mark.parametrize("far", [0.125, 0.2, 0.25, 0.375, 0.5, 0.9])
def test_the_similarity_threshold_is_that_of_the_measurements(gate, far):
    scores = torch.cat([SAME, DIFFERENT]).numpy()
    same = np.repeat([True, False], [len(SAME), len(DIFFERENT)])
    assert gate.similarity_threshold(far) == verify(scores, same, fars=(far,)).accept_rates[0].threshold


def test_the_similarity_threshold_by_hand(gate):
    # of eight two may be accepted at a quarter: those at .7 and .75
    assert gate.similarity_threshold(0.25) == gate.similarity_threshold() == 0.7
    assert gate.similarity_threshold(0.1) == 0.8
    assert replace(gate, same=SAME[:1]).similarity_threshold(0.1) == float("inf")  # every one accepts 1 of 8


@pytest.mark.parametrize("mirror", [False, True])
def test_a_pair_is_compared_by_its_embeddings_and_each_picture_scored(gate, pairs, mirror):
    gate = replace(gate, gate=replace(gate.gate, metadata=dict(gate.metadata) | {"mirror": mirror}))
    found = verify_pairs(gate, pairs, {})
    network, images = gate.gate.network, torch.from_numpy(pairs).flatten(0, 1)
    last = network.spec.layers[-1:]
    with torch.no_grad():
        embedded = extract_features(network, images, last)[1][0]
        embedded = embedded + extract_features(network, images.flip(-1), last)[1][0] if mirror else embedded
    unit = (embedded / embedded.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(found["similarity"], (unit[0::2] * unit[1::2]).sum(axis=1), rtol=1e-5)
    single = score_images(gate.gate, images.numpy())
    for offset, side in enumerate(("first", "second")):
        np.testing.assert_allclose(found[f"{side}_score"], single["adversarial_score"][offset::2], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[f"{side}_p_value"], single["p_value"][offset::2])
    assert found["threshold"].unique() == single["threshold"][0]
    assert set(found["n_pairs"]) == {8}


@pytest.mark.parametrize(
    ("similarity", "fpr", "accepted"), [(-2.0, 0.001, True), (2.0, 0.001, False), (-2.0, 0.999, False)]
)
def test_accepted_is_the_same_person_and_no_picture_flagged(gate, pairs, similarity, fpr, accepted):
    edge = replace(gate, same=torch.tensor([similarity], dtype=torch.float64), different=torch.tensor([-3.0]).double())
    loose = replace(edge, gate=replace(edge.gate, stored=with_clean_scores(edge, largest=fpr < 0.5)))
    found = verify_pairs(loose, pairs, {"fpr": fpr})
    assert set(found["accepted"]) == {accepted}
    assert set(found["same_person"]) == {similarity < 0}
    assert set(found["first_is_adversarial"]) == {fpr > 0.5}


def with_clean_scores(bundle, *, largest):
    """The detector with clean scores that lie beyond all scores, so that a verdict is the same for all pictures."""
    value = 1e6 if largest else -1e6
    return replace(bundle.gate.stored, clean_scores=torch.full((200,), value))


@pytest.mark.parametrize("part", ["pairs", "network", "detector"])
def test_a_damaged_part_says_how_to_make_the_gate_again(gate, tmp_path, part):
    gate.save(tmp_path)
    file = tmp_path / f"{part}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    remedy = "make and register it again with: kedro run --pipeline=face_recognition$"
    with pytest.raises(DamagedFileError, match=rf"{part}.safetensors is damaged \(.*\); {remedy}"):
        VerificationBundle.load(tmp_path)
    dataset = ChampionModelDataset(filepath=str(tmp_path), bundle="verification", made_by="calibration")
    with pytest.raises(DatasetError, match=rf"{remedy.replace('face_recognition', 'calibration')}"):
        dataset.load()


def test_one_flagged_picture_is_enough(gate, pairs):
    single = score_images(gate.gate, pairs[:1].reshape(2, 1, 28, 28))["adversarial_score"]
    between = torch.tensor([float(single.mean())] * 200)
    apart = replace(gate.gate, stored=replace(gate.gate.stored, clean_scores=between))
    edge = replace(gate, gate=apart, same=torch.tensor([-2.0]).double(), different=torch.tensor([-3.0]).double())
    found = verify_pairs(edge, pairs[:1], {})
    assert found["first_is_adversarial"][0] != found["second_is_adversarial"][0]
    assert (found["same_person"][0], found["accepted"][0]) == (True, False)


def test_it_is_stored_and_read_back(gate, pairs, tmp_path):
    dataset = ChampionModelDataset(filepath=str(tmp_path / "gate"), bundle="verification", made_by="face_recognition")
    dataset.save(gate)
    assert verify_pairs(dataset.load(), pairs, {}).equals(verify_pairs(gate, pairs, {}))
    assert json.loads(dataset.preview())["input_shape"] == "(N, 2, 1, 28, 28) float32"
    (tmp_path / "gate" / "pairs.json").unlink()
    with pytest.raises(
        Exception, match=r"missing: \['pairs.json'\]; run `kedro run --pipeline=face_recognition` first"
    ):
        dataset.load()


def test_another_kind_of_bundle_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"bundle: expected one of \[scoring, verification\], got 'pairs'"):
        ChampionModelDataset(filepath=str(tmp_path), bundle="pairs")


@pytest.mark.parametrize(
    ("images", "rates", "message"),
    [
        (np.zeros((2, 1, 28, 28)), {}, r"expected pairs of shape \(N, 2, 1, 28, 28\), got \(2, 1, 28, 28\)"),
        (np.zeros((1, 3, 1, 28, 28)), {}, r"got \(1, 3, 1, 28, 28\)"),
        (np.full((1, 2, 1, 28, 28), 7.0), {}, r"expected pixels in \[0, 1\]"),
        (np.zeros((1, 2, 1, 28, 28)), {"far": 1.5}, "far: expected a rate above 0 and below 1, such as 0.001, got 1.5"),
        (np.zeros((1, 2, 1, 28, 28)), {"fpr": 0.0}, "fpr: expected a rate above 0"),
    ],
)
def test_what_cannot_be_verified_is_refused(gate, images, rates, message):
    with pytest.raises((DataError, ConfigurationError), match=message):
        verify_pairs(gate, images, rates)


def test_nothing_is_computed_for_nobody(gate, pairs):
    with pytest.raises(CancelledError):
        verify_pairs(gate, pairs, {}, unwanted=lambda: True)


def test_over_http_pairs_and_both_rates_are_taken(gate, pairs):
    with in_thread(scoring_app(gate, gate.model().eval(), other=lambda *_: None)) as address:
        body = {"inputs": pairs.tolist(), "params": {"far": 0.5, "fpr": 0.01}}
        status, answer = post(address, json.dumps(body).encode(), JSON)[:2]
        refused = post(address, json.dumps({"inputs": pairs[:, 0].tolist()}).encode(), JSON)[:2]
        unknown = post(address, json.dumps(body | {"params": {"frr": 0.5}}).encode(), JSON)[:2]
    assert status == 200
    expected = verify_pairs(gate, pairs, {"far": 0.5, "fpr": 0.01})
    assert [row["accepted"] for row in answer["predictions"]] == list(expected["accepted"])
    # at one half .6 accepts four of eight pairs of different people
    assert [row["similarity_threshold"] for row in answer["predictions"]] == [0.6] * 4
    assert (refused[0], unknown[0]) == (400, 400)
    assert "images of shape (N, 2, 1, 28, 28)" in refused[1]["message"]
    assert 'params: expected {"far": rate, "fpr": rate}, got \'frr\'' in unknown[1]["message"]


def test_the_signature_takes_the_example_and_gives_the_columns(gate):
    signature, example = model_signature(gate), example_images(gate)
    assert signature.inputs.inputs[0].shape == (-1, 2, 1, 28, 28)
    assert signature.outputs.input_names() == [*verify_pairs(gate, example, {}).columns, "model_version"]
    assert {one.name: one.default for one in signature.params.params} == {"far": 0.25, "fpr": 0.05}


def test_the_registered_gate_reads_back(gate, pairs, tracking, tmp_path):
    with mlflow.start_run(experiment_id="1"):
        ChampionModelDataset(filepath=str(tmp_path / "gate"), bundle="verification").save(gate)
    client = mlflow.MlflowClient(tracking)
    made = client.get_model_version_by_alias("adv-detect-verification", "champion")
    assert made.tags["far_default"] == "0.25"
    assert "8 clean pairs of different people and 5 of the same" in made.description
    assert "(N, 2, 1, 28, 28)" in client.get_registered_model("adv-detect-verification").description
    model = mlflow.pyfunc.load_model("models:/adv-detect-verification@champion")
    found = model.predict(pairs.astype(np.float32), params={"far": 0.5})
    assert list(found["accepted"]) == list(verify_pairs(gate, pairs, {"far": 0.5})["accepted"])
    with pytest.raises(MlflowException, match="far: expected a rate"):
        model.predict(pairs.astype(np.float32), params={"far": 1.5})
