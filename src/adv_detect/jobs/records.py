"""Tables of attacked images, a row per image."""

from __future__ import annotations

import logging

import pandas as pd

from adv_detect.params import AdversarialGenerationParams

LOGGER = logging.getLogger(__name__)


def with_tested_forms(records: pd.DataFrame, attacks: AdversarialGenerationParams) -> pd.DataFrame:
    """Tell unseen attacks apart from early ones that detectors learn from.

    Args:
        records: Rows with the columns attack and form.
        attacks: The attacks; rows of others, such as natural images, keep their form.

    Returns:
        The same rows, with ``early``, ``confident`` or ``unseen`` as form.
    """
    tested, pairs = attacks.tested_forms, zip(records["attack"], records["form"], strict=True)
    return records.assign(form=[tested.get(attack, form) for attack, form in pairs])


def log_non_finite(records: pd.DataFrame, table: str) -> None:
    """Say once per attack how many images failed because of NaN or infinity.

    Args:
        records: Rows with the columns attack and non_finite.
        table: Name of the table, for the message.
    """
    for attack, flags in records.groupby("attack", sort=False, observed=True)["non_finite"]:
        if flags.any():
            LOGGER.warning(
                "attack %s: NaN or infinity in gradients, logits or pixels of %d of %d images, which count as failures "
                "(%s.non_finite)", attack, int(flags.sum()), len(flags), table,
            )  # fmt: skip
