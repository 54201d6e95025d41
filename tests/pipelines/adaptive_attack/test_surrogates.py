"""Attacks on detectors without a gradient, made on a detector that has one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adv_detect.algorithms.detectors import score_activations
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.jobs.detectors import restore
from adv_detect.params import DetectorParams
from adv_detect.pipelines.adaptive_attack.conditions import check_adaptive
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors
from adv_detect.sharding import ShardStore

RANKED, COSINE = "ranked/both/all/0", "cosine/both/all/0"
TRANSFER = {"attack": "selective", "role": "transfer", "surrogate": "cosine",
            "arguments": {"steps": 6, "return_early": False}}  # fmt: skip


def settings(adaptive, **spec):
    return adaptive(
        detectors=["ranked"], attacks={"stand-in": TRANSFER | spec}, budgets={"linf": [0.3]}, max_images=4,
        hardening={"rounds": 0},
    )  # fmt: skip


def plan(setting, finished, blocks, params):
    return attack_detectors(setting, finished["detectors"], blocks["detector_training"], params)


@pytest.fixture(scope="module")
def alone(setting):
    """The setting of an attacker who has no network of his own."""
    return replace(setting, substitute=None)


def test_images_are_made_on_the_one_and_judged_by_the_other(alone, finished, blocks, adaptive, carry_out, tmp_path):
    (content,) = carry_out(plan(alone, finished, blocks, settings(adaptive)), tmp_path / "stand-in").values()
    white_box = settings(adaptive, role="white_box", surrogate=None)
    (own,) = carry_out(plan(alone, finished, blocks, white_box), tmp_path / "own").values()

    network, images = alone.network, content.tensors["images"]
    with torch.no_grad():
        seen = network_activations(network, images, network.spec.layers)
    stored = restore(finished["detectors"], RANKED, finished["representatives"])
    torch.testing.assert_close(
        content.tensors["detector_score"], score_activations(stored.detector, seen), rtol=1e-3, atol=1e-3
    )
    assert content.metadata["detector"] == RANKED
    assert content.metadata["role"] == "transfer"
    assert not torch.equal(images, own.tensors["images"])
    assert float(content.tensors["zero_gradient_share"].max()) == 0
    assert float(content.tensors["linf"].max()) <= 0.3 + 1e-6


def test_another_surrogate_makes_the_attack_anew_and_its_absence_changes_no_other(
    alone, finished, blocks, adaptive, tmp_path
):
    params = settings(adaptive)
    before = plan(alone, finished, blocks, params).fingerprints
    other = ShardStore(str(tmp_path))
    for key in (RANKED, COSINE):
        mark = finished["detectors"].fingerprint(key)
        other.write(key, finished["detectors"][key], "another" if key == COSINE else str(mark))

    after = attack_detectors(alone, other, blocks["detector_training"], params).fingerprints
    plain = settings(adaptive, role="white_box", surrogate=None)

    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    kept = plan(alone, finished, blocks, plain).fingerprints
    assert attack_detectors(alone, other, blocks["detector_training"], plain).fingerprints == kept


@pytest.mark.parametrize("name", ["cosines", "trees"])
def test_what_is_not_there_or_has_no_gradient_cannot_stand_in(name, blocks, adaptive):
    given = blocks["detector_training"].configurations | {"trees": DetectorParams(kind="dknn")}
    training = blocks["detector_training"].model_copy(update={"configurations": given})

    with pytest.raises(ConfigurationError, match=rf"one of \['cosine', 'ranked'\], got {name!r}"):
        check_adaptive(settings(adaptive, surrogate=name), training, (0.0, 1.0))


def test_a_surrogate_without_a_role_and_in_hardening_is_refused(adaptive):
    with pytest.raises(ValueError, match="surrogate: only with role: transfer, got 'cosine' with role: white_box"):
        settings(adaptive, role="white_box")
    with pytest.raises(ValueError, match=r"hardening.test_attacks: expected attacks on the detector .* got \['mine'\]"):
        adaptive(
            attacks={"mine": TRANSFER, "selective": {"attack": "selective"}},
            hardening={"detectors": ["cosine"], "attacks": ["selective"], "test_attacks": ["mine"]},
        )


def test_one_that_was_never_trained_is_named(alone, finished, blocks, adaptive, tmp_path):
    only = ShardStore(str(tmp_path))
    only.write(RANKED, finished["detectors"][RANKED], "ranked")

    with pytest.raises(DataError, match="no trained detector of the configuration 'cosine', which is to stand in for"):
        attack_detectors(alone, only, blocks["detector_training"], settings(adaptive))
