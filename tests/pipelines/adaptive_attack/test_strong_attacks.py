"""The attack towards every class and the one by queries, on the finished tiny run."""

from __future__ import annotations

import pytest
import torch

from adv_detect.jobs.detectors import restore
from adv_detect.pipelines.adaptive_attack.attacking import attack_images
from adv_detect.pipelines.adaptive_attack.checking import attacks_that_follow, check_attacks
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import choose_sources, conditions
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors, collect_adaptive_records
from adv_detect.sharding import ShardStore

KEY = "cosine/both/all/0"
STRONG = {
    "multi": {"attack": "multi_target", "budgets": {"linf": [0.3]}, "arguments": {"steps": 5, "restarts": 2}},
    "queries": {
        "attack": "hop_skip_jump",
        "arguments": {"steps": 2, "initial_gradient_eval_steps": 10},
        "max_images": 3,
    },
    "noise": {"attack": "random_noise", "budgets": {"linf": [0.3]}, "arguments": {"samples": 3}},
}


@pytest.fixture(scope="module")
def params(adaptive):
    return adaptive(attacks=STRONG, max_images=6, hardening={"rounds": 0})


@pytest.fixture(scope="module")
def stored(finished, detectors):
    return restore(detectors, KEY, finished["representatives"])


def test_queries_start_at_clean_images_of_other_classes_that_pass(setting, stored, params) -> None:
    condition = next(conditions(params, ("queries",)))
    scored = score_naturals(setting.activations, "test", stored, setting.representatives)
    chosen = choose_sources(scored, condition.spec, stored, seed=0, count=2)
    attacked = attack_images(setting, stored, condition, chosen)
    starts = attacked.task.guide.values
    assert starts.shape[2:] == attacked.task.images.shape[1:]
    for image, label, mine in zip(attacked.task.images, attacked.task.labels, starts, strict=True):
        logits, scores = attacked.model(mine)
        assert (logits.argmax(dim=1) != label).all()
        assert (scores <= stored.threshold(0.05)).all()
        away = (mine - image).flatten(1).norm(dim=1)
        assert torch.equal(away, away.sort().values)
    assert attacked.result.evaded.all()
    nearest = (starts - attacked.task.images[:, None]).flatten(2).abs().amax(dim=2).amin(dim=1)
    assert (attacked.result.linf <= nearest + 1e-6).all()
    assert (attacked.result.linf < nearest).any()


def test_records_tell_what_was_counted_and_checks_know_what_an_attack_follows(
    setting, detectors, blocks, params, carry_out, tmp_path
) -> None:
    plan = attack_detectors(setting, detectors, blocks["detector_training"], params)
    records = collect_adaptive_records(carry_out(plan, tmp_path / "made"), ShardStore(str(tmp_path / "none")))

    totals = records.groupby("attack")["total_steps"].first()
    assert totals["multi"] == 10
    assert totals["noise"] == 3
    assert records.loc[records["attack"] == "queries", "total_steps"].isna().all()
    counted = records[records["attack"] != "queries"]
    assert ((counted["first_success"] >= 0) == counted["evaded_fpr_05"]).all()
    assert (records.loc[records["attack"] == "queries", "gradient_evaluations"] == 0).all()

    assert attacks_that_follow("queries", params) == ["queries"]
    names = {one.name for one in check_attacks(records, params, {}, bounds=(0.0, 1.0))}
    assert {"white-box beats queries", "white-box beats random noise"} <= names
    assert "white-box beats transfer" not in names
