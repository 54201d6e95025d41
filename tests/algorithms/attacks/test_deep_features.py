from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adv_detect.algorithms.attacks.deep_features import (
    DeepFeaturesParams,
    last_features,
    parse_arguments,
    run_deep_features,
    solve,
)
from adv_detect.algorithms.attacks.deep_features_objective import FeatureObjective, SimilarityJudge
from adv_detect.algorithms.attacks.result import AttackContext, AttackResult
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import AttackError, ConfigurationError

pytestmark = pytest.mark.leaves_rng_alone
CLASSES, SIZE, WIDTH, IMAGES = 5, 10, 8, 6
ROUNDING = 1e-5
SOLVERS = ("lbfgs", "adam", "sign")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, WIDTH))
        network = nn.Sequential(body, nn.Linear(WIDTH, CLASSES))
        for parameter in body.parameters():
            parameter.data.mul_(3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def context(network: nn.Module) -> AttackContext:
    class_images = torch.rand(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    medoids = network[0](class_images)
    first = torch.zeros(CLASSES, 8)
    return AttackContext(
        representatives=Representatives(
            layers=("0.0", "0"),
            class_names=tuple("abcde"),
            medoids=[first, medoids],
            centroids=[first, medoids + 0.01],
            whitening=[torch.eye(8), torch.eye(WIDTH)],
            medoid_source_ids=[["x"] * CLASSES] * 2,
        ),
        layers=("0.0", "0"),
    )


@pytest.fixture(scope="module")
def labels(network: nn.Module, images: Tensor, context: AttackContext) -> Tensor:
    """The class of the nearest medoid, so that no image is misjudged from the start."""
    return torch.cdist(network[0](images), context.representatives.medoids[-1]).argmin(dim=1)


def attack(network, images, labels, context, *, targeted=True, return_early=True, bounds=(0.0, 1.0), **arguments):
    targets = (labels + 1) % CLASSES if targeted else None
    settings = {"iterations": 60, **arguments}
    return run_deep_features(
        settings,
        network,
        images,
        labels,
        targets=targets,
        bounds=bounds,
        seed=0,
        context=context,
        return_early=return_early,
    )


def guide_distances(network, result: AttackResult, context: AttackContext, classes: Tensor) -> Tensor:
    guides = context.representatives.medoids[-1][classes]
    return (network[0](result.images) - guides).norm(dim=1)


def scipy_distances(network, images, guides, *, radius: float, iterations: int) -> np.ndarray:
    """Solve image by image, in float64."""
    from scipy.optimize import minimize

    double = nn.Sequential(*network[0]).double()

    def one(image: Tensor, guide: Tensor) -> float:
        def value(flat):
            leaf = torch.tensor(flat.reshape(image.shape), requires_grad=True)
            loss = (double(leaf[None])[0] - guide.double()).norm()
            return loss.item(), torch.autograd.grad(loss, leaf)[0].numpy().ravel()

        start = image.double().numpy().ravel()
        box = np.stack([np.clip(start - radius, 0, 1), np.clip(start + radius, 0, 1)], axis=1)
        return minimize(value, start, jac=True, method="L-BFGS-B", bounds=box, options={"maxiter": iterations}).fun

    found = np.array([one(image, guide) for image, guide in zip(images, guides, strict=True)])
    double.float()
    return found


@pytest.mark.parametrize("max_thres", [10.0, 60.0])
def test_lbfgs_gets_as_near_to_the_guide_as_scipy(network, images, labels, context, max_thres):
    guides = context.representatives.medoids[-1][(labels + 1) % CLASSES]
    reference = scipy_distances(network, images, guides, radius=max_thres / 255, iterations=60)
    result = attack(network, images, labels, context, return_early=False, max_thres=max_thres)
    ours = guide_distances(network, result, context, (labels + 1) % CLASSES).numpy()
    assert ours.mean() <= 1.02 * reference.mean() + ROUNDING
    between_guides = torch.cdist(guides, context.representatives.medoids[-1]).topk(2, largest=False).values[:, 1]
    surely_fooled = torch.from_numpy(reference) < between_guides / 2
    assert surely_fooled.any()
    assert result.success[surely_fooled].all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("return_early", [True, False])
def test_constraints_hold(network, images, labels, context, solver, targeted, return_early):
    result = attack(
        network, images, labels, context, solver=solver, targeted=targeted, return_early=return_early, max_thres=20.0
    )
    assert result.images.dtype == torch.float32
    assert ((result.images - images).abs() <= 20 / 255 + 1e-6).all()
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert result.success.any()
    assert (result.gradient_evaluations >= 1).all()
    assert (result.gradient_evaluations <= 61).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_larger_threshold_gets_nearer(network, images, labels, context, solver):
    targets = (labels + 1) % CLASSES
    means = [
        guide_distances(
            network,
            attack(network, images, labels, context, solver=solver, return_early=False, max_thres=max_thres),
            context,
            targets,
        ).mean()
        for max_thres in (5.0, 20.0, 80.0)
    ]
    assert means[0] > means[1] > means[2]


def test_solvers_agree(network, images, labels, context):
    targets = (labels + 1) % CLASSES
    means = {
        solver: float(
            guide_distances(
                network,
                attack(network, images, labels, context, solver=solver, return_early=False, iterations=150),
                context,
                targets,
            ).mean()
        )
        for solver in SOLVERS
    }
    assert max(means.values()) <= 1.02 * min(means.values()), means


def test_early_stop_spends_less_and_stays_farther(network, images, labels, context):
    targets = (labels + 1) % CLASSES
    early = attack(network, images, labels, context, max_thres=80.0)
    late = attack(network, images, labels, context, max_thres=80.0, return_early=False)
    both = early.success & late.success
    assert both.sum() >= IMAGES - 1
    assert (early.gradient_evaluations[both] < late.gradient_evaluations[both]).all()
    distance = [guide_distances(network, result, context, targets)[both] for result in (early, late)]
    assert (distance[0] > distance[1]).all()


def test_flags_tell_what_nearest_medoids_say(network, images, labels, context):
    result = attack(network, images, labels, context, max_thres=15.0)
    nearest = torch.cdist(network[0](result.images), context.representatives.medoids[-1]).argmin(dim=1)
    assert torch.equal(result.adversarial_class, nearest)
    assert torch.equal(result.success, nearest == (labels + 1) % CLASSES)


def test_dodging_leaves_the_own_class(network, images, labels, context):
    result = attack(network, images, labels, context, targeted=False, max_thres=60.0, dodging="nearest")
    assert result.success.all()
    assert (result.adversarial_class != labels).all()


def test_dodging_away_gets_farther_from_the_own_class(network, images, labels, context):
    clean = AttackResult(images, labels, labels, labels)
    results = [
        attack(network, images, labels, context, targeted=False, dodging=dodging, max_thres=60.0, return_early=False)
        for dodging in ("nearest", "away")
    ]
    before, nearest, away = (guide_distances(network, one, context, labels) for one in (clean, *results))
    assert (away > before).all()
    assert (away > nearest).all()


def test_dodging_away_moves_an_image_whose_features_are_the_reference(network, context):
    class_images = torch.rand(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    own = torch.arange(CLASSES)
    result = attack(network, class_images, own, context, targeted=False, dodging="away", max_thres=80.0)
    assert (guide_distances(network, result, context, own) > 0.1).all()


def test_an_image_judged_wrong_from_the_start_is_attacked_all_the_same(network, images, labels, context):
    wrong = (labels + 1) % CLASSES
    result = run_deep_features(
        {},
        network,
        images,
        wrong,
        targets=labels,
        bounds=(0.0, 1.0),
        seed=0,
        context=context,
        return_early=True,
    )
    assert result.success.all()
    assert (result.images != images).flatten(1).any(dim=1).all()
    assert (result.gradient_evaluations == 2).all()


def test_pixel_range_only_rescales(network, images, labels, context):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = network[0], network[1]

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.body((inputs + 2) / 4))

    wide = AttackContext(context.representatives, ("body.0", "body"))
    unit = attack(network, images, labels, context, return_early=False)
    scaled = attack(Scaled(), images * 4 - 2, labels, wide, return_early=False, bounds=(-2.0, 2.0))
    assert ((scaled.images - (images * 4 - 2)).abs() <= 4 * 10 / 255 + 1e-5).all()
    targets = (labels + 1) % CLASSES
    there = AttackResult((scaled.images + 2) / 4, scaled.success, scaled.adversarial_class, scaled.adversarial_class)
    expected = guide_distances(network, unit, context, targets)
    torch.testing.assert_close(guide_distances(network, there, context, targets), expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("solver", SOLVERS)
def test_result_of_an_image_does_not_depend_on_its_batch(network, images, labels, context, solver):
    whole = attack(network, images, labels, context, solver=solver, max_thres=15.0)
    part = attack(network, images[2:4], labels[2:4], context, solver=solver, max_thres=15.0)
    torch.testing.assert_close(part.images, whole.images[2:4], rtol=0, atol=1e-3)
    assert torch.equal(part.success, whole.success[2:4])


def test_inputs_stay_as_they_are(network, images, labels, context):
    before = images.clone()
    attack(network, images, labels, context, targeted=False)
    assert torch.equal(images, before)
    assert not images.requires_grad


def test_works_inside_no_grad(network, images, labels, context):
    with torch.no_grad():
        assert attack(network, images, labels, context, max_thres=60.0).success.all()


def test_no_images(network, images, labels, context):
    result = attack(network, images[:0], labels[:0], context)
    assert result.images.shape == (0, 3, SIZE, SIZE)
    assert result.success.dtype == torch.bool
    assert len(result.gradient_evaluations) == 0


def test_centroids_as_guides(network, images, labels, context):
    result = attack(network, images, labels, context, representative="centroid", max_thres=60.0)
    nearest = torch.cdist(network[0](result.images), context.representatives.centroids[-1]).argmin(dim=1)
    assert torch.equal(result.adversarial_class, nearest)


def test_explicit_guides_until_verification_accepts(network, images):
    features = last_features(network, ("0",))
    others = features(images.flip(0))
    own = features(images)
    similarity = torch.cosine_similarity(own, others, dim=1)
    threshold = float(similarity.max()) + (1 - float(similarity.max())) / 2
    judge = SimilarityJudge(others, threshold)
    params = DeepFeaturesParams(max_thres=120.0, iterations=100)
    solution = solve(FeatureObjective(features, others), images, judge=judge, params=params, bounds=(0.0, 1.0))
    after = torch.cosine_similarity(features(solution.images), others, dim=1)
    assert (similarity < threshold).all()
    assert (after >= threshold - 1e-5).all()


def test_similarity_judge_by_hand():
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    others = torch.tensor([[1.0, 1.0], [2.0, 2.0], [5.0, 0.0]])
    rows = torch.tensor([2, 0])
    assert SimilarityJudge(others, 0.99).fooled(features, rows).tolist() == [True, True]
    assert SimilarityJudge(others, 0.99, accept=False).fooled(features[:1], torch.tensor([0])).tolist() == [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_thresh": 5}, r"max_thresh.*valid names: \[dodging.*max_thres"),
        ({"solver": "newton"}, "solver: .*'lbfgs', 'adam' or 'sign', got 'newton'"),
        ({"max_thres": 0}, "max_thres: .*greater than 0, got 0"),
        ({"iterations": 0}, "iterations: .*got 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_arguments(arguments)


def test_reference_form_is_the_default():
    params = parse_arguments({})
    assert (params.max_thres, params.iterations, params.solver, params.representative) == (10, 1000, "lbfgs", "medoid")
    assert params.epsilon((0.0, 255.0)) == pytest.approx(10)


def test_target_equal_to_label(network, images, labels, context):
    with pytest.raises(ConfigurationError, match="got 6 equal to their label"):
        run_deep_features(
            {}, network, images, labels, targets=labels, bounds=(0, 1), seed=0, context=context, return_early=True
        )


def test_images_outside_bounds(network, images, labels, context):
    with pytest.raises(ConfigurationError, match=r"expected pixels within bounds \[0.0, 1.0\]"):
        attack(network, images * 255, labels, context)


def test_features_that_are_not_finite(network, images, labels, context):
    broken = copy.deepcopy(network)
    broken[0][3].bias.data[0] = float("nan")
    result = attack(broken, images, labels, context)
    assert result.non_finite.all()
    assert not result.success.any()
    assert torch.equal(result.images, images)


def test_features_without_gradient(network, images, labels, context):
    class Cut(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return network[0](inputs.detach())

    cut = nn.Sequential(Cut(), network[1])
    with pytest.raises(AttackError, match="do not depend differentiably"):
        attack(cut, images, labels, AttackContext(context.representatives, ("0",)))
