"""Small adaptive attacks on the finished tiny run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adv_detect.algorithms.detectors.stored import CLEAN_SCORES
from adv_detect.jobs.detectors import restore
from adv_detect.params import AdaptiveAttackParams
from adv_detect.pipelines.adaptive_attack.attacking import Scene
from adv_detect.pipelines.adaptive_attack.nodes import describe_substitute, train_substitute
from adv_detect.sharding import ShardContent, ShardPlan, ShardStore, execute_plan

KEY = "cosine/both/all/0"
EPSILONS = (0.1, 0.3)
ATTACKS = {
    "selective": {"attack": "selective", "arguments": {"steps": 6}},
    "weighted": {"attack": "weighted_sum", "budgets": {"l2": [3.0]}, "arguments": {"steps": 3, "weights": [0.3]}},
    "matching": {"attack": "matching", "budgets": {"linf": [0.3]}, "arguments": {"steps": 3}},
    "targeted": {
        "attack": "selective",
        "criteria": ["targeted"],
        "budgets": {"linf": [0.3]},
        "arguments": {"steps": 4},
        "max_images": 4,
    },
    "one-step": {
        "attack": "selective",
        "role": "single_step",
        "arguments": {"steps": 1, "relative_step": 1.0, "schedule": "constant"},
    },
    "transfer": {
        "attack": "selective",
        "role": "transfer",
        "budgets": {"linf": [0.3]},
        "arguments": {"steps": 4, "return_early": False},
    },
    "cw": {
        "attack": "cw_detector",
        "arguments": {
            "steps": 8,
            "binary_search_steps": 2,
            "learning_rate": 0.2,
            "initial_constant": 10.0,
            "detector_weight": 1.0,
        },
    },
}
ATTACKS["cw-reference"] = ATTACKS["cw"] | {"form": "reference"}


def make_params(**changes: Any) -> AdaptiveAttackParams:
    """Attacks that take a moment, on the recurrent detector."""
    plain = {
        "detectors": ["cosine"],
        "budgets": {"linf": list(EPSILONS)},
        "max_images": 8,
        "attacks": ATTACKS,
        "substitute": {"epochs": 4, "attacks": ["bim"], "max_images": 20},
        "hardening": {
            "detectors": ["cosine"],
            "attacks": ["selective"],
            "test_attacks": ["selective"],
            "train_images": 8,
            "validation_images": 5,
        },
        "show_examples": 2,
    }
    return AdaptiveAttackParams.model_validate(plain | changes)


@pytest.fixture(scope="session")
def adaptive() -> Callable[..., AdaptiveAttackParams]:
    """Makes a block of parameters: ``adaptive(max_images=4)``."""
    return make_params


@pytest.fixture(scope="session")
def carry_out() -> Callable[[ShardPlan, Path], ShardStore]:
    """Executes a plan in a folder and gives the store."""

    def run(plan: ShardPlan, folder: Path) -> ShardStore:
        store = ShardStore(str(folder))
        execute_plan(plan, store)
        return store

    return run


@pytest.fixture(scope="session")
def detectors(finished, tmp_path_factory) -> ShardStore:
    """The recurrent detector, its scores shifted so that the published threshold 0 is the one at FPR 5 % too."""
    content = finished["detectors"].read(KEY)
    shift = restore(finished["detectors"], KEY, finished["representatives"]).threshold(0.05)
    moved = ("state.readout.classifier.bias", CLEAN_SCORES)
    tensors = content.tensors | {name: content.tensors[name] - shift for name in moved}
    store = ShardStore(str(tmp_path_factory.mktemp("shifted")))
    store.write(KEY, ShardContent(tensors, content.metadata), "shifted")
    return store


@pytest.fixture(scope="session")
def substitute(finished, blocks, carry_out, tmp_path_factory) -> ShardStore:
    """The attacker's own network and detectors."""
    names = ("network", "target_training", "representatives", "adversarial_generation", "detector_training")
    recipe = describe_substitute(*(blocks[name] for name in names), make_params(), blocks["runtime"])
    plan = train_substitute(
        finished["train_images"], finished["test_images"], finished["source_splits"], recipe, blocks["runtime"]
    )
    return carry_out(plan, tmp_path_factory.mktemp("substitute"))


@pytest.fixture(scope="session")
def scene(finished, blocks, substitute) -> Scene:
    """What all attacks share."""
    return Scene(
        images=finished["test_images"],
        network=finished["network_weights"],
        representatives=finished["representatives"],
        activations=finished["activations"],
        substitute=substitute,
        runtime=blocks["runtime"],
    )
