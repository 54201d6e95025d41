"""Every name and value of the parameter files is checked before any pipeline is looked at."""

from __future__ import annotations

import math
from difflib import get_close_matches

import pytest

from adv_detect.errors import ConfigurationError
from adv_detect.params import BLOCKS
from adv_detect.validation.blocks import check_parameters, interpolated_parameters

ADAPTIVE = {"detectors": ["a"], "budgets": {"linf": [0.1]}, "attacks": {"selective": {"attack": "selective"}}}


def attack(**values):
    return {"adversarial_generation": {"attacks": {"bim": {"attack": "bim", "epsilon": 0.3} | values}}}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"adverserial_generation": {}}, "got 'adverserial_generation' (did you mean 'adversarial_generation'?)"),
        ({"run_time": {}}, "got 'run_time' (did you mean 'runtime'?)"),
        (
            {"detector_training": {"configurations": {"a": {}}, "fit": {"epoch": 3}}},
            "detector_training.fit: expected keys of [epochs, batch_size, learning_rate, weight_decay, lr_patience, "
            "lr_floor, stop_patience], got 'epoch' (did you mean 'epochs'?)",
        ),
        ({"runtime": {"seed": 2**70}}, "runtime.seed: expected less than or equal to 2147483647, got 1180591620717411"),
        ({"runtime": {"batch_size": 0}}, "runtime.batch_size: expected greater than or equal to 1, got 0"),
        ({"runtime": {"batch_size": True}}, "runtime.batch_size: expected no true or false here, got True"),
        ({"runtime": 3}, "runtime: expected a mapping of keys to values, got 3"),
        ({"target_training": {"epochs": "ten"}}, "target_training.epochs: expected a whole number, got 'ten'"),
        (
            {"target_training": {"learning_rate": math.inf}},
            "target_training.learning_rate: expected a finite number, got inf",
        ),
        (
            {"target_training": {"weight_decay": math.nan}},
            "target_training.weight_decay: expected a finite number, got nan",
        ),
        ({"target_training": {"optimizer": "lion"}}, "target_training.optimizer: expected 'adam' or 'sgd', got 'lion'"),
        ({"network": {"bounds": [0, math.nan]}}, "network.bounds.1: expected a finite number, got nan"),
        (
            {"network": {"preprocessing": {"mean": [math.inf]}}},
            "network.preprocessing.mean.0: expected a finite number",
        ),
        (
            {"network": {"preprocessing": {"std": [0.0]}}},
            "network.preprocessing.std.0: expected greater than 0, got 0.0",
        ),
        ({"network": {"arguments": {"width": [1.0, math.nan]}}}, "network.arguments: expected finite numbers, got nan"),
        (attack(arguments={"rel_stepsize": math.nan}), "attacks.bim.arguments: expected finite numbers, got nan"),
        (attack(arguments={"rel_stepsize": "nan"}), "attacks.bim.arguments: expected finite numbers, got 'nan'"),
        (attack(epsilon="inf"), "adversarial_generation.attacks.bim.epsilon: expected a finite number, got 'inf'"),
        (attack(criteria=[]), "adversarial_generation.attacks.bim.criteria: expected at least 1 value, got []"),
        (attack(criteria=["targeted"] * 2), "attacks.bim.criteria: expected each once, got targeted more than once"),
        (attack(splits=["train"], train=False), "attacks.bim.splits: an attack with train: false is met in the test"),
        (
            {"detector_training": {"configurations": {"a": {}}, "seeds": [-1]}},
            "detector_training.seeds.0: expected greater than or equal to 0, got -1",
        ),
        (
            {"detector_training": {"configurations": {"a": {}}, "seeds": [0, 0]}},
            "detector_training.seeds: expected each once, got 0 more than once",
        ),
        (
            {"detector_training": {"configurations": {"a": {}}, "fit": {"lr_floor": 0.1}}},
            "detector_training.fit.lr_floor: expected at most the learning_rate 0.001, got 0.1",
        ),
        (
            {"detector_training": {"configurations": {"a": {}}, "reference_checkpoints": {"A": "x.pth"}}},
            "reference_checkpoints: expected other names than those of configurations, got ['A']",
        ),
        ({"serving": {"name": "a/b"}}, "serving.name: expected a name of at most 64 letters"),
        ({"serving": {"name": "a:b"}}, "got 'a:b'"),
        ({"serving": {"name": "a.b"}}, "got 'a.b'"),
        ({"serving": {"name": ""}}, "got ''"),
        ({"evaluation": {"bootstrap": 1}}, "evaluation.bootstrap: expected 0 (no intervals) or at least 20 resamples"),
        (
            {"evaluation": {"bootstrap": 99, "confidence_level": 0.99}},
            "at least 100 resamples for confidence_level 0.99, got 99",
        ),
        (
            {"face_recognition": {"pairs": {"number": 8, "folds": 5}}},
            "face_recognition.pairs.number: expected at least 10",
        ),
        (
            {"face_recognition": {"thresholds": ["best"]}},
            "face_recognition.thresholds.0: expected 'accuracy' or 'eer' or",
        ),
        ({"adaptive_attack": ADAPTIVE | {"budgets": {}}}, "adaptive_attack.budgets: expected at least 1 value, got {}"),
        (
            {"adaptive_attack": ADAPTIVE | {"budgets": {"l3": [1]}}},
            "adaptive_attack.budgets.l3: expected 'l2' or 'linf'",
        ),
        ({"adaptive_attack": ADAPTIVE | {"detectors": []}}, "adaptive_attack.detectors: expected at least 1 value"),
        ({"adaptive_attack": {"attacks": {}}}, "adaptive_attack.detectors: expected a value, got none"),
    ],
)
def test_one_sentence_names_key_value_and_choices(parameters, message):
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(parameters)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("block", ["adversarial_generation.attacks", "detector_training.configurations"])
@pytest.mark.parametrize(
    "name", ["", "a/b", "a\0b", "a\nb", "x" * 65, ".hidden", "end.", "a b", "über", "natural:1", "..", "-x", "a+b"]
)
def test_a_name_that_cannot_be_a_file_everywhere_is_refused(block, name):
    top, inner = block.split(".")

    with pytest.raises(ConfigurationError) as caught:
        check_parameters({top: {inner: {name: {"attack": "bim"} if "attacks" in block else {}}}})

    assert str(caught.value).startswith(f"{block}: expected a name of at most 64 letters")
    assert repr(name[:64])[:-1] in str(caught.value)


