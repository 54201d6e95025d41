"""Base of the read-only datasets of images."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from adv_detect.datasets.selection import stratified_subset
from adv_detect.images import ImageSet


class ImageSetDataset(AbstractDataset[Any, ImageSet]):
    """Loads an image set; cannot be saved.

    Args:
        max_images: Stratified draw of so many images; None for all.
        seed: Of the draw and of the division into parts.
        metadata: Ignored by Kedro; read by plugins.
    """

    def __init__(self, *, max_images: int | None, seed: int, metadata: dict[str, Any] | None) -> None:
        self.metadata = metadata
        self._max_images = max_images
        self._seed = seed

    def load(self) -> ImageSet:
        """Open the images; each is decoded when it is asked for.

        Returns:
            The image set.

        Raises:
            DatasetError: The images are absent or not usable; the message says what to do.
        """
        return stratified_subset(self._read(), self._max_images, seed=self._seed)

    def save(self, data: Any) -> None:
        """Refuse: images are read, never written.

        Args:
            data: Anything.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(
            f"{type(self).__name__} is read-only, got {type(data).__name__} to save; write images with another tool "
            "and give their place in the catalog"
        )

    @abstractmethod
    def _read(self) -> ImageSet:
        """Open all images of the entry, before the draw."""
