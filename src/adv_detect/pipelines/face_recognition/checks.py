"""Checks of face_recognition before a run."""

from __future__ import annotations

from importlib.util import find_spec

from adv_detect.errors import AdvDetectError, ConfigurationError, DataError, unknown_choice
from adv_detect.images import ImageSet
from adv_detect.measures.faces.draw import draw_pairs
from adv_detect.measures.faces.pairs import locate_pairs, parse_pairs
from adv_detect.params import DetectorTrainingParams, FaceRecognitionParams, RuntimeParams, TwinTrainingParams
from adv_detect.pipelines.face_recognition.embedders import no_twin
from adv_detect.pipelines.face_recognition.nodes import PAIRS_FILE
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Check that faces can be verified and identified as configured.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: A value cannot work.
        DataError: The pairs cannot be had from these images.
    """
    params = run.read_block(FaceRecognitionParams)
    if params is None:
        return
    check_gate(params, run.block(DetectorTrainingParams), run.block(TwinTrainingParams))
    if "verification_images" not in run.inputs:
        return
    check_faces(
        params,
        images=run.catalog.load("verification_images"),
        pairs=run.catalog.load("verification_pairs") if params.pairs.source == "file" else "",
        seed=(run.block(RuntimeParams) or RuntimeParams()).seed,
        gallery_sizes=_gallery_sizes(params, run),
    )


def check_gate(
    params: FaceRecognitionParams, training: DetectorTrainingParams | None, twin: TwinTrainingParams | None
) -> None:
    """Check that the detector of the registered gate is trained, and the twin that the gate asks.

    Args:
        params: The gate.
        training: The configurations; None where they are not known.
        twin: The twin; None where that is not known.

    Raises:
        ConfigurationError: There is no such configuration, or no twin.
    """
    if params.gate.asks_twin and twin is not None and twin.network is None:
        raise ConfigurationError(no_twin(params))
    chosen = params.gate.detector
    if chosen is not None and training is not None and chosen not in training.active:
        raise unknown_choice("face_recognition.gate.detector", chosen, training.active)


def check_faces(
    params: FaceRecognitionParams, *, images: ImageSet, pairs: str, seed: int, gallery_sizes: dict[str, int]
) -> None:
    """Check engine, neighbours and pairs before any image is embedded.

    Args:
        params: How faces are verified and identified.
        images: The images of the pairs.
        pairs: Text of the pairs file; not read where pairs are drawn.
        seed: Seed of a draw.
        gallery_sizes: Number of enrolled faces by kind of gallery.

    Raises:
        ConfigurationError: A value cannot work.
        DataError: The pairs cannot be had from these images.
    """
    if params.engine == "faiss" and find_spec("faiss") is None:
        raise ConfigurationError(
            "face_recognition.engine: 'faiss' was asked for but is not installed; use sklearn, or pip install "
            "-e '.[faces]'"
        )
    for kind in params.galleries:
        size = gallery_sizes.get(kind)
        if size is not None and params.neighbours > size:
            raise ConfigurationError(
                f"face_recognition.neighbours: expected at most {size}, the enrolled faces of the gallery {kind!r}, "
                f"got {params.neighbours}"
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


def _gallery_sizes(params: FaceRecognitionParams, run: Run) -> dict[str, int]:
    """Number of enrolled faces by kind of gallery, as far as results on disk say it."""
    if not run.catalog.exists("features"):
        return {}
    store = run.catalog.load("features")
    kept = [(store.metadata(key)["label"], len(store.metadata(key)["source_ids"])) for key in store]
    classes = len({label for label, count in kept if count})
    return {kind: sum(count for _, count in kept) if kind == "images" else classes for kind in params.galleries}
