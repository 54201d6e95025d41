"""A detector that compares views goes all the way, and only what it reads is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from kedro.config import OmegaConfigLoader
from kedro.io import MemoryDataset
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from adv_detect.algorithms.detectors import Activations, Detector, LearnsFrom, Reads, build_detector
from adv_detect.algorithms.detectors.registry import needed_views
from adv_detect.algorithms.features import network_logits
from adv_detect.algorithms.image_changes import build_change
from adv_detect.errors import ConfigurationError
from adv_detect.jobs.activations import read_activations
from adv_detect.jobs.detectors import restore
from adv_detect.names import ShardKey
from adv_detect.params import (
    AdaptiveAttackParams,
    DetectorParams,
    DetectorTrainingParams,
    ImageChangeParams,
    ServingParams,
)
from adv_detect.pipelines import detector_training, evaluation
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors, collect_adaptive_records
from adv_detect.pipelines.adversarial_generation.nodes import generate_adversarials
from adv_detect.pipelines.detector_training.nodes import compute_activations, train_detectors
from adv_detect.serving.bundle import ScoringBundle, score_images
from adv_detect.serving.registration import model_parts, serving_dependencies
from adv_detect.sharding import ShardStore
from adv_detect.sharding.execution import execute_plan
from adv_detect.validation.image_changes import check_views

KEY = "squeezed/none/nothing/0"
GIVEN = ("twin", "adversarials", "network_weights", "representatives", "test_images", "source_splits", "attack_records")
VIEWS: dict[str, Any] = {
    "blur": {"kind": "blur", "arguments": {"sigma": 1.0}},
    "unread": {"kind": "median"},
    "jpeg": {"kind": "jpeg", "arguments": {"quality": 75}},
    "mirrored": {"kind": f"{__name__}.mirror", "arguments": {"axis": 3}},
}


def mirror(images: Tensor, bounds: tuple[float, float], axis: int) -> Tensor:
    return images.flip(axis)


class Squeezed(Detector):
    """How far the softmax of some views lies from that of the image, at most (feature squeezing)."""

    learns_from = LearnsFrom.NOTHING

    def __init__(self, representatives, views: list[str]) -> None:
        super().__init__()
        self.reads = self.needs({"views": views})[1]

    @classmethod
    def needs(cls, arguments) -> tuple[LearnsFrom, Reads]:
        return cls.learns_from, Reads(layers=False, views=tuple(arguments["views"]))

    def forward(self, activations: Activations) -> Tensor:
        own = activations.logits.softmax(dim=1)
        moved = [(activations.views[name].softmax(dim=1) - own).abs().sum(dim=1) for name in self.reads.views]
        return torch.stack(moved).amax(dim=0)


class Careless(Squeezed):
    """Reads more than its class says."""

    needs = classmethod(lambda cls, arguments: (cls.learns_from, Reads()))

    def __init__(self, representatives) -> None:
        super().__init__(representatives, [])
        self.reads = Reads(views=("blur",))


def training(*views: str, **further: Any) -> DetectorTrainingParams:
    squeezed = {"kind": f"{__name__}.Squeezed", "arguments": {"views": list(views)}}
    plain = {"kind": "mlp", "hidden": 4}
    return DetectorTrainingParams.model_validate(
        {
            "configurations": {"squeezed": squeezed, "plain": plain},
            "criteria": ["untargeted"],
            "fit": {"epochs": 1},
            "views": VIEWS,
        }
        | further
    )


@pytest.fixture(scope="module")
def shop(finished, workshop, tmp_path_factory):
    """Detector training and evaluation of the finished run's images, with a detector that reads two views."""
    blocks = {"detector_training": training("jpeg", "blur"), "serving": ServingParams(fpr=0.1)}
    made = workshop(tmp_path_factory.mktemp("views"), **blocks)
    for name in GIVEN:
        made.catalog[name] = MemoryDataset(finished[name], copy_mode="assign")
    made.run(detector_training.create_pipeline())
    made.run(evaluation.create_pipeline().to_nodes("measure_detection"))
    return made


