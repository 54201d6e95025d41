from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore
from adv_detect.jobs.joint_models import join
from adv_detect.measures.adaptive_records import check_records
from adv_detect.pipelines.adaptive_attack.attacking import attack_images
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import check_adaptive, choose_sources, conditions
from adv_detect.pipelines.adaptive_attack.models import FeatureModel
from adv_detect.pipelines.adaptive_attack.nodes import (
    attack_detectors,
    attack_hardened,
    collect_adaptive_records,
    harden_detectors,
)

KEY = "cosine/both/all/0"


@pytest.fixture(scope="module")
def stored(finished, detectors) -> StoredDetector:
    return restore(detectors, KEY, finished["representatives"])


@pytest.fixture(scope="module")
def attacked(setting, detectors, blocks, adaptive, carry_out, tmp_path_factory):
    plan = attack_detectors(setting, detectors, blocks["detector_training"], adaptive())
    return carry_out(plan, tmp_path_factory.mktemp("attacked"))


@pytest.fixture(scope="module")
def hardened(setting, detectors, blocks, adaptive, carry_out, tmp_path_factory):
    plan = harden_detectors(setting, detectors, blocks["detector_training"], adaptive())
    return carry_out(plan, tmp_path_factory.mktemp("hardened"))


@pytest.fixture(scope="module")
def records(setting, attacked, hardened, adaptive, carry_out, tmp_path_factory):
    plan = attack_hardened(setting, hardened, adaptive())
    return collect_adaptive_records(attacked, carry_out(plan, tmp_path_factory.mktemp("again")))


def test_shards_are_named_by_detector_attack_budget_and_criterion(attacked) -> None:
    assert "cosine.both.all.0/selective/linf-0.1/untargeted/0000" in attacked
    assert "cosine.both.all.0/cw/l2-free/untargeted/0000" in attacked


def test_records_keep_epsilon_and_agree_with_the_images(records, attacked, setting, finished) -> None:
    check_records(records[records["form"] == "correct"])
    for norm in ("linf", "l2"):
        budgeted = records[(records["norm"] == norm) & records["epsilon"].notna()]
        assert len(budgeted)
        assert (budgeted[norm] <= budgeted["epsilon"] * (1 + 1e-5)).all()
    assert records["fooled"].any()
    for row in records[records["store"] == "adaptive"].sample(12, random_state=0).to_dict("records"):
        image = attacked[row["shard"]].tensors["images"][row["row"]][None]
        clean = setting.images[row["source_index"]][0][None].float() / 255
        assert float((image - clean).abs().max()) == pytest.approx(row["linf"], abs=1e-6)
        predicted = int(finished["network_weights"](image).argmax())
        assert predicted == row["predicted"]
        assert row["fooled"] == (predicted == row["target"] if row["target"] >= 0 else predicted != row["label"])


def test_sources_are_correct_passed_and_of_the_test_split(records, finished) -> None:
    splits = finished["source_splits"].set_index("source_index")["split"]
    assert set(splits[records["source_index"].unique()]) == {"test"}
    scores = finished.scores
    clean = scores[(scores["detector"] == KEY) & (scores["attack"] == "natural") & (scores["split"] == "test")]
    clean = clean.set_index(clean["source_id"].astype(str))
    mine = records[(records["detector"] == KEY) & (records["form"] == "correct")]
    used = clean.loc[mine["source_id"].unique()]
    assert used["correct"].all()
    assert not used["verdict_fpr_05"].any()
    published = clean.loc[records.loc[records["form"] == "reference", "source_id"].unique()]
    assert not published["verdict_fpr_05"].any()


