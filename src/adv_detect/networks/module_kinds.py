"""The axis of the channels by the kind of the module that gave an output."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules import activation, conv, dropout, instancenorm, pooling
from torch.nn.modules.batchnorm import _BatchNorm

CHANNELS_FIRST: tuple[type[nn.Module], ...] = (
    conv._ConvNd,
    _BatchNorm,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    nn.Upsample,
    nn.PixelShuffle,
)
CHANNELS_LAST: tuple[type[nn.Module], ...] = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
AS_GIVEN: tuple[type[nn.Module], ...] = (
    nn.Identity,
    dropout._DropoutNd,
    *(kind for kind in vars(activation).values() if isinstance(kind, type) and issubclass(kind, nn.Module)
      and kind not in (nn.Module, nn.GLU, nn.MultiheadAttention)),
)  # fmt: skip
"""Kinds whose output has the channels where the input has them."""
WIDTH_NAMES = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape")


@dataclass(frozen=True)
class _Output:
    """Output of one module without submodules."""

    module: str
    shape: tuple[int, ...]
    axis: int | None


@dataclass
class Outputs:
    """Collects, in one forward pass, the outputs of all modules and the axis that their kind tells.

    Tensors are kept during the pass, so that identities stay unique.
    """

    leaves: list[_Output] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    axes: dict[int, int | None] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    _kept: list[Tensor] = field(default_factory=list)

    def modules(self, network: nn.Module) -> dict[str, nn.Module]:
        """All modules below a network, by name."""
        return {name: module for name, module in network.named_modules() if name}

    def receive(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        """Note the output of a module."""
        if not isinstance(output, Tensor):
            return
        self._kept.append(output)
        self.shapes[name], self.last[name] = tuple(output.shape), id(output)
        if any(True for _ in module.children()):
            return
        given = inputs[0] if isinstance(inputs, tuple) and inputs else None
        axis = self._axis(module, given, output)
        self.axes[id(output)] = axis
        self.leaves.append(_Output(name, tuple(output.shape), axis))

    def _axis(self, module: nn.Module, given: object, output: Tensor) -> int | None:
        if isinstance(module, AS_GIVEN) and isinstance(given, Tensor) and given.shape == output.shape:
            self._kept.append(given)
            return self.axes.get(id(given))
        return axis_of_output(module, output)


def channels_by_kind(outputs: Outputs, name: str) -> int | None:
    """Tell the axis of the channels of a module's output.

    Args:
        outputs: Outputs of one forward pass.
        name: Name of the module.

    Returns:
        The axis that the module which made the output stands for; else the one on which all modules within it agree
        whose output has the same shape; None where neither tells.
    """
    made = outputs.axes.get(outputs.last.get(name, -1))
    if made is not None:
        return made
    within = [
        one.axis
        for one in outputs.leaves
        if f"{one.module}.".startswith(f"{name}.") and one.shape == outputs.shapes.get(name) and one.axis is not None
    ]
    return within[0] if within and len(set(within)) == 1 else None


def axis_of_output(module: nn.Module, output: Tensor) -> int | None:
    """Tell the axis of the channels from a convolution, normalisation, pooling or linear layer.

    The axis that has the width of the module counts, whatever its name promises: a subclass of layer normalisation may
    work on channels first. Only where several have it does the kind decide.
    """
    first, last = 1, output.dim() - 1
    usual = first if isinstance(module, CHANNELS_FIRST) else last if isinstance(module, CHANNELS_LAST) else None
    width = _width(module)
    if width is None:
        return usual
    fitting = [axis for axis in range(1, output.dim()) if output.shape[axis] == width]
    if len(fitting) == 1:
        return fitting[0]
    plain = type(module).__module__.startswith("torch.nn.")
    return usual if plain and usual in fitting else None


def _width(module: nn.Module) -> int | None:
    """Channels that a module states as its own; only for the kinds above and what derives from them."""
    if not isinstance(module, CHANNELS_FIRST + CHANNELS_LAST):
        return None
    for name in WIDTH_NAMES:
        value = getattr(module, name, None)
        if isinstance(value, tuple | list):
            value = value[-1] if value else None
        if isinstance(value, int):
            return value
    return None
