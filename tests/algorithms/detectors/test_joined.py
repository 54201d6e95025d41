"""Detectors joined by their p-values on clean images."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import combine_pvalues

from adv_detect.algorithms.detectors import (
    Activations,
    FitData,
    JoinedDetector,
    LearnsFrom,
    MarginDetector,
    build_detector,
    is_differentiable,
    learns_from,
    reads_twin,
    with_members,
)
from adv_detect.algorithms.detectors.calibration import KNOTS, TailTable
from adv_detect.algorithms.roc import roc_auc
from adv_detect.algorithms.thresholds import p_values
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorFitParams, DetectorParams

MEMBERS = {"twin": {"kind": "twin"}, "margin": {"kind": "margin"}}


@pytest.fixture
def clean_scores():
    return torch.randn(400, generator=torch.Generator().manual_seed(0))


def filled(scores):
    table = TailTable()
    table.fit(scores)
    return table


def activations(count, seed, *, wrong=False):
    """Logits with a margin of about 4, and a twin that agrees, or does not."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, generator=generator) + torch.tensor([4.0, 0.0, 0.0])
    opinion = torch.randn(count, 3, generator=generator) + torch.tensor([-2.0 if wrong else 3.0, 0.0, 0.0])
    return Activations(logits, {}, twin=torch.log_softmax(opinion, dim=1))


def fitted(**arguments):
    detector = build_detector(DetectorParams(kind="joined", arguments={"members": MEMBERS} | arguments), None)
    data = FitData(activations(50, 0), None, activations(300, 1), None)
    detector.fit_chosen(data, seed=0)
    return detector.eval()


def test_a_table_gives_the_conformal_p_values_of_the_clean_scores(clean_scores):
    table = filled(clean_scores)
    new = torch.randn(300, generator=torch.Generator().manual_seed(1))
    new = new[(new > clean_scores.min()) & (new < clean_scores.max())]

    np.testing.assert_allclose(table(new).exp().numpy(), p_values(new, clean_scores).numpy(), atol=0.02)
    assert len(table.scores) == len(table.logs) == KNOTS


def test_new_clean_images_are_found_as_often_as_the_p_value_says(clean_scores):
    new = torch.randn(20_000, generator=torch.Generator().manual_seed(2))
    found = filled(clean_scores)(new).exp()

    for rate in (0.5, 0.1, 0.05):
        assert float((found <= rate).float().mean()) == pytest.approx(rate, abs=3 * math.sqrt(rate / 400))


def test_beyond_the_largest_clean_score_an_exponential_tail_tells_scores_apart(clean_scores):
    table, largest = filled(clean_scores), float(clean_scores.max())
    scores = torch.tensor([largest + step for step in (0.0, 1.0, 2.0, 50.0)], requires_grad=True)
    logs = table(scores)
    ordered = clean_scores.sort(descending=True).values
    scale = float((ordered[:40] - ordered[40]).mean())

    assert float(logs[0]) == pytest.approx(math.log(1 / 401), abs=0.05)
    np.testing.assert_allclose(logs.diff().detach().numpy(), [-1 / scale, -1 / scale, -48 / scale], rtol=0.02)
    (gradient,) = torch.autograd.grad(logs.sum(), scores)
    assert bool((gradient < 0).all())


def test_the_order_of_scores_is_kept_from_end_to_end(clean_scores):
    scores = torch.cat([torch.linspace(-9, 9, 501), torch.tensor([300.0])])
    logs = filled(clean_scores)(scores)

    assert bool((logs.diff() <= 0).all())
    assert bool((logs[scores > -3].diff() < 0).all())
    assert float(logs.max()) <= 0


@pytest.mark.parametrize("clean", [torch.zeros(30), torch.tensor([1.0, 1.0, 2.0]), torch.full((500,), -1e4)])
def test_equal_clean_scores_make_no_jump_and_no_nan(clean):
    table = filled(clean)
    logs = table(torch.cat([clean - 1, clean, clean + 1, clean + 1e6]))

    assert bool(torch.isfinite(logs).all())
    assert float(table(clean[:1] + 1)) < float(table(clean[:1])) < float(table(clean[:1] - 1))


def test_one_clean_image_is_too_few():
    with pytest.raises(DataError, match="at least 2 clean validation images, got 1"):
        TailTable().fit(torch.zeros(1))


@pytest.mark.parametrize(("rule", "method"), [("fisher", "fisher"), ("bonferroni", None)])
def test_the_score_is_minus_the_logarithm_of_the_joint_p_value(rule, method):
    detector, images = fitted(rule=rule), activations(20, 5)
    each = torch.stack(
        [detector.log_p_value(name, member(images)).exp() for name, member in detector.members.items()], dim=1
    )
    if method:
        expected = [combine_pvalues(row.numpy(), method=method).pvalue for row in each]
    else:
        expected = (2 * each.amin(dim=1)).numpy()

    np.testing.assert_allclose(torch.exp(-detector(images)).numpy(), expected, rtol=1e-3)


