"""Nodes that set thresholds on clean pictures of a user's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.device import resolve_device
from adv_detect.datasets.picture_files import list_pictures, readable_pictures
from adv_detect.measures.calibration import AS_EXPECTED, TWO_GROUPS, check_mixture, rate_table
from adv_detect.params import CalibrationParams, RuntimeParams, ServingParams
from adv_detect.pipelines.calibration.checks import chosen_rates, refuse_few
from adv_detect.progress import track
from adv_detect.reporting import Report, ReportPart, detectors_identity
from adv_detect.reporting.calibration import calibration_section, check_sentence
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.pictures import DIGESTS, PATHS, PREDICTED, READABLE, REASONS, SCORES, PictureScorer
from adv_detect.sharding import ShardContent
from adv_detect.validation.run import some_of

LOGGER = logging.getLogger(__name__)
SCORED = ("predicted_class", "adversarial_score", "p_value")


def score_clean_pictures(
    champion_model: ScoringBundle, calibration: CalibrationParams, runtime: RuntimeParams
) -> pd.DataFrame:
    """Score the clean pictures; unreadable ones and copies are left out, and named in the log.

    Args:
        champion_model: The model.
        calibration: Where the clean pictures lie.
        runtime: Batch size, device, progress.

    Returns:
        One row per picture: path, digest, predicted_class, adversarial_score, p_value (by the clean images that the
        model rests on so far), problem (why it was left out, else empty).

    Raises:
        DataError: Too few are left for a rate.
    """
    found = list_pictures(str(calibration.images), column=calibration.column)
    scorer = PictureScorer(champion_model, device=str(resolve_device(runtime.device)), explain=False)
    starts = range(0, len(found.files), runtime.batch_size)
    frames = []
    for start in track(starts, "clean pictures", unit="batches", shown=runtime.progress):
        block = found.files[start : start + runtime.batch_size]
        frames.append(_scored(scorer.score(readable_pictures(found.source, block)), champion_model))
    table = _without_copies(pd.concat(frames, ignore_index=True))
    _warn_of_problems(table)
    refuse_few(int((table["problem"] == "").sum()), chosen_rates(champion_model, calibration))
    return table


def compare_thresholds(
    champion_model: ScoringBundle,
    calibration_scores: pd.DataFrame,
    calibration: CalibrationParams,
    runtime: RuntimeParams,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Compare the thresholds before and after, and look for signs that the pictures are not all clean.

    Args:
        champion_model: The model before.
        calibration_scores: Scores of the clean pictures.
        calibration: The false-positive rates.
        runtime: Seed of the folds.

    Returns:
        The table of :func:`adv_detect.measures.calibration.rate_table`, for parquet and for CSV, and the check of
        :func:`adv_detect.measures.calibration.check_mixture` as a dictionary.
    """
    scores, shipped = _scores(calibration_scores), champion_model.stored.clean_scores
    fprs = chosen_rates(champion_model, calibration)
    table = rate_table(shipped, scores, fprs, seed=runtime.seed)
    found = asdict(check_mixture(shipped, scores, fprs)) | {"n": len(scores)}
    LOGGER.log(
        logging.INFO if found["verdict"] == AS_EXPECTED else logging.WARNING, "calibration: %s", check_sentence(found)
    )
    for row in table.to_dict("records"):
        LOGGER.info(
            "calibration: at %g, %.2f %% of %d pictures lay above the threshold before (95 %%: %.2f to %.2f %%), "
            "%.2f %% after (%.2f to %.2f %%; each tenth of them judged by the other nine)",
            row["fpr"], 100 * row["rate_before"], row["n"], 100 * row["before_low"], 100 * row["before_high"],
            100 * row["rate_after"], 100 * row["after_low"], 100 * row["after_high"],
        )  # fmt: skip
    return table, table, found