@pytest.mark.parametrize("store", ["activations", "control_activations"])
def test_the_logits_of_the_views_that_are_read_are_stored(shop, store):
    key = {"activations": "cw/untargeted/test-0000", "control_activations": "8bit/cw/untargeted/test-0000"}[store]
    images = shop["adversarials"][ShardKey.parse(key)._replace(variant="float").text].tensors["images"]
    if store == "control_activations":
        images = (images * 255).round() / 255
    network = shop["network_weights"]

    found = read_activations(shop[store][key])

    assert list(found.views) == ["blur", "jpeg"]
    blurred = transforms.gaussian_blur(images, [7, 7], [1.0, 1.0])
    torch.testing.assert_close(found.views["blur"], network_logits(network, blurred), rtol=1e-4, atol=1e-4)
    coded = build_change("jpeg", ImageChangeParams.model_validate(VIEWS["jpeg"]))(images, network.spec.bounds)
    assert not torch.equal(coded, images)
    torch.testing.assert_close(found.views["jpeg"], network_logits(network, coded), rtol=1e-4, atol=1e-4)


def test_it_is_measured(shop):
    metrics = shop["detection_metrics"]

    assert metrics.loc[metrics["detector"] == KEY, "auc"].notna().any()
    assert shop["detectors"].metadata(KEY)["views"] == {name: VIEWS[name] for name in ("blur", "jpeg")}
    assert "views" not in shop["detectors"].metadata("plain/untargeted/all/0")


def test_it_is_served_with_its_views(shop, tmp_path):
    champion = shop["champion_model"]
    scores = shop.scores
    rows = scores[(scores["detector"] == KEY) & (scores["attack"] == "natural") & (scores["split"] == "test")]
    content = shop["adversarials"]["natural/test-0000"]
    stored = restore(shop["detectors"], KEY, shop["representatives"])
    bundle = ScoringBundle(champion.network, champion.representatives, stored, champion.metadata)
    bundle.save(tmp_path)

    served = score_images(ScoringBundle.load(tmp_path), content.tensors["images"].numpy())

    wanted = rows.set_index("source_id").loc[content.metadata["source_ids"], "score"]
    np.testing.assert_allclose(served["adversarial_score"], wanted, atol=1e-4)


