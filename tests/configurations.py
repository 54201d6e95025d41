"""Random configurations, legal and broken, drawn from the typed blocks, and a tiny project that runs them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from adv_detect.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).resolve().parents[1]
IMAGES = ("train_images", "test_images", "verification_images")
SIDE, CLASSES = 28, 4


class Stripes:
    """Noisy grey images with a bright stripe that says the class."""

    class_names = ("first", "second", "third", "fourth")

    def __init__(self, per_class: int, *, seed: int, name: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(CLASSES).repeat(per_class)
        self._images = torch.randint(0, 60, (len(self.labels), 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        for image, stripe in zip(self._images, self.labels.tolist(), strict=True):
            image[0, 4:24, 2 + 6 * stripe : 7 + 6 * stripe] += 150
        self.source_ids = tuple(f"{name}-{index:03d}" for index in range(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._images[index], int(self.labels[index])


def merged(old: Any, new: Any) -> Any:
    """Change single values of nested dictionaries."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {name: merged(old.get(name), value) for name, value in new.items()}
