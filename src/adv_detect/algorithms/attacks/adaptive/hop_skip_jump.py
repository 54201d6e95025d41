"""A query attack on network and detector together: it sees whether an image gets through, and nothing else.

Source: Chen, Jordan, Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", 2020, as foolbox has it.
Departures: the decision is that of both models; the samples of a gradient estimate go through the models in batches,
drawn from the seed of the image; the search starts at the nearest of several natural images that get through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from eagerpy.astensor import astensor, astensor_
from eagerpy.tensor.tensor import Tensor as EagerTensor
from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
from foolbox.criteria import Criterion
from foolbox.models.pytorch import PyTorchModel
from pydantic import Field
from torch import Tensor, nn

from adv_detect.algorithms.attacks.adaptive.geometry import image_seed, l2_norms, linf_norms
from adv_detect.algorithms.attacks.adaptive.task import AdaptiveTask, Candidates, EndToEndModel
from adv_detect.errors import ConfigurationError
from adv_detect.fields import Block, Count

TINY = 1e-12
SAMPLES_AT_ONCE = 256


class HopSkipJumpArguments(Block):
    """Arguments of the query attack.

    Attributes:
        steps: Steps along the boundary.
        initial_gradient_eval_steps: Queries for the first estimate of a gradient; later ones take more.
        max_gradient_eval_steps: Most queries for an estimate.
        gamma: Precision of the search for the boundary.
    """

    steps: int = Field(64, ge=1)
    initial_gradient_eval_steps: Count = 100
    max_gradient_eval_steps: Count = 10_000
    gamma: float = Field(1.0, gt=0)


def hop_skip_jump(model: EndToEndModel, task: AdaptiveTask, arguments: HopSkipJumpArguments) -> Candidates:
    """Search for the smallest perturbation that gets through, by decisions alone.

    Args:
        model: Images to class and detector logits; need not be differentiable.
        task: What to attack, in its norm; its guide holds natural images ``(N, K, channels, H, W)`` to start from.
        arguments: Steps and queries.

    Returns:
        Per image the nearest one found that gets through; the clean image where no natural one does. No gradient is
        counted.

    Raises:
        ConfigurationError: There is nothing to start from.
    """
    if task.guide is None or task.guide.values.dim() != task.images.dim() + 1:
        raise ConfigurationError("guide: this attack starts from natural images of other classes, got none; give them")
    found = [_search(model, task.select(row), arguments) for row in torch.split(torch.arange(len(task)), 1)]
    nothing = torch.zeros(len(task), device=task.images.device)
    return Candidates(
        images=torch.cat(found) if found else task.images,
        gradient_evaluations=nothing.to(torch.int64),
        zero_gradient_share=nothing,
    )


def _search(model: EndToEndModel, one: AdaptiveTask, arguments: HopSkipJumpArguments) -> Tensor:
    decision = _Decision(model, one)
    start = _nearest_start(decision, one)
    if start is None:
        return one.images
    attack = _BatchedHopSkipJump(constraint=one.norm, **arguments.model_dump())
    seen = PyTorchModel(decision, bounds=(0, 1), device=one.images.device)
    assert one.indices is not None  # numbered at construction
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(image_seed(one.seed, int(one.indices[0]), 0))
        found: Tensor = attack.run(seen, decision.to_unit(one.images), _GetsThrough(), starting_points=start)
    return decision.from_unit(found)


def _nearest_start(decision: _Decision, one: AdaptiveTask) -> Tensor | None:
    """The nearest natural image that gets through, ``(1, channels, H, W)``, pixels in [0, 1]."""
    assert one.guide is not None  # checked before
    natural = decision.to_unit(one.guide.values[0])
    through = natural[decision.through(natural)]
    if not len(through):
        return None
    size = l2_norms if one.norm == "l2" else linf_norms
    return through[size(through - decision.to_unit(one.images)).argmin()][None]


class _Decision(nn.Module):
    """Decision whether images of a task of one row get through: logits ``(n, 2)`` of no, yes, for pixels in [0, 1]."""

    def __init__(self, model: EndToEndModel, one: AdaptiveTask) -> None:
        super().__init__()
        self._ask, self._one = model, one
        self.eval()

    def forward(self, unit: Tensor) -> Tensor:
        through = self.through(unit)
        return torch.stack([~through, through], dim=1).float()

    def to_unit(self, images: Tensor) -> Tensor:
        low, high = self._one.bounds
        return ((images - low) / (high - low)).clamp(0, 1)

    def from_unit(self, unit: Tensor) -> Tensor:
        low, high = self._one.bounds
        return (unit * (high - low) + low).clamp(low, high)

    @torch.no_grad()
    def through(self, unit: Tensor) -> Tensor:
        """Bool ``(n,)``."""
        one = self._one
        class_logits, scores = self._ask(self.from_unit(unit))
        named = class_logits.argmax(dim=1)
        fooled = named != one.labels if one.targets is None else named == one.targets
        passed: Tensor = fooled & (scores <= one.threshold)
        return passed


class _GetsThrough(Criterion):
    """Success where the answer is yes."""

    def __repr__(self) -> str:
        return "gets through"

    def __call__(self, perturbed: Any, outputs: Any) -> Any:
        answers, restore = astensor_(outputs)
        return restore(answers.argmax(axis=-1) == 1)


class _BatchedHopSkipJump(HopSkipJumpAttack):
    """HopSkipJump on one image, whose samples are judged in batches instead of one by one."""

    def approximate_gradients(
        self, is_adversarial: Callable[[EagerTensor], EagerTensor], x_advs: EagerTensor, steps: int, delta: EagerTensor
    ) -> EagerTensor:
        """Estimate the direction that leads inside, from samples at distance ``delta``."""
        at: Tensor = x_advs.raw
        shape = (steps, *at.shape[1:])
        noise = torch.randn(shape) if self.constraint == "l2" else torch.rand(shape) * 2 - 1
        noise = noise.to(at) / (l2_norms(noise).to(at).reshape(-1, *[1] * (at.dim() - 1)) + TINY)
        size = float(delta.raw[0])
        samples = (at + size * noise).clamp(0, 1)
        parts = [is_adversarial(astensor(part)).raw for part in torch.split(samples, SAMPLES_AT_ONCE)]
        signs = torch.cat(parts).to(at) * 2 - 1
        mean = signs.mean()
        values = signs if float(mean.abs()) == 1 else signs - mean
        moved = (samples - at) / (size + TINY)
        gradient = (values.reshape(-1, *[1] * (at.dim() - 1)) * moved).mean(dim=0, keepdim=True)
        found: EagerTensor = astensor(gradient / (gradient.norm() + TINY))
        return found
