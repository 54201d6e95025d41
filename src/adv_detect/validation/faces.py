"""Checks that faces can be verified and identified as configured."""

from __future__ import annotations

from importlib.util import find_spec

from adv_detect.errors import AdvDetectError, ConfigurationError, DataError
from adv_detect.images import ImageSet
from adv_detect.measures.faces.draw import draw_pairs
from adv_detect.measures.faces.pairs import locate_pairs, parse_pairs
from adv_detect.params import FaceRecognitionParams
from adv_detect.pipelines.face_recognition.nodes import PAIRS_FILE


def check_faces(
    params: FaceRecognitionParams, *, images: ImageSet, pairs: str, seed: int, gallery_sizes: dict[str, int]
) -> None:
    """Check engine, neighbours and pairs before any image is embedded.

    Args:
        params: How faces are verified and identified.
        images: The images of the pairs.
        pairs: Text of the pairs file; not read where pairs are drawn.
        seed: Seed of a draw.
        gallery_sizes: Number of known faces by kind of gallery.

    Raises:
        ConfigurationError: A value cannot work.
        DataError: The pairs cannot be had from these images.
    """
    if params.engine == "faiss" and find_spec("faiss") is None:
        raise ConfigurationError(
            "face_recognition.engine: 'faiss' was asked for but is not installed; use sklearn, or pip install "
            "'adv-detect[faces]'"
        )
    for kind in params.galleries:
        size = gallery_sizes.get(kind)
        if size is not None and params.neighbours > size:
            raise ConfigurationError(
                f"face_recognition.neighbours: expected at most {size}, the known faces of the gallery {kind!r}, got "
                f"{params.neighbours}"
            )
    try:
        if params.pairs.source == "file":
            locate_pairs(parse_pairs(pairs, source=PAIRS_FILE), images.source_ids)
        else:
            wanted = params.pairs
            draw_pairs(
                images.labels.numpy(), wanted.number, source_ids=images.source_ids, seed=seed, folds=wanted.folds
            )
    except AdvDetectError as exc:
        wanted = params.pairs
        shown = "file" if wanted.source == "file" else f"number: {wanted.number}, folds: {wanted.folds}"
        raise DataError(f"face_recognition.pairs ({shown}): {exc}") from exc