def calibrate(
    champion_model: ScoringBundle,
    calibration_scores: pd.DataFrame,
    calibration_rates: pd.DataFrame,
    calibration_check: dict[str, Any],
    calibration: CalibrationParams,
    serving: ServingParams,
) -> ScoringBundle:
    """Give the model the clean scores of these pictures; network and detector stay as they are.

    Args:
        champion_model: The model before.
        calibration_scores: Scores of the clean pictures.
        calibration_rates: The rates before and after.
        calibration_check: Signs that the pictures are not all clean.
        calibration: Whether the new version becomes the champion.
        serving: Name of the registered model.

    Returns:
        The model after.
    """
    scores = torch.sort(_scores(calibration_scores)).values
    mixed = calibration_check["verdict"] == TWO_GROUPS
    promote = calibration.promote == "anyway" or (calibration.promote is True and not mixed)
    if mixed and calibration.promote is True:
        LOGGER.warning(
            "calibration: the alias champion stays where it is, since the pictures look like a mixture; leave the "
            "attacked ones out, or move it with calibration.promote=anyway"
        )
    facts = {"n": len(scores), "check": calibration_check["verdict"], "images": str(calibration.images)}
    fprs = [float(fpr) for fpr in calibration_rates["fpr"]]
    metadata = dict(champion_model.metadata) | {"name": serving.name, "fprs": fprs, "calibration": facts}
    return replace(
        champion_model,
        stored=replace(champion_model.stored, clean_scores=scores),
        metadata=metadata | {"promote": promote},
    )


def summarise_calibration(calibration_rates: pd.DataFrame, calibration_check: dict[str, Any]) -> dict[str, float]:
    """Gather the figures for the tracking server.

    Args:
        calibration_rates: The rates before and after.
        calibration_check: Signs that the pictures are not all clean.

    Returns:
        Figures by name.
    """
    found = {"calibration/n": float(calibration_check["n"]), "calibration/excess_p": calibration_check["excess"]}
    found |= {
        "calibration/gap_p": calibration_check["gap"]["p_value"],
        "calibration/suspicious": float(calibration_check["verdict"] != AS_EXPECTED),
    }
    for row in calibration_rates.to_dict("records"):
        found |= {f"calibration/{name}_at_{row['fpr']:g}": row[name] for name in ("rate_before", "rate_after")}
    return {name: float(value) for name, value in found.items()}


def write_calibration_part(
    calibration_scores: pd.DataFrame,
    calibration_rates: pd.DataFrame,
    calibration_check: dict[str, Any],
    detector_summary: pd.DataFrame,
    calibration: CalibrationParams,
) -> ReportPart:
    """Write the section on calibration.

    Args:
        calibration_scores: Scores of the clean pictures.
        calibration_rates: The rates before and after.
        calibration_check: Signs that the pictures are not all clean.
        detector_summary: One row per trained detector.
        calibration: The folder.

    Returns:
        The section, to be joined with those of other pipelines.
    """
    section = calibration_section(calibration_scores, calibration_rates, calibration_check, str(calibration.images))
    return ReportPart(Report("Calibration", "", [section]), detectors_identity(detector_summary))


def _scored(content: ShardContent, bundle: ScoringBundle) -> pd.DataFrame:
    """Write scores as a table; what could not be scored has a problem instead."""
    facts, tensors = content.metadata, content.tensors
    table = pd.DataFrame({"path": facts[PATHS], "digest": facts[DIGESTS], "problem": facts[REASONS]})
    names = np.array(bundle.network.spec.class_names, dtype=object)
    scored = pd.DataFrame(
        {
            "predicted_class": names[tensors[PREDICTED].numpy()],
            "adversarial_score": tensors[SCORES].numpy(),
            "p_value": bundle.stored.p_values(tensors[SCORES]).numpy(),
        },
        index=np.flatnonzero(tensors[READABLE].numpy()),
    )
    return table.join(scored)[["path", "digest", *SCORED, "problem"]]


def _without_copies(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out pictures whose content came before: thresholds would count them twice."""
    usable = table[table["problem"] == ""]
    copies = usable[usable.duplicated("digest")]
    first = usable.drop_duplicates("digest").set_index("digest")["path"]
    table = table.copy()
    table.loc[copies.index, "problem"] = "a copy of " + copies["digest"].map(first)
    table.loc[copies.index, list(SCORED)] = None
    return table


def _warn_of_problems(table: pd.DataFrame) -> None:
    left_out = table[table["problem"] != ""]
    if len(left_out):
        named: Iterator[str] = (f"{row['path']}: {row['problem']}" for row in left_out.to_dict("records"))
        LOGGER.warning("calibration: %d of %d pictures left out: %s", len(left_out), len(table), some_of(list(named)))


def _scores(table: pd.DataFrame) -> Tensor:
    kept = table.loc[table["problem"] == "", "adversarial_score"]
    return torch.tensor(kept.to_numpy(dtype="float64")).float()
