"""Catalog and parameters of every environment fit the pipelines."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog
from kedro.validation import ParameterValidationError
from kedro.validation.parameter_validator import ParameterValidator

from adv_detect.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).resolve().parents[1] / "conf"
ENVIRONMENTS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "local")
IN_MEMORY = {
    "benign_figures",
    "detection_figures",
    "input_figures",
    "evaluation_pictures",
    "adaptive_figures",
    "adaptive_pictures",
    "attack_setting",
    "adaptive_tables",
    "face_figures",
    "face_pictures",
    "scoring_model",
    "scoring_summary",
    "face_report_sections",
    "monitoring_picture",
    "scoring_log",
    "substitute_models",
    "clean_pairs",
}
FACES_ONLY = {"verification_images", "verification_pairs"}  # such images come with the environments of faces


@cache
def load(env: str) -> tuple[dict[str, Any], dict[str, Any]]:
    loader = CONFIG_LOADER_CLASS(conf_source=str(CONF), env=env, **CONFIG_LOADER_ARGS)
    return loader["catalog"], loader["parameters"]


def read(env: str) -> tuple[DataCatalog, dict[str, Any]]:
    entries, parameters = deepcopy(load(env))
    return DataCatalog.from_config(entries), parameters


def validate(parameters: dict[str, Any]) -> dict[str, Any]:
    configure_project("adv_detect")
    return ParameterValidator(dict(pipelines)).validate_raw_params(parameters)


def exchanged() -> set[str]:
    configure_project("adv_detect")
    names = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    return {name for name in names if not name.startswith("params:") and name != "parameters"}


def test_the_environments_are_found():
    assert {"base", "mnist", "cifar10", "test"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_exchanged_dataset_is_in_the_catalog_or_on_the_list(env):
    catalog, _ = read(env)
    expected = exchanged() - IN_MEMORY - (FACES_ONLY if env not in ("lfw", "vggface2") else set())

    missing = {name for name in expected if name not in catalog}

    assert missing == set()
    assert "a_name_that_nobody_uses" not in catalog, "a catch-all pattern hides misspelt names"


def test_the_list_of_datasets_in_memory_holds_nothing_else():
    assert exchanged() >= IN_MEMORY | FACES_ONLY


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_dataset_can_be_built_and_has_a_layer_in_the_picture(env):
    catalog, _ = read(env)

    for name in sorted(exchanged() - IN_MEMORY):
        if name in catalog:
            metadata = catalog.get(name).metadata
            assert metadata["kedro-viz"]["layer"], name


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_parameters_fit_their_blocks(env):
    _, parameters = read(env)

    typed = validate(parameters)

    needed = {name for pipeline in pipelines.values() for name in pipeline.inputs() if name.startswith("params:")}
    assert {name.removeprefix("params:").split(".")[0] for name in needed} <= typed.keys()
    assert typed["runtime"].shard_size >= 1
    assert typed["adversarial_generation"].active


def test_an_environment_changes_single_values():
    _, parameters = read("test")
    _, base = read("base")

    bim, default = (one["adversarial_generation"]["attacks"]["bim"] for one in (parameters, base))

    assert bim["arguments"]["steps"] != default["arguments"]["steps"]
    assert bim["epsilon"] == default["epsilon"]


@pytest.mark.parametrize(
    ("path", "value", "messages"),
    [
        (("runtime", "bach_size"), 3, ["'runtime'", "expected keys of [seed, device", "'bach_size'", "'batch_size'"]),
        (
            ("adversarial_generation", "attacks", "bim", "epsilonn"),
            0.3,
            ["attacks.bim", "'epsilonn' (did you mean 'epsilon'?)", "return_early"],
        ),
        (("detector_training", "leave_one_out"), ["lstm"], ["leave_one_out: expected names of", "got ['lstm']"]),
        (("detector_training", "criteria"), ["sideways"], ["criteria.0", "'targeted', 'untargeted' or 'both'"]),
        (("network", "preprocessing", "std"), [0.0], ["preprocessing.std.0", "greater than 0"]),
        (("splits", "test"), 0.9, ["= 1, got 1.55"]),
    ],
)
def test_a_misspelt_key_or_a_bad_value_is_refused_with_its_name(path, value, messages):
    _, parameters = read("base")
    block = parameters
    for name in path[:-1]:
        block = block[name]
    block[path[-1]] = value

    with pytest.raises(ParameterValidationError) as caught:
        validate(parameters)

    for message in messages:
        assert message in str(caught.value)
