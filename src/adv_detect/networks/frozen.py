"""A frozen network in its fastest form: the same function, other arithmetic.

Attacks, features and scores never change the network, so what training needs can go: batch normalisation becomes a
part of the convolution before it, or one multiplication and addition, and the gradient of PReLU leaves out that of its
slopes. Outputs agree with the plain network up to rounding, which is checked before the fast form is used.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adv_detect.networks.target import TargetNetwork

LOGGER = logging.getLogger(__name__)
TOLERANCE = 1e-4
"""Largest difference of logits from the plain network, relative to the largest logit, of a form that is used."""
LEAST_LOGIT = 1e-6
PROBES = 2
"""Random images by which the two forms are compared."""
_KNOWN: WeakKeyDictionary[TargetNetwork, dict[tuple[torch.device, int], TargetNetwork | None]] = WeakKeyDictionary()


def working_form(target: TargetNetwork, device: torch.device) -> TargetNetwork:
    """Give the form of a frozen network in which it is attacked and read; made once per network and device.

    Args:
        target: The network under attack; it is moved to the device, and else left as it is.
        device: Where the work is done.

    Returns:
        A network of the same spec, module names and outputs (up to ``TOLERANCE``), on the device, whose tensors are
        not those of the stored network; or the network itself, where it is not frozen (``freeze``) or its fast form
        differs.
    """
    target.to(device)
    tensors = [*target.parameters(), *target.buffers()]
    if target.training or any(one.requires_grad for one in tensors):
        return target
    known = _KNOWN.setdefault(target, {})
    state = device, sum(one._version for one in tensors)  # weights loaded since count as another network
    if state not in known:
        fast = fast_form(target)
        known[state] = fast if _agree(fast, target) else None
    return known[state] or target


def fast_form(target: TargetNetwork) -> TargetNetwork:
    """Copy a frozen network into its fast form.

    Args:
        target: The network under attack, in evaluation mode.

    Returns:
        The copy. Every layer of the spec keeps its name and output; a convolution that took in its normalisation gives
        the normalised output, so one whose own output is read stays as it is.
    """
    network = copy.deepcopy(target.network)
    for convolution, norm in _foldable_pairs(network, target.spec.layers):
        pair = cast(nn.Conv2d, network.get_submodule(convolution)), cast(nn.BatchNorm2d, network.get_submodule(norm))
        network.set_submodule(convolution, fuse_conv_bn_eval(*pair))
        network.set_submodule(norm, nn.Identity())
    _replace(network, nn.BatchNorm2d, FrozenNorm)
    _replace(network, nn.PReLU, FrozenPReLU)
    return TargetNetwork(target.spec, network).freeze()


class FrozenNorm(nn.Module):
    """Batch normalisation by fixed statistics, as a factor and a summand per channel."""

    factor: Tensor
    summand: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """Take the statistics and parameters of a normalisation that keeps running statistics."""
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight.detach()
        summand = -norm.running_mean * factor
        summand = summand if norm.bias is None else summand + norm.bias.detach()
        self.register_buffer("factor", factor.view(-1, 1, 1))
        self.register_buffer("summand", summand.view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise ``(N, D, H, W)``."""
        return torch.addcmul(self.summand, inputs, self.factor)


class FrozenPReLU(nn.Module):
    """PReLU whose slopes get no gradient."""

    slopes: Tensor

    def __init__(self, activation: nn.PReLU) -> None:
        """Take the slopes of an activation, one or one per channel."""
        super().__init__()
        self.register_buffer("slopes", activation.weight.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply what is negative in ``(N, D, ...)`` by the slope of its channel."""
        outputs: Tensor = _PReLU.apply(inputs, self.slopes)
        return outputs


class _PReLU(torch.autograd.Function):
    """Torch's own backward pass computes a gradient per slope and element, several times the work."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, slopes)
        return torch.prelu(inputs, slopes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        inputs, slopes = ctx.saved_tensors
        slopes = slopes.view(-1, *[1] * (inputs.dim() - 2)) if inputs.dim() > 1 else slopes
        positive = torch.ops.aten.threshold_backward(gradients[0], inputs, 0)
        return torch.addcmul(gradients[0] * slopes, positive, 1 - slopes), None


def _foldable_pairs(network: nn.Module, layers: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Find convolutions whose output goes to one batch normalisation and nowhere else, by name.

    A network whose forward pass cannot be traced has none.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception as exc:  # any error: the forward pass of a network is arbitrary code
        LOGGER.debug("batch normalisation is not folded, the network cannot be traced: %s", exc)
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    runs: dict[Any, int] = {}
    for node in calls:
        runs[node.target] = runs.get(node.target, 0) + 1
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        names = str(before.target), str(node.target)
        once = runs[before.target] == runs[node.target] == 1
        if once and _fits(*map(network.get_submodule, names)) and not any(_sees(layer, *names) for layer in layers):
            yield names


def _fits(convolution: nn.Module, norm: nn.Module) -> bool:
    """Exact types: a subclass may do more than its parent, and a hook or a parametrization would be lost."""
    plain = type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None
    return plain and not any(module._forward_hooks or module._forward_pre_hooks for module in (convolution, norm))


def _sees(layer: str, convolution: str, norm: str) -> bool:
    """Whether the output of a layer could be that of the convolution, before its normalisation."""
    return f"{convolution}.".startswith(f"{layer}.") and not f"{norm}.".startswith(f"{layer}.")


def _replace(network: nn.Module, kind: type[Any], make: Callable[[Any], nn.Module]) -> None:
    """Put something else in the place of modules of exactly one type."""
    for name, module in list(network.named_modules()):
        without_statistics = isinstance(module, nn.BatchNorm2d) and module.running_mean is None
        if type(module) is kind and name and not without_statistics and not module._forward_hooks:
            network.set_submodule(name, make(module))


@torch.no_grad()
def _agree(fast: TargetNetwork, plain: TargetNetwork) -> bool:
    """Compare the two forms on random images."""
    spec = plain.spec
    low, high = spec.bounds
    images = torch.rand(PROBES, *spec.image_shape, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    images = images.to(next(plain.parameters()).device)
    wanted = plain(images)
    difference = float((fast(images) - wanted).abs().max() / wanted.abs().max().clamp_min(LEAST_LOGIT))
    if difference <= TOLERANCE:
        return True
    LOGGER.warning("the fast form of network %s is off by %.1e and is not used", spec.name, difference)
    return False
