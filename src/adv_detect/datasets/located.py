"""Bases of the datasets that lie at one place and are made by a pipeline."""

from __future__ import annotations

from abc import abstractmethod
from os import PathLike
from typing import Any, ClassVar, Generic, TypeVar

from kedro.io import AbstractDataset, DatasetError

from adv_detect.datasets.location import how_to_make, open_location
from adv_detect.deferred import Deferred
from adv_detect.errors import DamagedFileError
from adv_detect.sharding import files

_Saved = TypeVar("_Saved")
_Loaded = TypeVar("_Loaded")


class LocatedDataset(AbstractDataset[_Saved, _Loaded], Generic[_Saved, _Loaded]):
    """Holds place, maker and metadata; a subclass states what is saved and loaded.

    Attributes:
        MADE_BY: Pipeline that makes it where the catalog names none.
        ENDING: What the name of the file has to end in.
    """

    MADE_BY: ClassVar[str | None] = None
    ENDING: ClassVar[str] = ""

    def __init__(
        self,
        *,
        filepath: str | PathLike[str],
        made_by: str | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the place.

        Args:
            filepath: File or folder, as a path or an fsspec address.
            made_by: Pipeline that makes it, named in the error when it is absent or damaged.
            credentials: Secret arguments of the filesystem.
            fs_args: Further arguments of the filesystem.
            metadata: Ignored by Kedro; read by plugins.

        Raises:
            ValueError: The name ends otherwise than ``ENDING``.
        """
        self.metadata = metadata
        self._made_by = made_by or self.MADE_BY
        self._place: dict[str, Any] = {"filepath": str(filepath), "credentials": credentials, "fs_args": fs_args}
        self._fs, self._path = open_location(filepath, credentials, fs_args)
        if not self._path.endswith(self.ENDING):
            raise ValueError(f"filepath: expected a name that ends in {self.ENDING}, got {str(filepath)!r}")

    @property
    def _remedy(self) -> str:
        return how_to_make(self._made_by)

    def _exists(self) -> bool:
        return bool(self._fs.exists(self._path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path, "made_by": self._made_by}

    def _init_config(self) -> dict[str, Any]:
        """Name the arguments of an inherited constructor, which Kedro gathers in ``args`` and ``kwargs``."""
        config: dict[str, Any] = super()._init_config()
        config.pop("args", None)
        given: dict[str, Any] = config.pop("kwargs", {})
        return config | given


class DeferredDataset(LocatedDataset[_Loaded | Deferred[_Loaded], _Loaded]):
    """Stores an object with a fingerprint; what is still to be made is made only when the one on disk is another.

    Attributes:
        KIND: Type of the object.
        NAMED: How the error calls it when it is absent, such as ``is no network``.
    """

    KIND: ClassVar[type]
    NAMED: ClassVar[str]

    def load(self) -> _Loaded:
        """Read the object.

        Returns:
            The object, on the CPU.

        Raises:
            DatasetError: It is absent, damaged, or its files do not belong together.
        """
        if not self._exists():
            raise DatasetError(f"there {self.NAMED} at {self._path}; {self._remedy}")
        try:
            return self._read()
        except DamagedFileError as exc:
            raise DatasetError(str(exc.remade_by(self._remedy))) from exc

    def save(self, data: _Loaded | Deferred[_Loaded]) -> None:
        """Write the object, making it first where needed.

        Args:
            data: The object, or how to make it.

        Raises:
            DatasetError: It is neither.
        """
        if isinstance(data, Deferred):
            if self._stored_fingerprint() == data.fingerprint:
                if data.check is not None:
                    data.accept(self.load())
                self._logger.info("%s is up to date", self._path)
            else:
                self._make(data)
        elif isinstance(data, self.KIND):
            self._write(data, None)
        else:
            kind, got = self.KIND.__name__, type(data).__name__
            raise DatasetError(f"{self._path}: expected {kind} or Deferred, got {got}")

    def _make(self, data: Deferred[_Loaded]) -> None:
        self._write(data.accept(data.make()), data.fingerprint)

    def _stored_fingerprint(self) -> str | None:
        if not self._exists():
            return None
        try:
            return self._read_fingerprint()
        except DamagedFileError as exc:
            self._logger.warning("%s", exc.remade_by("it is made again"))
            return None

    def _read_fingerprint(self) -> str | None:
        """Read the fingerprint after all tensors, so that a damaged file counts as none."""
        files.read_tensors(self._fs, self._path)
        fingerprint: str | None = files.read_header(self._fs, self._path).get("fingerprint")
        return fingerprint

    @abstractmethod
    def _read(self) -> _Loaded:
        """Read the object that is there."""

    @abstractmethod
    def _write(self, data: _Loaded, fingerprint: str | None) -> None:
        """Write the object, whole or not at all; without a fingerprint it is not one that was deferred."""
