"""Checks of calibration before a run."""

from __future__ import annotations

from adv_detect.datasets.picture_files import KINDS, list_pictures
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.measures.calibration import images_for_half, images_needed
from adv_detect.params import CalibrationParams
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.validation.run import Run


def check(run: Run) -> None:
    """Check that there are clean pictures, and enough of them for every rate.

    Args:
        run: What is going to run.

    Raises:
        ConfigurationError: No pictures are named.
        DataError: They are not there, or too few.
    """
    params = run.read_block(CalibrationParams)
    if params is None or "champion_model" not in run.from_disk:
        return
    if params.images is None:
        raise ConfigurationError(
            f"calibration.images: expected clean pictures ({KINDS}), got none; name them with "
            "--params=calibration.images=FOLDER"
        )
    files = list_pictures(params.images, column=params.column).files
    refuse_few(len(files), chosen_rates(run.catalog.load("champion_model"), params))


def chosen_rates(bundle: ScoringBundle, params: CalibrationParams) -> tuple[float, ...]:
    """List the false-positive rates to calibrate.

    Args:
        bundle: The model; its default rate is among them.
        params: The rates asked for, or None for those of the model.

    Returns:
        The rates, ascending.
    """
    asked = params.fprs if params.fprs is not None else bundle.metadata["fprs"]
    return tuple(sorted({float(fpr) for fpr in (*asked, bundle.metadata["fpr"])}))


def refuse_few(count: int, fprs: tuple[float, ...]) -> None:
    """Refuse rates that so many pictures cannot carry.

    Args:
        count: Usable pictures.
        fprs: The rates.

    Raises:
        DataError: There are too few.
    """
    rate = min(fprs)
    if count >= images_needed(rate):
        return
    carried = [fpr for fpr in fprs if count >= images_needed(fpr)]
    instead = f", or ask for calibration.fprs={carried} alone" if carried else ""
    raise DataError(
        f"calibration.images: expected at least {images_needed(rate)} clean pictures for a false-positive rate of "
        f"{rate:g} ({images_for_half(rate):,} for a 95 % interval of half the rate to either side), got {count}; add "
        f"pictures{instead}"
    )
