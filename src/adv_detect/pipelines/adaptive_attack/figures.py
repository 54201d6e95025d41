"""Nodes that draw and report what adaptive attacks found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from adv_detect.images import ImageSet, load_images
from adv_detect.jobs.detectors import restore
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AdaptiveAttackParams, RuntimeParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.models import USUAL
from adv_detect.plots import score_histograms
from adv_detect.plots.adaptive import EvadingExample, evading_grid, success_curves
from adv_detect.plots.adaptive_steps import step_curves
from adv_detect.reporting import LOST, Report, ReportPart, detectors_identity, draw_pictures, lost_table
from adv_detect.reporting.adaptive import adaptive_section
from adv_detect.sharding import ShardStore

MAX_ROWS = 6
SHOWN = ("adaptive_curves", "adaptive_grid", "adaptive_scores", "adaptive_steps")


def draw_adaptive(
    adaptive_records: pd.DataFrame,
    adaptive_tables: dict[str, pd.DataFrame],
    adaptive_adversarials: ShardStore,
    attack_setting: AttackSetting,
    detectors: ShardStore,
    adaptive_attack: AdaptiveAttackParams,
) -> dict[str, Any]:
    """Draw success against epsilon, images that got through, and scores under attack.

    Args:
        adaptive_records: One row per image and condition.
        adaptive_tables: The tables by name, for success against epsilon.
        adaptive_adversarials: The attacked images.
        attack_setting: Network, images and all else that the attacks shared.
        detectors: The trained detectors.
        adaptive_attack: How many examples to show.

    Returns:
        Figures by name: ``adaptive_curves``, ``adaptive_steps``, ``adaptive_grid`` and ``adaptive_scores/<detector>``;
        a figure is absent where there is nothing to draw.
    """
    figures: dict[str, Any] = {}
    curves = adaptive_tables["curves"]
    if not curves.empty:
        figures["adaptive_curves"] = success_curves(curves, title="images lost, threshold at 5 % false alarms")
    steps = adaptive_tables["steps"]
    budgeted = steps[steps["epsilon"].notna()] if len(steps) else steps
    if not budgeted.empty:
        figures["adaptive_steps"] = step_curves(budgeted, title="images lost against steps, threshold at 5 %")
    examples = list(
        _examples(
            adaptive_records, adaptive_adversarials, attack_setting.images, attack_setting.network, adaptive_attack
        )
    )
    if examples:
        title = "images that fool the network and pass the detector"
        figures["adaptive_grid"] = evading_grid(examples, bounds=attack_setting.network.spec.bounds, title=title)
    return figures | _histograms(adaptive_records, detectors, attack_setting)


def show_adaptive(adaptive_figures: dict[str, Any], runtime: RuntimeParams) -> tuple[Any, ...]:
    """Draw all figures once, and pick one of each kind for a file of its own.

    Args:
        adaptive_figures: All figures.
        runtime: Number of processes; whether progress is shown.

    Returns:
        PNG files by name of the figure; those of curves, grid, score histograms, steps.
    """
    pictures, shown = draw_pictures(adaptive_figures, SHOWN, runtime)
    return pictures, *shown


def write_adaptive_part(
    adaptive_tables: dict[str, pd.DataFrame],
    adaptive_pictures: dict[str, bytes],
    hardened_detectors: ShardStore,
    substitute_description: dict[str, Any],
    detector_summary: pd.DataFrame,
) -> ReportPart:
    """Write the section on attacks on network and detector together.

    Args:
        adaptive_tables: The tables by name.
        adaptive_pictures: PNG files of the figures.
        hardened_detectors: What adversarial training saw.
        substitute_description: Seed and accuracy of the attacker's own network; empty where there is none.
        detector_summary: The detectors that the section speaks of.

    Returns:
        The section, to be joined with those of other pipelines.
    """
    section = adaptive_section(adaptive_tables, adaptive_pictures, hardened_detectors, substitute_description)
    tables = {LOST: lost_table(adaptive_tables["summary"])}
    return ReportPart(Report(section.title, "", [section]), detectors_identity(detector_summary), tables)


def _examples(
    records: pd.DataFrame,
    store: ShardStore,
    images: ImageSet,
    network: TargetNetwork,
    params: AdaptiveAttackParams,
) -> Iterator[EvadingExample]:
    """Evading images with the smallest distortion, of the strongest attacks of each detector."""
    wanted = (records["form"] == "correct") & (records["store"] == "adaptive") & (records["role"] != "single_step")
    through = records[records["evaded_fpr_05"] & wanted]
    names, bounds = network.spec.class_names, network.spec.bounds
    for (detector, attack, norm), part in _strongest(through):
        for row in (
            part.sort_values(["epsilon", "l2"]).drop_duplicates("source_id").head(params.show_examples).itertuples()
        ):
            content = store[str(row.shard)]
            place = int(row.row)  # type: ignore[arg-type]
            yield EvadingExample(
                row=f"{attack} ({norm})\n{'/'.join(detector.split('/')[:2])}",
                clean=load_images(images, [int(row.source_index)], bounds)[0],  # type: ignore[arg-type]
                adversarial=content.tensors["images"][place],
                clean_class=names[int(row.label)],  # type: ignore[arg-type]
                adversarial_class=names[int(row.predicted)],  # type: ignore[arg-type]
                score=float(row.detector_score),  # type: ignore[arg-type]
                threshold=float(row.threshold_fpr_05),  # type: ignore[arg-type]
            )


def _strongest(through: pd.DataFrame) -> list[tuple[list[str], pd.DataFrame]]:
    """Per detector the attacks that got most images through, at most `MAX_ROWS` in all."""
    grouped = through.groupby(["detector", "attack", "norm"], sort=True)
    groups = sorted(grouped, key=lambda group: -group[1]["source_id"].nunique())
    per_detector = max(1, MAX_ROWS // max(1, through["detector"].nunique()))
    taken: Counter[str] = Counter()
    kept = []
    for key, part in groups:
        names = [str(name) for name in key]
        taken[names[0]] += 1
        if taken[names[0]] <= per_detector:
            kept.append((names, part))
    return sorted(kept[:MAX_ROWS], key=lambda group: group[0])


def _histograms(records: pd.DataFrame, detectors: ShardStore, setting: AttackSetting) -> dict[str, Any]:
    """Scores of fooled images of each attack against clean ones, at the largest budget, per attacked detector."""
    figures: dict[str, Any] = {}
    mine = records[records["fooled"] & (records["form"] == "correct") & (records["store"] == "adaptive")]
    for detector, part in mine.groupby("detector", sort=True):
        stored = restore(detectors, str(detector), setting.representatives)
        largest = part["epsilon"].isna() | (
            part["epsilon"] == part.groupby(["attack", "norm", "criterion"])["epsilon"].transform("max")
        )
        samples = {
            f"{attack}, {norm}, {criterion}": rows["detector_score"].to_numpy(dtype=np.float64)
            for (attack, norm, criterion), rows in part[largest].groupby(["attack", "norm", "criterion"], sort=True)
        }
        figures[f"adaptive_scores/{detector}"] = score_histograms(
            score_naturals(setting.activations, "test", stored, setting.representatives)["score"].to_numpy(),
            samples,
            threshold=stored.threshold(USUAL),
            title=f"{detector}: fooled images under attack, largest budget",
        )
    return figures
