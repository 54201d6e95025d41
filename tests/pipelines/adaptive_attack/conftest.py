"""Small adaptive attacks on the finished tiny run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from adv_detect.algorithms.detectors.stored import CLEAN_SCORES
from adv_detect.datasets.optional import OptionalDataset
from adv_detect.jobs.detectors import restore
from adv_detect.params import AdaptiveAttackParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.pipeline import create_pipeline
from adv_detect.pipelines.adaptive_attack.substitute import BLOCKS, Substitute
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
        "layer_matching": None,
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
    content = finished["detectors"][KEY]
    shift = restore(finished["detectors"], KEY, finished["representatives"]).threshold(0.05)
    moved = ("state.readout.classifier.bias", CLEAN_SCORES)
    tensors = content.tensors | {name: content.tensors[name] - shift for name in moved}
    store = ShardStore(str(tmp_path_factory.mktemp("shifted")))
    store.write(KEY, ShardContent(tensors, content.metadata), "shifted")
    return store


class Attacker:
    """The attacker's part of the pipeline, on the images of the finished run, in a folder of its own."""

    def __init__(self, finished: Any, folder: Path, blocks: dict[str, Any]) -> None:
        given = ("train_images", "test_images", "source_splits")
        self.folder = folder
        self.catalog = DataCatalog(
            {name: MemoryDataset(finished[name], copy_mode="assign") for name in given}
            | substitute_datasets(folder)
            | {f"params:{name}": MemoryDataset(block) for name, block in blocks.items()}
        )

    def run(self) -> Attacker:
        whole = create_pipeline()
        names = [one.name for one in whole.nodes if one.namespace == "substitute"]
        SequentialRunner().run(whole.filter(node_names=names), self.catalog)
        return self

    def __getitem__(self, name: str) -> Any:
        return self.catalog.load(name)


def substitute_datasets(folder: Path) -> dict[str, Any]:
    """Where the attacker's results lie, as in the catalog."""
    kinds = {
        "network_weights": ("adv_detect.datasets.network.NetworkDataset", "network.safetensors"),
        "twin": ("adv_detect.datasets.network.NetworkDataset", "twin.safetensors"),
        "representatives": ("adv_detect.datasets.representatives.RepresentativesDataset", "classes.safetensors"),
    }
    shards = "adv_detect.datasets.sharded.ShardedSafetensorsDataset"
    kinds |= {name: (shards, name) for name in ("features", "adversarials", "activations", "detectors")}
    stored = {
        f"substitute.{name}": OptionalDataset(dataset=kind, filepath=folder / file)
        for name, (kind, file) in kinds.items()
    }
    blocks = {f"substitute.{name}_block": MemoryDataset(copy_mode="assign") for name in (*BLOCKS, "sources")}
    outcome = {name: MemoryDataset(copy_mode="assign") for name in ("substitute_models", "substitute_description")}
    return stored | blocks | outcome


@pytest.fixture(scope="session")
def attackers_datasets() -> Callable[[Path], dict[str, Any]]:
    """Gives the datasets of the attacker's part: ``attackers_datasets(folder)``."""
    return substitute_datasets


@pytest.fixture(scope="session")
def attacker(finished, blocks, tmp_path_factory) -> Callable[..., Attacker]:
    """Runs the attacker's part: ``attacker(folder=None, adaptive_attack=..., adversarial_generation=...)``."""

    def make(folder: Path | None = None, **changes: Any) -> Attacker:
        own = {"adaptive_attack": make_params()} | changes
        return Attacker(finished, folder or tmp_path_factory.mktemp("attacker"), blocks | own).run()

    return make


@pytest.fixture(scope="session")
def trained_attacker(attacker) -> Attacker:
    """The attacker's finished results; read-only."""
    return attacker()


@pytest.fixture
def attackers_folder(trained_attacker, tmp_path) -> Path:
    """A copy of the attacker's finished results, to be taken up again."""
    return Path(shutil.copytree(trained_attacker.folder, tmp_path / "attacker"))


@pytest.fixture(scope="session")
def substitute(trained_attacker) -> Substitute:
    """The attacker's own network and detectors."""
    names = ("network_weights", "representatives", "detectors")
    return Substitute(*(trained_attacker[f"substitute.{name}"] for name in names), seed=1)


@pytest.fixture(scope="session")
def setting(finished, blocks, substitute) -> AttackSetting:
    """What all attacks share."""
    return AttackSetting(
        images=finished["test_images"],
        network=finished["network_weights"],
        representatives=finished["representatives"],
        activations=finished["activations"],
        substitute=substitute,
        runtime=blocks["runtime"],
    )