def test_names_that_differ_in_case_alone_would_be_one_file_on_some_systems():
    with pytest.raises(ConfigurationError, match="differ in more than case, got 'one' and 'One'"):
        check_parameters({"detector_training": {"configurations": {"one": {}, "One": {}}}})


def test_all_faults_are_named_at_once():
    with pytest.raises(ConfigurationError, match=r"runtime\.seed: .*; serving\.fpr: "):
        check_parameters({"runtime": {"seed": "x"}, "serving": {"fpr": 2}})


def test_names_that_only_the_command_line_gives_are_known_by_where_they_are_used(tmp_path):
    (tmp_path / "lfw").mkdir()
    (tmp_path / "lfw" / "catalog.yml").write_text("a: {b: '${runtime_params:faces.max_classes, null}'}")
    known = interpolated_parameters(tmp_path)

    check_parameters({"faces": {"max_classes": 3}, "_anchor": 3}, further=known)
    with pytest.raises(ConfigurationError, match=r"got 'faces.max_clases' \(did you mean 'faces.max_classes'\?\)"):
        check_parameters({"faces": {"max_clases": 3}}, further=known)


def test_no_block_is_so_near_another_that_a_hint_would_mislead():
    for name in BLOCKS:
        others = [other for other in BLOCKS if other != name]
        assert not get_close_matches(name, others, n=1, cutoff=0.8)
