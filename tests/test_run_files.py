"""Run files of the project: every one fits its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adv_detect.environments import EnvironmentConfigLoader
from adv_detect.params import BLOCKS
from adv_detect.settings import CONFIG_LOADER_ARGS
from adv_detect.validation.blocks import check_parameters, interpolated_parameters
from adv_detect.validation.detectors import check_arguments, check_top_k

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
RUN_FILES = [*sorted(CONF.glob("*/run_*.yml")), ROOT / "benchmarks" / "readers_only.yml"]
DIGITS, OBJECTS, PEOPLE = 10, 10, 62
CLASSES = {"base": DIGITS, "mnist": DIGITS, "cifar10": OBJECTS, "lfw": PEOPLE}


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_run_file_names_what_there_is_and_no_detector_reads_more_classes_than_its_data_have(path):
    run = yaml.safe_load(path.read_text())["run"]
    env = run.get("env") or "base"
    loader = EnvironmentConfigLoader(CONF, env, runtime_params=run["params"], **CONFIG_LOADER_ARGS)
    parameters = loader["parameters"]
    assert env == (path.parent.name if path.is_relative_to(CONF) else "base")
    check_parameters(parameters, further=interpolated_parameters(CONF))
    classes = (parameters.get("faces") or {}).get("max_classes") or CLASSES[env]
    detectors = BLOCKS["detector_training"].model_validate(parameters["detector_training"])
    check_top_k(detectors, classes)
    check_arguments(detectors, layers=("one", "two"), class_names=tuple(map(str, range(classes))), clean=None)
