"""A linear classifier on cached embeddings, to be put on a frozen network as its head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from adv_detect.errors import DataError
from adv_detect.fields import Block, PositiveNumber

SPREAD_FLOOR = 1e-6
"""Least standard deviation of an embedding's component; a constant one is left unscaled."""
LBFGS_HISTORY = 20
GRADIENT_TOLERANCE = 1e-7
CHANGE_TOLERANCE = 1e-10


class HeadParams(Block):
    """The fit of a linear head.

    Attributes:
        weight_decay: Strength of the penalty on the squared weights of the standardised problem.
        iterations: Most iterations.
        dropout: Probability to drop a component of the embedding while fitting.
        learning_rate: Of Adam; read with dropout only.
    """

    weight_decay: float = Field(1e-3, ge=0)
    iterations: int = Field(200, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: PositiveNumber = 1e-2


DEFAULT_PARAMS = HeadParams()


@dataclass(frozen=True)
class LinearHead:
    """A fitted head: ``logits = embeddings @ weight.T + bias`` on embeddings as the network gives them.

    Attributes:
        weight: ``(C, D)``, float32.
        bias: ``(C,)``, float32.
        train_accuracy: On the embeddings it was fitted to, in [0, 1].
        validation_accuracy: On the held-out embeddings; None where none were given.
    """

    weight: Tensor
    bias: Tensor
    train_accuracy: float
    validation_accuracy: float | None


def fit_linear_head(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    params: HeadParams = DEFAULT_PARAMS,
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> LinearHead:
    """Fit multinomial logistic regression in seconds.

    The fit runs on standardised components (mean 0, standard deviation 1); that is then folded into weight and bias,
    so the network needs no normalisation of its embedding. Minimised is the mean cross-entropy plus
    ``weight_decay / 2`` times the squared weights of the standardised problem: by full-batch L-BFGS, or with dropout
    by full-batch Adam, as a random objective has no line search.

    Args:
        embeddings: Shape ``(N, D)``, as the network gives them in evaluation mode.
        labels: Classes, int64 ``(N,)``.
        num_classes: Number of classes C.
        params: Penalty, iterations, dropout.
        validation: Held-out embeddings and labels.
        seed: Seed of the dropout.

    Returns:
        The head and its accuracies.

    Raises:
        DataError: Shapes, labels or values are not as expected, or a class has no embedding.
    """
    _check_embeddings(embeddings, labels, num_classes)
    mean, spread = embeddings.float().mean(dim=0), embeddings.float().std(dim=0, correction=0)
    spread = torch.where(spread > SPREAD_FLOOR, spread, torch.ones_like(spread))
    standard = (embeddings.float() - mean) / spread
    fit = _fit_adam if params.dropout else _fit_lbfgs
    fitted = fit(standard, labels, _zeros(standard, num_classes), params, seed)
    weight = fitted[0] / spread
    bias = fitted[1] - weight @ mean
    held_out = None if validation is None else _accuracy(weight, bias, *validation)
    return LinearHead(weight, bias, _accuracy(weight, bias, embeddings, labels), held_out)


def _fit_lbfgs(
    inputs: Tensor, labels: Tensor, start: tuple[Tensor, Tensor], params: HeadParams, _seed: int
) -> tuple[Tensor, Tensor]:
    weight, bias = start
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=params.iterations,
        history_size=LBFGS_HISTORY,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=CHANGE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(inputs, labels, weight, bias, params.weight_decay)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _fit_adam(
    inputs: Tensor, labels: Tensor, start: tuple[Tensor, Tensor], params: HeadParams, seed: int
) -> tuple[Tensor, Tensor]:
    weight, bias = start
    optimizer = torch.optim.Adam([weight, bias], lr=params.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(params.iterations):
            kept = (torch.rand(inputs.shape, generator=generator) >= params.dropout).to(inputs)
            optimizer.zero_grad()
            loss = _loss(inputs * kept / (1 - params.dropout), labels, weight, bias, params.weight_decay)
            torch.autograd.backward(loss)
            optimizer.step()
    return weight.detach(), bias.detach()


def _zeros(inputs: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    weight = inputs.new_zeros((num_classes, inputs.shape[1])).requires_grad_(True)
    return weight, inputs.new_zeros(num_classes).requires_grad_(True)


def _loss(inputs: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, weight_decay: float) -> Tensor:
    return functional.cross_entropy(inputs @ weight.T + bias, labels) + weight_decay / 2 * weight.square().sum()


def _accuracy(weight: Tensor, bias: Tensor, embeddings: Tensor, labels: Tensor) -> float:
    predicted = (embeddings.float() @ weight.T + bias).argmax(dim=1)
    return float((predicted == labels).float().mean())


def _check_embeddings(embeddings: Tensor, labels: Tensor, num_classes: int) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        shapes = f"{tuple(embeddings.shape)} and {tuple(labels.shape)}"
        raise DataError(f"expected embeddings (N, D) and labels (N,), got {shapes}")
    if not bool(torch.isfinite(embeddings).all()):
        raise DataError("expected finite embeddings, got NaN or infinity; check the network and its preprocessing")
    present = set(labels.tolist())
    if present != set(range(num_classes)):
        odd = sorted(present.symmetric_difference(range(num_classes)))
        raise DataError(f"expected labels 0 to {num_classes - 1}, each at least once, got a fault at classes {odd}")
