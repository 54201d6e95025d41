"""The page of a scoring run: one HTML file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pandas as pd

from adv_detect.datasets.picture_files import open_pictures
from adv_detect.measures.verdicts import NAMED_UNREADABLE, VerdictSummary
from adv_detect.params import ScoringParams
from adv_detect.pipelines.scoring.gallery import gallery
from adv_detect.reporting.blocks import Block, Card, Cards, Facts, Note, Report, Section, Table, Text, prose
from adv_detect.reporting.render import render_report
from adv_detect.serving.verdicts import ACCEPT, REJECT, REVIEW, Judge

MOST_CLASSES = 30


def scoring_page(summary: VerdictSummary, judge: Judge, params: ScoringParams) -> str:
    """Write the page.

    Args:
        summary: What came out.
        judge: The model and its rates.
        params: Where the pictures lie.

    Returns:
        HTML that needs no other file.
    """
    sections = [Section("Verdicts", list(_verdicts(summary, judge)))]
    if len(summary.suspicious):
        shown = list(gallery(summary.suspicious, judge.bundle, open_pictures(str(params.images))))
        sections.append(Section("Most suspicious pictures", [Text(f"{_how_many(summary)} {READING}"), *shown]))
    if summary.classes:
        sections.append(Section("By class", [_by_class(summary, judge)]))
    sections.append(Section("Unreadable files", list(_unreadable(summary))))
    sections.append(Section("What scored them", [_facts(judge, params), Text(LIMITS)]))
    subtitle = f"{summary.files:,} files in `{params.images}`, scored by {judge.model_version}"
    return render_report(Report(title="Verdicts on pictures", subtitle=subtitle, sections=sections))


def _how_many(summary: VerdictSummary) -> str:
    """Say how many of the flagged pictures are shown, and where the others stand."""
    flagged = max(one.count for one in summary.flagged)
    return (
        f"{min(len(summary.suspicious), flagged):,} of {flagged:,} flagged pictures are shown (scoring.show); all "
        "stand in verdicts.csv."
    )


READING = prose(
    """The pictures of the highest scores, as the network sees them. Beside each: its distance to the class that the
    network names (line) and to the class of the early layers, or the next class (dashed), layer by layer, in units of
    the median distance of natural images of the named class; the shaded band holds the middle 95 % of these. A number
    in brackets after a layer is the standardised distance: 0 in the middle of the band, beyond 1 in size outside of
    it."""
)
LIMITS = prose(
    """A verdict is a comparison with clean images of the kind that the model was made with. Pictures of another kind
    (other cameras, resized, compressed, not aligned) are flagged more often than the rates say; calibrate on clean
    pictures of your own where that matters. An attacker who knows the detector can be accepted."""
)


def _verdicts(summary: VerdictSummary, judge: Judge) -> Iterator[Block]:
    counts, failed = summary.verdicts, summary.files - summary.scored
    reviewed = f"above the threshold at {judge.review:g}"
    yield Cards(
        [
            Card(f"{counts.get(ACCEPT, 0):,}", "accept", "below both thresholds"),
            Card(f"{counts.get(REVIEW, 0):,}", "review", reviewed),
            Card(f"{counts.get(REJECT, 0):,}", "reject", f"above the threshold at {judge.reject:g}"),
            Card(f"{failed:,}", "unreadable", f"of {summary.files:,} files"),
        ]
    )
    if not summary.scored:
        yield Note("No file could be scored; the reasons stand below.", "caution")
        return
    yield from (Note(f"{line}.", _tone(summary, judge)) for line in list(summary.sentences(judge.n_clean))[:1])
    yield _rates(summary, judge)
    if judge.unsupported:
        rates = ", ".join(f"{rate:g}" for rate in judge.unsupported)
        yield Note(
            f"The rate {rates} rests on {judge.n_clean} clean images, fewer than one in each: nothing is promised.",
            "caution",
        )
    if summary.resized:
        yield Note(
            f"{summary.resized:,} of {summary.scored:,} pictures were not of the size of training pictures and were "
            "scaled and cut. Scaling changes what a detector sees: clean pictures are then flagged more often.",
            "caution",
        )


def _tone(summary: VerdictSummary, judge: Judge) -> Literal["info", "caution"]:
    """Caution where more are flagged than chance explains."""
    first = summary.flagged[0]
    return "caution" if first.count > first.clean_range(judge.n_clean)[1] else "info"


def _rates(summary: VerdictSummary, judge: Judge) -> Table:
    rows = []
    for one in summary.flagged:
        (low, high), (fewest, most) = one.share(), one.clean_range(judge.n_clean)
        rows.append(
            {
                "false-positive rate": f"{one.rate:g}",
                "flagged": one.count,
                "share": f"{one.count / one.scored:.1%} ({low:.1%} to {high:.1%})",
                "expected of clean pictures": f"{one.expected:.3g} ({fewest:,} to {most:,})",
                "times": f"{one.ratio:.2g}",
            }
        )
    caption = prose(
        f"""Flagged pictures against what as many clean ones would give. Shares with their 95 % binomial interval
        (Wilson); the range of clean pictures (95 %) takes in that the thresholds rest on {judge.n_clean:,} clean
        images."""
    )
    return Table(pd.DataFrame(rows), caption=caption)


def _by_class(summary: VerdictSummary, judge: Judge) -> Table:
    rows = [
        {"class": name, "pictures": count, "flagged": flagged, "share": flagged / count}
        for name, (count, flagged) in sorted(summary.classes.items(), key=lambda one: (-one[1][1], one[0]))
    ]
    left = f", the {MOST_CLASSES} with the most flags of {len(rows)}" if len(rows) > MOST_CLASSES else ""
    caption = f"Pictures by the class that the network names, and those flagged at {judge.review:g}{left}."
    return Table(pd.DataFrame(rows[:MOST_CLASSES]), caption=caption, formats={"share": ".1%"})


def _unreadable(summary: VerdictSummary) -> Iterator[Block]:
    if not summary.reasons:
        yield Text("All files were read and scored.")
        return
    reasons = pd.DataFrame({"reason": list(summary.reasons), "files": list(summary.reasons.values())})
    yield Table(reasons, caption="Files without a verdict, by reason.")
    named = len(summary.unreadable)
    left = "" if named < NAMED_UNREADABLE else f"; the first {named:,}, the table of verdicts has all"
    yield Table(summary.unreadable, caption=f"The files{left}.", headers={"error": "reason"})


def _facts(judge: Judge, params: ScoringParams) -> Facts:
    spec = judge.bundle.network.spec
    return Facts(
        {
            "model": judge.model_version,
            "detector": judge.bundle.stored.key,
            "network": f"{spec.name}, {spec.num_classes} classes",
            "input": f"{spec.image_shape[1]} x {spec.image_shape[2]}, {spec.picture_input.transform.colour}",
            "clean images": judge.n_clean,
            "thresholds": {f"{rate:g}": f"{judge.bundle.threshold(rate):.4g}" for rate in judge.rates.values()},
            "pictures": params.images,
        }
    )
