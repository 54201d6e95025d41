"""The contract that all detectors of others keep."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from adv_detect.algorithms.detectors import (
    Activations,
    FitData,
    LearnsFrom,
    StoredDetector,
    build_detector,
    detector_class,
    score_activations,
    stored_tensors,
)
from adv_detect.algorithms.roc import area
from adv_detect.errors import DataError
from adv_detect.params import DetectorParams

needs_library = pytest.mark.skipif(find_spec("pytorch_ood") is None, reason="pytorch-ood, extra ood, is not installed")
OWN = [
    ("mahalanobis", {}),
    ("lid", {"k": 5, "minibatch": 30}),
    ("kde", {}),
    ("kde", {"bandwidth": 0.5, "references": 60}),
    ("feature-squeezing", {"views": ["a", "b"]}),
    ("dknn", {"k": 7}),
    ("nic", {"components": 3}),
]
LIBRARY = [
    ("MaxSoftmax", {"t": 2.0}),
    ("MaxLogit", {}),
    ("EnergyBased", {}),
    ("Entropy", {}),
    ("GEN", {}),
    ("KLMatching", {}),
    ("TemperatureScaling", {}),
    ("KNN", {"k": 5}),
    ("ViM", {"d": 3}),
    ("Mahalanobis", {}),
    ("RMD", {}),
    ("GMM", {}),
    ("MultiMahalanobis", {}),
    ("DICE", {"p": 0.5}),
    ("fDBD", {}),
    ("NCI", {}),
    ("NNGuide", {"k": 3}),
    ("SHE", {}),
    ("PNML", {}),
]
ALL = [pytest.param(*one, id=one[0]) for one in OWN] + [
    pytest.param(f"pytorch_ood.detector.{name}", arguments, id=name, marks=needs_library) for name, arguments in LIBRARY
]
NOT_FOR_THESE = {"DICE", "SHE"}  # for wide layers behind a ReLU, which these features are not
FITTED_ON_LOGITS = {"KLMatching", "SHE", "TemperatureScaling"}


@pytest.fixture(scope="module")
def fitted(request, representatives, clean, attacked, held):
    """A fitted detector; making it leaves the global random state alone."""
    kind, arguments = request.param
    before = torch.get_rng_state()
    params = DetectorParams(kind=kind, arguments=arguments)
    detector = build_detector(params, representatives)
    learning = attacked if detector.learns_from is LearnsFrom.ATTACKS else None
    detector.fit_chosen(FitData(clean, learning, held, learning), seed=0)
    assert torch.equal(before, torch.get_rng_state())
    return params, detector.eval()


def over_all(function):
    values = [pytest.param(one.values, id=one.id, marks=one.marks) for one in ALL]
    return pytest.mark.parametrize("fitted", values, indirect=True, scope="module")(function)


@over_all
def test_it_is_stored_and_scores_the_same_afterwards(fitted, representatives, held, attacked):
    params, detector = fitted
    scores = score_activations(detector, held)

    tensors = stored_tensors(detector, scores)
    again = StoredDetector.restore("name", {"params": params.model_dump(mode="json")}, tensors, representatives)

    assert torch.equal(score_activations(again.detector, held), scores)
    assert torch.equal(score_activations(again.detector, attacked), score_activations(detector, attacked))


@over_all
def test_attacked_images_score_higher(fitted, held, attacked):
    params, detector = fitted
    found = area(
        score_activations(detector, attacked).double().numpy(), score_activations(detector, held).double().numpy()
    )
    at_least = 0.0 if params.kind.rpartition(".")[2] in NOT_FOR_THESE else 0.55
    assert found > at_least


@over_all
def test_an_image_scores_alike_in_any_company(fitted, held):
    _, detector = fitted
    alone = torch.cat([score_activations(detector, held.select(torch.tensor([row]))) for row in range(6)])
    torch.testing.assert_close(alone, score_activations(detector, held)[:6], rtol=1e-4, atol=1e-5)


@over_all
def test_it_says_truly_whether_it_has_a_gradient(fitted, held):
    """Where it does, the gradient is the slope of the score along a step."""
    params, detector = fitted
    image = held.select(torch.arange(8))
    parts = [image.logits.double(), *(part.double() for part in image.features.values())]
    parts += [part.double() for part in image.views.values()]
    leaves = [part.clone().requires_grad_() for part in parts]

    def score(values) -> torch.Tensor:
        features = dict(zip(image.features, values[1:3], strict=True))
        return detector(Activations(values[0], features, dict(zip(image.views, values[3:], strict=True))))

    scores = score(leaves)
    assert scores.requires_grad == detector.differentiable
    if not detector.differentiable:
        return
    slopes = torch.autograd.grad(scores.sum(), leaves, allow_unused=True)
    slopes = [torch.zeros_like(leaf) if slope is None else slope for slope, leaf in zip(slopes, leaves, strict=True)]
    in_float32 = params.kind.startswith("pytorch_ood") and params.kind.rpartition(".")[2] in FITTED_ON_LOGITS
    step = 1e-3 if in_float32 else 1e-4
    moved = [leaf.detach() + step * torch.sign(slope) for leaf, slope in zip(leaves, slopes, strict=True)]
    back = [leaf.detach() - step * torch.sign(slope) for leaf, slope in zip(leaves, slopes, strict=True)]
    with torch.no_grad():
        rise = (score(moved) - score(back)).sum() / (2 * step)
    predicted = sum(slope.abs().sum() for slope in slopes)
    assert predicted > 0
    torch.testing.assert_close(rise, predicted, rtol=5e-2 if in_float32 else 1e-2, atol=0)


@pytest.mark.parametrize("kind", ["mahalanobis", "lid"])
def test_those_that_learn_from_attacks_say_so_without_any(kind, representatives, clean):
    with pytest.raises(DataError, match=f"a {kind} detector learns from attacks, got none"):
        build_detector(DetectorParams(kind=kind), representatives).fit(clean, None, seed=0)


def test_the_same_seed_gives_the_same_detector(representatives, clean):
    kinds = [("dknn", {"k": 3, "references": 40}), ("kde", {"references": 30}), ("nic", {"images": 40})]
    for kind, arguments in kinds:
        first, second = (build_detector(DetectorParams(kind=kind, arguments=arguments), representatives) for _ in "ab")
        for one in (first, second):
            one.fit(clean, None, seed=3)
        assert all(
            torch.equal(*pair) for pair in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize(
    ("kind", "arguments", "few"),
    [("dknn", {"k": 40}, 45), ("lid", {"minibatch": 40}, 45), ("nic", {}, 9), ("kde", {}, 1)],
)
def test_too_few_clean_images_are_counted(kind, arguments, few, representatives, clean, attacked):
    detector = build_detector(DetectorParams(kind=kind, arguments=arguments), representatives)
    assert detector.clean_needed > few
    learning = attacked if detector_class(kind).learns_from is LearnsFrom.ATTACKS else None
    with pytest.raises(DataError, match=rf"{kind}: expected at least {detector.clean_needed} .*got {few}"):
        detector.fit(clean.select(torch.arange(few)), learning, seed=0)
