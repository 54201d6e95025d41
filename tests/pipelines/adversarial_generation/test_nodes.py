"""Splits by source image, adversarial examples and their records."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import foolbox
import pandas as pd
import pytest
import torch

from adv_detect.algorithms.attacks.deep_features import last_features
from adv_detect.algorithms.margins import margin
from adv_detect.errors import ConfigurationError
from adv_detect.images import load_images
from adv_detect.jobs.records import log_non_finite
from adv_detect.params import AdversarialGenerationParams, SplitParams
from adv_detect.pipelines.adversarial_generation.nodes import (
    collect_records,
    generate_adversarials,
    split_sources,
)


@pytest.fixture
def plan(finished, blocks):
    def make(**changes):
        values = {
            "test_images": finished["test_images"],
            "network_weights": finished["network_weights"],
            "representatives": finished["representatives"],
            "source_splits": finished["source_splits"],
            "adversarial_generation": blocks["adversarial_generation"],
            "runtime": blocks["runtime"],
        }
        return generate_adversarials(**(values | changes))

    return make


@pytest.fixture
def attacks(blocks):
    def change(name, **values):
        dumped = blocks["adversarial_generation"].model_dump()["attacks"]
        dumped[name] = dumped.get(name, {}) | values
        return AdversarialGenerationParams.model_validate({"attacks": dumped})

    return change


def attacked(finished):
    return [(key, content) for key, content in finished["adversarials"].items() if not key.startswith("natural/")]


def test_the_splits_are_stratified_and_name_every_image_once(finished):
    table, images = finished["source_splits"], finished["test_images"]

    assert table["source_id"].tolist() == list(images.source_ids)
    assert table["label"].tolist() == images.labels.tolist()
    assert table["class_name"].tolist() == [images.class_names[label] for label in images.labels]
    assert table["split"].value_counts().to_dict() == {"train": 45, "validation": 18, "test": 27}
    assert (
        table.groupby(["split", "label"]).size().groupby("split").agg(lambda sizes: sizes.max() - sizes.min()).max()
        <= 1
    )


def test_a_drawn_split_leaves_images_out(finished, blocks):
    table = split_sources(finished["test_images"], SplitParams(max_images=30), blocks["runtime"])

    assert len(table) == 30
    assert set(table["source_id"]) < set(finished["test_images"].source_ids)


def test_no_source_image_stands_in_two_splits(finished):
    sources = {"train": set(), "validation": set(), "test": set()}

    for key, content in finished["adversarials"].items():
        split = key.rsplit("/", 1)[1].split("-")[0]
        assert content.metadata["split"] == split
        sources[split] |= set(content.metadata["source_ids"])

    assert all(sources.values())
    assert not sources["train"] & sources["validation"]
    assert not sources["train"] & sources["test"]
    assert not sources["validation"] & sources["test"]
    assert sources["train"] | sources["validation"] | sources["test"] == set(finished["test_images"].source_ids)


def test_naturals_are_the_images_themselves_misclassified_ones_too(finished):
    images, network, seen, wrong = finished["test_images"], finished["network_weights"], [], 0

    for key, shard in finished["adversarials"].select(natural=True).items():
        content = shard.tensors
        rows = content["source_index"]
        assert torch.equal(content["images"], load_images(images, rows.tolist(), (0.0, 1.0)))
        logits = network(content["images"])
        assert torch.equal(content["predicted"], logits.argmax(dim=1))
        torch.testing.assert_close(content["margin"], margin(logits), rtol=1e-4, atol=1e-5)
        assert not content["success"].any()
        assert not content["l2"].any()
        wrong += int((content["predicted"] != images.labels[rows]).sum()) if "test-" in key else 0
        seen += rows.tolist()

    assert sorted(seen) == list(range(len(images)))
    assert wrong > 0


def test_only_correctly_classified_images_are_attacked(finished):
    images, network = finished["test_images"], finished["network_weights"]
    predicted = network(load_images(images, range(len(images)), (0.0, 1.0))).argmax(dim=1)
    correct = set(torch.nonzero(predicted == images.labels).flatten().tolist())
    splits = finished["source_splits"].set_index("source_index")["split"]

    for split in ("train", "validation", "test"):
        wanted = {index for index in correct if splits[index] == split}
        for criterion in ("targeted", "untargeted"):
            attacked = finished["adversarials"].select(attack="bim", criterion=criterion, split=split)
            rows = [index for shard in attacked.values() for index in shard.tensors["source_index"].tolist()]
            assert sorted(rows) == sorted(wanted)


def test_norms_and_success_hold_when_measured_again(finished):
    images, network = finished["test_images"], finished["network_weights"]
    outcomes = set()

    for key, content in attacked(finished):
        tensors = content.tensors
        clean = load_images(images, tensors["source_index"].tolist(), (0.0, 1.0))
        change = (tensors["images"] - clean).flatten(1)
        torch.testing.assert_close(tensors["l2"], change.norm(dim=1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(tensors["linf"], change.abs().amax(dim=1), rtol=1e-4, atol=1e-6)
        predicted = network(tensors["images"]).argmax(dim=1)
        targeted = key.split("/")[1] == "targeted"
        fooled = predicted == tensors["target"] if targeted else predicted != tensors["label"]
        assert torch.equal(tensors["success"], fooled)
        assert torch.equal(tensors["adversarial_class"][fooled], predicted[fooled])
        assert 0.0 <= float(tensors["images"].min()) <= float(tensors["images"].max()) <= 1.0
        outcomes |= set(fooled.tolist())
        if key.startswith("bim"):
            assert float(tensors["linf"].max()) <= 0.2 + 1e-5

    assert outcomes == {True, False}, "failures are kept beside successes"


def test_targets_are_other_classes_and_the_same_for_every_attack(finished):
    aimed = {}

    for key, content in attacked(finished):
        tensors = content.tensors
        if "/untargeted/" in key:
            assert set(tensors["target"].tolist()) == {-1}
            continue
        assert bool((tensors["target"] != tensors["label"]).all())
        for index, target in zip(tensors["source_index"].tolist(), tensors["target"].tolist(), strict=True):
            assert aimed.setdefault(index, target) == target

    assert set(aimed.values()) == {0, 1, 2}


def test_early_stopping_spares_gradients_and_stays_smaller(finished):
    records = finished["attack_records"].query("split == 'test' and criterion == 'untargeted'")
    early, confident = (records[records["attack"] == name].set_index("source_id") for name in ("bim", "bim-confident"))

    assert early["form"].unique().tolist() == ["early"]
    assert confident["form"].unique().tolist() == ["confident"]
    assert early["gradient_evaluations"].sum() < confident["gradient_evaluations"].sum()
    assert early["margin"].mean() < confident["margin"].mean()


def test_records_say_what_the_shards_hold(finished):
    records, store = finished["attack_records"], finished["adversarials"]

    assert set(records["shard"]) == set(store)
    for key, rows in records.groupby("shard"):
        content = store[str(key)]
        assert rows["row"].tolist() == list(range(len(content.metadata["source_ids"])))
        assert rows["source_id"].tolist() == content.metadata["source_ids"]
        pd.testing.assert_series_equal(rows["l2"], pd.Series(content.tensors["l2"].numpy(), rows.index, name="l2"))
        assert rows["success"].tolist() == content.tensors["success"].tolist()
        assert rows["original_class"].tolist() == content.tensors["label"].tolist()
        assert rows["target_class"].tolist() == content.tensors["target"].tolist()
        folder = str(key).rsplit("-", 1)[0].split("/")
        assert {rows["attack"].iloc[0], rows["split"].iloc[0]} == {folder[0], folder[-1]}
        assert rows["criterion"].iloc[0] == (folder[1] if len(folder) == 3 else "none")


def test_timings_have_a_row_per_shard(finished):
    timings = finished["attack_timings"]

    assert timings["shard"].tolist() == list(finished["adversarials"])
    assert (timings["seconds"] > 0).all()
    assert timings["images"].sum() == len(finished["attack_records"])


def test_collecting_twice_gives_the_same_records(finished, blocks):
    pd.testing.assert_frame_equal(
        collect_records(finished["adversarials"], blocks["adversarial_generation"])[0], finished["attack_records"]
    )


def test_max_images_takes_the_first_of_each_split(plan, attacks):
    blocks = {spec.key: spec.arguments for spec in plan(adversarial_generation=attacks("cw", max_images=25)).shards}

    assert blocks["cw/targeted/train-0000"].indices == blocks["natural/train-0000"].indices
    assert blocks["cw/targeted/train-0001"].indices == blocks["natural/train-0001"].indices[:5]
    assert "cw/targeted/train-0002" not in blocks
    assert "natural/train-0002" in blocks


def test_max_learning_images_leaves_the_test_split_whole(plan, attacks):
    limited = attacks("bim", max_images=25, max_learning_images=12)
    blocks = {spec.key: spec.arguments for spec in plan(adversarial_generation=limited).shards}

    counts = {
        split: sum(len(one.indices) for key, one in blocks.items() if key.startswith(f"bim/targeted/{split}"))
        for split in ("train", "validation", "test")
    }
    assert counts == {"train": 12, "validation": 12, "test": 25}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bim", {"epsilon": 0.3}),
        ("bim", {"arguments": {"steps": 7}}),
        ("cw", {"batch_size": 5}),
        ("bim-confident", {"return_early": True}),
        ("bim", {"norm": "l2"}),
    ],
)
def test_a_changed_attack_makes_its_own_shards_stale_and_no_others(plan, attacks, name, values):
    before, after = plan().fingerprints, plan(adversarial_generation=attacks(name, **values)).fingerprints

    stale = {key for key in before if before[key] != after[key]}

    assert before.keys() == after.keys()
    assert stale == {key for key in before if key.startswith(f"{name}/")}


def test_another_seed_makes_everything_stale_and_nothing_else_does(plan, blocks):
    before = plan().fingerprints
    reseeded = plan(runtime=blocks["runtime"].model_copy(update={"seed": 1})).fingerprints

    assert (
        plan(runtime=blocks["runtime"].model_copy(update={"progress": True, "device": "auto"})).fingerprints == before
    )
    assert not set(reseeded.values()) & set(before.values())


def test_other_images_under_the_same_names_are_noticed(plan, stripes, finished):
    other = stripes(30, seed=1, name="test")
    other.identity = "the same names, cropped"

    assert not set(plan(test_images=other).fingerprints.values()) & set(plan().fingerprints.values())


def test_another_layer_to_read_makes_no_attack_anew(plan, finished):
    network = finished["network_weights"]
    spec = network.spec
    fewer = network.with_spec(layers=spec.layers[1:], readings=spec.readings[1:])

    assert plan(network_weights=fewer).fingerprints == plan().fingerprints


def test_representatives_matter_only_to_an_attack_that_reads_them(plan, attacks, finished):
    configured = attacks("deep", attack="deep-features", train=False, splits=["test"])
    old = finished["representatives"]
    moved = type(old)(
        layers=old.layers,
        class_names=old.class_names,
        medoids=[medoid + 1.0 for medoid in old.medoids],
        centroids=old.centroids,
        whitening=old.whitening,
        medoid_source_ids=old.medoid_source_ids,
    )

    before = plan(adversarial_generation=configured).fingerprints
    after = plan(adversarial_generation=configured, representatives=moved).fingerprints

    assert {key.split("/")[0] for key in before if before[key] != after[key]} == {"deep"}


def test_a_shard_of_misclassified_images_only_is_empty(plan, finished):
    misclassified = finished["attack_records"].query("attack == 'natural' and original_class != predicted")
    splits = finished["source_splits"]
    only = splits[splits["source_id"].isin(misclassified["source_id"])]
    made = plan(source_splits=only)

    content = made.work(next(spec.arguments for spec in made.shards if spec.key.startswith("bim/targeted")))

    assert content.tensors["images"].shape == (0, 1, 28, 28)
    assert content.metadata["source_ids"] == []


def blocks_of(made, prefix):
    return [spec.arguments for spec in made.shards if spec.key.startswith(prefix)]


def test_a_limited_attack_takes_a_stratified_part_of_each_split(plan, attacks, finished):
    made = plan(adversarial_generation=attacks("cw", max_images=9))
    labels = finished["test_images"].labels

    for split in ("train", "validation", "test"):
        (block,) = blocks_of(made, f"cw/targeted/{split}-")
        counts = labels[list(block.indices)].bincount(minlength=3)
        assert counts.sum() == 9
        assert counts.max() - counts.min() <= 2


def test_attacks_and_naturals_of_a_split_are_cut_alike(plan):
    made = plan()

    for block in blocks_of(made, "bim/"):
        number = next(spec.key for spec in made.shards if spec.arguments == block).rsplit("/", 1)[1]
        (natural,) = blocks_of(made, f"natural/{number}")
        assert natural.indices == block.indices


def test_where_splits_share_no_class_targets_stay_within_the_split(plan, finished, stripes):
    splits = finished["source_splits"].copy()
    assert all(block.aims is None for block in blocks_of(plan(), "bim/"))

    splits["label"] = range(len(splits))  # every image a class of its own
    made = plan(source_splits=splits)

    for split in ("train", "validation", "test"):
        own = tuple(sorted(splits.loc[splits["split"] == split, "label"]))
        assert {block.aims for block in blocks_of(made, f"bim/targeted/{split}-")} == {own}
        assert {block.aims for block in blocks_of(made, f"bim/untargeted/{split}-")} == {None}


def test_targets_are_of_the_allowed_classes(plan):
    made = plan()
    (block, *_) = blocks_of(made, "bim/targeted/train-")
    labels = made.work.images.labels[list(block.indices)]
    kept = tuple(index for index, label in zip(block.indices, labels.tolist(), strict=True) if label in (0, 2))

    content = made.work(replace(block, indices=kept, aims=(0, 2)))

    expected = 2 - content.tensors["label"]
    assert len(expected)
    assert torch.equal(content.tensors["target"], expected)


def test_who_judged_an_attack_is_recorded(plan, attacks):
    deep = {"attack": "deep-features", "norm": "linf", "epsilon": None, "arguments": {"iterations": 2}}
    made = plan(adversarial_generation=attacks("deep", **deep, splits=["test"], train=False))

    judges = {name: made.work(blocks_of(made, f"{name}/")[0]).metadata["judge"] for name in ("natural", "bim", "deep")}

    assert judges == {"natural": "network", "bim": "network", "deep": "medoid"}


class ReadsRepresentatives(foolbox.attacks.LinfAdditiveUniformNoiseAttack):
    """An attack of one's own that asks for the class representatives and keeps what it was given."""

    needs_representatives = True
    given: ClassVar[list] = []

    def run(self, model, inputs, criterion, *, epsilon, context, **kwargs):
        self.given.append(context)
        return super().run(model, inputs, criterion, epsilon=epsilon, **kwargs)