def test_thresholds_come_from_clean_validation_images(records, setting, stored, hardened) -> None:
    for detector, part in records.groupby("detector"):
        one = stored
        if detector != KEY:
            one = restore(hardened, detector, setting.representatives)
        clean = torch.tensor(
            score_naturals(setting.activations, "validation", one, setting.representatives)["score"].to_numpy()
        )
        expected = thresholds_at_fpr(clean, (0.01, 0.05))
        for fpr, column in ((0.01, "threshold_fpr_01"), (0.05, "threshold_fpr_05")):
            assert part[column].to_numpy() == pytest.approx(expected[fpr], abs=1e-5)
        for column in ("01", "05"):
            passes = part["fooled"] & (part["detector_score"] <= part[f"threshold_fpr_{column}"].astype(np.float32))
            assert passes.equals(part[f"evaded_fpr_{column}"])


def test_a_second_run_makes_nothing_and_a_change_only_what_it_changes(
    setting, detectors, blocks, adaptive, attacked
) -> None:
    plan = attack_detectors(setting, detectors, blocks["detector_training"], adaptive())
    assert plan.fingerprints == attacked.fingerprints()
    other = adaptive(
        attacks={"selective": adaptive().attacks["selective"].model_copy(update={"arguments": {"steps": 7}})}
        | {name: spec for name, spec in adaptive().attacks.items() if name != "selective"}
    )
    changed = attack_detectors(setting, detectors, blocks["detector_training"], other).fingerprints
    different = {key.split("/")[1] for key in changed if changed[key] != plan.fingerprints[key]}
    assert different == {"selective"}


def test_outcome_is_the_same_whatever_the_batch_and_shard(setting, stored, adaptive) -> None:
    condition = next(conditions(adaptive(), ("selective",)))
    chosen = choose_sources(
        score_naturals(setting.activations, "test", stored, setting.representatives),
        condition.spec,
        stored,
        seed=0,
        count=6,
    )
    small = replace(setting, runtime=setting.runtime.model_copy(update={"batch_size": 2}))
    whole, parts = (attack_images(one, stored, condition, chosen).result for one in (setting, small))
    torch.testing.assert_close(whole.images, parts.images, atol=1e-5, rtol=0)
    assert torch.equal(whole.fooled, parts.fooled)


