"""The work on one shard of pictures; runs in this process or in a worker."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from adv_detect.datasets.file_sources import FileSource
from adv_detect.datasets.picture_files import PictureFile, PictureFiles, readable_pictures
from adv_detect.errors import DataError
from adv_detect.images import content_digest
from adv_detect.params import RuntimeParams
from adv_detect.pictures.opening import DECODE_ERRORS
from adv_detect.serving.opening import scores_digest
from adv_detect.serving.pictures import PictureScorer
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, fingerprint

FORM = 1
"""Raised whenever the same pictures and model come to another content of a shard."""


@dataclass(frozen=True)
class ScoringWork:
    """Scores listed files.

    Attributes:
        source: Where they are read from.
        scorer: Network and detector.
    """

    source: FileSource
    scorer: PictureScorer

    def __call__(self, files: tuple[PictureFile, ...]) -> ShardContent:
        """Make one shard, as :meth:`PictureScorer.score` gives it."""
        return self.scorer.score(readable_pictures(self.source, files))


def scoring_plan(pictures: PictureFiles, scorer: PictureScorer, runtime: RuntimeParams) -> ShardPlan:
    """Plan the scores of pictures.

    Args:
        pictures: What is scored.
        scorer: Network and detector.
        runtime: Size of a shard, engine, progress.

    Returns:
        A plan with shards ``00000000`` and so on, in the order of the pictures. A shard is kept where model, files and
        their sizes and times are the same; where a filesystem tells no times, the files are read to tell.
    """
    work, model = ScoringWork(pictures.source, scorer), scores_digest(scorer.bundle)
    starts = range(0, len(pictures.files), runtime.shard_size)
    blocks = [tuple(pictures.files[start : start + runtime.shard_size]) for start in starts]
    shards = tuple(
        ShardSpec(
            f"{number:08d}",
            fingerprint(FORM, model, scorer.max_pixels, pictures.source.place, [_identity(work, one) for one in block]),
            block,
            size=len(block),
        )
        for number, block in enumerate(blocks)
    )
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="scores", unit="images")


def most_pixels() -> int | None:
    """Give the size from which Pillow takes a picture for a decompression bomb."""
    return Image.MAX_IMAGE_PIXELS


def _identity(work: ScoringWork, file: PictureFile) -> tuple[str, str]:
    if file.stamp or file.problem:
        return file.path, file.stamp or file.problem
    try:
        return file.path, content_digest(work.source.read(file.path))
    except (DataError, *DECODE_ERRORS) as exc:
        return file.path, str(exc)
