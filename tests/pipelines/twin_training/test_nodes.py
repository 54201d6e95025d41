"""The twin from images to scores: made once, read where a detector asks for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from adv_detect.absent import ABSENT, Absent
from adv_detect.algorithms.detectors import reads_twin
from adv_detect.algorithms.robust_losses import log_probabilities
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.jobs.activations import read_activations
from adv_detect.networks.target import target_digest, target_tensors
from adv_detect.networks.twin import build_twin, check_twin
from adv_detect.params import DetectorTrainingParams, ServingParams, TwinNetworkParams, TwinTrainingParams
from adv_detect.pipelines import adversarial_generation, detector_training, evaluation, twin_training
from adv_detect.pipelines.detector_training.nodes import compute_activations
from adv_detect.pipelines.twin_training.nodes import describe_twin, train_twin
from adv_detect.serving.bundle import ScoringBundle, score_images

QUICK = TwinTrainingParams(
    epochs=3, batch_size=16, learning_rate=4e-3, steps=2, epsilon=0.1, holdout=30, holdout_steps=2, averaging=0.8
)
READER = {"kind": "lstm", "representative": "medoid", "distance": "cosine", "hidden": 8}
TRAINING = DetectorTrainingParams.model_validate(
    {
        "configurations": {
            "twin": {"kind": "twin"},
            "joined": {"kind": "joined", "arguments": {"members": {"twin": {"kind": "twin"}, "reader": READER}}},
        },
        "criteria": ["both"],
        "fit": {"epochs": 2, "batch_size": 32, "learning_rate": 0.01},
    }
)
KEYS = ("joined/both/all/0", "twin/none/nothing/0")


def changed(params: TwinTrainingParams, **values) -> TwinTrainingParams:
    return params.model_copy(update=values)


@pytest.fixture(scope="module")
def shop(finished, workshop, tmp_path_factory):
    """The finished run, taken up again with a twin and detectors that read it."""
    folder = tmp_path_factory.mktemp("twin") / "copy"
    shutil.copytree(Path(finished.catalog["network_weights"]._path).parent, folder)
    made = workshop(folder, twin_training=QUICK, detector_training=TRAINING, serving=ServingParams(fpr=0.1))
    for module in (twin_training, detector_training):
        made.run(module.create_pipeline())
    made.run(evaluation.create_pipeline().to_nodes("measure_detection"))
    return made


@pytest.fixture
def deferred(finished, blocks):
    def make(**changes):
        given = {name: finished[name] for name in ("train_images", "network_weights")}
        return train_twin(**(given | {"twin_training": QUICK, "runtime": blocks["runtime"]} | changes))

    return make


def test_the_twin_is_for_the_task_of_the_network_and_has_learned_it(shop):
    twin, network = shop["twin"], shop["network_weights"]

    assert twin.spec.name == "strided"
    assert (twin.spec.class_names, twin.spec.bounds) == (network.spec.class_names, network.spec.bounds)
    assert [row["epoch"] for row in twin.spec.history] == [1.0, 2.0, 3.0]
    assert twin.spec.accuracy > 0.6
    assert not any(one.requires_grad for one in twin.parameters())


def test_activations_hold_what_the_twin_says_of_the_same_images(shop):
    key = "bim/untargeted/test-0000"
    content, images = shop["activations"][key], shop["adversarials"][key].tensors["images"]

    expected = log_probabilities(shop["twin"](images), "softmax")
    torch.testing.assert_close(read_activations(content).twin, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(content.tensors["logits"], shop["network_weights"](images), rtol=1e-4, atol=1e-4)
    assert "twin" in shop["control_activations"][f"8bit/{key}"].tensors


def test_every_table_has_rows_of_twin_and_joined(shop):
    assert tuple(shop["detectors"]) == KEYS
    assert set(KEYS) <= set(shop.scores["detector"].astype(str)) & set(shop["detection_metrics"]["detector"])
    summary = shop["detector_summary"].set_index("detector")
    assert summary.loc["twin/none/nothing/0", "trained_on"] == "nothing"
    assert summary["validation_macro_auc_all"].notna().all()


def test_the_served_model_carries_the_twin_and_scores_as_the_evaluation_did(shop, tmp_path):
    bundle = shop["champion_model"]
    bundle.save(tmp_path)
    restored = ScoringBundle.load(tmp_path)
    natural = shop["adversarials"]["natural/test-0000"]
    scores = shop.scores
    rows = scores[(scores["detector"] == restored.stored.key) & (scores["attack"] == "natural")]
    expected = rows[rows["variant"] == "float"].set_index("source_id").loc[natural.metadata["source_ids"], "score"]

    found = score_images(restored, natural.tensors["images"].numpy())

    assert bundle.stored.key in KEYS
    assert target_digest(restored.twin) == target_digest(shop["twin"])
    torch.testing.assert_close(
        torch.tensor(found["adversarial_score"].to_numpy()).float(),
        torch.tensor(expected.to_numpy()).float(),
        rtol=1e-3,
        atol=1e-3,
    )
    (tmp_path / "twin.json").unlink()
    with pytest.raises(DataError, match=r"missing: \['twin.safetensors', 'twin.json'\]"):
        ScoringBundle.load(tmp_path)


def test_another_twin_remakes_activations_and_no_attack(shop, blocks):
    given = {name: shop[name] for name in ("adversarials", "network_weights", "representatives", "twin")}
    params = {name: blocks[name] for name in ("runtime", "evaluation")} | {"detector_training": TRAINING}
    before = compute_activations(**given, **params).fingerprints
    other = build_twin(shop["network_weights"], TwinNetworkParams(), head="softmax", seed=9).freeze()
    attacks = adversarial_generation.create_pipeline().all_inputs()

    after = compute_activations(**(given | {"twin": other}), **params).fingerprints

    assert before == shop["activations"].fingerprints()
    assert not set(before.items()) & set(after.items())
    assert "twin" not in attacks


def test_where_nobody_reads_the_twin_it_is_not_run(finished, shop, blocks):
    given = {name: finished[name] for name in ("adversarials", "network_weights", "representatives")}
    params = {name: blocks[name] for name in ("detector_training", "runtime", "evaluation")}

    plan = compute_activations(**given, twin=shop["twin"], **params)

    assert plan.fingerprints == finished["activations"].fingerprints()
    assert plan.work.twin is None


def test_a_reader_of_a_twin_that_is_configured_away_is_refused(shop, blocks):
    given = {name: shop[name] for name in ("adversarials", "network_weights", "representatives")}
    params = {name: blocks[name] for name in ("runtime", "evaluation")}

    with pytest.raises(ConfigurationError, match="twin, joined read the twin, which is configured away with twin_tr"):
        compute_activations(**given, twin=ABSENT, detector_training=TRAINING, **params)


def test_without_a_twin_there_is_none(finished):
    assert isinstance(finished["twin"], Absent)
    assert describe_twin(ABSENT) == ({}, {})


def test_the_fingerprint_names_every_ingredient(deferred, blocks, stripes, finished):
    base = deferred().fingerprint
    same = TwinNetworkParams(name="same")
    trained = finished["network_weights"]
    other = build_twin(trained, same, head="softmax", seed=0)
    torch.nn.init.ones_(next(other.parameters()))
    changes = [
        deferred(runtime=blocks["runtime"].model_copy(update={"seed": 1})),
        deferred(twin_training=changed(QUICK, epsilon=0.2)),
        deferred(twin_training=changed(QUICK, losses=("one_vs_all",))),
        deferred(twin_training=changed(QUICK, network=same)),
        deferred(twin_training=changed(QUICK, network=same), network_weights=other),
        deferred(train_images=stripes(49, seed=0, name="train")),
        deferred(network_weights=trained.with_spec(bounds=(0.0, 2.0))),
    ]

    assert deferred().fingerprint == base
    assert deferred(network_weights=other).fingerprint == base, "another network of the same task has the same twin"
    assert len({base, *(one.fingerprint for one in changes)}) == 8


def test_a_copy_starts_from_the_network_and_leaves_it_alone(finished, deferred):
    network = finished["network_weights"]
    before = target_digest(network)

    twin = deferred(
        twin_training=changed(QUICK, network=TwinNetworkParams(name="same"), epochs=1), network_weights=network
    ).make()

    assert target_digest(network) == before
    assert not any(one.requires_grad for one in network.parameters())
    assert twin.spec.name == network.spec.name
    moved = [
        name for name, value in target_tensors(network).items() if not torch.equal(value, target_tensors(twin)[name])
    ]
    assert moved
    assert all(
        torch.allclose(value, target_tensors(twin)[name], atol=0.2) for name, value in target_tensors(network).items()
    )


def test_of_two_losses_the_better_on_held_out_images_is_kept(deferred, caplog):
    caplog.set_level("INFO")
    twin = deferred(twin_training=changed(QUICK, losses=("one_vs_all", "softmax"), epochs=2)).make()
    lines = [one.message for one in caplog.records if "held_out_detection" in one.message]
    figures = {line.split()[1].rstrip(","): float(line.rsplit(" ", 1)[1]) for line in lines}

    assert set(figures) == {"one_vs_all", "softmax"}
    assert twin.spec.head == max(figures, key=lambda name: figures[name])


def test_a_checkpoint_with_no_epochs_is_taken_as_it_is(shop, deferred, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "twin.safetensors"
    save_file(target_tensors(shop["twin"]), file)
    given = TwinNetworkParams(checkpoint=str(file))

    twin = deferred(twin_training=changed(QUICK, network=given, epochs=0, averaging=0.0)).make()

    assert all(torch.equal(value, target_tensors(twin)[name]) for name, value in target_tensors(shop["twin"]).items())
    assert twin.spec.accuracy is not None


def test_a_twin_that_has_not_learned_stops_the_run(deferred):
    one = deferred(twin_training=changed(QUICK, epochs=1, learning_rate=1e-9, min_accuracy=0.9))
    made = one.make()
    with pytest.raises(DataError, match=r"at least 0.900 on held-out training images, got 0\.\d+; train longer"):
        one.check(made)


def test_another_demand_is_no_ingredient(deferred):
    demands = [deferred(twin_training=changed(QUICK, min_accuracy=demand)).fingerprint for demand in (0.1, 0.9)]
    assert demands[0] == demands[1] != deferred(twin_training=changed(QUICK, epochs=77)).fingerprint


def test_a_twin_for_another_task_is_refused(shop):
    network = shop["network_weights"]

    check_twin(shop["twin"], network)
    with pytest.raises(
        DataError, match=r"expected the class_names of the network under attack, .*; run the pipeline tw"
    ):
        check_twin(shop["twin"].with_spec(class_names=("a", "b", "c")), network)


def test_a_twin_that_does_not_take_the_images_is_named_with_its_block(shop):
    odd = TwinNetworkParams(name="strided", arguments={"in_channels": 3})

    with pytest.raises(ConfigurationError, match=r"twin_training.network.name: 'strided' with arguments"):
        build_twin(shop["network_weights"], odd, head="softmax", seed=0)


def test_a_network_of_ones_own_can_be_a_twin(shop):
    twin = build_twin(
        shop["network_weights"],
        TwinNetworkParams(name=f"{__name__}.Flat"),
        head="softmax",
        seed=0,
    )

    assert twin(torch.rand(2, 1, 28, 28)).shape == (2, 3)


class Flat(torch.nn.Module):
    """One linear layer, without layers that it names itself."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.head = torch.nn.Linear(784, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def test_the_configurations_that_read_it_are_known_before_anything_is_built():
    assert reads_twin(TRAINING.active) == ["twin", "joined"]
