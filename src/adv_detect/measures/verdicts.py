"""Verdicts counted: flagged against what clean pictures would give, the most suspicious, the unreadable."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from adv_detect.algorithms.thresholds import affordable
from adv_detect.measures.clean_flags import clean_flags
from adv_detect.measures.detector_keys import rate_label
from adv_detect.measures.intervals import wilson_interval

NAMED_UNREADABLE = 1000
"""Unreadable files that are named; the table of verdicts has them all."""
LEVEL = 0.95


@dataclass(frozen=True)
class Flagged:
    """Pictures flagged at a false-positive rate.

    Attributes:
        rate: The rate.
        count: Pictures flagged.
        scored: Pictures that have a score.
    """

    rate: float
    count: int
    scored: int

    @property
    def expected(self) -> float:
        """Flags that as many clean pictures would get on average."""
        return self.rate * self.scored

    @property
    def ratio(self) -> float:
        """Flags per expected flag; NaN without pictures."""
        return self.count / self.expected if self.scored else math.nan

    def share(self) -> tuple[float, float]:
        """Binomial interval of the flagged share (Wilson, 95 %)."""
        return wilson_interval(self.count, self.scored, confidence_level=LEVEL)

    def clean_range(self, n_clean: int) -> tuple[int, int]:
        """Range of the flags that as many clean pictures would get, 95 %.

        Args:
            n_clean: Clean images that the threshold rests on.

        Returns:
            Lowest and highest number.
        """
        clean = clean_flags(self.scored, above=affordable(self.rate, n_clean), n_clean=n_clean)
        low, high = clean.interval(LEVEL)
        return int(max(low, 0)), int(high)


@dataclass(frozen=True)
class VerdictSummary:
    """Counts of verdicts, and the pictures that stand out.

    Attributes:
        files: Number of files.
        verdicts: Number of pictures by verdict.
        flagged: By rate, the highest rate first.
        classes: Number of pictures by class that the network names, with those flagged at the highest rate.
        resized: Pictures that were not of the size of training pictures.
        seconds: Time that reading and scoring took, over all pictures.
        suspicious: The rows of the highest scores, the highest first.
        unreadable: Path and reason of the first unreadable files.
        reasons: Number of unreadable files by the kind of reason.
    """

    files: int
    verdicts: Mapping[str, int]
    flagged: tuple[Flagged, ...]
    classes: Mapping[str, tuple[int, int]]
    resized: int
    seconds: float
    suspicious: pd.DataFrame
    unreadable: pd.DataFrame
    reasons: Mapping[str, int]

    @property
    def scored(self) -> int:
        """Number of pictures with a score."""
        return sum(self.verdicts.values())

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers by name, for the tracking server."""
        found = {"scoring_files": self.files, "scoring_unreadable": self.files - self.scored}
        return {name: float(value) for name, value in found.items()} | {
            f"scoring_flagged_at_fpr_{rate_label(one.rate)}": float(one.count) for one in self.flagged
        }

    def sentences(self, n_clean: int) -> Iterator[str]:
        """Say in words how many are flagged, and how many of so many clean pictures would be.

        Args:
            n_clean: Clean images that the thresholds rest on.

        Yields:
            A sentence for each rate.
        """
        for one in self.flagged if self.scored else ():
            low, high = one.clean_range(n_clean)
            yield (
                f"{one.count:,} of {one.scored:,} pictures flagged at a false-positive rate of {one.rate:.4g}, "
                f"{one.ratio:.2g} times as many as clean data would give ({one.expected:.3g} expected, 95 % range "
                f"{low:,} to {high:,})"
            )

    def warnings(self) -> Iterator[str]:
        """Say in words what stands behind fewer files than there are, or behind pictures that were changed first.

        Yields:
            A sentence for unreadable files, with the first of them, and one for pictures of another size.
        """
        failed = self.files - self.scored
        if failed:
            path, error = self.unreadable.iloc[0][["path", "error"]]
            none = "" if self.scored else ", so no picture was judged"
            yield f"{failed:,} of {self.files:,} files could not be read{none}; the first: {path}: {error}"
        if self.resized:
            yield (
                f"{self.resized:,} of {self.scored:,} pictures were not of the size of training pictures: they "
                "were scaled and cut, which moves their scores (column `resized`)"
            )


def summarise(parts: Iterable[pd.DataFrame], rates: Mapping[str, float], *, show: int) -> VerdictSummary:
    """Count verdicts in one pass over the parts of their table.

    Args:
        parts: Tables of verdicts.
        rates: False-positive rate by the column that says whether a picture is flagged at it.
        show: Rows of the highest scores that are kept.

    Returns:
        The summary; memory does not grow with the number of pictures.
    """
    tally, verdicts, flags = Counter[str](), Counter[str](), Counter[str]()
    classes: dict[str, tuple[int, int]] = {}
    reasons = Counter[str]()
    suspicious, unreadable = pd.DataFrame(), pd.DataFrame()
    seconds = 0.0
    widest = max(rates, key=rates.__getitem__)
    for part in parts:
        scored, failed = part[part["error"].isna()], part[part["error"].notna()]
        tally.update(files=len(part), resized=int(scored["resized"].sum()))
        verdicts.update(scored["verdict"])
        flags.update({name: int(scored[name].sum()) for name in rates})
        seconds += float(part["seconds"].sum())
        for name, found in scored.groupby("predicted_class")[widest]:
            count, flagged = classes.get(str(name), (0, 0))
            classes[str(name)] = count + len(found), flagged + int(found.sum())
        reasons.update(_kind(one) for one in failed["error"])
        suspicious = _highest(suspicious, scored, show)
        missing = NAMED_UNREADABLE - len(unreadable)
        unreadable = pd.concat([unreadable, failed[["path", "error"]].head(missing)], ignore_index=True)
    total = sum(verdicts.values())
    ordered = sorted(rates.items(), key=lambda one: -one[1])
    return VerdictSummary(
        files=tally["files"],
        verdicts=dict(verdicts),
        flagged=tuple(Flagged(rate, flags[name], total) for name, rate in ordered),
        classes=dict(sorted(classes.items())),
        resized=tally["resized"],
        seconds=seconds,
        suspicious=suspicious,
        unreadable=unreadable,
        reasons=dict(reasons.most_common()),
    )


def _highest(before: pd.DataFrame, part: pd.DataFrame, show: int) -> pd.DataFrame:
    """Keep the rows of the highest scores; of equals the first."""
    joined = pd.concat([before, part], ignore_index=True) if len(before) else part
    return joined.sort_values("score", ascending=False, kind="stable").head(show).reset_index(drop=True)


def _kind(reason: str) -> str:
    """Leave out what differs from file to file."""
    return reason.partition(" (")[0]