def test_an_attack_of_ones_own_can_ask_for_representatives(plan, attacks, finished):
    own = {"attack": f"{__name__}.ReadsRepresentatives", "epsilon": 0.1, "splits": ["test"], "train": False}
    configured = attacks("own", **own, norm=None, arguments={})
    medoids = tuple(one + 1 for one in finished["representatives"].medoids)
    moved = replace(finished["representatives"], medoids=medoids)

    before = plan(adversarial_generation=configured)
    after = plan(adversarial_generation=configured, representatives=moved)
    content = before.work(blocks_of(before, "own/untargeted/")[0])

    remade = {
        one.key.split("/")[0]
        for one, other in zip(before.shards, after.shards, strict=True)
        if one.fingerprint != other.fingerprint
    }
    assert remade == {"own"}
    assert content.metadata["judge"] == "network"
    (given, *_), (wanted, *_) = (
        ReadsRepresentatives.given[-1].representatives.medoids,
        finished["representatives"].medoids,
    )
    assert torch.equal(given, wanted)


def test_a_given_image_takes_the_place_of_the_medoid_as_guide(plan, attacks, finished):
    images = finished["test_images"]
    guide = int((images.labels == 2).nonzero()[3])
    arguments = {"iterations": 3, "max_thres": 60}
    deep = {"attack": "deep-features", "norm": "linf", "epsilon": None, "splits": ["test"], "train": False}
    given = deep | {"arguments": arguments | {"guides": {"right": images.source_ids[guide]}}}
    contents = []
    for configured in (deep | {"arguments": arguments}, given):
        made = plan(adversarial_generation=attacks("deep", **configured, return_early=False))
        contents.append(made.work(blocks_of(made, "deep/targeted/")[0]))
    network = finished["network_weights"]
    features = last_features(network, network.spec.layers)
    with torch.no_grad():
        wanted = features(load_images(images, [guide], network.spec.bounds))
        plain, guided = (torch.cdist(features(one.tensors["images"]), wanted).squeeze(1) for one in contents)

    aimed = contents[0].tensors["target"] == 2
    assert aimed.any()
    assert guided[aimed].mean() < plain[aimed].mean()
    assert torch.equal(contents[0].tensors["images"][~aimed], contents[1].tensors["images"][~aimed])


