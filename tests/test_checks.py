"""A configuration that cannot work is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.validation.parameter_validator import ParameterValidator
from PIL import Image
from safetensors.torch import save_file

from adv_detect.checks import check_run, check_runtime
from adv_detect.errors import AdvDetectError, CheckpointError, ConfigurationError, DataError
from adv_detect.networks import build_network
from adv_detect.params import AdversarialGenerationParams, DetectorTrainingParams, NetworkParams, RuntimeParams
from adv_detect.pipeline_registry import MAIN_ORDER
from adv_detect.pipelines import checks_of, pipeline_names
from adv_detect.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
from adv_detect.validation.attacks import check_attacks
from adv_detect.validation.detectors import check_detectors
from adv_detect.validation.run import Run

DETECTORS = {"configurations": {"one": {}}}


def merged(old: Any, new: Any) -> Any:
    """Change single values of nested dictionaries."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {name: merged(old.get(name), value) for name, value in new.items()}


@pytest.fixture(scope="module")
def configured(project):
    """Parameters and catalog of environment ``test``, as files state them."""
    configure_project("adv_detect")
    loader = CONFIG_LOADER_CLASS(conf_source=str(project / "conf"), env="test", **CONFIG_LOADER_ARGS)
    return loader["parameters"], loader["catalog"]


@pytest.fixture
def check(configured, tmp_path, monkeypatch):
    """Checks a pipeline with the configuration of environment ``test`` in an empty folder, some values changed."""
    monkeypatch.chdir(tmp_path)

    def run(pipeline="__default__", *, datasets=None, **changes):
        typed = ParameterValidator(dict(pipelines)).validate_raw_params(merged(configured[0], changes))
        catalog = DataCatalog.from_config(configured[1] | (datasets or {}))
        for name, value in typed.items():
            catalog[f"params:{name}"] = MemoryDataset(value)
        catalog["parameters"] = MemoryDataset(typed)
        check_run(pipelines[pipeline], catalog)

    return run


