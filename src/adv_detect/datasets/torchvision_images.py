"""Image sets of torchvision, from files that lie there or that it downloads."""

from __future__ import annotations

import gzip
import inspect
import shutil
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from adv_detect.datasets.file_sources import SingleFiles
from adv_detect.datasets.image_files import inspect_files
from adv_detect.datasets.image_set_dataset import ImageSetDataset
from adv_detect.dotted import import_dotted
from adv_detect.errors import DataError
from adv_detect.images import Contents, ImageSet, pixel_contents
from adv_detect.pictures.plain import plain_picture
from adv_detect.pictures.transform import pixels_of
from adv_detect.sharding import fingerprint

SHORT_PREFIX = "torchvision.datasets."
FILE_ATTRIBUTES = ("samples", "imgs", "_samples", "_image_files", "_images")  # lists of paths, or of path and label
LABEL_ATTRIBUTES = ("targets", "labels", "_labels")
DIGITS = tuple(str(digit) for digit in range(10))
RGB_CHANNELS = 3
CLASS_NAMES = {"MNIST": DIGITS, "SVHN": DIGITS}


class TorchvisionImages:
    """A torchvision classification set in the form that the pipelines read.

    Args:
        images: Map-style set of ``(PIL image, label)``.
        name: Start of the source ids, such as ``mnist-train``.
        class_names: Name of each class; None to ask the set.

    Attributes:
        class_names: Name of each class.
        source_ids: ``<name>-00000`` and so on, in the set's order.
        labels: Labels, int64, shape ``(N,)``.

    Raises:
        DataError: The set has no list of labels.
    """

    def __init__(self, images: Any, *, name: str, class_names: Sequence[str] | None = None) -> None:
        self._images = images
        self.labels = _labels(images)
        self.class_names = tuple(class_names or getattr(images, "classes", None) or _numbers(self.labels))
        self.source_ids: Sequence[str] = tuple(f"{name}-{index:05d}" for index in range(len(self.labels)))

    @property
    def identity(self) -> str:
        """Digest of names, labels and the content of all images."""
        return fingerprint(type(self._images).__qualname__, self.source_ids, self.labels, self._contents)

    def contents(self, indices: Sequence[int] | None = None) -> Contents:
        """Return the digest of each image, or of some: of its file where the set lists files, else of its pixels."""
        whole = self._contents
        return whole if indices is None else Contents(whole.form, tuple(whole.digests[int(index)] for index in indices))

    @cached_property
    def _contents(self) -> Contents:
        files = _files(self._images, len(self))
        if files is None:
            return pixel_contents(self)
        source = SingleFiles(files, str(getattr(self._images, "root", "")))
        found = inspect_files(source, source.entries())
        return Contents("file", tuple(found[path].digest for path in source.paths))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image ``(channels, H, W)``, uint8, and its label."""
        return pixels_of(plain_picture(self._images[index][0], None)), int(self.labels[index])

    def read_many(self, indices: Sequence[int]) -> Tensor:
        """Return several images ``(n, channels, H, W)``, uint8, at once where the set keeps its pixels in memory."""
        pixels = getattr(self._images, "data", None)
        rows = [int(index) for index in indices]
        if not isinstance(pixels, Tensor | np.ndarray) or pixels.dtype not in (torch.uint8, np.uint8):
            return torch.stack([self[row][0] for row in rows])
        chosen = torch.as_tensor(pixels[rows])
        return chosen[:, None] if chosen.ndim == 3 else _channels_first(chosen)


def _channels_first(pixels: Tensor) -> Tensor:
    """Images ``(n, 3, H, W)`` from either order of axes."""
    return pixels if pixels.shape[1] == RGB_CHANNELS else pixels.permute(0, 3, 1, 2).contiguous()


class TorchvisionImagesDataset(ImageSetDataset):
    """Opens a classification set of ``torchvision.datasets``.

    Existing files are used as they are; archives ``*.gz`` in ``<filepath>/<dataset>/raw`` are unpacked beside
    themselves.

    Example in a catalog::

        train_images:
          type: adv_detect.datasets.torchvision_images.TorchvisionImagesDataset
          dataset: MNIST
          filepath: data/01_raw
          train: true
          download: true

    Example in Python::

        images = TorchvisionImagesDataset(dataset="CIFAR10", filepath="data/01_raw", train=False).load()
    """

    def __init__(  # noqa: PLR0913 - a catalog entry is flat
        self,
        *,
        dataset: str,
        filepath: str,
        train: bool,
        download: bool = False,
        arguments: dict[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        max_images: int | None = None,
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the data set.

        Args:
            dataset: Name in ``torchvision.datasets``, or dotted path of a class with the same constructor.
            filepath: Folder that torchvision calls root: it holds ``MNIST/raw`` or ``cifar-10-batches-py``.
            train: Whether to read the training or the test part.
            download: Whether torchvision may download what is not there.
            arguments: Further arguments of the class.
            class_names: Name of each class; None for the set's own.
            max_images: Stratified draw of so many images; None for all.
            seed: Of the draw.
            metadata: Ignored by Kedro; read by plugins.

        Raises:
            ConfigurationError: There is no such class.
        """
        super().__init__(max_images=max_images, seed=seed, metadata=metadata)
        self._class = _find_class(dataset)
        self._root = Path(filepath)
        self._train = train
        self._download = download
        self._arguments = dict(arguments or {})
        self._class_names = class_names

    def _read(self) -> ImageSet:
        images = self._open(download=False)
        images = self._open(download=True) if images is None else images
        name = f"{self._class.__name__.lower()}-{'train' if self._train else 'test'}"
        names = self._class_names or CLASS_NAMES.get(self._class.__name__)
        return TorchvisionImages(images, name=name, class_names=names)

    def _open(self, *, download: bool) -> Any:
        """Open the set; return None where its files are absent and a download may be tried next."""
        arguments = {**_part_arguments(self._class, train=self._train, download=download), **self._arguments}
        unpack_archives(self._root / self._class.__name__ / "raw")
        try:
            return self._class(root=str(self._root), **arguments)
        except (RuntimeError, OSError, EOFError, ValueError, AssertionError) as exc:
            if self._download and not download:
                return None
            raise DataError(self._advice(exc)) from exc

    def _advice(self, cause: Exception) -> str:
        how = "download failed" if self._download else "download: false"
        return (
            f"{self._class.__name__} is not usable in {self._root} ({how}; {cause}); set download: true where a "
            f"network allows, or place {_expected_files(self._class)} there"
        )

    def _exists(self) -> bool:
        try:
            return self._open(download=False) is not None
        except DataError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {
            "dataset": self._class.__name__,
            "filepath": str(self._root),
            "train": self._train,
            "download": self._download,
            "max_images": self._max_images,
        }


