"""Parameter blocks refuse what cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from adv_detect.measures.detector_keys import rate_label, rate_text
from adv_detect.params import (
    BLOCKS,
    AdaptiveAttackParams,
    AdversarialGenerationParams,
    AttackParams,
    DetectorParams,
    DetectorTrainingParams,
    EvaluationParams,
    NetworkParams,
    SplitParams,
    TwinTrainingParams,
)
from adv_detect.pipelines import pipeline_names

CONFIGURATION = Path(__file__).parents[2] / "conf" / "base"


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (AttackParams, {"attack": "bim", "epsilonn": 0.3}, "epsilonn"),
        (AttackParams, {"attack": "bim", "epsilon": -0.1}, "greater than 0"),
        (AttackParams, {"attack": "bim", "epsilon": "8/zero"}, "a fraction such as '8/255'"),
        (AttackParams, {"attack": "bim", "splits": ["test"]}, "train: false"),
        (AttackParams, {"attack": "bim", "criteria": ["sideways"]}, "'targeted' or 'untargeted'"),
        (
            AdversarialGenerationParams,
            {"attacks": {"a/b": {"attack": "bim"}}},
            "a name of at most 64 letters, .* got 'a/b'",
        ),
        (DetectorParams, {"distance": "manhattan"}, "'mahalanobis'"),
        (DetectorParams, {"top_k": 3}, "only with order: ranked"),
        (DetectorTrainingParams, {"configurations": {"a": {}}, "leave_one_out": ["b"]}, r"expected names of \['a'\]"),
        (DetectorTrainingParams, {"configurations": {"a": None}}, "configurations: expected at least one"),
        (NetworkParams, {"bounds": [1, 0]}, "low < high"),
        (TwinTrainingParams, {"epsilon": "8/zero"}, "a fraction such as '8/255'"),
        (TwinTrainingParams, {"losses": ["softmax", "one_vs_all"], "holdout": 0}, "compared on the images of holdout"),
        (TwinTrainingParams, {"losses": ["softmax", "one_vs_all"], "epochs": 0}, "nothing is trained"),
        (TwinTrainingParams, {"losses": ["one_vs_all"], "method": "trades"}, "takes softmax only"),
        (
            TwinTrainingParams,
            {"network": {"name": "same", "arguments": {"width": 3}}},
            "arguments: not with name: same",
        ),
        (SplitParams, {"train": 0.5, "validation": 0.5, "test": 0.5}, "= 1, got 1.5"),
    ],
)
def test_a_bad_value_is_named(kind: type, values: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(values)


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", "a\nb", "a" * 300, "_a", "..", "a\\b"])
@pytest.mark.parametrize(
    ("kind", "key", "values"),
    [
        (AdversarialGenerationParams, "attacks", lambda name: {"attacks": {name: {"attack": "bim"}}}),
        (DetectorTrainingParams, "configurations", lambda name: {"configurations": {name: {}}}),
        (
            DetectorTrainingParams,
            "reference_checkpoints",
            lambda name: {"configurations": {"a": {}}, "reference_checkpoints": {name: "b.pth"}},
        ),
        (
            AdaptiveAttackParams,
            "attacks",
            lambda name: {"detectors": ["a"], "budgets": {"linf": [0.1]}, "attacks": {name: {"attack": "selective"}}},
        ),
    ],
)
def test_a_name_that_cannot_be_a_folder_is_refused(kind: type, key: str, values: Callable, name: str):
    with pytest.raises(ValidationError, match=rf"{key}\n.*expected a name of at most 64 letters, digits"):
        kind.model_validate(values(name))


def test_an_epsilon_may_be_a_fraction():
    assert AttackParams(attack="bim", epsilon="8/255").epsilon == pytest.approx(8 / 255)


def test_an_attack_set_to_null_is_removed():
    params = AdversarialGenerationParams.model_validate({"attacks": {"bim": {"attack": "bim"}, "cw": None}})

    assert list(params.active) == ["bim"]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ({"return_early": True}, "early"),
        ({"return_early": False}, "confident"),
        ({"arguments": {"confidence": 2.0}}, "confident"),
        ({"arguments": {"confidence": 0.0}}, "early"),
        ({"arguments": {"confidence": "5"}}, "confident"),
        ({"arguments": {"confidence": "1/2"}}, "confident"),
    ],
)
def test_an_attack_knows_its_form(values: dict, form: str):
    assert AttackParams(attack="cw", **values).form == form


def test_blocks_are_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        SplitParams().train = 0.1


@pytest.mark.parametrize("name", ["natural", "noise", "all", "macro", "worst"])
def test_attacks_must_not_be_named_like_other_rows_of_the_tables(name):
    with pytest.raises(ValidationError, match=rf"is none of .*got '{name}'"):
        AdversarialGenerationParams.model_validate({"attacks": {name: {"attack": "bim"}}})


@pytest.mark.parametrize("name", ["margin", "untrained"])
def test_configurations_must_not_be_named_like_controls(name):
    with pytest.raises(ValidationError, match=rf"is none of .*got '{name}'"):
        DetectorTrainingParams.model_validate({"configurations": {name: {}}})


@pytest.mark.parametrize("fprs", [(0.01, 0.05, 1.5), (0.01, 0.05, -1), (0.05, 0.1), (0.01, 0.01, 0.05)])
def test_rates_that_the_tables_cannot_show_are_refused(fprs):
    with pytest.raises(ValidationError, match="fprs"):
        EvaluationParams(fprs=fprs)


@pytest.mark.parametrize(
    ("fpr", "label", "text"), [(0.05, "05", "5%"), (0.125, "12_5", "12.5%"), (0.005, "00_5", "0.5%")]
)
def test_any_rate_has_a_column(fpr, label, text):
    assert EvaluationParams(fprs=(0.01, 0.05, *({fpr} - {0.05}))).fprs
    assert (rate_label(fpr), rate_text(rate_label(fpr))) == (label, text)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_defined_in_the_module_of_its_name_and_stands_in_the_file_of_its_pipeline(name):
    assert BLOCKS[name].__module__ == f"adv_detect.params.{name}"
    file = f"parameters_{name}.yml" if name in pipeline_names() else "parameters.yml"
    assert name in yaml.safe_load((CONFIGURATION / file).read_text(encoding="utf-8"))