def test_either_member_alone_can_raise_the_alarm():
    detector = fitted()
    clean, contradicted = detector(activations(200, 6)), detector(activations(200, 7, wrong=True))
    near = activations(200, 8)
    near.logits[:, 1] = near.logits[:, 0] - 1e-4
    labels = torch.cat([torch.zeros(200), torch.ones(200)])

    assert roc_auc(torch.cat([clean, contradicted]), labels) > 0.95
    assert roc_auc(torch.cat([clean, detector(near)]), labels) > 0.95


def test_two_sides_find_scores_that_are_too_low_too():
    one, two = fitted(), fitted(sides={"margin": "two"})
    overshot = activations(200, 9)
    overshot.logits[:, 0] += 30.0
    clean = activations(200, 10)
    labels = torch.cat([torch.zeros(200), torch.ones(200)])

    assert roc_auc(torch.cat([two(clean), two(overshot)]), labels) > 0.95
    assert roc_auc(torch.cat([one(clean), one(overshot)]), labels) < 0.6


def test_an_attack_can_follow_it():
    detector = fitted(rule="fisher", sides={"margin": "two"})
    images = activations(8, 11)
    logits, twin = images.logits.requires_grad_(), images.twin.detach().requires_grad_()

    gradients = torch.autograd.grad(detector(Activations(logits, {}, twin=twin)).sum(), (logits, twin))

    assert all(bool((one.abs().sum(dim=1) > 0).all()) for one in gradients)


def test_its_state_travels():
    detector = fitted(sides={"margin": "two"})
    arguments = {"members": MEMBERS, "sides": {"margin": "two"}}
    restored = build_detector(DetectorParams(kind="joined", arguments=arguments), None)
    restored.load_state_dict(copy.deepcopy(detector.state_dict()))

    assert torch.equal(restored(activations(9, 3)), detector(activations(9, 3)))


def test_what_it_needs_is_what_its_members_need():
    reader = {"kind": "lstm", "distance": "cosine"}
    light = DetectorParams(kind="joined", arguments={"members": MEMBERS})
    heavy = DetectorParams(kind="joined", arguments={"members": {"twin": {"kind": "twin"}, "reader": reader}})
    blind = DetectorParams(kind="joined", arguments={"members": {"a": reader, "b": {"kind": f"{__name__}.Masked"}}})

    assert learns_from(light) is LearnsFrom.CLEAN, "its tables come from clean images"
    assert learns_from(heavy) is LearnsFrom.ATTACKS
    assert reads_twin({"light": light, "heavy": heavy, "blind": blind}) == ["light", "heavy"]
    assert is_differentiable(heavy)
    assert not is_differentiable(blind)
    assert [name for name, _ in with_members(heavy, "heavy")][2] == "heavy.arguments.members.reader"
    detector = build_detector(light, None)
    assert (detector.reads.layers, detector.reads.twin) == (False, True)


class Masked(MarginDetector):
    """A member without a gradient."""

    differentiable = False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": {"twin": {"kind": "twin"}}}, r"at least 2, with names without a dot, got \['twin'\]"),
        ({"members": {"a.b": {"kind": "twin"}, "c": {"kind": "margin"}}}, r"without a dot, got \['a.b', 'c'\]"),
        ({"members": ["twin"]}, r"expected configurations of detectors by name, .* got \['twin'\]"),
        ({"members": {"twin": {"kind": "twin", "depth": 3}}}, r"arguments.members.twin: expected keys .*'depth'"),
        (
            {"members": MEMBERS, "rule": "vote"},
            r"arguments.rule: expected one of \['bonferroni', 'fisher'\], got 'vote'",
        ),
        (
            {"members": MEMBERS, "sides": {"reader": "two"}},
            r"arguments.sides: expected one or two for names of .*reader",
        ),
        ({"members": MEMBERS, "sides": {"twin": "both"}}, r"got {'twin': 'both'}"),
    ],
)
def test_what_cannot_be_joined_is_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        JoinedDetector(None, **arguments)
    with pytest.raises(ConfigurationError, match=message):
        JoinedDetector.needs(arguments)


def test_a_misspelt_argument_is_named_before_anything_is_built():
    with pytest.raises(ConfigurationError, match=r"expected keys of \['members', 'rule', 'sides'\], got \['side'\]"):
        JoinedDetector.needs({"members": MEMBERS, "side": {}})


def test_members_learn_from_what_they_need():
    seen = {}

    class Spy(MarginDetector):
        def __init__(self, learns):
            super().__init__()
            self.learns_from = learns

        def fit_chosen(self, data, *, seed):
            seen[self.learns_from] = data.attacked
            return [{"loss": 1.0}]

    detector = build_detector(DetectorParams(kind="joined", arguments={"members": MEMBERS}), None)
    detector.members["twin"], detector.members["margin"] = Spy(LearnsFrom.CLEAN), Spy(LearnsFrom.ATTACKS)
    attacked = activations(5, 2)
    data = FitData(activations(5, 0), attacked, activations(30, 1), attacked, DetectorFitParams())

    assert detector.fit_chosen(data, seed=0) == [{"loss": 1.0}, {"loss": 1.0}]
    assert seen == {LearnsFrom.CLEAN: None, LearnsFrom.ATTACKS: attacked}
