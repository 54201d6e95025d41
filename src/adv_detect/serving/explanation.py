"""Explanation of a verdict: layers that depart, class of the early layers, views and twin that disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from adv_detect.algorithms.bands import NaturalBands, class_distances
from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.representatives import Representatives

DEPARTURES, EARLY, VIEWS, TWIN, TWIN_BELIEF = "departures", "early", "views.", "twin", "twin_belief"
DEPARTURE_COLUMN = "departure."
"""What precedes the name of a layer in the columns of a table."""
TEXTS = ("departing_layers", "early_class", "views_changed", "twin_class")


class Explainer(nn.Module):
    """Measures what a verdict is explained by; its constants are computed once."""

    def __init__(self, representatives: Representatives, bands: NaturalBands | None) -> None:
        """Prepare.

        Args:
            representatives: Class representatives of the network under attack.
            bands: Of natural images; None, as in a model stored without them, leaves layers out.
        """
        super().__init__()
        self.bands = bands
        self.layers = representatives.layers
        self.measure = None if bands is None else class_distances(representatives)

    def forward(self, activations: Activations) -> dict[str, Tensor]:
        """Explain N images.

        Args:
            activations: What the network said, on the device of the module.

        Returns:
            On the CPU: ``departures`` ``(N, L)``, standardised distances to the class that the network names (beyond 1
            in size: outside of the middle 95 % of natural images of that class); ``early`` ``(N,)``, the class that the
            early layers are nearest to; ``views.<name>`` ``(N,)``, the class of each view; ``twin`` ``(N,)``, the class
            of the twin, and ``twin_belief``, the probability that it gives to the network's. Only what is read.
        """
        named = activations.logits.argmax(dim=1)
        found = {f"{VIEWS}{name}": logits.argmax(dim=1) for name, logits in activations.views.items()}
        if activations.twin is not None:
            belief = activations.twin.gather(1, named[:, None])[:, 0].exp()
            found |= {TWIN: activations.twin.argmax(dim=1), TWIN_BELIEF: belief}
        if self.measure is not None and self.bands is not None:
            distances = self.distances(activations)
            own = distances.gather(2, named[:, None, None].expand(-1, distances.shape[1], 1))[:, :, 0]
            found |= {DEPARTURES: self.bands.departures(own, named), EARLY: self._early(distances)}
        return {name: one.detach().cpu() for name, one in found.items()}

    def distances(self, activations: Activations) -> Tensor:
        """Measure images against all classes at all layers, ``(N, L, C)``."""
        assert self.measure is not None
        distances: Tensor = self.measure(activations.of_layers(self.layers))
        return distances

    def _early(self, distances: Tensor) -> Tensor:
        """Nearest class over the first half of the layers, each in units of a typical natural distance there."""
        assert self.bands is not None
        early = early_layers(distances.shape[1])
        typical = self.bands.median[:, :early].median(dim=0).values.to(distances)
        return (distances[:, :early] / typical.clamp_min(1e-12)[None, :, None]).sum(dim=1).argmin(dim=1)


def early_layers(layers: int) -> int:
    """Count the early layers: the first half, at least one."""
    return max(1, layers // 2)


def explanation_table(
    found: Mapping[str, Tensor], *, class_names: Sequence[str], layers: Sequence[str], predicted: Tensor
) -> pd.DataFrame:
    """Write an explanation as columns.

    Args:
        found: What :class:`Explainer` gave of N images.
        class_names: Name of each class.
        layers: Names of the layers.
        predicted: Class that the network names, int64 ``(N,)``.

    Returns:
        One row per image: ``departing_layers`` (those outside of the band, the farthest first), ``early_class``,
        ``views_changed`` (views in which the network names another class), ``twin_class`` and ``twin_belief``, and
        ``departure.<layer>`` for each layer. Texts are missing, numbers NaN, where that is not read.
    """
    names, count = np.array(class_names, dtype=object), len(predicted)
    missing = np.full(count, None, dtype=object)
    views = {name.removeprefix(VIEWS): one for name, one in found.items() if name.startswith(VIEWS)}
    departures = found.get(DEPARTURES)
    table = pd.DataFrame(
        {
            "departing_layers": missing if departures is None else _departing(departures.numpy(), layers),
            "early_class": names[found[EARLY].numpy()] if EARLY in found else missing,
            "views_changed": _changed(views, predicted) if views else missing,
            "twin_class": names[found[TWIN].numpy()] if TWIN in found else missing,
            "twin_belief": found[TWIN_BELIEF].double().numpy() if TWIN in found else np.full(count, np.nan),
        }
    ).astype(dict.fromkeys(TEXTS, "str"))
    if departures is None:
        return table
    columns = pd.DataFrame(departures.double().numpy(), columns=[f"{DEPARTURE_COLUMN}{name}" for name in layers])
    return pd.concat([table, columns], axis=1)


def _departing(departures: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    rows = []
    for row in departures:
        order = np.argsort(-np.abs(row), kind="stable")
        rows.append(", ".join(layers[index] for index in order if abs(row[index]) > 1))
    return np.array(rows, dtype=object)


def _changed(views: Mapping[str, Tensor], predicted: Tensor) -> np.ndarray:
    changed = torch.stack([one != predicted for one in views.values()], dim=1).numpy()
    return np.array([", ".join(np.array([*views])[row]) for row in changed], dtype=object)
