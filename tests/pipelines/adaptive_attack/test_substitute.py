"""The attacker's own network and detectors are the main job with parameters of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adv_detect.absent import ABSENT, Absent
from adv_detect.algorithms.detectors import StoredDetector, TwinDetector
from adv_detect.errors import DataError
from adv_detect.jobs.detectors import restore
from adv_detect.jobs.joint_models import join
from adv_detect.networks.target import target_tensors
from adv_detect.networks.twin import build_twin
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    RuntimeParams,
    TwinNetworkParams,
    TwinTrainingParams,
)
from adv_detect.pipelines import (
    adversarial_generation,
    detector_training,
    feature_extraction,
    representatives,
    target_training,
    twin_training,
)
from adv_detect.pipelines.adaptive_attack.attacking import attack_images
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import choose_sources, conditions
from adv_detect.pipelines.adaptive_attack.nodes import gather_attack_setting
from adv_detect.pipelines.adaptive_attack.pipeline import create_pipeline
from adv_detect.pipelines.adaptive_attack.plans import substitute_fingerprint
from adv_detect.pipelines.adaptive_attack.substitute import (
    choose_substitute_sources,
    configure_substitute,
    restore_substitute,
)
from adv_detect.sharding import ShardStore

KEY = "cosine/both/all/0"
MODULES = (
    target_training,
    twin_training,
    feature_extraction,
    representatives,
    adversarial_generation,
    detector_training,
)

SHARDED = ("features", "adversarials", "activations", "detectors")


@pytest.fixture(scope="module")
def stored(finished, detectors):
    return restore(detectors, KEY, finished["representatives"])


@pytest.fixture(scope="module")
def configured(blocks, adaptive):
    """Configures the substitute: ``configured(runtime=...)`` gives its blocks."""

    def make(**changes):
        given = blocks | {"adaptive_attack": adaptive()} | changes
        names = ("network", "target_training", "twin_training", "feature_extraction", "representatives",
                 "adversarial_generation", "detector_training", "runtime", "adaptive_attack")  # fmt: skip
        return configure_substitute(*(given[name] for name in names))

    return make


def written(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}


def test_every_step_is_a_node_of_the_main_job():
    own = [one for one in create_pipeline().nodes if one.namespace == "substitute"]
    main = {one.name: one.func for module in MODULES for one in module.create_pipeline().nodes}
    steps = {one.name.removeprefix("substitute."): one.func for one in own}
    shared = {"train_target", "train_twin", "extract_class_features", "compute_representatives",
              "generate_adversarials", "compute_activations", "train_detectors"}  # fmt: skip

    assert shared == steps.keys() & main.keys()
    assert all(steps[name].__wrapped__ is main[name] for name in shared)


def test_it_is_independent_of_the_victim(substitute, finished, stored, blocks, trained_attacker):
    network, own = restore_substitute(substitute, stored)
    victim = target_tensors(finished["network_weights"])
    weights = [name for name, value in victim.items() if value.dim() > 1]

    assert weights
    assert not any(torch.allclose(target_tensors(network)[name], victim[name], atol=1e-3) for name in weights)
    centroids = own.detector.representatives.centroids[0]
    assert not torch.allclose(centroids, finished["representatives"].centroids[0], atol=1e-3)
    assert own.params == stored.params
    assert own.threshold(0.05) != stored.threshold(0.05)
    assert own.facts["seed"] == blocks["detector_training"].seeds[0] + 1
    description = trained_attacker["substitute_description"]
    assert description == {"seed": blocks["runtime"].seed + 1, "accuracy": network.spec.accuracy}
    assert description["accuracy"] > 0.5


def test_it_has_no_test_image_and_no_more_images_than_allowed(trained_attacker, finished, adaptive, configured):
    splits = finished["source_splits"].set_index("source_id")["split"]
    chosen = choose_substitute_sources(finished["source_splits"], adaptive(), configured()[-1])
    limit = adaptive().substitute.max_images

    assert chosen["split"].value_counts().to_dict() == {"train": limit, "validation": min(18, limit)}
    assert (chosen["split"] == chosen["source_id"].map(splits)).all()
    attacked = {name for content in trained_attacker["substitute.adversarials"].values()
                for name in content.metadata["source_ids"]}  # fmt: skip
    assert attacked == set(chosen["source_id"])
    assert "test" not in set(splits[sorted(attacked)])


def test_its_detectors_are_those_that_are_attacked(substitute, trained_attacker):
    assert tuple(substitute.detectors) == ("cosine/both/all/1",)
    facts = substitute.detectors.metadata("cosine/both/all/1")
    assert facts["attacks"] == ["bim"]
    learned = {key.split("/")[0] for key in facts["learned_from"]}
    assert learned == {"natural", "bim"}
    assert {key.split("/")[0] for key in trained_attacker["substitute.adversarials"]} == learned


def test_features_come_from_as_many_images_as_in_the_main_job(trained_attacker, blocks):
    store = trained_attacker["substitute.features"]
    seen: dict[int, int] = {}
    for content in store.values():
        seen[content.metadata["label"]] = seen.get(content.metadata["label"], 0) + content.metadata["seen"]

    assert seen == dict.fromkeys(range(3), blocks["feature_extraction"].max_images_per_class)


def test_blocks_are_the_main_jobs_but_for_what_is_the_substitutes(configured, blocks):
    network, training, twin, features, classes, attacks, detectors, runtime = configured()

    assert network == blocks["network"]
    assert training == blocks["target_training"].model_copy(update={"epochs": 4, "min_accuracy": 0.0})
    assert twin.network is None, "no attacked detector reads a twin"
    assert (features, classes) == (blocks["feature_extraction"], blocks["representatives"])
    assert attacks.active == {"bim": blocks["adversarial_generation"].active["bim"]}
    assert list(detectors.active) == ["cosine"]
    assert (detectors.criteria, detectors.seeds, detectors.leave_one_out) == (("both",), (1,), ())
    assert detectors.fit == blocks["detector_training"].fit
    assert runtime == blocks["runtime"].model_copy(update={"seed": 1})


def test_an_attacker_of_a_detector_that_reads_the_twin_trains_a_shorter_one(
    configured, blocks, adaptive, finished, stored
):
    detectors = DetectorTrainingParams.model_validate({"configurations": {"twin": {"kind": "twin"}}})
    attacked = adaptive(detectors=["twin"], substitute={"twin_epochs": 2, "attacks": ["bim"]}, hardening={"rounds": 0})
    _, _, twin, *_, chosen, runtime = configured(
        twin_training=TwinTrainingParams(epochs=9, min_accuracy=0.9), detector_training=detectors,
        adaptive_attack=attacked,
    )  # fmt: skip
    short = configured(
        twin_training=TwinTrainingParams(epochs=1), detector_training=detectors, adaptive_attack=attacked
    )[2]

    assert (twin.epochs, twin.min_accuracy, twin.network) == (2, 0.0, TwinTrainingParams().network)
    assert short.epochs == 1
    assert list(chosen.active) == ["twin"]
    assert runtime.seed == 1
    network, second = (
        finished["network_weights"],
        build_twin(finished["network_weights"], twin.network, head="softmax", seed=0),
    )
    reader = StoredDetector("twin/none/nothing/0", TwinDetector(), detectors.active["twin"], {}, torch.zeros(3))
    with pytest.raises(DataError, match="reads the twin, and there is none; run the pipeline twin_training"):
        join(reader, network, torch.device("cpu"))
    model, images = join(reader, network, torch.device("cpu"), twin=second), torch.rand(2, 1, 28, 28)
    assert model(images)[1].shape == (2,)
    assert join(stored, network, torch.device("cpu"), twin=second).twin is None, "nobody reads it"


def test_the_digest_covers_the_twin(substitute, finished):
    second = build_twin(finished["network_weights"], TwinNetworkParams(), head="softmax", seed=0)

    assert replace(substitute, twin=second).digest != substitute.digest


def test_the_largest_seed_has_another_one_beside_it(configured):
    *_, runtime = configured(runtime=RuntimeParams(seed=2**31 - 1))
    assert runtime.seed == 0


def test_its_detectors_learn_from_attacks_that_the_victims_never_met(configured, blocks, adaptive):
    plain = blocks["adversarial_generation"].active["bim"].model_dump()
    unseen = plain | {"splits": ("train", "validation", "test"), "train": False}
    attacks = AdversarialGenerationParams.model_validate({"attacks": {"bim": plain, "unseen": unseen}})

    chosen = adaptive(substitute={"attacks": ["unseen"]})
    own = configured(adversarial_generation=attacks, adaptive_attack=chosen)[5]

    assert list(own.active) == ["unseen"]
    assert own.active["unseen"].train


def test_nothing_is_made_without_transfer_and_nothing_made_before_is_lost(
    attacker, attackers_folder, adaptive, tmp_path
):
    before = written(attackers_folder)
    assert "detectors/cosine/both/all/1.safetensors" in before
    none = adaptive(attacks={"selective": adaptive().attacks["selective"]})

    for folder in (attackers_folder, tmp_path / "fresh"):
        shop = attacker(folder, adaptive_attack=none)
        assert isinstance(shop["substitute.detectors"], Absent)
        assert shop["substitute_description"] == {}
    assert not written(tmp_path / "fresh")

    again = attacker(attackers_folder)
    assert written(attackers_folder) == before
    assert tuple(again["substitute.detectors"]) == ("cosine/both/all/1",)


def test_a_setting_has_a_substitute_only_where_there_is_one(substitute):
    given = ("images", "network", "representatives", "activations", ABSENT)

    assert gather_attack_setting(*given, ABSENT, RuntimeParams()).substitute is None
    assert gather_attack_setting(*given, substitute, RuntimeParams()).substitute is substitute


def test_a_step_goes_on_where_it_stopped(attacker, attackers_folder):
    before = written(attackers_folder)
    store = ShardStore(str(attackers_folder / "adversarials"))
    gone = next(key for key in store if key.startswith("bim/"))
    Path(store.path(gone)).unlink()

    attacker(attackers_folder)

    after = written(attackers_folder)
    assert {name for name in after if after[name] != before[name]} == {f"adversarials/{gone}.safetensors"}


def test_attacks_on_deep_features_take_part(attacker, attackers_folder, blocks, adaptive):
    deep = {"attack": "deep-features", "arguments": {"max_thres": 200, "iterations": 15, "dodging": "nearest"}}
    attacks = AdversarialGenerationParams.model_validate(
        {"attacks": {"bim": blocks["adversarial_generation"].active["bim"], "deep": deep}}
    )
    params = adaptive(substitute={"epochs": 4, "attacks": ["bim", "deep"], "max_images": 20})

    shop = attacker(attackers_folder, adversarial_generation=attacks, adaptive_attack=params)

    images = shop["substitute.adversarials"]
    made = [images[key].tensors["success"] for key in images if key.startswith("deep/")]
    assert torch.cat(made).any()
    assert shop["substitute.detectors"].metadata("cosine/both/all/1")["attacks"] == ["bim", "deep"]


def test_what_is_transferred_is_remade_when_its_stand_in_is_another(setting, substitute, detectors, adaptive):
    transferred = tuple(conditions(adaptive(), ("transfer",)))
    direct = tuple(conditions(adaptive(), ("selective",)))
    found = substitute_fingerprint(setting, transferred, detectors, KEY)

    assert found == substitute.fingerprint_for(detectors.metadata(KEY))
    assert found != substitute.digest
    assert substitute_fingerprint(setting, direct, detectors, KEY) is None
    with pytest.raises(DataError, match=r"substitute: expected a detector 'cosine/targeted/all', got \['cosine/both"):
        substitute.fingerprint_for(detectors.metadata(KEY) | {"trained_criterion": "targeted"})


def test_a_transferred_attack_is_made_on_the_substitute_within_the_budget(setting, substitute, stored, adaptive):
    spec = (
        adaptive()
        .attacks["transfer"]
        .model_copy(update={"budgets": {"linf": (0.5,)}, "arguments": {"steps": 12, "return_early": False}})
    )
    (condition,) = conditions(adaptive(attacks={"transfer": spec}, hardening={"rounds": 0}))
    scored = score_naturals(setting.activations, "test", stored, setting.representatives)
    chosen = choose_sources(scored, condition.spec, stored, seed=0, count=6)

    attacked = attack_images(setting, stored, condition, chosen)

    result, labels = attacked.result, attacked.task.labels
    assert float(result.linf.max()) <= 0.5 * (1 + 1e-5)
    assert float((substitute.network(result.images).argmax(dim=1) != labels).float().mean()) > 0.5
    assert torch.equal(result.fooled, setting.network(result.images).argmax(dim=1) != labels)


def test_it_trains_the_detectors_that_attacks_on_it_are_meant_for(configured, adaptive):
    transfer = {"attack": "selective", "role": "transfer", "arguments": {"steps": 2}}
    both = {"detectors": ["cosine", "ranked"], "hardening": {"rounds": 0}}

    meant = configured(adaptive_attack=adaptive(attacks={"one": transfer | {"detectors": ["ranked"]}}, **both))
    other = configured(adaptive_attack=adaptive(attacks={"one": transfer | {"surrogate": "cosine"}}, **both))

    trained = next(block for block in meant if isinstance(block, DetectorTrainingParams))
    assert set(trained.active) == {"ranked"}
    assert set(other) == {ABSENT}
