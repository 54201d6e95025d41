"""Gallery of the most suspicious pictures, each with its explanation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.device import device_of
from adv_detect.datasets.file_sources import FileSource
from adv_detect.errors import DataError
from adv_detect.pictures.opening import DECODE_ERRORS
from adv_detect.plots.style import figure_bytes
from adv_detect.plots.verdict import verdict_figure
from adv_detect.reporting.blocks import Block, Figure, Text
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.explanation import DEPARTURE_COLUMN, EARLY, Explainer, early_layers

SHOWN_LAYERS = 4


def gallery(rows: pd.DataFrame, bundle: ScoringBundle, source: FileSource) -> Iterator[Block]:
    """Show pictures with their way through the layers.

    Args:
        rows: Of the table of verdicts.
        bundle: Network, representatives, detector and bands.
        source: Where the pictures are read from.

    Yields:
        A figure for each; a text for one that cannot be read any more.
    """
    steps, model, explainer = bundle.network.spec.picture_input, bundle.model().eval(), bundle.explainer()
    device = device_of(model.network)  # where the pictures were scored: the fast form of a network is made once
    for _, row in rows.iterrows():
        told = f"**{row['path']}**: {explain(row, bundle)}"
        try:
            pixels, _ = steps.decode(source.read(str(row["path"])))
        except (DataError, *DECODE_ERRORS) as exc:
            yield Text(f"{told} (not shown: {exc})")
            continue
        with torch.no_grad():
            activations = model.activations(steps.batch([pixels]).to(device)).to("cpu")
        figure = verdict_figure(
            _shown(pixels), layers=bundle.network.spec.layers, **_way(activations, explainer, bundle)
        )
        yield Figure(figure_bytes(figure), caption=told, alt=f"{row['path']} and its distances by layer")


def explain(row: pd.Series, bundle: ScoringBundle) -> str:
    """Say in words why a picture got its verdict.

    Args:
        row: Of the table of verdicts.
        bundle: What scored it.

    Returns:
        A few sentences; parts that the detector does not read are left out.
    """
    named, layers = row["predicted_class"], bundle.network.spec.layers
    parts = [f"named **{named}**, score {row['score']:.4g}, p-value {row['p_value']:.3g}: **{row['verdict']}**"]
    if isinstance(row["twin_class"], str):
        parts.append(
            f"the twin names **{row['twin_class']}** and gives {named} a probability of {row['twin_belief']:.2g}"
        )
    if isinstance(row["views_changed"], str):
        changed = row["views_changed"]
        parts.append(f"views that name another class: {changed}" if changed else "all views name the same class")
    if isinstance(row["early_class"], str):
        early = ", ".join(layers[: early_layers(len(layers))])
        beside = "" if bundle.stored.detector.reads.layers else "beside it, which the detector does not read: "
        parts.append(f"{beside}the early layers ({early}) are nearest to **{row['early_class']}**")
        parts.append(_departing(row, named))
    return "; ".join(parts) + "."


def _departing(row: pd.Series, named: str) -> str:
    if not row["departing_layers"]:
        return f"at no layer outside of the middle 95 % of natural images of {named}"
    names = str(row["departing_layers"]).split(", ")
    shown = ", ".join(f"{name} ({row[f'{DEPARTURE_COLUMN}{name}']:+.1f})" for name in names[:SHOWN_LAYERS])
    more = f" and {len(names) - SHOWN_LAYERS} more" if len(names) > SHOWN_LAYERS else ""
    return f"outside of the middle 95 % of natural images of {named} at {shown}{more}"


def _shown(pixels: Tensor) -> np.ndarray:
    return pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()


def _way(activations: Activations, explainer: Explainer, bundle: ScoringBundle) -> dict[str, Any]:
    """Distances to the named class and to another one, layer by layer, in units of natural medians."""
    bands = bundle.bands
    if bands is None:
        return {}
    named, names = int(activations.logits.argmax()), bundle.network.spec.class_names
    distances, median = explainer.distances(activations)[0], bands.median[named].clamp_min(1e-12)
    relative = distances / median[:, None]
    other, of_early = _other_class(relative, named, int(explainer(activations)[EARLY]))
    lines = {f"to {names[named]} (named)": relative[:, named].numpy()}
    if other is not None:
        lines[f"to {names[other]} ({'early layers' if of_early else 'next'})"] = relative[:, other].numpy()
    return {"band": ((bands.low[named] / median).numpy(), (bands.high[named] / median).numpy()), "lines": lines}


def _other_class(relative: Tensor, named: int, early: int) -> tuple[int | None, bool]:
    """Choose the class to compare with: that of the early layers where it is another, else the nearest other one."""
    if early != named:
        return early, True
    total = relative.sum(dim=0)
    total[named] = torch.inf
    return (int(total.argmin()), False) if len(total) > 1 else (None, False)