def test_a_served_model_with_views_takes_along_what_they_need(shop, tmp_path, monkeypatch):
    (tmp_path / "own_views.py").write_text("def mirror(images, bounds):\n    return images.flip(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    stored = restore(shop["detectors"], KEY, shop["representatives"])
    own = stored.facts["views"] | {"own": {"kind": "own_views.mirror", "arguments": {}}}
    bundle = replace(shop["champion_model"], stored=replace(stored, facts=dict(stored.facts) | {"views": own}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    code, requirements = serving_dependencies(model_parts(bundle), scratch)

    assert any(one.startswith("torchvision==") for one in requirements)
    assert str(tmp_path / "own_views.py") in code


def test_it_is_attacked_through_its_views(shop, tmp_path):
    setting = AttackSetting(
        images=shop["test_images"],
        network=shop["network_weights"],
        representatives=shop["representatives"],
        activations=shop["activations"],
        substitute=None,
        runtime=shop["params:runtime"],
    )
    params = AdaptiveAttackParams.model_validate(
        {
            "detectors": ["squeezed"],
            "budgets": {"linf": [0.3]},
            "max_images": 6,
            "attacks": {"selective": {"attack": "selective", "arguments": {"steps": 8}}},
            "hardening": {"rounds": 0},
        }
    )
    plan = attack_detectors(setting, shop["detectors"], shop["params:detector_training"], params)
    store = ShardStore(str(tmp_path / "attacked"))
    for spec in plan.shards:
        store.write(spec.key, plan.work(spec.arguments), spec.fingerprint)

    records = collect_adaptive_records(store, ShardStore(str(tmp_path / "none")))

    assert set(records["detector"]) == {KEY}
    assert records["fooled"].any()
    assert (records["zero_gradient_share"] < 1).all()


def planned(shop, params: DetectorTrainingParams, network: Any = None) -> Any:
    names = ("adversarials", "representatives", "twin", "params:runtime", "params:evaluation")
    images, classes, twin, *further = (shop[name] for name in names)
    return compute_activations(images, network or shop["network_weights"], classes, twin, params, *further)


def remade(store: ShardStore, plan: Any) -> int:
    held = store.fingerprints()
    return sum(held.get(key) != made_from for key, made_from in plan.fingerprints.items())


def test_a_view_that_is_read_remakes_all_activations_and_one_that_nobody_reads_none(shop):
    store = shop["activations"]
    stronger = VIEWS | {"unread": {"kind": "median", "arguments": {"size": 5}}}
    sharper = VIEWS | {"jpeg": {"kind": "jpeg", "arguments": {"quality": 76}}}

    assert remade(store, planned(shop, training("jpeg", "blur"))) == 0
    assert remade(store, planned(shop, training("jpeg", "blur", views=stronger))) == 0
    assert remade(store, planned(shop, training("jpeg", "blur", views=sharper))) == len(store)
    assert remade(store, planned(shop, training("jpeg", "blur", "unread"))) == len(store)


def test_without_views_activations_are_those_of_a_run_that_knows_none(shop, finished):
    plain = training(views={}, configurations={"plain": {"kind": "mlp", "hidden": 4}})

    assert remade(finished["activations"], planned(shop, plain)) == 0


def test_a_comment_in_the_parameter_file_remakes_nothing(shop, tmp_path):
    text = yaml.safe_dump({"detector_training": training("jpeg", "blur").model_dump(mode="json")})
    file = tmp_path / "base" / "parameters.yml"
    file.parent.mkdir()
    file.write_text(f"# the detectors\n{text.replace('views:', 'views:  # of the image', 1)}  # the end\n")

    read = OmegaConfigLoader(str(tmp_path), base_env="base", default_run_env="base")["parameters"]

    params = DetectorTrainingParams.model_validate(read["detector_training"])
    plan = train_detectors(
        *(shop[name] for name in ("activations", "representatives")),
        params,
        *(shop[f"params:{name}"] for name in ("adversarial_generation", "runtime")),
    )
    assert remade(shop["activations"], planned(shop, params)) == 0
    assert remade(shop["detectors"], plan) == 0


def test_a_further_view_trains_only_the_detectors_that_read_it(shop, tmp_path):
    params = training("jpeg", "blur", "mirrored")
    store = ShardStore(str(tmp_path / "activations"))
    execute_plan(planned(shop, params), store)

    plan = train_detectors(
        store, shop["representatives"], params, shop["params:adversarial_generation"], shop["params:runtime"]
    )

    held = shop["detectors"].fingerprints()
    assert [key for key, made_from in plan.fingerprints.items() if held[key] != made_from] == [KEY]


def test_a_further_layer_remakes_activations_but_no_attack(shop, finished):
    network = finished["network_weights"]
    fewer = network.with_spec(layers=network.spec.layers[1:])

    def attacks(target: Any) -> Any:
        blocks = ("adversarial_generation", "runtime", "detector_training")
        names = ("representatives", "source_splits", *(f"params:{one}" for one in blocks))
        return generate_adversarials(finished["test_images"], target, *(finished[name] for name in names))

    assert remade(shop["activations"], planned(shop, training("jpeg", "blur"), fewer)) == len(shop["activations"])
    assert remade(finished["adversarials"], attacks(network)) == 0
    assert remade(finished["adversarials"], attacks(fewer)) == 0


def test_a_view_that_is_not_configured_is_refused():
    with pytest.raises(ConfigurationError, match=r"configurations\.squeezed.*\[blur, jpeg.*'blurr'.*'blur'\?"):
        check_views(training("blurr"))


@pytest.mark.parametrize(
    ("view", "match"),
    [
        ({"kind": "jpg"}, r"detector_training\.views\.x\.kind: expected one of .*'jpg' \(did you mean 'jpeg'\?\)"),
        ({"kind": "jpeg", "arguments": {"qualty": 3}}, r"views\.x\.arguments: .*'qualty' \(did you mean 'quality'\?\)"),
        ({"kind": "noise", "arguments": {"std": 0.1}}, "expected a change that is the same each time, got 'noise'"),
    ],
)
def test_a_view_that_cannot_be_made_is_refused_also_where_nobody_reads_it(view, match):
    with pytest.raises(ConfigurationError, match=match):
        check_views(training("blur", views=VIEWS | {"x": view}))


def test_a_detector_that_reads_more_than_its_class_says_is_refused(finished):
    with pytest.raises(ConfigurationError, match="override the class method needs"):
        build_detector(DetectorParams(kind=f"{__name__}.Careless"), finished["representatives"])


def test_views_are_chosen_in_configured_order():
    params = training("jpeg", "blur")

    assert list(needed_views(params.active, params.active_views)) == ["blur", "jpeg"]