def test_the_work_travels_to_a_worker(setting, detectors, blocks, adaptive, attacked) -> None:
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    plan = attack_detectors(setting, detectors, blocks["detector_training"], adaptive())
    work, spec = cloudpickle.loads(cloudpickle.dumps((plan.work, plan.shards[0])))
    made, stored = work(spec.arguments), attacked[spec.key]
    for name, tensor in stored.tensors.items():
        torch.testing.assert_close(made.tensors[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_kind_of_answer_on_the_cpu(setting, detectors, blocks, adaptive) -> None:
    there = replace(setting, runtime=setting.runtime.model_copy(update={"device": "cuda"}))
    plan = attack_detectors(there, detectors, blocks["detector_training"], adaptive())
    for spec in plan.shards:
        tensors = plan.work(spec.arguments).tensors
        assert all(tensor.device.type == "cpu" for tensor in tensors.values())
    hardening = harden_detectors(there, detectors, blocks["detector_training"], adaptive())
    for spec in hardening.shards:
        assert all(tensor.device.type == "cpu" for tensor in hardening.work(spec.arguments).tensors.values())
    setting.network.cpu()


def test_hardening_learns_from_train_and_validation_images_only(hardened, finished, stored, setting, adaptive) -> None:
    (key,) = hardened
    assert key == f"{KEY}/hardened-1"
    facts = hardened.metadata(key)
    splits = finished["source_splits"].set_index("source_id")["split"]
    (rounds,) = facts["rounds"]
    for split in ("train", "validation"):
        assert rounds[split]["source_ids"]
        assert set(splits[rounds[split]["source_ids"]]) == {split}
        assert rounds[split]["fooled"] > 0
    assert facts["hardened_from"] == KEY
    state = hardened[key].tensors
    assert not torch.equal(state["state.readout.classifier.weight"], stored.detector.readout.classifier.weight)


def test_no_rounds_harden_nothing(setting, detectors, blocks, adaptive) -> None:
    params = adaptive(hardening={"rounds": 0})
    plan = harden_detectors(setting, detectors, blocks["detector_training"], params)
    assert plan.shards == ()


def test_a_missing_detector_is_named(setting, detectors, blocks, adaptive) -> None:
    training = blocks["detector_training"].model_copy(update={"seeds": (7,)})
    with pytest.raises(DataError, match=r"no trained detector 'cosine/both/all/7'.*detector_training"):
        attack_detectors(setting, detectors, training, adaptive())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detectors": ["nowhere"]}, r"adaptive_attack.detectors: .*'cosine', 'ranked'.*'nowhere'"),
        ({"attacks": {"a": {"attack": "selective", "arguments": {"stepz": 3}}}}, "stepz"),
        ({"attacks": {"a": {"attack": "selektive"}}}, "selective"),
        ({"attacks": {"a": {"attack": "cw_detector", "budgets": {"l2": [1.0]}}}}, "smallest L2 perturbation"),
        ({"attacks": {"a": {"attack": "selective", "form": "reference"}}}, "selection"),
        ({"attacks": {"a": {"attack": "matching", "role": "transfer"}}}, "cannot be transferred"),
        ({"attacks": {"a": {"attack": "matching", "classifier": "nearest_medoid"}}}, "classifier: network"),
        ({"attacks": {"a": {"attack": "deep_detector", "budgets": {"l2": [1.0]}}}}, "linf only"),
        ({"attacks": {"a": {"attack": "selective", "budgets": {"linf": [1.5]}}}}, "at most 1"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(adaptive, blocks, changes, message) -> None:
    params = adaptive(**({"hardening": {"rounds": 0}} | changes))
    with pytest.raises(ConfigurationError, match=message):
        check_adaptive(params, blocks["detector_training"], (0.0, 1.0))


def test_names_within_the_block_must_exist(adaptive) -> None:
    with pytest.raises(ValueError, match=r"hardening.attacks: .*\['nothing'\]"):
        adaptive(hardening={"attacks": ["nothing"]})
    with pytest.raises(ValueError, match=r"hardening.detectors: .*\['ranked'\]"):
        adaptive(hardening={"detectors": ["ranked"]})
    with pytest.raises(ValueError, match=r"a name that is none of .*got 'union'"):
        adaptive(attacks={"union": {"attack": "selective"}}, hardening={"rounds": 0})


def test_the_nearest_medoid_is_that_of_the_last_layer(setting, stored) -> None:
    scored = score_naturals(setting.activations, "test", stored, setting.representatives).set_index("source_index")
    medoids = setting.representatives.medoids[-1]
    content = setting.activations["natural/test-0000"]
    *_, last = read_activations(content).features.values()
    expected = torch.cdist(last, medoids, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    assert scored.loc[content.tensors["source_index"].tolist(), "nearest"].tolist() == expected.tolist()


def test_classes_are_capped_and_the_order_is_the_seeds(setting, stored, adaptive) -> None:
    scored, spec = (
        score_naturals(setting.activations, "test", stored, setting.representatives),
        adaptive().attacks["selective"],
    )
    chosen = choose_sources(scored, spec, stored, seed=0, count=100, per_class=2)
    labels = scored.set_index("source_index")["label"][list(chosen)]
    assert labels.value_counts().to_dict() == {0: 2, 1: 2, 2: 2}
    assert choose_sources(scored, spec, stored, seed=0, count=3) != choose_sources(
        scored, spec, stored, seed=1, count=3
    )


@pytest.mark.parametrize("form", ["correct", "reference"])
def test_deep_features_move_to_a_medoid_within_the_budget(setting, stored, adaptive, form) -> None:
    spec = {
        "attack": "deep_detector",
        "form": form,
        "criteria": ["targeted"],
        "budgets": {"linf": ["77/255"]},
        "arguments": {"steps": 15},
    }
    (condition,) = conditions(adaptive(attacks={"deep": spec}, hardening={"rounds": 0}))
    chosen = choose_sources(
        score_naturals(setting.activations, "test", stored, setting.representatives),
        condition.spec,
        stored,
        seed=0,
        count=4,
    )
    outcome = attack_images(setting, stored, condition, chosen)
    assert float(outcome.result.linf.max()) <= 77 / 255 * (1 + 1e-5)
    assert outcome.result.fooled.any()
    assert condition.build((0.0, 1.0)).arguments.selection == form
    assert condition.build((0.0, 255.0)).arguments.max_thres == pytest.approx(77 / 255)


def test_nearest_medoid_names_the_class_and_passes_gradients(setting, stored) -> None:
    joint = join(stored, setting.network, torch.device("cpu"))
    model = FeatureModel(joint, setting.representatives.medoids[-1], nearest=True).eval()
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits, scores, features = model.describe(images)
    expected = (features[:, None] - setting.representatives.medoids[-1][None]).norm(dim=-1)
    torch.testing.assert_close(logits, -expected)
    torch.testing.assert_close(scores, joint(images)[1])
    (slope,) = torch.autograd.grad(logits.sum() + scores.sum(), images)
    assert bool((slope.flatten(1).abs().sum(dim=1) > 0).all())


def test_matching_compares_the_classes_in_their_own_order(setting, blocks, finished, adaptive) -> None:
    """Ranked, every image looks alike to its own class, and nothing would push it to another one."""
    ranked = restore(finished["detectors"], "ranked/both/all/0", setting.representatives)
    spec = adaptive().attacks["matching"].model_copy(update={"arguments": {"steps": 60}, "budgets": {"linf": (0.8,)}})
    (condition,) = conditions(adaptive(attacks={"matching": spec}, detectors=["ranked"], hardening={"rounds": 0}))
    scored = score_naturals(setting.activations, "test", ranked, setting.representatives)
    indices = choose_sources(scored, spec, ranked, seed=0, count=8)

    attacked = attack_images(setting, ranked, condition, indices)

    assert attacked.task.guide.values.shape[1:] == (5, 3)
    assert attacked.result.fooled.any()


def test_both_forms_of_a_published_attack_start_from_the_same_images(setting, stored, adaptive) -> None:
    scored = score_naturals(setting.activations, "test", stored, setting.representatives)
    forms = {name: adaptive().attacks[name] for name in ("cw", "cw-reference")}
    chosen = {name: choose_sources(scored, spec, stored, seed=0, count=50) for name, spec in forms.items()}

    assert chosen["cw"] == chosen["cw-reference"]
    passed = scored.set_index("source_index").loc[list(chosen["cw"])]
    assert (passed["score"] <= min(0.0, stored.threshold(0.05))).all()


def test_an_attack_may_be_meant_for_some_detectors_only(setting, finished, blocks, adaptive) -> None:
    attacks = adaptive().attacks
    some = {
        "selective": attacks["selective"],
        "one-step": attacks["one-step"].model_copy(update={"detectors": ("cosine",)}),
    }
    params = adaptive(detectors=["cosine", "ranked"], attacks=some, hardening={"rounds": 0})

    plan = attack_detectors(setting, finished["detectors"], blocks["detector_training"], params)

    met = {(key.split(".")[0], key.split("/")[1]) for key in plan.keys}
    assert met == {("cosine", "selective"), ("cosine", "one-step"), ("ranked", "selective")}
    wrong = some | {"one-step": attacks["one-step"].model_copy(update={"detectors": ("cosin",)})}
    with pytest.raises(ConfigurationError, match=r"one-step.detectors: expected .*'ranked'\], got \['cosin'\]"):
        check_adaptive(adaptive(attacks=wrong), blocks["detector_training"], (0.0, 1.0))
