from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from adv_detect.algorithms.head import HeadParams, fit_linear_head
from adv_detect.errors import DataError

pytestmark = pytest.mark.leaves_rng_alone
CLASSES, WIDTH = 4, 6


def blobs(n: int, spread: float = 0.6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % CLASSES
    noise = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))
    return (centres[labels] + spread * noise) * torch.tensor([1.0, 10.0, 0.1, 5.0, 1.0, 2.0]) + 3.0, labels


def test_agrees_with_sklearn():
    embeddings, labels = blobs(120, spread=1.0)
    decay = 0.01
    head = fit_linear_head(embeddings, labels, CLASSES, params=HeadParams(weight_decay=decay, iterations=500))
    standard = (embeddings - embeddings.mean(dim=0)) / embeddings.std(dim=0, correction=0)
    model = LogisticRegression(C=1 / (decay * 120), max_iter=2000, tol=1e-8).fit(standard.numpy(), labels.numpy())
    ours = (embeddings @ head.weight.T + head.bias).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, model.predict_proba(standard.numpy()), atol=2e-3)


def test_accuracies_are_those_of_weight_and_bias():
    embeddings, labels = blobs(80, spread=1.0)
    held_out = blobs(60, spread=1.0, seed=5)
    head = fit_linear_head(embeddings, labels, CLASSES, validation=held_out)
    for accuracy, (rows, truth) in ((head.train_accuracy, (embeddings, labels)), (head.validation_accuracy, held_out)):
        predicted = (rows @ head.weight.T + head.bias).argmax(dim=1)
        assert accuracy == pytest.approx(float((predicted == truth).float().mean()))
    assert head.validation_accuracy > 0.6
    assert head.weight.shape == (CLASSES, WIDTH)
    assert head.weight.dtype == torch.float32


def test_separable_classes_are_separated_and_nothing_held_out():
    head = fit_linear_head(*blobs(80, spread=0.05), CLASSES)
    assert head.train_accuracy == 1.0
    assert head.validation_accuracy is None


def test_units_of_the_embedding_do_not_matter():
    embeddings, labels = blobs(80)
    one = fit_linear_head(embeddings, labels, CLASSES)
    other = fit_linear_head(embeddings * 1000 - 7, labels, CLASSES)
    torch.testing.assert_close(
        (embeddings * 1000 - 7) @ other.weight.T + other.bias,
        embeddings @ one.weight.T + one.bias,
        rtol=0.02,
        atol=0.02,
    )


def test_a_constant_component_is_harmless():
    embeddings, labels = blobs(40)
    embeddings[:, 0] = 4.0
    head = fit_linear_head(embeddings, labels, CLASSES)
    assert torch.isfinite(head.weight).all()
    assert head.train_accuracy > 0.9


def test_dropout_is_seeded_and_learns():
    embeddings, labels = blobs(80)
    params = HeadParams(dropout=0.5, learning_rate=0.05)
    first, again, other = (fit_linear_head(embeddings, labels, CLASSES, params=params, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.train_accuracy > 0.9


def test_works_inside_no_grad_and_leaves_inputs_alone():
    embeddings, labels = blobs(40)
    before = embeddings.clone()
    with torch.no_grad():
        head = fit_linear_head(embeddings, labels, CLASSES)
    assert torch.equal(embeddings, before)
    assert not head.weight.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e, _: (e[:, 0], torch.zeros(8)),
            r"expected embeddings \(N, D\) and labels \(N,\), got \(8,\) and \(8,\)",
        ),
        (lambda e, y: (e, y[:3]), r"got \(8, 6\) and \(3,\)"),
        (lambda e, y: (e * float("nan"), y), "expected finite embeddings"),
        (lambda e, y: (e, y.clamp(max=2)), r"labels 0 to 3, each at least once, got a fault at classes \[3\]"),
        (lambda e, y: (e, y + 1), r"classes \[0, 4\]"),
    ],
)
def test_wrong_data(change, message):
    with pytest.raises(DataError, match=message):
        fit_linear_head(*change(*blobs(8)), CLASSES)


def test_wrong_settings():
    with pytest.raises(ValidationError, match="dropout"):
        HeadParams(dropout=1.0)