def test_detectors_that_read_a_twin_need_one(check):
    wanted = "detector_training.configurations: twin, twin-joined read the twin, which is configured away with"
    with pytest.raises(ConfigurationError, match=wanted):
        check(twin_training={"network": None})

    without = {"configurations": {"twin": None, "twin-joined": None}}
    check(twin_training={"network": None}, detector_training=without)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": {"twin": {"kind": "twn"}}}, "configurations.twin-joined.kind: detector kind: .*'twn'"),
        ({"members": {"reader": {"hiden": 3}}}, "twin-joined.arguments.members.reader: expected .*mean 'hidden'"),
        ({"members": {"reader": {"hidden": 0}}}, "twin-joined.arguments.members.reader.hidden: Input should be gr"),
        ({"members": {"reader": {"top_k": 11}}}, "twin-joined.arguments.members.reader.top_k: expected at most the 10"),
        ({"rule": "vote"}, "configurations.twin-joined.arguments.rule: expected one of .*got 'vote'"),
        ({"sides": {"writer": "two"}}, "configurations.twin-joined.arguments.sides: expected .*'writer'"),
    ],
)
def test_a_bad_member_of_a_joined_detector_is_named_before_work(check, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        check(detector_training={"configurations": {"twin-joined": {"arguments": changes}}})


def test_a_twin_that_does_not_take_the_images_is_named_before_work(check):
    with pytest.raises(ConfigurationError, match=r"twin_training.network.name: 'strided' with arguments .*in_channels"):
        check(twin_training={"network": {"arguments": {"in_channels": 3}}})


def attack(**changes):
    return {"adversarial_generation": {"attacks": {"bim": changes}}}


@pytest.fixture
def foreign_checkpoint(tmp_path):
    """Weights of a network with seven classes, where the data have ten."""
    path = tmp_path / "seven.safetensors"
    save_file(
        {name: value.contiguous() for name, value in build_network("small", num_classes=7).state_dict().items()}, path
    )
    return path


def test_the_tested_configuration_passes_and_nothing_is_written(check, tmp_path):
    check()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (attack(attack="bimm"), ["attacks.bim.attack: expected one of [", "bim, cw, deep-features", "got 'bimm'"]),
        (attack(attack="foolbox.attacks.Nothing"), ["attacks.bim.attack", "foolbox.attacks.Nothing", "has no 'No"]),
        (
            attack(arguments={"step": 3}),
            ["attacks.bim.arguments", "got 'step' (did you mean 'steps'?)", "random_start"],
        ),
        (attack(arguments={"steps": "many"}), ["attacks.bim.arguments.steps: expected a whole number, got 'many'"]),
        (attack(epsilon=None), ["attacks.bim.epsilon: bim needs the size", "got none"]),
        (attack(epsilon=1.5), ["attacks.bim.epsilon: expected at most 1, the pixel range", "got 1.5"]),
        (attack(epsilon=1.5, norm=None), ["attacks.bim.epsilon: expected at most 1, the pixel range", "got 1.5"]),
        (attack(norm="l1"), ["attacks.bim.norm: expected one of [l2, linf], got 'l1'"]),
        (
            {"network": {"layers": ["dense.relu9"]}},
            ["network.layers: no module 'dense.relu9'; expected of [dense.relu"],
        ),
        ({"network": {"name": "smal"}}, ["network", "small", "wide", "got 'smal'"]),
        ({"network": {"name": "wide", "arguments": {"wdth": 3}}}, ["wdth"]),
        ({"network": {"checkpoint": "no.pt"}}, ["network.checkpoint: expected an existing file, got 'no.pt'"]),
        ({"runtime": {"device": "banana"}}, ["runtime.device: expected auto, cpu, cuda or cuda:<index>, got 'banana'"]),
        ({"evaluation": {"show_class": 10}}, ["evaluation.show_class: expected below 10, got 10"]),
        ({"serving": {"fpr": 0.07}}, ["serving.fpr: expected one of evaluation.fprs", "0.05", "got 0.07"]),
        (
            {"detector_training": {"reference_checkpoints": {"paper": "best.pth"}}},
            ["detector_training.reference_checkpoints.paper: expected an existing file, got 'best.pth'"],
        ),
        (
            {
                "detector_training": {
                    "configurations": {"wide": {"distance": "cosine", "order": "ranked", "top_k": 11}},
                },
            },
            ["detector_training.configurations.wide.top_k: expected at most the 10 classes", "got 11"],
        ),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_key_and_the_choices(check, tmp_path, changes, messages):
    with pytest.raises(AdvDetectError) as caught:
        check(**changes)

    for message in messages:
        assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_for_another_number_of_classes_is_refused(check, foreign_checkpoint):
    with pytest.raises(CheckpointError, match=r"dense\.fc3\.weight.*(7|10).*(7|10)"):
        check(network={"checkpoint": str(foreign_checkpoint)})


def test_a_missing_folder_of_images_is_named(check):
    entry = {"type": "adv_detect.datasets.image_folder.ImageFolderDataset", "filepath": "no/such/folder"}

    with pytest.raises(DatasetError, match="no/such/folder"):
        check(datasets={"train_images": entry})


def class_folders(root, names):
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for image in range(3):
            pixels = torch.full((28, 28), 10 * (number + image), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(root / name / f"{image}.png")
    return {
        "type": "adv_detect.datasets.image_folder.ImageFolderDataset",
        "filepath": str(root),
        "colour": "grayscale",
    }


def test_other_classes_in_the_test_images_are_named(check, tmp_path):
    datasets = {
        "train_images": class_folders(tmp_path / "train", ["ant", "bee", "cat"]),
        "test_images": class_folders(tmp_path / "test", ["ant", "bee", "cow", "dog"]),
    }

    with pytest.raises(DataError, match=r"expected the 3 classes .* got 4; only in test_images: cow, dog; .*: cat;"):
        check("target_training", datasets=datasets)


def test_an_unknown_type_of_dataset_is_named(check):
    with pytest.raises(DatasetError, match=r"(?s)train_images.*ImageFodlerDataset"):
        check(datasets={"train_images": {"type": "adv_detect.datasets.image_folder.ImageFodlerDataset"}})


@pytest.mark.parametrize(
    ("pipeline", "missing", "maker"),
    [
        ("feature_extraction", "network_weights", "target_training"),
        ("representatives", "features", "feature_extraction"),
        ("adversarial_generation", "representatives", "representatives"),
        ("detector_training", "adversarials", "adversarial_generation"),
        ("evaluation", "detectors", "detector_training"),
    ],
)
def test_missing_results_of_an_earlier_pipeline_name_that_pipeline(check, pipeline, missing, maker):
    with pytest.raises(DataError, match=rf"{missing}[^()]* \(--pipeline={maker}\)"):
        check(pipeline)


def test_the_first_pipeline_needs_nothing_on_disk(check):
    check("target_training")


def test_every_criterion_needs_an_attack_to_train_on():
    attacks = AdversarialGenerationParams.model_validate(
        {"attacks": {"bim": {"attack": "bim", "epsilon": 0.3, "criteria": ["targeted"]}}}
    )

    check_detectors(DetectorTrainingParams.model_validate(DETECTORS | {"criteria": ["targeted"]}), attacks)
    for criterion in ("untargeted", "both"):
        wanted = DetectorTrainingParams.model_validate(DETECTORS | {"criteria": [criterion]})
        with pytest.raises(ConfigurationError, match=rf"criteria: '{criterion}' needs an attack with train: true"):
            check_detectors(wanted, attacks)


def test_an_epsilon_is_compared_with_the_range_of_the_network():
    attacks = AdversarialGenerationParams.model_validate({"attacks": {"bim": {"attack": "bim", "epsilon": 8}}})

    check_attacks(attacks, NetworkParams(bounds=(0, 255)))
    with pytest.raises(ConfigurationError, match="at most 1, the pixel range"):
        check_attacks(attacks, NetworkParams(bounds=(0, 1)))


def test_ray_must_be_installed_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("adv_detect.checks.find_spec", lambda _: None)

    check_runtime(RuntimeParams(device="cpu"))
    with pytest.raises(ConfigurationError, match=r"runtime.engine: 'ray' .* pip install -e '\.\[ray\]'"):
        check_runtime(RuntimeParams(device="cpu", engine="ray"))


def test_a_published_detector_must_say_in_its_name_what_it_reads(tmp_path):
    file = Path(tmp_path / "detector.pth")
    torch.save({}, file)
    params = DetectorTrainingParams.model_validate(DETECTORS | {"reference_checkpoints": {"paper": str(file)}})

    with pytest.raises(ConfigurationError, match=r"detector\.pth"):
        check_detectors(params, None)


@pytest.mark.parametrize(
    ("arch", "tensors", "message"),
    [
        ("lstm", {"lstm.weight_ih_l0": (20, 500)}, "for the 10 classes of train_images, '.*' is for 500"),
        ("mlp", {"fc.0.weight": (20, 8001)}, "for the 10 classes of train_images, '.*' is for 8001 inputs"),
        ("lstm", None, "expected a torch.save dictionary of tensors"),
    ],
)
def test_a_published_detector_for_other_data_is_refused_before_work(check, tmp_path, arch, tensors, message):
    path = tmp_path / f"best_model_with_arch_{arch}_method_m_dist_cosine_criterion_t_lr_0.0003_bs_32_ba_4_weightd_0.pth"
    recurrent = {"lstm.weight_hh_l0": (20, 5), "lstm.bias_ih_l0": (20,), "lstm.bias_hh_l0": (20,)}
    shapes = (recurrent if arch == "lstm" else {"fc.0.bias": (20,)}) | (tensors or {})
    head = {"classifier.weight": (1, 5 if arch == "lstm" else 20), "classifier.bias": (1,)}
    if tensors is None:
        path.write_text("no checkpoint")
    else:
        torch.save({"detector": {name: torch.zeros(shape) for name, shape in (shapes | head).items()}}, path)

    with pytest.raises((ConfigurationError, CheckpointError), match=message):
        check(detector_training={"reference_checkpoints": {"paper": str(path)}})


def test_images_to_attack_that_are_training_images_are_refused(check, tmp_path):
    same = class_folders(tmp_path / "images", ["ant", "bee", "cat"])
    with pytest.raises(DataError, match=r"train_images and test_images: expected different images, got 9 of 9"):
        check("target_training", datasets={"train_images": same, "test_images": same})


FAULTS_OF_OTHERS = {
    "adaptive_attack": {"substitute": {"attacks": ["no"]}},
    "adversarial_generation": {"attacks": {"bim": {"epsilon": 3.0}}},
    "detector_training": {"reference_checkpoints": {"paper": "best.pth"}},
    "evaluation": {"show_class": 99},
    "face_recognition": {"pairs": {"number": 10**6}},
    "serving": {"fpr": 0.07},
    "splits": {"max_images": 3},
}


@pytest.mark.parametrize("block", FAULTS_OF_OTHERS)
def test_a_pipeline_is_not_refused_for_what_only_others_need(check, block):
    check("target_training", **{block: FAULTS_OF_OTHERS[block]})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("target_training", ("target_training",)),
        ("evaluation", ("evaluation", "reporting")),
        ("adaptive_attack", ("adaptive_attack", "reporting")),  # the nodes of its substitute are its own
        ("face_recognition", ("face_recognition", "reporting")),
    ],
)
def test_the_checks_of_a_run_are_those_of_the_pipelines_that_run(configured, name, expected):
    assert Run(pipelines[name], DataCatalog()).pipelines == expected


def test_the_whole_job_is_checked_pipeline_by_pipeline_in_the_order_in_which_they_run(configured):
    found = Run(pipelines["__default__"], DataCatalog()).pipelines
    assert set(found) == set(MAIN_ORDER)
    assert found.index("target_training") < found.index("detector_training") < found.index("evaluation")
    assert {name for name in pipeline_names() if checks_of(name)} == {
        "target_training",
        "adversarial_generation",
        "detector_training",
        "evaluation",
        "face_recognition",
        "adaptive_attack",
        "twin_training",
        "calibration",
        "monitoring",
        "scoring",
    }
