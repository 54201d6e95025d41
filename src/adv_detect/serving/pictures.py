"""Scores of pictures: decoded, brought to the network's input, passed through, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from time import perf_counter
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.errors import DataError
from adv_detect.images import content_digest
from adv_detect.pictures import Header, PictureError, PictureInput, opened_picture
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.explanation import Explainer
from adv_detect.serving.passes import chunk_size, pass_through
from adv_detect.sharding import ShardContent

READABLE, SECONDS, SIZE, PREDICTED, SCORES = "readable", "seconds", "size", "predicted", "scores"
PATHS, DIGESTS, REASONS = "paths", "digests", "reasons"
EXPLANATION = "explanation."
"""What precedes the name of a part of the explanation among the tensors."""
NOT_FINITE = "the network's activations on it are not finite"


class Picture(NamedTuple):
    """A picture to score.

    Attributes:
        path: What it is called.
        read: Gives its encoded bytes, or the picture itself; may raise OSError, or DataError with the reason.
    """

    path: str
    read: Callable[[], bytes | Image.Image]


@dataclass
class _Decoded:
    path: str
    pixels: Tensor | None = None
    size: Header | None = None
    digest: str = ""
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PictureScorer:
    """Scores pictures with a bundle; picklable, bounded memory whatever their number.

    Attributes:
        bundle: Network, representatives and detector.
        device: Where to compute.
        explain: Whether verdicts are explained.
        max_pixels: Pixels of a picture that are taken at most; None means Pillow's limit.
    """

    bundle: ScoringBundle
    device: str = "cpu"
    explain: bool = True
    max_pixels: int | None = None

    @cached_property
    def model(self) -> DetectionModel:
        """Network and detector, joined."""
        return self.bundle.model().to(self.device).eval()

    @cached_property
    def explainer(self) -> Explainer | None:
        """Explanation of verdicts; None without."""
        return self.bundle.explainer().to(self.device) if self.explain else None

    @cached_property
    def steps(self) -> PictureInput:
        """Steps from a picture to the input of the network."""
        return self.bundle.network.spec.picture_input

    def __getstate__(self) -> dict[str, object]:
        """Leave what is derived behind when sent to another process."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def score(self, pictures: Iterable[Picture]) -> ShardContent:
        """Score pictures.

        Args:
            pictures: Of any size and number; each is read once.

        Returns:
            Of all N pictures: ``readable`` ``(N,)``, ``seconds`` ``(N,)``, ``size`` ``(N, 2)`` (height and width, 0
            where unknown), and as metadata ``paths``, ``digests``, ``reasons`` (empty where there is a score). Of the
            readable ones: ``predicted``, ``scores``, and ``explanation.<part>``.
        """
        decoded: list[_Decoded] = []
        passed: list[dict[str, Tensor]] = []
        waiting = iter(pictures)
        size = chunk_size(torch.device(self.device))
        while chunk := list(islice(waiting, size)):
            rows = [self._decode(one) for one in chunk]
            passed += self._pass([one for one in rows if one.pixels is not None])
            for one in rows:
                one.pixels = None
            decoded += rows
        return _content(decoded, passed)

    def score_images(self, images: Tensor) -> ShardContent:
        """Score images that are in the pixel range of the network already, as :meth:`score` does.

        Args:
            images: Shape ``(N, channels, H, W)``.
        """
        size = Header(*images.shape[2:])
        rows = [_Decoded(f"image {number}", size=size) for number in range(len(images))]
        return _content(rows, self._scored(rows, images))

    def _decode(self, picture: Picture) -> _Decoded:
        """Read one picture; whatever is wrong with it becomes the reason."""
        started, found = perf_counter(), _Decoded(picture.path)
        try:
            content = picture.read()
            if isinstance(content, Image.Image):
                found.pixels, found.size = self.steps.pixels(content)
            else:
                found.digest = content_digest(content)
                with opened_picture(content, max_pixels=self.max_pixels) as image:
                    found.size = Header(image.height, image.width)
                    found.pixels, found.size = self.steps.pixels(image)
        except FileNotFoundError:
            found.reason = "no such file"
        except DataError as exc:  # the reason of a picture or of a source
            found.reason = str(exc)
        except (OSError, MemoryError) as exc:
            found.reason = f"cannot be read ({exc or type(exc).__name__})"
        found.seconds = perf_counter() - started
        return found

    def _pass(self, rows: list[_Decoded]) -> list[dict[str, Tensor]]:
        """Pass decoded pictures through the network."""
        if not rows:
            return []
        return self._scored(rows, self.steps.batch([one.pixels for one in rows if one.pixels is not None]))

    def _scored(self, rows: list[_Decoded], images: Tensor) -> list[dict[str, Tensor]]:
        """Pass images through the network; their rows get the time, and the reason where a score is not finite."""
        started = perf_counter()
        found = pass_through(self.model, images, explainer=self.explainer)
        for one, score in zip(rows, found.scores.tolist(), strict=True):
            one.seconds += (perf_counter() - started) / len(rows)
            if not math.isfinite(score):
                one.reason = NOT_FINITE
        kept = torch.isfinite(found.scores)
        told = {f"{EXPLANATION}{name}": one for name, one in found.explanation.items()}
        return [{name: one[kept] for name, one in ({PREDICTED: found.predicted, SCORES: found.scores} | told).items()}]


def encoded(pictures: Iterable[tuple[str, bytes]]) -> Iterator[Picture]:
    """Make pictures of encoded bytes with names."""
    for path, content in pictures:
        yield Picture(path, lambda content=content: content)  # type: ignore[misc]


def refused(path: str, reason: str) -> Picture:
    """Make a picture that cannot be used, for a known reason."""

    def read() -> bytes:
        raise PictureError(reason)

    return Picture(path, read)


def _content(decoded: list[_Decoded], passed: list[dict[str, Tensor]]) -> ShardContent:
    sizes = [(one.size.height, one.size.width) if one.size else (0, 0) for one in decoded]
    tensors = {
        READABLE: torch.tensor([not one.reason for one in decoded], dtype=torch.bool),
        SECONDS: torch.tensor([one.seconds for one in decoded], dtype=torch.float64),
        SIZE: torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
    }
    empty = {PREDICTED: torch.zeros(0, dtype=torch.int64), SCORES: torch.zeros(0, dtype=torch.float64)}
    tensors |= {name: torch.cat([part[name] for part in passed]) for name in passed[0]} if passed else empty
    return ShardContent(
        tensors=tensors,
        metadata={
            PATHS: [one.path for one in decoded],
            DIGESTS: [one.digest for one in decoded],
            REASONS: [one.reason for one in decoded],
        },
    )
