"""The blocks of adaptive_attack and face_recognition are checked before any work."""

from __future__ import annotations

import logging

import pytest
import torch
from tests.configurations import Project, merged

from adv_detect.errors import AdvDetectError, DataError
from adv_detect.params import AdaptiveAttackParams, DetectorTrainingParams
from adv_detect.pipelines.adaptive_attack.checks import check_trained


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tiny"))
        yield Project()


def adaptive(**changes):
    return {"adaptive_attack": changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (adaptive(detectors=["no"], hardening={"rounds": 0}), "adaptive_attack.detectors: expected configurations of"),
        (adaptive(hardening={"attacks": ["no"]}), "hardening.attacks: expected names of ["),
        (adaptive(hardening={"attacks": []}), "hardening.attacks: expected some of ["),
        (adaptive(hardening={"detectors": ["no"]}), "hardening.detectors: expected some of detectors"),
        (adaptive(substitute={"attacks": ["bim", "no"]}), "substitute.attacks: expected early attacks of adversarial_"),
        (adaptive(substitute={"attacks": ["bim-confident"]}), "some of ['bim', 'cw'], got ['bim-confident']"),
        (adaptive(substitute={"max_images": 5}), "substitute.max_images: expected at least 10 images, got 5"),
        (
            adaptive(substitute={"network": {"name": "no"}}),
            "adaptive_attack.substitute.network.name: expected one of [",
        ),
        (
            adaptive(trained_criteria=["targeted"])
            | {"adversarial_generation": {"attacks": {"bim": {"criteria": ["untargeted"]}}}},
            "substitute.attacks: trained_criteria 'targeted' needs one with the criterion 'targeted', got ['bim']",
        ),
        (
            adaptive(attacks={"selective": {"attack": "no"}}),
            "adaptive_attack.attacks.selective.attack: adaptive attack: expected",
        ),
        (
            adaptive(attacks={"selective": {"arguments": {"steps": "x"}}}),
            "adaptive_attack.attacks.selective: arguments",
        ),
        (
            {"detector_training": {"configurations": {"cosine": {"kind": "no"}}}},
            "detector_training.configurations.cosine.kind: detector kind: expected one of [",
        ),
        (
            adaptive(trained_criteria=["both"]) | {"detector_training": {"criteria": ["targeted"]}},
            "adaptive_attack.trained_criteria: expected some of detector_training.criteria ['targeted'], got ['both']",
        ),
        (
            {"face_recognition": {"pairs": {"folds": 3}}},
            "face_recognition.pairs (number: 20, folds: 3): expected at least",
        ),
        ({"face_recognition": {"pairs": {"number": 10**6}}}, "different pairs of same person in a fold"),
        (
            {"face_recognition": {"pairs": {"source": "file"}}},
            "face_recognition.pairs (file): dataset verification_pairs",
        ),
        ({"runtime": {"device": "mps"}}, "runtime.device: expected auto, cpu, cuda or cuda:<index>, got 'mps'"),
        ({"runtime": {"device": "meta"}}, "got 'meta'"),
        ({"splits": {"max_images": 3}}, "splits.max_images: expected at least 56"),
        (
            {"adversarial_generation": {"attacks": {"bim": {"epsilon": None}}}},
            "adversarial_generation.attacks.bim.epsilon: bim needs the size",
        ),
    ],
)
def test_what_cannot_work_is_refused(tiny, changes, message):
    with pytest.raises(AdvDetectError) as caught:
        tiny.check(merged(tiny.parameters, changes))

    assert message in str(caught.value)


def test_a_gpu_beyond_the_last_one_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    with pytest.raises(AdvDetectError, match="expected cuda:0 to cuda:1 on this machine, got 'cuda:9'"):
        tiny.check(merged(tiny.parameters, {"runtime": {"device": "cuda:9"}}))


def test_a_detector_that_was_not_trained_is_refused(tiny):
    training = DetectorTrainingParams.model_validate(tiny.parameters["detector_training"] | {"seeds": [4]})
    params = AdaptiveAttackParams.model_validate(tiny.parameters["adaptive_attack"])

    check_trained(params, training, {"lstm-medoid-cosine/both/all/4"})
    with pytest.raises(DataError, match=r"expected trained detectors on disk, got none for .*/both/all/4"):
        check_trained(params, training, {"lstm-medoid-cosine/both/all/0"})


def test_what_is_left_out_in_silence_is_said(tiny, caplog):
    changes = {
        "adversarial_generation": {"attacks": {"cw": None}},
        "adaptive_attack": {"attacks": {"selective": {"detectors": ["mlp-centroid-mahalanobis-ranked"]}}},
    }

    with caplog.at_level(logging.WARNING):
        tiny.check(merged(tiny.parameters, changes))

    messages = [record.getMessage() for record in caplog.records]
    assert any("leave_one_out: lstm-medoid-cosine: expected at least two attacks" in one for one in messages)
    idle = [one for one in messages if "meant for detectors that are not among" in one]
    assert len(idle) == 1
    assert "selective" in idle[0].removeprefix("adaptive_attack.attacks: ").partition(": ")[0].split(", ")
