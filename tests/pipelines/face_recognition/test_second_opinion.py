"""Gates that ask a twin for the similarity, on tiny faces; the twin is a copy of the network with other weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from adv_detect.absent import ABSENT
from adv_detect.algorithms.attacks.deep_features import last_features
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import load_images
from adv_detect.params import (
    AdaptiveAttackParams,
    AdaptiveAttackSpec,
    FaceRecognitionParams,
    RuntimeParams,
    ServingParams,
    TwinTrainingParams,
)
from adv_detect.pipelines.adaptive_attack.attack_shards import AdaptiveBlock, AdaptiveWork
from adv_detect.pipelines.adaptive_attack.attacking import asked_twin
from adv_detect.pipelines.adaptive_attack.checks import check_twin
from adv_detect.pipelines.adaptive_attack.conditions import Condition, check_adaptive
from adv_detect.pipelines.adaptive_attack.nodes import gather_attack_setting
from adv_detect.pipelines.face_recognition.adaptive_faces import embed_adaptive_faces
from adv_detect.pipelines.face_recognition.checks import check_gate
from adv_detect.pipelines.face_recognition.clean_pairs import gather_clean_pairs, pair_validation_faces
from adv_detect.pipelines.face_recognition.embedders import plan_embedder
from adv_detect.pipelines.face_recognition.gate import measure_gate, pair_gate_faces
from adv_detect.pipelines.face_recognition.gate_model import assemble_verifier
from adv_detect.pipelines.face_recognition.nodes import (
    embed_attacked_faces,
    embed_faces,
    pair_attacked_faces,
    verify_clean,
)
from adv_detect.reporting import Report, render_report
from adv_detect.reporting.gate import gate_section
from adv_detect.serving.registration import model_signature
from adv_detect.serving.verification import VerificationBundle, verify_pairs
from adv_detect.serving.verification_description import gate_description
from adv_detect.sharding import ShardStore

RATES = (0.34, 0.5)
RUNTIME = RuntimeParams(seed=0)
KEY = "cosine/targeted/all/0"
GATE = {"forms": ["detector", "similarity", "both"], "served": "both", "fprs": RATES}
ATTACK = {"attack": "second_opinion", "classifier": "both_similarities"}


def fill(plan, folder):
    """Run a plan as the pipeline would."""
    store = ShardStore(str(folder))
    for one in plan.shards:
        store.write(one.key, plan.work(one.arguments), one.fingerprint)
    return store


@pytest.fixture(scope="module")
def twin(identified):
    """The network with noise on its weights."""
    found = copy.deepcopy(identified["network_weights"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in found.parameters():
            one.add_(0.3 * one.std(correction=0) * torch.randn(one.shape, generator=generator))
    return found


@pytest.fixture(scope="module")
def params(identified):
    given = identified["params:face_recognition"].model_dump() | {"gate": GATE}
    return FaceRecognitionParams.model_validate(given)


@pytest.fixture(scope="module")
def attacked(identified, twin, tmp_path_factory):
    """Images of attacks on the forms similarity and both, on a detector that passes everything."""
    names = ("test_images", "network_weights", "representatives", "activations")
    setting = gather_attack_setting(*(identified[name] for name in names), twin, ABSENT, RUNTIME)
    store = ShardStore(str(tmp_path_factory.mktemp("attacked")))
    work = AdaptiveWork(setting, identified["detectors"])
    splits = identified["source_splits"]
    indices = tuple(int(one) for one in splits.loc[splits["split"] == "test", "source_index"])[:6]
    for form in ("similarity", "both"):
        spec = AdaptiveAttackSpec.model_validate(ATTACK | {"arguments": {"steps": 8, "gate": form}})
        condition = Condition(f"gate-{form}", spec, "linf", 0.3, "targeted")
        store.write(form, work(AdaptiveBlock(KEY, condition, indices)), form)
    return store


@pytest.fixture(scope="module")
def measured(identified, twin, params, attacked, tmp_path_factory):
    """What face_recognition makes with the twin, by name."""
    folder, network = tmp_path_factory.mktemp("asked"), identified["network_weights"]
    embedded = fill(embed_attacked_faces(identified["adversarials"], network, twin, params, RUNTIME), folder / "a")
    table = identified["verification_pair_table"]
    clean_store = fill(
        embed_faces(identified["verification_images"], network, twin, table, params, RUNTIME), folder / "b"
    )
    clean, _ = verify_clean(clean_store, table, params)
    detectors, summary = identified["detectors"], identified["detector_summary"]
    adaptive = fill(embed_adaptive_faces(attacked, detectors, summary, network, twin, params, RUNTIME), folder / "c")
    pairs = pair_attacked_faces(embedded, RUNTIME)
    gate_pairs = pair_gate_faces(pairs, adaptive, embedded, identified["representatives"], RUNTIME)
    validation = pair_validation_faces(embedded, RUNTIME)
    scores = (identified["pair_image_scores"], identified["gate_scores"])
    gate, _ = measure_gate(gate_pairs, validation, clean, *scores, detectors, summary, params)
    return {"pairs": gate_pairs, "validation": validation, "clean": clean, "gate": gate}


def test_pairs_are_compared_in_the_twin(identified, twin, measured):
    clean = measured["clean"].head(4)
    features = last_features(twin, twin.spec.layers)
    images = identified["verification_images"]
    with torch.no_grad():
        sides = [
            features(load_images(images, clean[name].tolist(), (0.0, 1.0))) for name in ("first_index", "second_index")
        ]
    np.testing.assert_allclose(clean["twin_score"], functional.cosine_similarity(*sides, dim=1), rtol=1e-4)
    np.testing.assert_allclose(measured["clean"]["score"], identified["verification_scores"]["score"], rtol=1e-5)


def test_thresholds_rest_on_validation_images_with_pictures_that_are_not_for_testing(identified, measured):
    validation, splits = measured["validation"], identified["source_splits"].set_index("source_id")["split"]
    assert set(splits[validation["source_id"]]) == {"validation"}
    assert set(splits[validation["reference_id"]]) <= {"train", "validation"}
    assert set(validation["kind"]) == {"dodging"}
    rows = measured["gate"][measured["gate"]["gate"] == "similarity"]
    lowest = np.sort(validation["twin_score"])
    for rate in RATES:
        found = rows[(rows["fpr"] == rate) & (rows["calibrated_on"] == "validation")]
        assert set(found["twin_threshold"]) == {lowest[int(rate * len(lowest))]}
        assert set(found["n_twin_pairs"]) == {len(lowest)}


def test_each_form_is_a_gate_of_the_table(measured):
    table = measured["gate"]
    assert set(table["gate"]) == {"detector", "similarity", "both"}
    similar = table[table["gate"] == "similarity"]
    assert set(similar["detector"]) == {""}
    assert similar["threshold"].isna().all()
    assert table.loc[table["gate"] == "detector", "twin_threshold"].isna().all()
    assert "cosine targeted and similarity" in set(table["configuration"])


def test_an_attack_gets_through_where_network_and_twin_find_the_same_person(measured):
    table, pairs = measured["gate"], measured["pairs"]
    rows = table[
        (table["gate"] == "similarity") & (table["fpr"] == RATES[0]) & (table["calibrated_on"] == "validation")
    ]
    for attack in ("bim", "gate-similarity", "gate-both"):
        own = pairs[(pairs["attack"] == attack) & (pairs["kind"] == "impersonation")]
        (row,) = rows[(rows["attack"] == attack) & (rows["kind"] == "impersonation")].to_dict("records")
        network = own["attacked_score"] >= row["similarity_threshold"]
        assert row["before"] == pytest.approx(network.mean())
        assert row["after"] == pytest.approx((network & (own["twin_score"] >= row["twin_threshold"])).mean())
        assert row["knows"] == attack.removeprefix("gate-").replace("bim", "nothing")


def test_both_turns_away_what_either_does(measured):
    keys = ["attack", "kind", "knows", "people", "fpr", "calibrated_on"]
    table = measured["gate"]
    detector = table[table["detector"] == KEY]
    both = detector[detector["gate"] == "both"].set_index(keys)["after"]
    alone = [detector[detector["gate"] == "detector"], table[table["gate"] == "similarity"]]
    for one in alone:
        other = one.set_index(keys)["after"]
        shared = both.index.intersection(other.index)
        kinds = shared.get_level_values("kind")
        assert len(shared) > 8
        accepted = kinds.isin(["impersonation", "false_accept"])
        assert (both[shared][accepted] <= other[shared][accepted]).all()
        assert (both[shared][kinds == "false_reject"] >= other[shared][kinds == "false_reject"]).all()


def test_the_attack_moves_both_embeddings_to_the_person_aimed_at(measured):
    pairs = measured["pairs"]
    own = pairs[pairs["attack"] == "gate-similarity"]
    plain = pairs[(pairs["attack"] == "natural") & (pairs["kind"] == "false_accept")]
    assert own["attacked_score"].median() > plain["attacked_score"].median()
    assert own["twin_score"].median() > plain["twin_score"].median()


def test_evasion_of_a_gate_without_detector_does_not_ask_it(attacked):
    similar, both = attacked["similarity"], attacked["both"]
    assert torch.equal(similar.tensors["evaded_fpr_01"], similar.tensors["fooled"])
    passed = both.tensors["detector_score"] <= both.metadata["threshold_fpr_05"]
    assert torch.equal(both.tensors["evaded_fpr_05"], both.tensors["fooled"] & passed)
    assert (similar.metadata["knows"], both.metadata["knows"]) == ("similarity", "both")


def test_attacks_on_a_twin_of_before_are_left_out(identified, params, attacked, caplog):
    given = [identified[name] for name in ("detectors", "detector_summary", "network_weights")]
    assert embed_adaptive_faces(attacked, *given, identified["network_weights"], params, RUNTIME) is ABSENT
    assert "these detectors, or the twin, were trained anew since" in caplog.text


def test_the_report_shows_each_form(identified, measured):
    section = gate_section(measured["gate"], identified["face_gate_identification"], b"")
    text = render_report(Report("Faces", "", [section]))
    assert "cosine targeted and similarity" in text
    assert "gate-both, linf 0.3" in text


@pytest.fixture(scope="module")
def bundle(identified, twin, params, measured):
    serving = ServingParams(name="faces", fpr=RATES[0])
    known = gather_clean_pairs(measured["clean"], measured["validation"], params, serving)
    names = ("detectors", "detector_summary", "network_weights", "representatives")
    return assemble_verifier(known, *(identified[name] for name in names), twin, params, serving)


def test_the_registered_gate_asks_the_twin(identified, measured, bundle, tmp_path):
    clean = measured["clean"].head(6)
    images = identified["verification_images"]
    sides = [load_images(images, clean[name].tolist(), (0.0, 1.0)) for name in ("first_index", "second_index")]
    pairs = torch.stack(sides, dim=1).numpy()
    bundle.save(tmp_path)
    bundle = VerificationBundle.load(tmp_path)
    found = verify_pairs(bundle, pairs, {})
    np.testing.assert_allclose(found["twin_similarity"], clean["twin_score"], rtol=1e-4)
    (threshold,) = set(found["twin_threshold"])
    rows = measured["gate"]
    rows = rows[(rows["gate"] == "similarity") & (rows["fpr"] == RATES[0]) & (rows["calibrated_on"] == "validation")]
    assert threshold == rows["twin_threshold"].iloc[0]
    assert set(found["n_same_pairs"]) == {len(measured["validation"])}
    both = found["same_person"] & found["twin_same_person"]
    flagged = found["first_is_adversarial"] | found["second_is_adversarial"]
    assert (found["accepted"] == (both & ~flagged)).all()
    assert model_signature(bundle).outputs.input_names() == [*found.columns, "model_version"]
    assert "network and twin find the same person, and neither picture is flagged" in gate_description(bundle)
    with pytest.raises(
        ConfigurationError, match=r"fpr: the twin's threshold rests on \d+ clean pairs, expected a rate"
    ):
        verify_pairs(bundle, pairs, {"fpr": 0.001})


def test_a_default_rate_that_the_pairs_cannot_carry_is_not_registered(measured, params):
    with pytest.raises(DataError, match=r"expected at least 1000 clean pairs of the same person for a rate of 0.001"):
        gather_clean_pairs(measured["clean"], measured["validation"], params, ServingParams(fpr=0.001))


def test_no_gate_at_all_is_refused(identified, measured, params):
    gate = params.gate.model_copy(update={"forms": ("similarity",), "fprs": (0.001,)})
    strict = params.model_copy(update={"gate": gate})
    names = ("pair_image_scores", "gate_scores", "detectors", "detector_summary")
    given = [measured[name] for name in ("pairs", "validation", "clean")]
    with pytest.raises(DataError, match=r"forms \['similarity'\]: there are too few clean pairs .* rates \[0.001\]"):
        measure_gate(*given, *(identified[name] for name in names), strict)


def test_a_gate_without_its_twin_is_refused(identified, params):
    message = r"face_recognition.gate: forms .* ask the twin for the similarity, and there is none; set twin_training"
    with pytest.raises(ConfigurationError, match=message):
        check_gate(params, None, TwinTrainingParams(network=None))
    with pytest.raises(ConfigurationError, match=message):
        plan_embedder(identified["network_weights"], ABSENT, params, RUNTIME)
    assert plan_embedder(identified["network_weights"], ABSENT, FaceRecognitionParams(), RUNTIME).twin is None


def adaptive(**attack):
    spec = {
        "detectors": ["cosine"],
        "trained_criteria": ["targeted"],
        "budgets": {"linf": [0.1]},
        "attacks": {"gate": ATTACK | attack},
    }
    return AdaptiveAttackParams.model_validate(spec | {"hardening": {"rounds": 0}})


def test_an_attack_on_a_gate_without_its_twin_is_refused(identified):
    message = "adaptive_attack.attacks.gate: it follows the similarity in the twin, and there is none"
    with pytest.raises(ConfigurationError, match=message):
        check_twin(adaptive(), TwinTrainingParams(network=None))
    with pytest.raises(ConfigurationError, match=message):
        asked_twin(None, "gate")
    training = identified["params:detector_training"]
    check_adaptive(adaptive(), training, (0.0, 1.0))
    with pytest.raises(
        ConfigurationError, match=r"gate.classifier: expected both_similarities for second_opinion, got n"
    ):
        check_adaptive(adaptive(classifier="network"), training, (0.0, 1.0))
    with pytest.raises(ConfigurationError, match="classifier: expected network or nearest_medoid for selective, got b"):
        check_adaptive(adaptive(attack="selective"), training, (0.0, 1.0))
