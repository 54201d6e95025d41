"""Bands of natural images, by class and layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adv_detect.algorithms.bands import FEWEST, NaturalBands, class_distances, natural_bands
from adv_detect.algorithms.detectors import Activations
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import DataError

LAYERS = ("early", "late")


def representatives() -> Representatives:
    """Two classes at 0 and 10 on a line, in two layers, the second stretched by whitening of a half."""
    points = [torch.tensor([[0.0], [10.0]])] * 2
    return Representatives(LAYERS, ("a", "b"), points, points, [torch.eye(1), torch.eye(1) / 2], [["x", "y"]] * 2)


def activations(values: torch.Tensor, classes: torch.Tensor) -> Activations:
    logits = torch.nn.functional.one_hot(classes, 2).float()
    return Activations(logits=logits, features=dict.fromkeys(LAYERS, values[:, None]))


def test_the_middle_95_percent_of_each_class():
    values = torch.cat([torch.arange(41.0), 10 + torch.arange(81.0)])
    classes = torch.tensor([0] * 41 + [1] * 81)
    bands = natural_bands(activations(values, classes), representatives())
    assert bands.counts.tolist() == [41, 81]
    for label, count in ((0, 41), (1, 81)):
        low, median, high = np.quantile(np.arange(count), (0.025, 0.5, 0.975))
        assert bands.low[label].tolist() == pytest.approx([low, low / 2])
        assert bands.median[label].tolist() == pytest.approx([median, median / 2])
        assert bands.high[label].tolist() == pytest.approx([high, high / 2])


def test_a_class_of_few_images_takes_the_band_of_all():
    values = torch.cat([torch.arange(41.0), 10 + torch.full((FEWEST - 1,), 5.0)])
    classes = torch.tensor([0] * 41 + [1] * (FEWEST - 1))
    bands = natural_bands(activations(values, classes), representatives())
    pooled = np.quantile([*range(41), *[5] * (FEWEST - 1)], 0.975)
    assert bands.high[1].tolist() == pytest.approx([pooled, pooled / 2])
    assert float(bands.high[0, 0]) == 39.0


def test_departures_are_one_at_the_edges_and_zero_in_the_middle():
    bands = NaturalBands(*(torch.tensor([[0.0, value]]) for value in (1.0, 2.0, 5.0)), torch.tensor([30]))
    distances = torch.tensor([[0.0, edge] for edge in (1.0, 2.0, 5.0, 8.0, 0.0)])
    found = bands.departures(distances, torch.zeros(5, dtype=torch.int64))
    assert found[:, 1].tolist() == [-1.0, 0.0, 1.0, 2.0, -2.0]
    assert found[:, 0].tolist() == [0.0] * 5  # a band without width
    assert bool(torch.isfinite(bands.departures(distances + 1, torch.zeros(5, dtype=torch.int64))).all())


def test_about_one_in_twenty_natural_images_departs_at_a_layer():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(4000) % 2
    natural = activations(values + 10 * classes, classes)
    made = representatives()
    bands = natural_bands(natural, made)
    distances = class_distances(made)(natural.of_layers(LAYERS))
    own = distances.gather(2, classes[:, None, None].expand(-1, 2, 1))[:, :, 0]
    outside = (bands.departures(own, classes).abs() > 1).float().mean(dim=0)
    assert outside.tolist() == pytest.approx([0.05, 0.05], abs=0.005)


def test_bands_survive_storage():
    bands = natural_bands(activations(torch.arange(50.0), torch.zeros(50, dtype=torch.int64)), representatives())
    again = NaturalBands.restore(bands.tensors())
    assert all(torch.equal(value, again.tensors()[name]) for name, value in bands.tensors().items())


def test_no_image_is_refused():
    with pytest.raises(DataError, match="at least one natural image, got none"):
        natural_bands(activations(torch.zeros(0), torch.zeros(0, dtype=torch.int64)), representatives())
