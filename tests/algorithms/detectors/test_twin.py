"""The twin's opinion of the class that the network names."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.detectors import Activations, LearnsFrom, TwinDetector, build_detector
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.robust_losses import log_probabilities
from adv_detect.errors import DataError
from adv_detect.networks.target import build_target
from adv_detect.params import DetectorParams, NetworkParams

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
TWIN = torch.tensor([[-0.1, -2.5, -4.0], [-0.2, -1.9, -30.0]])


def small(name, seed, classes=3):
    params = NetworkParams(name=name)
    names = tuple("abcdefghij"[:classes])
    return build_target(params, class_names=names, image_shape=(1, 28, 28), seed=seed).freeze()


def test_the_score_is_minus_the_twins_log_probability_of_the_networks_class():
    scores = TwinDetector()(Activations(LOGITS, {}, twin=TWIN))

    torch.testing.assert_close(scores, torch.tensor([0.1, 30.0]))


def test_it_learns_nothing_and_reads_the_twin_alone():
    detector = build_detector(DetectorParams(kind="twin"), None)

    assert detector.learns_from is LearnsFrom.NOTHING
    assert (detector.reads.layers, detector.reads.views, detector.reads.twin) == (False, (), True)
    assert detector.fit(Activations(LOGITS, {}, twin=TWIN), None, seed=0) == []
    assert not detector.state_dict()


def test_without_a_twin_it_says_which_pipeline_makes_one():
    with pytest.raises(DataError, match="got none; run the pipeline twin_training"):
        TwinDetector()(Activations(LOGITS, {}))


def test_a_twin_of_other_classes_is_refused():
    with pytest.raises(DataError, match="a twin of the 3 classes of the network, got 2"):
        TwinDetector()(Activations(LOGITS, {}, twin=TWIN[:, :2]))


@pytest.mark.parametrize("head", ["softmax", "one_vs_all"])
def test_an_attack_can_follow_it_to_the_pixels_of_the_same_image(head):
    network, twin = small("small", 0), small("strided", 1)
    twin.spec = twin.spec.model_copy(update={"head": head})
    model = DetectionModel(network, TwinDetector(), network.spec.layers, twin=twin)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()

    logits, scores = model(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    expected = -log_probabilities(twin(images), head).gather(1, network(images).argmax(1, keepdim=True)).squeeze(1)

    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(scores, expected)
    (own,) = torch.autograd.grad(expected.sum(), images)
    torch.testing.assert_close(gradient, own)
    assert float(gradient.abs().max()) > 0


def test_a_model_without_a_reader_of_the_twin_does_not_run_it():
    network = small("small", 0)
    activations = DetectionModel(network, TwinDetector(), network.spec.layers).activations(torch.rand(1, 1, 28, 28))

    assert activations.twin is None
