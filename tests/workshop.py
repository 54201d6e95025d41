"""Fixtures: one finished run of all pipelines on tiny synthetic images, shared by the tests of pipelines and jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from kedro_datasets.pandas import ParquetDataset
from tests.sharing import made_once

from adv_detect.datasets.network import NetworkDataset
from adv_detect.datasets.optional import OptionalDataset
from adv_detect.datasets.representatives import RepresentativesDataset
from adv_detect.datasets.sharded import ShardedSafetensorsDataset
from adv_detect.measures.score_parts import ScoreParts
from adv_detect.params import (
    AdversarialGenerationParams,
    DetectorTrainingParams,
    EvaluationParams,
    FeatureExtractionParams,
    NetworkParams,
    RepresentativesParams,
    RuntimeParams,
    ServingParams,
    SplitParams,
    TargetTrainingParams,
    TwinTrainingParams,
)
from adv_detect.pipelines import (
    adversarial_generation,
    detector_training,
    evaluation,
    feature_extraction,
    representatives,
    target_training,
    twin_training,
)
from adv_detect.sharding import ShardContent, ShardStore

CLASS_NAMES = ("left", "middle", "right")
SIDE = 28
SHARDED = (
    "features",
    "adversarials",
    "activations",
    "detectors",
    "control_detectors",
    "control_activations",
    "benign_activations",
    "scores",
)
TABLES = (
    "source_splits",
    "attack_records",
    "attack_timings",
    "detector_summary",
    "detector_histories",
    "thresholds",
    "detection_metrics",
    "benign_changes",
    "class_false_alarms",
)


class Stripes:
    """Noisy images with a bright stripe that says the class; every tenth is labelled wrongly."""

    class_names = CLASS_NAMES

    def __init__(self, per_class: int, *, seed: int, name: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        shown = torch.arange(len(CLASS_NAMES)).repeat(per_class)
        self._images = torch.randint(0, 60, (len(shown), 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        for image, stripe in zip(self._images, shown.tolist(), strict=True):
            image[0, 4:24, 3 + 8 * stripe : 9 + 8 * stripe] += 150
        self.mislabelled = torch.arange(len(shown)) % 10 == 9
        self.labels = torch.where(self.mislabelled, (shown + 1) % len(CLASS_NAMES), shown)
        self.source_ids = tuple(f"{name}-{index:03d}" for index in range(len(shown)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._images[index], int(self.labels[index])


def default_blocks() -> dict[str, Any]:
    """Parameters of a run that takes seconds and goes through every branch."""
    search = {"steps": 10, "binary_search_steps": 2, "initial_const": 10.0, "stepsize": 0.2}
    early = {"attack": "bim", "norm": "linf", "epsilon": 0.2, "arguments": {"steps": 6}}
    return {
        "runtime": RuntimeParams(device="cpu", batch_size=16, shard_size=20, progress=False),
        "network": NetworkParams(),
        "target_training": TargetTrainingParams(epochs=4, batch_size=16, learning_rate=2e-3, min_accuracy=0.5),
        "twin_training": TwinTrainingParams(network=None),
        "feature_extraction": FeatureExtractionParams(max_images_per_class=30),
        "representatives": RepresentativesParams(),
        "splits": SplitParams(train=0.5, validation=0.2, test=0.3),
        "adversarial_generation": AdversarialGenerationParams.model_validate(
            {
                "attacks": {
                    "bim": early,
                    "cw": {"attack": "cw", "norm": "l2", "arguments": search, "max_images": 25},
                    "bim-confident": early | {"return_early": False, "splits": ["test"], "train": False},
                }
            }
        ),
        "detector_training": DetectorTrainingParams.model_validate(
            {
                "configurations": {
                    "cosine": {"kind": "lstm", "representative": "medoid", "distance": "cosine", "hidden": 8},
                    "ranked": {
                        "kind": "mlp",
                        "representative": "centroid",
                        "distance": "mahalanobis",
                        "order": "ranked",
                        "top_k": 2,
                        "hidden": 8,
                    },
                },
                "criteria": ["targeted", "untargeted", "both"],
                "leave_one_out": ["ranked"],
                "fit": {"epochs": 4, "batch_size": 32, "learning_rate": 0.01},
            }
        ),
        "evaluation": EvaluationParams.model_validate(
            {
                "bootstrap": 20,
                "show_examples": 1,
                "benign_changes": {
                    "blur-1": {"kind": "blur", "arguments": {"sigma": 1.0}},
                    "noise-10": {"kind": "noise", "arguments": {"std": "10/255"}, "train": False},
                },
            }
        ),
        "serving": ServingParams(),
    }


@dataclass
class Workshop:
    """Runs pipelines on a catalog in a folder."""

    catalog: DataCatalog

    def run(self, pipeline: Pipeline) -> None:
        SequentialRunner().run(pipeline, self.catalog)

    def __getitem__(self, name: str) -> Any:
        return self.catalog.load(name)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """All scores as one table, read once: of all tests that ask for it, so not to be changed."""
        return ScoreParts(self["scores"]).table()


def make_workshop(folder: Any, **blocks: Any) -> Workshop:
    """A catalog with images and parameters in memory, everything else in a folder."""
    datasets: dict[str, Any] = {
        "train_images": MemoryDataset(Stripes(50, seed=0, name="train"), copy_mode="assign"),
        "test_images": MemoryDataset(Stripes(30, seed=1, name="test"), copy_mode="assign"),
        "network_weights": NetworkDataset(filepath=str(folder / "network.safetensors")),
        "twin": OptionalDataset(
            dataset="adv_detect.datasets.network.NetworkDataset", filepath=folder / "twin.safetensors"
        ),
        "representatives": RepresentativesDataset(filepath=str(folder / "representatives.safetensors")),
        "champion_model": MemoryDataset(copy_mode="assign"),
        "benign_metrics": MemoryDataset(),
    }
    datasets |= {name: ShardedSafetensorsDataset(filepath=str(folder / name)) for name in SHARDED}
    datasets |= {name: ParquetDataset(filepath=str(folder / f"{name}.parquet")) for name in TABLES}
    datasets |= {f"params:{name}": MemoryDataset(one) for name, one in (default_blocks() | blocks).items()}
    return Workshop(DataCatalog(datasets))


def run_to_the_metrics(folder: Path) -> Workshop:
    """Run all pipelines up to the metrics."""
    shop = make_workshop(folder)
    main = (target_training, twin_training, feature_extraction, representatives, adversarial_generation)
    for module in (*main, detector_training):
        shop.run(module.create_pipeline())
    shop.run(evaluation.create_pipeline().to_nodes("measure_detection", "measure_classes", "measure_benign_changes"))
    return shop


@pytest.fixture(scope="session")
def workshop() -> Callable[..., Workshop]:
    """Makes a fresh workshop: ``workshop(folder, runtime=...)``."""
    return make_workshop


@pytest.fixture(scope="session")
def stripes() -> Callable[..., Stripes]:
    """Makes an image set: ``stripes(per_class, seed=, name=)``."""
    return Stripes


@pytest.fixture(scope="session")
def blocks() -> dict[str, Any]:
    """The parameters of the finished run."""
    return default_blocks()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """All pipelines up to the metrics have run; read-only."""
    made: list[Workshop] = []
    folder = made_once(tmp_path_factory, "finished", lambda one: made.append(run_to_the_metrics(one)))
    # in a copy nothing is made again, but what the catalog keeps in memory is filled
    return made[0] if made else run_to_the_metrics(folder)


@pytest.fixture(scope="session")
def with_other_test_images(finished: Workshop) -> Callable[[Any], ShardStore]:
    """Makes a store in a folder: the activations of the finished run, but those of the test split are others."""

    def make(folder: Any) -> ShardStore:
        store = ShardStore(str(folder))
        fingerprints = finished["activations"].fingerprints()
        for key, content in finished["activations"].items():
            tensors = dict(content.tensors)
            if "/test-" in key:
                tensors |= {name: torch.zeros_like(value) for name, value in tensors.items() if "features" in name}
            store.write(
                key, ShardContent(tensors, content.metadata), "changed" if "/test-" in key else fingerprints[key]
            )
        return store

    return make


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A detector file in the published form: an LSTM over three classes with five hidden units."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "lstm.weight_ih_l0": (20, 3),
        "lstm.weight_hh_l0": (20, 5),
        "lstm.bias_ih_l0": (20,),
        "lstm.bias_hh_l0": (20,),
        "classifier.weight": (1, 5),
        "classifier.bias": (1,),
    }
    name = "best_model_with_arch_lstm_method_m_dist_cosine_criterion_t_lr_0.0003_bs_32_ba_4_weightd_0.pth"
    path = tmp_path / name
    torch.save({"detector": {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}}, path)
    return path