@pytest.mark.parametrize(
    ("guides", "message"),
    [({"nobody": "test-000"}, r"one of \[left, middle, right\].*'nobody'"), ({"left": "x"}, "source id.*got 'x'")],
)
def test_a_wrong_guide_is_refused_before_work(plan, attacks, guides, message):
    deep = {"attack": "deep-features", "norm": "linf", "epsilon": None, "arguments": {"guides": guides}}
    with pytest.raises(ConfigurationError, match=message):
        plan(adversarial_generation=attacks("deep", **deep, splits=["test"], train=False))


def test_failures_by_nan_are_a_column_and_said_once_per_attack(finished, blocks, caplog):
    records, _ = collect_records(finished["adversarials"], blocks["adversarial_generation"])
    assert records["non_finite"].dtype == bool
    assert not records["non_finite"].any()
    flagged = records.assign(non_finite=(records["attack"] == "bim") & (records["row"] == 0))
    log_non_finite(flagged, "attack_records")
    n = (len(flagged[flagged["attack"] == "bim"]), int(flagged["non_finite"].sum()))
    (message,) = [record.message for record in caplog.records if "NaN" in record.message]
    assert message.startswith(f"attack bim: NaN or infinity in gradients, logits or pixels of {n[1]} of {n[0]} images")
    assert message.endswith("(attack_records.non_finite)")
