"""Images in one folder per class, from a directory or straight from a zip archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from adv_detect.datasets.class_folders import EXTENSIONS, FolderOptions, FoundImages, find_images, read_names
from adv_detect.datasets.content_cache import Verify
from adv_detect.datasets.file_sources import FileSource, open_source
from adv_detect.datasets.image_files import decode, inspect_files
from adv_detect.datasets.image_set_dataset import ImageSetDataset
from adv_detect.datasets.location import storage_options
from adv_detect.datasets.selection import ImageSubset, check_part, stratified_part
from adv_detect.errors import DataError
from adv_detect.images import Contents, ImageSet
from adv_detect.pictures import Transform
from adv_detect.pictures.plain import PIXELS
from adv_detect.sharding import fingerprint


class FolderImages:
    """Image files by class, decoded when asked for.

    Args:
        source: Where the files lie.
        found: Which files they are, by class.
        transform: What happens to an image.

    Attributes:
        class_names: Name of each class.
        source_ids: Path of each image relative to the source.
        labels: Labels, int64, shape ``(N,)``.
        size: Height and width of every image.
        pictures: What happens to an image.
    """

    def __init__(self, source: FileSource, found: FoundImages, transform: Transform) -> None:
        self._source = source
        self._transform = self.pictures = transform
        self._entries = found.entries
        self._digests = {path: one.digest for path, one in found.facts.items() if one.digest}
        self.size = found.size
        self.class_names = tuple(found.classes)
        self.source_ids: Sequence[str] = tuple(path for paths in found.classes.values() for path in paths)
        self.labels = torch.tensor([label for label, paths in enumerate(found.classes.values()) for _ in paths])

    @property
    def identity(self) -> str:
        """Digest of paths, labels, transform and the content of all files."""
        return self.identity_of(range(len(self)))

    def identity_of(self, indices: Sequence[int]) -> str:
        """Digest paths, labels, transform and the content of some files, which decide their pixels."""
        names, labels = [self.source_ids[index] for index in indices], self.labels[torch.as_tensor(indices)]
        digests = self.contents(indices).digests
        return fingerprint(self.class_names, names, digests, labels, self._transform, self.size, PIXELS)

    def contents(self, indices: Sequence[int] | None = None) -> Contents:
        """Return the digest of each file; those that were not looked into yet are read now.

        Args:
            indices: Which images; None for all.

        Returns:
            One digest per image, in this order.

        Raises:
            DataError: A file cannot be read.
        """
        paths = self.source_ids if indices is None else [self.source_ids[index] for index in indices]
        missing = {path: self._entries[path] for path in paths if path not in self._digests}
        for path, facts in inspect_files(self._source, missing).items():
            if not facts.digest:
                raise DataError(f"{self._source.address}/{path}: {facts.problem}; repair or remove it")
            self._digests[path] = facts.digest
        return Contents("file", tuple(self._digests[path] for path in paths))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``(channels, H, W)``, uint8, and its label."""
        path = self.source_ids[index]
        image = decode(self._source, path, self._transform)
        if tuple(image.shape[1:]) != self.size:
            raise DataError(
                f"{self._source.address}/{path}: expected {self.size[0]} x {self.size[1]} (height x width) pixels, got "
                f"{image.shape[1]} x {image.shape[2]}; set resize_shorter_side and centre_crop, or remove it"
            )
        return image, int(self.labels[index])