def unpack_archives(folder: Path) -> None:
    """Unpack each ``*.gz`` of a folder beside itself where the unpacked file is not there.

    Args:
        folder: Where the archives lie; may be absent.

    Raises:
        DataError: An archive is damaged, or the folder cannot be written.
    """
    for archive in sorted(folder.glob("*.gz")):
        if not archive.with_suffix("").exists():
            _unpack(archive, archive.with_suffix(""))


def _unpack(archive: Path, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.tmp-{uuid4().hex}")
    try:
        with gzip.open(archive) as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        temporary.replace(target)
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(
            f"{archive} could not be unpacked beside itself ({exc}); fetch it again, into a folder that can be written"
        ) from exc
    finally:
        temporary.unlink(missing_ok=True)


def _find_class(name: str) -> Any:
    expected = "a name in torchvision.datasets such as MNIST, FashionMNIST or CIFAR10, or the dotted path of a class"
    return import_dotted("dataset", name if "." in name else SHORT_PREFIX + name, expected)


def _part_arguments(dataset: Any, *, train: bool, download: bool) -> dict[str, Any]:
    """Say which part is meant in the words of the class: ``train`` or ``split``."""
    parameters = inspect.signature(dataset).parameters
    wanted = {"train": train, "split": "train" if train else "test", "download": download}
    return {name: value for name, value in wanted.items() if name in parameters}


def _expected_files(dataset: Any) -> str:
    if resources := getattr(dataset, "resources", None):
        names = ", ".join(Path(resource[0]).name for resource in resources)
        return f"{dataset.__name__}/raw/ with {names} (packed or unpacked)"
    folder, archive = getattr(dataset, "base_folder", None), getattr(dataset, "filename", None)
    return f"{folder}/, unpacked from {archive}," if folder and archive else "the files its documentation names"


def _labels(images: Any) -> Tensor:
    for name in LABEL_ATTRIBUTES:
        if (labels := getattr(images, name, None)) is not None:
            return torch.as_tensor(labels, dtype=torch.int64)
    raise DataError(
        f"{type(images).__name__}: expected a classification set with one of {list(LABEL_ATTRIBUTES)}; "
        "others can be read as a folder of class folders"
    )


def _files(images: Any, count: int) -> list[Path] | None:
    """Return the file of each image, where a set keeps a list of them."""
    for name in FILE_ATTRIBUTES:
        listed = getattr(images, name, None)
        if isinstance(listed, Sequence) and len(listed) == count:
            paths = [one[0] if isinstance(one, tuple | list) and one else one for one in listed]
            if all(isinstance(path, str | Path) and Path(path).is_file() for path in paths):
                return [Path(path) for path in paths]
    return None


def _numbers(labels: Tensor) -> tuple[str, ...]:
    return tuple(str(label) for label in range(int(labels.max()) + 1))
