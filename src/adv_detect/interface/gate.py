"""A gate: a model that judges pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from fsspec.core import url_to_fs
from PIL import Image
from torch import Tensor

from adv_detect.algorithms.device import resolve_device
from adv_detect.dotted import import_dotted
from adv_detect.errors import DataError
from adv_detect.serving.bundle import ScoringBundle, check_images
from adv_detect.serving.opening import open_model
from adv_detect.serving.pictures import Picture, PictureScorer
from adv_detect.serving.verdicts import Judge

Scorable: TypeAlias = str | Path | bytes | Image.Image
"""A path or fsspec address, an encoded picture, or one that is opened."""
REVIEW, REJECT = 0.05, 0.01


@dataclass(frozen=True)
class Gate:
    """Judges pictures.

    Attributes:
        bundle: Network, representatives and detector.
        version: Name and version of the model.
        review: False-positive rate above whose threshold a picture is for review.
        reject: False-positive rate above whose threshold it is rejected.
        device: Where to compute: ``auto``, ``cpu``, ``cuda``.
    """

    bundle: ScoringBundle
    version: str
    review: float = REVIEW
    reject: float = REJECT
    device: str = "auto"

    def score(self, pictures: Scorable | Iterable[Scorable] | Tensor | np.ndarray) -> pd.DataFrame:
        """Score pictures and say which look attacked.

        Args:
            pictures: Paths, fsspec addresses, encoded or opened pictures, of any size; or images
                ``(N, channels, H, W)`` in the pixel range of the network.

        Returns:
            One row per picture, in their order: ``path``, ``predicted_class``, ``score`` (higher is more likely
            adversarial), ``p_value``, ``verdict`` (``accept``, ``review`` or ``reject``), the explanation, and
            ``error``, the reason where a picture cannot be read.

        Raises:
            DataError: Images are of another shape or range.
        """
        if isinstance(pictures, Tensor | np.ndarray):
            images = check_images(np.asarray(pictures), self.bundle.network.spec)
            return self._judge.table(self._scorer.score_images(images))
        single = isinstance(pictures, str | Path | bytes | Image.Image)
        return self._judge.table(self._scorer.score(named_pictures([pictures] if single else pictures)))  # type: ignore[list-item, arg-type]

    def at(self, *, review: float, reject: float) -> Gate:
        """Return the same gate with verdicts at other false-positive rates."""
        return replace(self, review=review, reject=reject)

    def save(self, folder: str | Path) -> None:
        """Store the model, to be opened with :func:`load`.

        Args:
            folder: Made where it does not exist.

        Raises:
            DataError: The network's constructor is not known, so nothing could build it again.
        """
        name = self.bundle.network.spec.name
        if "." in name:
            expected = (
                "a constructor that can be imported; say adv_detect.fit(..., constructor='my_package.my_network')"
            )
            import_dotted("constructor", name, expected)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.bundle.save(Path(folder))

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.bundle, review=self.review, reject=self.reject, model_version=self.version)

    @cached_property
    def _scorer(self) -> PictureScorer:
        return PictureScorer(self.bundle, device=str(resolve_device(self.device)), max_pixels=Image.MAX_IMAGE_PIXELS)


def load(model: str | Path, *, review: float = REVIEW, reject: float = REJECT, device: str = "auto") -> Gate:
    """Open a model that judges pictures.

    Args:
        model: Address such as ``models:/adv-detect@champion``, or the folder of a stored model such as
            ``data/06_models/champion``.
        review: False-positive rate above whose threshold a picture is for review.
        reject: False-positive rate above whose threshold it is rejected.
        device: Where to compute: ``auto``, ``cpu``, ``cuda``.

    Returns:
        The gate.

    Raises:
        DataError: There is no such model, or it is none of this package.
        ConfigurationError: The rates do not fit together.
    """
    bundle, version = open_model(model)
    gate = Gate(bundle, version, review=review, reject=reject, device=device)
    gate._judge.unsupported  # noqa: B018 - rates are checked now, not at the first picture
    return gate


def named_pictures(pictures: Iterable[Scorable]) -> Iterator[Picture]:
    """Give pictures names and a way to read them.

    Args:
        pictures: Paths, fsspec addresses, encoded or opened pictures.

    Yields:
        Each, none read yet.

    Raises:
        DataError: One is something else.
    """
    for number, one in enumerate(pictures):
        if isinstance(one, str | Path):
            yield Picture(str(one), partial(_read, str(one)))
        elif isinstance(one, bytes | Image.Image):
            yield Picture(f"picture {number}", partial(_given, one))
        else:
            kinds = "paths, encoded pictures as bytes, or PIL images"
            raise DataError(
                f"pictures: expected {kinds}, got {type(one).__name__} at place {number}; several arrays come as one, "
                "(N, channels, H, W)"
            )


def _read(address: str) -> bytes:
    fs, path = url_to_fs(address)
    content: bytes = fs.cat_file(path)
    return content


def _given(one: Any) -> Any:
    return one
