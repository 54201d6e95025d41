"""Network, representatives and detector as one differentiable model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors import MarginDetector, TrajectoryDetector, build_readout
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.trajectories import order_classes, trajectories
from adv_detect.params import DetectorParams

CLASSES = 4
LAYERS = ("0", "3")

CONFIGURATIONS = [
    DetectorParams(kind=kind, representative=representative, distance=distance, order=order, top_k=top_k, hidden=5)
    for kind in ("lstm", "mlp")
    for representative in ("medoid", "centroid")
    for distance in ("euclidean", "cosine", "mahalanobis")
    for order, top_k in (("fixed", None), ("ranked", 3))
] + [DetectorParams(kind="bilstm", distance="euclidean", hidden=5)]


def name_of(params: DetectorParams) -> str:
    return f"{params.kind}-{params.representative}-{params.distance}-{params.order}"


def seeded(make, seed: int):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def smooth_network() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 9, 5), nn.Tanh(), nn.Linear(5, CLASSES)
        )

    return seeded(make, 0).double().eval().requires_grad_(False)


def representatives() -> Representatives:
    generator = torch.Generator().manual_seed(1)
    draw = [[torch.randn(CLASSES, width, generator=generator).double() for width in (3, 5)] for _ in range(2)]
    return Representatives(
        layers=LAYERS,
        class_names=tuple("abcd"),
        medoids=draw[0],
        centroids=draw[1],
        whitening=[torch.eye(width).double() * 2 for width in (3, 5)],
        medoid_source_ids=[list("wxyz")] * 2,
    )


def detector_for(params: DetectorParams) -> nn.Module:
    detector = build_readout(params, layers=len(LAYERS), classes=params.top_k or CLASSES, seed=2)
    detector.set_standardisation(torch.full((), 0.5), torch.full((), 2.0))
    return detector.double().eval().requires_grad_(False)


def model_for(params: DetectorParams) -> DetectionModel:
    detector = TrajectoryDetector(representatives(), params, detector_for(params)).eval()
    return DetectionModel(smooth_network(), detector, LAYERS)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(3)).double()


@pytest.mark.parametrize("params", CONFIGURATIONS, ids=name_of)
def test_it_joins_its_parts(params, images):
    model = model_for(params)
    logits, scores = model(images)
    by_hand, features = extract_features(smooth_network(), images, LAYERS)
    distances = trajectories(
        features, representatives().of(params.representative), params.distance, whitening=representatives().whitening
    )
    ordered = order_classes(distances, by_hand, order=params.order, top_k=params.top_k)
    torch.testing.assert_close(logits, by_hand)
    torch.testing.assert_close(scores, detector_for(params)(ordered))
    torch.testing.assert_close(model.describe(images)[2], distances)
    torch.testing.assert_close(model.detector.trajectories(model.activations(images)), ordered)
    assert scores.shape == (2,)


@pytest.mark.parametrize("params", CONFIGURATIONS, ids=name_of)
def test_gradients_agree_with_finite_differences(params, images):
    model = model_for(params)
    assert torch.autograd.gradcheck(model, images.requires_grad_(), eps=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(model(images)[1].sum(), images)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


def test_the_score_of_an_image_does_not_depend_on_its_batch(images):
    model = model_for(CONFIGURATIONS[1])
    torch.testing.assert_close(model(images)[1][:1], model(images[:1])[1])


def test_an_image_at_a_representative_has_a_finite_gradient(images):
    params = DetectorParams(distance="euclidean", hidden=5)
    at_image = representatives()
    features = extract_features(smooth_network(), images, LAYERS)[1]
    for layer, values in enumerate(features):
        at_image.medoids[layer][0] = values[0]
    model = DetectionModel(smooth_network(), TrajectoryDetector(at_image, params, detector_for(params)).eval(), LAYERS)
    _, scores, distances = model.describe(images.requires_grad_())
    assert distances[0, :, 0].max() < 1e-7
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert torch.isfinite(gradient).all()


def test_frozen_parts_stay_frozen_and_hooks_go(images):
    model = model_for(CONFIGURATIONS[0])
    model(images.requires_grad_())[1].sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not module._forward_hooks for module in model.network.modules())


def test_all_parts_move_together():
    model = model_for(CONFIGURATIONS[4]).to("meta")
    assert {one.device.type for one in [*model.parameters(), *model.buffers()]} == {"meta"}


def test_any_detector_will_do(images):
    model = DetectionModel(smooth_network(), MarginDetector(), LAYERS)
    logits, scores, features = model.describe(images)
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    assert torch.equal(scores, second - first)
    assert features.shape == (2, 3 + 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["lstm", "bilstm"])
def test_gradients_on_cuda_in_evaluation_mode_are_those_of_the_cpu(kind, images):
    params = DetectorParams(kind=kind, distance="euclidean", order="ranked", hidden=5)
    expected_images = images.clone().requires_grad_()
    expected_scores = model_for(params)(expected_images)[1]
    (expected,) = torch.autograd.grad(expected_scores.sum(), expected_images)
    on_gpu = images.cuda().requires_grad_()
    model = model_for(params).cuda()
    scores = model(on_gpu)[1]
    (gradient,) = torch.autograd.grad(scores.sum(), on_gpu)
    torch.testing.assert_close(gradient.cpu(), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(scores.detach().cpu(), expected_scores.detach(), rtol=1e-6, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(model(on_gpu)[1], scores.detach(), rtol=1e-6, atol=1e-8)
    assert torch.backends.cudnn.enabled
