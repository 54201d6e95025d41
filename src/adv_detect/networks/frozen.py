"""A frozen network in its fastest form: the same function, other arithmetic.

Attacks, features and scores never change the network, so what training needs can go: batch normalisation becomes a
part of the convolution before it, or one multiplication and addition, and the gradient of PReLU leaves out that of its
slopes. On a processor the channels of a pixel lie together in memory, as its convolutions, poolings and PReLU want it.
Outputs agree with the plain network up to rounding, which is checked before the fast form is used.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypedDict, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
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
        formats = (torch.channels_last, torch.contiguous_format) if device.type == "cpu" else (torch.contiguous_format,)
        forms = (fast_form(target, memory_format=one) for one in formats)
        known[state] = next((form for form in forms if _agree(form, target)), None)
    return known[state] or target


def fast_form(target: TargetNetwork, *, memory_format: torch.memory_format = torch.contiguous_format) -> TargetNetwork:
    """Copy a frozen network into its fast form.

    Args:
        target: The network under attack, in evaluation mode.
        memory_format: How activations of four dimensions lie in memory.

    Returns:
        The copy. Every layer of the spec keeps its name and output; a convolution that took in its normalisation gives
        the normalised output, so one whose own output is read stays as it is.
    """
    network = copy.deepcopy(target.network)
    for convolution, norm in _foldable_pairs(network, target.spec.layers):
        pair = cast(nn.Conv2d, network.get_submodule(convolution)), cast(nn.BatchNorm2d, network.get_submodule(norm))
        network.set_submodule(convolution, fuse_conv_bn_eval(*pair))
        network.set_submodule(norm, nn.Identity())
    _replace(network, nn.BatchNorm2d, FrozenNorm, where=_has_statistics)
    _replace(network, nn.PReLU, FrozenPReLU)
    if memory_format is torch.channels_last:
        _replace(network, nn.Conv2d, GreyConvolution, where=_is_grey)
        network.to(memory_format=memory_format)
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


class GreyConvolution(nn.Module):
    """Convolution of one input channel, as a matrix product whose output lies channels last.

    The layout of a single channel is ambiguous, torch then takes the other one; and its gradient to the image is slow.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take the weights of a convolution of one group whose padding is zeros of a given number."""
        super().__init__()
        weight = convolution.weight.detach()
        bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach()
        self.register_buffer("weight", weight.flatten(1).clone())
        self.register_buffer("bias", bias.clone())
        self.window = _Window(
            kernel_size=convolution.kernel_size,
            dilation=convolution.dilation,
            padding=cast(tuple[int, ...], convolution.padding),
            stride=convolution.stride,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, 1, H, W)`` to ``(N, D, H', W')``."""
        outputs: Tensor = _GreyConvolution.apply(inputs, self.weight, self.bias, self.window)
        return outputs


class _Window(TypedDict):
    """What `unfold` and `fold` want to know."""

    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]


class _GreyConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, window: _Window) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.window, ctx.size = window, inputs.shape[2:]
        patches = functional.unfold(inputs, **window)
        products = torch.baddbmm(bias, patches.mT, weight.t().expand(len(inputs), -1, -1))
        return products.mT.view(len(inputs), len(weight), *_output_size(ctx.size, window))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        patches = torch.matmul(weight.t(), gradients[0].flatten(2))
        return functional.fold(patches, ctx.size, **ctx.window), None, None, None


def _output_size(size: Sequence[int], window: _Window) -> tuple[int, ...]:
    """Height and width of what a convolution gives."""
    sides = zip(size, *(window[name] for name in ("kernel_size", "dilation", "padding", "stride")), strict=True)
    return tuple(
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel, dilation, padding, stride in sides
    )


class _PReLU(torch.autograd.Function):
    """Torch's own backward pass computes a gradient per slope and element, several times the work."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, slopes)
        return torch.prelu(inputs, slopes)

    @staticmethod
    @once_differentiable
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
    plain = type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and _has_statistics(norm)
    return plain and not any(module._forward_hooks or module._forward_pre_hooks for module in (convolution, norm))


def _sees(layer: str, convolution: str, norm: str) -> bool:
    """Whether the output of a layer could be that of the convolution, before its normalisation."""
    return f"{convolution}.".startswith(f"{layer}.") and not f"{norm}.".startswith(f"{layer}.")


def _replace(
    network: nn.Module,
    kind: type[Any],
    make: Callable[[Any], nn.Module],
    *,
    where: Callable[[Any], bool] = lambda _: True,
) -> None:
    """Put something else in the place of modules of exactly one type."""
    for name, module in list(network.named_modules()):
        if type(module) is kind and name and not module._forward_hooks and where(module):
            network.set_submodule(name, make(module))


def _has_statistics(norm: nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None


def _is_grey(convolution: nn.Conv2d) -> bool:
    padded = isinstance(convolution.padding, tuple) and convolution.padding_mode == "zeros"
    return convolution.in_channels == 1 and padded


@torch.no_grad()
def _agree(fast: TargetNetwork, plain: TargetNetwork) -> bool:
    """Compare the two forms on random images."""
    spec = plain.spec
    low, high = spec.bounds
    images = torch.rand(PROBES, *spec.image_shape, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    images = images.to(next(plain.parameters()).device)
    wanted = plain(images)
    try:
        found = fast(images)
    except RuntimeError as exc:  # such as `view` of activations that lie channels last
        LOGGER.debug("a fast form of network %s is not used: %s", spec.name, exc)
        return False
    difference = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(LEAST_LOGIT))
    if difference <= TOLERANCE:
        return True
    LOGGER.warning("the fast form of network %s is off by %.1e and is not used", spec.name, difference)
    return False
