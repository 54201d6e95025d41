"""Distances to class representatives and the order of classes, against SciPy."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.distance import cdist

from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.trajectories import (
    order_classes,
    trajectories,
)
from adv_detect.errors import ConfigurationError, DataError

WIDTHS = (3, 8)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layers(rows: int, seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [randn(rows, width, seed=seed + width, dtype=dtype) for width in WIDTHS]


def whitening(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    roots = [randn(width, width, seed=width + 50, dtype=dtype) for width in WIDTHS]
    return [root @ root.T + torch.eye(len(root), dtype=dtype) for root in roots]


def scipy_distances(features: torch.Tensor, points: torch.Tensor, metric: str = "euclidean") -> torch.Tensor:
    return torch.from_numpy(cdist(features.double().numpy(), points.double().numpy(), metric=metric))


def scipy_reference(distance: str, features: torch.Tensor, points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    if distance == "cosine":
        return 1 - scipy_distances(features, points, "cosine")
    if distance == "mahalanobis":
        features, points = features.double() @ matrix.double(), points.double() @ matrix.double()
    return scipy_distances(features, points)


def test_distances_by_hand():
    features, points = [torch.tensor([[3.0, 4.0]])], [torch.tensor([[0.0, 0.0], [3.0, 0.0], [6.0, 8.0]])]
    assert trajectories(features, points, "euclidean").tolist() == [[[5.0, 4.0, 5.0]]]
    cosine = trajectories(features, points, "cosine")[0, 0].tolist()
    assert cosine == pytest.approx([0.0, 0.6, 1.0])
    halved = trajectories(features, points, "mahalanobis", whitening=[torch.eye(2) / 2])[0, 0].tolist()
    assert halved == pytest.approx([2.5, 2.0, 2.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_all_distances_agree_with_scipy(dtype):
    features, points = layers(11, 0, dtype), layers(4, 90, dtype)
    matrices = whitening(dtype)
    expected_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    for distance in ("euclidean", "cosine", "mahalanobis"):
        measured = trajectories(features, points, distance, whitening=matrices)
        assert measured.shape == (11, 2, 4)
        assert measured.dtype == expected_dtype
        for layer, (values, centres, matrix) in enumerate(zip(features, points, matrices, strict=True)):
            expected = scipy_reference(distance, values, centres, matrix)
            torch.testing.assert_close(measured[:, layer], expected.to(expected_dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3])
@pytest.mark.parametrize("gap", [1e-6, 1e-4, 1e-2])
def test_close_features_keep_their_distance(offset, gap):
    features = randn(32, 256) + offset
    points = features[:16] + gap * randn(16, 256, seed=1)
    measured = trajectories([features], [points], "euclidean")[:, 0].double()
    torch.testing.assert_close(measured, scipy_distances(features, points), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e20])
def test_the_scale_of_features_does_not_matter(scale):
    features, points = randn(6, 5), randn(3, 5, seed=1)
    expected = trajectories([features], [points], "euclidean")
    torch.testing.assert_close(trajectories([features * scale], [points * scale], "euclidean") / scale, expected)
    cosine = trajectories([features], [points], "cosine")
    torch.testing.assert_close(trajectories([features * scale], [points], "cosine"), cosine)


@pytest.mark.parametrize("distance", ["euclidean", "mahalanobis"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distance_to_itself_is_zero_and_its_gradient_finite(distance, dtype):
    points = randn(20, 300, dtype=dtype) + 3
    features = points.clone().requires_grad_()
    measured = trajectories([features], [points], distance, whitening=[torch.eye(300, dtype=dtype) * 2])
    assert measured[:, 0].diagonal().abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(measured.sum(), features)
    assert torch.isfinite(gradient).all()
    assert gradient.norm(dim=1).max() <= 2 * 20 + 1e-3  # a sum of unit vectors, times the whitening


def test_a_lone_coincidence_passes_no_gradient():
    features = torch.tensor([[1.0, 2.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        trajectories([features], [features.detach().clone()], "euclidean").sum(), features
    )
    assert gradient.tolist() == [[0.0, 0.0]]


def test_the_cosine_of_a_zero_vector_is_zero():
    features = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    measured = trajectories([features], [torch.tensor([[0.0, 0.0], [2.0, 0.0]])], "cosine")
    assert measured[:, 0].tolist() == [[0.0, 0.0], [0.0, pytest.approx(0.5**0.5)]]
    (gradient,) = torch.autograd.grad(measured.sum(), features)
    assert torch.isfinite(gradient).all()
    assert gradient[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "mahalanobis"])
def test_gradients_agree_with_finite_differences(distance):
    points, matrices = layers(4, 90, torch.float64), whitening(torch.float64)
    features = [one.requires_grad_() for one in layers(3, 0, torch.float64)]
    assert torch.autograd.gradcheck(lambda *f: trajectories(f, points, distance, whitening=matrices), features)


def test_classes_permute_with_the_representatives():
    features, points, order = layers(5, 0), layers(4, 90), torch.tensor([2, 0, 3, 1])
    for distance in ("euclidean", "cosine"):
        measured = trajectories(features, points, distance)
        permuted = trajectories(features, [one[order] for one in points], distance)
        torch.testing.assert_close(permuted, measured[:, :, order])


def test_inputs_stay_as_they_are():
    features, points = layers(5, 0), layers(4, 90)
    before = [one.clone() for one in features + points]
    trajectories(features, points, "euclidean")
    assert all(torch.equal(a, b) for a, b in zip(before, features + points, strict=True))


def test_no_images_and_one_class():
    assert trajectories(layers(0, 0), layers(4, 90), "cosine").shape == (0, 2, 4)
    assert trajectories(layers(2, 0), layers(1, 90), "euclidean").shape == (2, 2, 1)


def test_prepared_distances_are_no_state_and_survive_a_cast():
    features, points = layers(5, 0), layers(4, 90)
    measure = ClassDistances(points, "mahalanobis", whitening=whitening())
    expected = measure(features)
    assert not measure.state_dict()
    torch.testing.assert_close(measure.float()(features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "points", "message"),
    [
        (layers(2, 0)[:1], layers(4, 0), "features of 2 layers.*got 1"),
        ([randn(2, 3), randn(2, 7)], layers(4, 0), r"shape \(2, 8\) for layer 1, got \(2, 7\)"),
        ([randn(2, 3), randn(3, 8)], layers(4, 0), r"shape \(2, 8\) for layer 1, got \(3, 8\)"),
        ([randn(2, 3, 1), randn(2, 8)], layers(4, 0), "for layer 0"),
        (layers(2, 0), [randn(4, 3), randn(5, 8)], "the same C >= 1"),
        (layers(2, 0), [], "the same C >= 1"),
    ],
    ids=["layers", "width", "rows", "dimensions", "classes", "none"],
)
def test_shapes_that_do_not_fit(features, points, message):
    with pytest.raises(DataError, match=message):
        trajectories(features, points, "euclidean")


def test_unknown_distance_and_missing_whitening():
    with pytest.raises(ConfigurationError, match=r"expected one of \[cosine, euclidean, mahalanobis\], got 'l1'"):
        trajectories(layers(2, 0), layers(4, 0), "l1")
    with pytest.raises(ConfigurationError, match=r"whitening: expected one \(D, D\) matrix per layer"):
        trajectories(layers(2, 0), layers(4, 0), "mahalanobis")
    with pytest.raises(DataError, match=r"whitening of shapes \[\(3, 3\), \(8, 8\)\], got \[\(8, 8\), \(3, 3\)\]"):
        trajectories(layers(2, 0), layers(4, 0), "mahalanobis", whitening=whitening()[::-1])


def test_ranked_order_by_hand():
    table = torch.tensor([[[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]]])
    logits = torch.tensor([[0.5, 2.0, 0.5]])
    assert order_classes(table, logits, order="ranked").tolist() == [[[11.0, 10.0, 12.0], [21.0, 20.0, 22.0]]]
    assert order_classes(table, logits, order="ranked", top_k=1).tolist() == [[[11.0], [21.0]]]
    assert order_classes(table, logits, order="fixed") is table


def test_ranking_does_not_depend_on_the_numbering_of_classes():
    table, logits = randn(5, 2, 6), randn(5, 6, seed=1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    ranked = order_classes(table, logits, order="ranked", top_k=4)
    assert torch.equal(ranked, order_classes(table[:, :, order], logits[:, order], order="ranked", top_k=4))


def test_ranked_gradients_flow_through_the_distances_only():
    table, logits = randn(2, 2, 3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    ranked = order_classes(table, logits, order="ranked", top_k=2)
    distances, through_logits = torch.autograd.grad(ranked.sum(), [table, logits], allow_unused=True)
    assert distances.sum() == 2 * 2 * 2
    assert through_logits is None


@pytest.mark.parametrize(
    ("order", "top_k", "message"),
    [
        ("sorted", None, r"expected one of \[fixed, ranked\]"),
        ("fixed", 2, "only with order 'ranked'"),
        ("ranked", 4, "expected 1 to 3, the number of classes, got 4"),
        ("ranked", 0, "expected 1 to 3"),
    ],
)
def test_wrong_orders(order, top_k, message):
    with pytest.raises(ConfigurationError, match=message):
        order_classes(randn(2, 2, 3), randn(2, 3), order=order, top_k=top_k)


def test_logits_of_other_images():
    with pytest.raises(DataError, match=r"expected logits of shape \(2, 3\) like the trajectories, got \(2, 4\)"):
        order_classes(randn(2, 2, 3), randn(2, 4), order="ranked")
