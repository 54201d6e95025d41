"""Modules of a frozen network in its fast form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


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
    """Arguments of `unfold` and `fold`."""

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
        shape = (len(inputs), len(weight), *_output_size(ctx.size, window))
        outputs = torch.empty(shape, dtype=inputs.dtype, device=inputs.device, memory_format=torch.channels_last)
        products = outputs.permute(0, 2, 3, 1).view(len(inputs), -1, len(weight))
        torch.baddbmm(bias, patches.mT, weight.t().expand(len(inputs), -1, -1), out=products)
        return outputs  # and not a view of the product, on which nothing may follow in place

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
