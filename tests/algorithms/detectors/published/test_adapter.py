"""Detectors of pytorch-ood: the scores are the library's own, and what it cannot do here is refused by name."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from tests.algorithms.detectors.published.conftest import HEAD
from torch import nn

from adv_detect.algorithms.detectors import (
    LearnsFrom,
    Reads,
    build_detector,
    detector_class,
    registry,
    score_activations,
)
from adv_detect.algorithms.detectors.published.adapter import linear_head
from adv_detect.algorithms.detectors.published.state import captured_state
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.params import DetectorParams

MODULE = "pytorch_ood.detector"
ROUNDING = {"rtol": 1e-4, "atol": 1e-6}
"""The same products of matrices, elsewhere in memory: some processors add in another order then."""


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip(MODULE, reason="pytorch-ood, of the extra ood, is not installed")


@pytest.fixture
def build(library, representatives, clean):
    def made(name: str, **arguments):
        detector = build_detector(DetectorParams(kind=f"{MODULE}.{name}", arguments=arguments), representatives)
        detector.fit(clean, None, seed=0)
        return detector

    return made


def head() -> nn.Linear:
    made = nn.utils.skip_init(nn.Linear, HEAD.shape[1], HEAD.shape[0])
    made.load_state_dict({"weight": HEAD, "bias": torch.full((3,), 0.5)})
    return made.requires_grad_(False)


@pytest.mark.parametrize("name", ["MaxSoftmax", "MaxLogit", "EnergyBased"])
def test_scores_of_logits_are_the_librarys(name, library, build, held):
    expected = getattr(library, name)(None).predict_logits(held.logits)
    assert torch.equal(build(name)(held), expected)


@pytest.mark.parametrize(
    ("name", "arguments"), [("KNN", {"k": 5}), ("RMD", {}), ("GMM", {"reg": 0.1}), ("Mahalanobis", {})]
)
def test_scores_of_features_are_the_librarys(name, arguments, library, build, clean, held):
    wrapped = getattr(library, name)(encoder=None, **arguments)
    wrapped.fit_features(clean.features["last"], clean.logits.argmax(dim=1))
    expected = wrapped.predict_features(held.features["last"])
    torch.testing.assert_close(build(name, **arguments)(held), expected.float(), **ROUNDING)


def test_all_layers_are_the_librarys(library, build, clean, held):
    wrapped = library.MultiMahalanobis([nn.Identity(), nn.Identity()])
    wrapped.fit_structured(list(clean.features.values()), clean.logits.argmax(dim=1))
    detector = build("MultiMahalanobis")
    expected = wrapped.predict_structured(list(held.features.values()))
    torch.testing.assert_close(detector(held), expected, **ROUNDING)
    assert not detector.differentiable


def test_the_last_layer_of_the_network_is_recovered(library, build, clean, held):
    weight, bias = linear_head(clean.features["last"], clean.logits)
    torch.testing.assert_close(weight, HEAD, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bias, torch.full((3,), 0.5), rtol=1e-3, atol=1e-3)

    vim = library.ViM(None, d=3, w=HEAD, b=torch.full((3,), 0.5))
    vim.fit_features(clean.features["last"], clean.logits.argmax(dim=1))
    torch.testing.assert_close(
        build("ViM", d=3)(held), vim.predict_features(held.features["last"]), rtol=1e-3, atol=1e-3
    )

    fdbd = library.fDBD(None, head()).fit_features(clean.features["last"])
    torch.testing.assert_close(build("fDBD")(held), fdbd.predict_features(held.features["last"]), rtol=1e-3, atol=1e-3)


def test_a_last_layer_that_is_not_linear_is_refused(clean):
    with pytest.raises(DataError, match=r"linear function of the last layer read, got one that explains \d+\.\d%"):
        linear_head(clean.features["early"], clean.logits.square())


def test_what_it_reads_and_learns_from_is_stated(library):
    stated = {name: detector_class(f"{MODULE}.{name}") for name in ("MaxLogit", "KLMatching", "KNN", "LTS")}
    assert {name: one.reads for name, one in stated.items()} == {
        "MaxLogit": Reads(layers=False),
        "KLMatching": Reads(layers=False),
        "KNN": Reads(),
        "LTS": Reads(),
    }
    assert {name for name, one in stated.items() if one.learns_from is LearnsFrom.NOTHING} == {"MaxLogit"}
    assert detector_class(f"{MODULE}.KNN") is detector_class(f"{MODULE}.KNN")


def test_attacks_find_the_gradients_of_logits_only(library):
    known = {
        name: detector_class(f"{MODULE}.{name}").differentiable for name in ("EnergyBased", "KNN", "MultiMahalanobis")
    }
    assert known == {"EnergyBased": True, "KNN": False, "MultiMahalanobis": False}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "ODIN",
            "pytorch_ood.detector.odin.ODIN: it needs the network and its gradients, and detectors read activations",
        ),
        ("ReAct", "it needs images or unpooled feature maps"),
        ("Gram", "it needs unpooled feature maps"),
        ("OpenMax", "it needs an object of its own as fitted state, and detectors .* are stored as tensors"),
        ("MCD", "it needs images or unpooled feature maps"),
    ],
)
def test_those_that_need_more_than_activations_are_refused(name, match, library):
    with pytest.raises(ConfigurationError, match=match):
        detector_class(f"{MODULE}.{name}")


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("EnergyBased", {"temperature": 2}, "arguments of detector.*temperature"),
        ("DICE", {"p": 3}, "arguments of DICE"),
        ("EnergyBased", {"model": 1}, r"arguments \['model'\]: they are given by the network"),
        ("ViM", {}, "arguments of detector.*'d'"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, match, library, representatives):
    with pytest.raises(ConfigurationError, match=match):
        build_detector(DetectorParams(kind=f"{MODULE}.{name}", arguments=arguments), representatives)


def test_more_neighbours_than_images_are_refused(build, clean):
    with pytest.raises(DataError, match=f"KNN: expected at least 151 clean images, got {len(clean)}.*smaller k"):
        build("KNN", k=151)


def test_a_class_without_images_is_counted(library, representatives, clean):
    detector = build_detector(DetectorParams(kind=f"{MODULE}.Mahalanobis"), representatives)
    with pytest.raises(DataError, match=r"Mahalanobis: it cannot be fitted to .* classes there are 0 to"):
        detector.fit(clean.select(clean.logits.argmax(dim=1) > 0), None, seed=0)


def test_one_that_is_not_fitted_says_so(library, representatives, held):
    with pytest.raises(DataError, match="KNN: it has not been fitted"):
        build_detector(DetectorParams(kind=f"{MODULE}.KNN"), representatives)(held)


def test_one_of_ones_own_of_the_librarys_interface_is_taken(library, representatives, clean, held, monkeypatch):
    """It need not lie in the library; state that cannot be stored is refused by its name."""
    from pytorch_ood.api import FeaturesDetector

    class Depth(FeaturesDetector):
        requires_fit = True

        def __init__(self, encoder, scale: float = 1.0):
            self.encoder, self.scale, self.learned = encoder, scale, None

        def fit_features(self, z, y):
            self.learned = [z.mean(dim=0), z.std(dim=0)]
            return self

        def predict_features(self, z):
            return self.scale * ((z - self.learned[0]) / self.learned[1]).square().mean(dim=1)

        def predict(self, x):
            raise NotImplementedError

    class Forgetful(Depth):
        def fit_features(self, z, y):
            self.learned = {int(one): "mean" for one in y}
            return self

    module = types.ModuleType("someones")
    module.Depth, module.Forgetful = Depth, Forgetful
    monkeypatch.setitem(sys.modules, "someones", module)
    detector = build_detector(DetectorParams(kind="someones.Depth", arguments={"scale": 2.0}), representatives)
    detector.fit(clean, None, seed=0)
    features = clean.features["last"]
    expected = 2 * ((held.features["last"] - features.mean(dim=0)) / features.std(dim=0)).square().mean(dim=1)
    torch.testing.assert_close(score_activations(detector, held), expected)

    refused = build_detector(DetectorParams(kind="someones.Forgetful"), representatives)
    with pytest.raises(
        ConfigurationError, match="Forgetful: its state cannot be stored, attribute 'learned' is of type dict"
    ):
        refused.fit(clean, None, seed=0)


def test_without_the_library_its_detectors_are_refused(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pytorch-ood is not installed; pip install -e '\.\[ood\]'"):
        detector_class(f"{MODULE}.EnergyBased")


def test_numbers_keep_their_kind():
    captured = captured_state(types.SimpleNamespace(whole=3, real=0.1, flag=True, name="x", none=None, twice=max), "it")
    assert {name: value.item() for name, value in captured.items()} == {
        "number|whole": 3,
        "number|real": 0.1,
        "number|flag": True,
    }
