"""The outcome of a check of robustness figures, and what all checks allow for chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adv_detect.measures.adaptive_records import ReportedFpr

RATE_TOLERANCE = 0.02
"""How far a success rate may fall where it should not, as a share of the images; one image may always differ."""
IMAGES_OF_CHANCE = 1.5
DEFAULT_FPR: ReportedFpr = "05"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        passed: Whether the figures of ``detector`` may be believed in this respect.
        detail: The numbers behind it, and what a failure means.
        detector: Whose figures are unreliable if it failed.
        judge: Column ``classifier`` of these figures; empty for those of any.
    """

    name: str
    passed: bool
    detail: str
    detector: str
    judge: str = ""


def check_result(name: str, passed: bool, detail: str, detector: object) -> CheckResult:
    """Name the outcome of a check for a detector of a table."""
    return CheckResult(name=name, passed=passed, detail=detail, detector=str(detector))


def slack(tolerance: float, count: int) -> float:
    """Return the tolerance, or one image and a half of ``count`` where that is more."""
    return max(tolerance, IMAGES_OF_CHANCE / count)


def join_words(parts: Iterable[object]) -> str:
    """Write the values of a condition one after the other."""
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
