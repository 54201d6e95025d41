"""Pictures of a user, read one by one in the form that a network takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from adv_detect.datasets.class_folders import EXTENSIONS
from adv_detect.datasets.file_sources import FileSource, open_source
from adv_detect.errors import DataError
from adv_detect.images import content_digest
from adv_detect.networks.spec import NetworkSpec
from adv_detect.pictures import PictureError


class FoundPictures(NamedTuple):
    """Picture files of a folder.

    Attributes:
        source: Where they lie.
        paths: Their paths relative to the source, sorted.
    """

    source: FileSource
    paths: tuple[str, ...]


class ReadPicture(NamedTuple):
    """A picture as a network takes it.

    Attributes:
        image: Shape ``(channels, H, W)``, float32, within the network's bounds.
        digest: Of the file's content.
    """

    image: Tensor
    digest: str


def find_pictures(address: str) -> FoundPictures:
    """List picture files by their endings.

    Args:
        address: Folder (flat or nested, any fsspec address) or zip archive.

    Returns:
        The files.

    Raises:
        DataError: There is no such folder, or no picture in it.
    """
    source = open_source(address)
    paths = tuple(path for path in source.entries("") if path.lower().endswith(EXTENSIONS))
    if not paths:
        raise DataError(f"{address}: expected pictures ({', '.join(EXTENSIONS)}), got none; check the folder")
    return FoundPictures(source, paths)


def read_picture(source: FileSource, path: str, spec: NetworkSpec) -> ReadPicture:
    """Read a picture in the shape and pixel range of a network, by the steps of its training pictures.

    Args:
        source: Where it lies.
        path: Its path.
        spec: Facts on the network: image shape and pixel bounds.

    Returns:
        The picture.

    Raises:
        DataError: The file cannot be read as a picture.
    """
    steps = spec.picture_input
    try:
        content = source.read(path)
        pixels, _ = steps.decode(content)
    except (PictureError, OSError) as exc:
        raise DataError(f"{source.address}/{path} cannot be read as a picture ({exc}); repair or remove it") from exc
    return ReadPicture(steps.batch([pixels])[0], content_digest(content))