class ImageFolderDataset(ImageSetDataset):
    """Opens a folder of class folders, or such a folder inside a ``.zip``.

    Empty, damaged and odd-sized files are found before any work and named. Parts are cut inside each class,
    disjoint and fixed by the seed, copies of a file stay in one part; where parts are separate folders already, give
    ``folder`` and no ``part``. Pictures are turned upright as their EXIF orientation says, 16-bit grey is scaled to
    its range, numbers (TIFF) must lie in [0, 1], transparency is laid over white, of several frames the first counts.

    Example in a catalog::

        train_images:
          type: adv_detect.datasets.image_folder.ImageFolderDataset
          filepath: data/01_raw/faces.zip
          folder: faces
          part: train
          test_fraction: 0.4
          min_images_per_class: 20

    Example in Python::

        images = ImageFolderDataset(filepath="data/01_raw/cifar10-jpeg", folder="train").load()
    """

    def __init__(  # noqa: PLR0913 - a catalog entry is flat
        self,
        *,
        filepath: str | PathLike[str],
        folder: str = "",
        part: str | None = None,
        test_fraction: float = 0.0,
        validation_fraction: float = 0.0,
        class_names: Sequence[str] | Mapping[str, str] | None = None,
        min_images_per_class: int = 1,
        max_images_per_class: int | None = None,
        max_classes: int | None = None,
        resize_shorter_side: int | None = None,
        centre_crop: Sequence[int] | None = None,
        colour: str = "rgb",
        image_size: Sequence[int] | None = None,
        extensions: Sequence[str] = EXTENSIONS,
        verify: Verify | bool = "header",
        on_error: str = "raise",
        max_images: int | None = None,
        seed: int = 0,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the folder and what is taken from it.

        Args:
            filepath: Directory, as a path or an fsspec address, or local ``.zip`` archive.
            folder: Folder below it that holds the class folders.
            part: ``train``, ``validation`` or ``test``; None for all images.
            test_fraction: Share of each class in the test part.
            validation_fraction: Share of each class in the validation part.
            class_names: Classes to use, the label is the index, or ``{filepath: ...}`` of a text file with one name
                per line; None for all, sorted by name.
            min_images_per_class: Classes with fewer usable images are left out and counted in the log.
            max_images_per_class: Seeded draw of so many of each class, before the division into parts.
            max_classes: The first so many of the classes that have enough images.
            resize_shorter_side: Length of the shorter side, in pixels, bilinear with antialiasing.
            centre_crop: Height and width cut from the middle, after the resize.
            colour: ``rgb`` or ``grayscale``.
            image_size: Height and width that all images must have then; None for the most common one.
            extensions: Endings of image files, in lower case.
            verify: What is checked on loading: ``header`` (or true), ``decode`` (all pixels), or false (nothing, for
                very large folders; a bad image is then met when it is read).
            on_error: ``raise``, or ``skip`` to leave bad images out with a warning that counts them.
            max_images: Stratified draw of so many images of the part; None for all.
            seed: Of the draws and the division; the same in the entries of all parts.
            credentials: Secret arguments of the filesystem.
            fs_args: Further arguments of the filesystem.
            metadata: Ignored by Kedro; read by plugins.

        Raises:
            ValueError: An option is not valid; the message names it.
        """
        super().__init__(max_images=max_images, seed=seed, metadata=metadata)
        self._filepath = str(filepath)
        self._fs_options = storage_options(credentials, fs_args)
        self._part = part
        self._fractions = {"test": test_fraction, "validation": validation_fraction}
        check_part(part or "train", self._fractions)
        self._transform = Transform.model_validate(
            {"resize_shorter_side": resize_shorter_side, "centre_crop": centre_crop, "colour": colour}
        )
        self._options = FolderOptions.model_validate(
            {
                "folder": folder.strip("/"),
                "extensions": extensions,
                "class_names": read_names(class_names),
                "min_images_per_class": min_images_per_class,
                "max_images_per_class": max_images_per_class,
                "max_classes": max_classes,
                "image_size": image_size,
                "verify": verify,
                "on_error": on_error,
            }
        )

    def _read(self) -> ImageSet:
        source = open_source(self._filepath, self._fs_options)
        found = find_images(source, self._options, self._transform, seed=self._seed)
        images = FolderImages(source, found, self._transform)
        if self._part is None:
            return images
        chosen = stratified_part(
            images.labels,
            self._part,
            self._fractions,
            seed=self._seed,
            class_names=images.class_names,
            contents=images.contents().digests,
        )
        return ImageSubset(images, chosen)

    def _exists(self) -> bool:
        try:
            return bool(open_source(self._filepath, self._fs_options).entries(self._options.folder))
        except DataError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._filepath,
            "part": self._part,
            "fractions": self._fractions,
            "seed": self._seed,
            "max_images": self._max_images,
            "transform": self._transform.model_dump(exclude_defaults=True),
            "options": self._options.model_dump(exclude_defaults=True),
        }
