"""Loading of weights: every tensor accounted for, or an error that says which are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from adv_detect.errors import CheckpointError
from adv_detect.networks.checkpoint_files import read_tensors
from adv_detect.networks.foreign_names import own_name

COUNTER = "num_batches_tracked"
SHOWN = 5


@dataclass(frozen=True)
class _Comparison:
    """How the tensors of a file fit a network.

    Attributes:
        usable: Tensors to load, by their name in the network.
        missing: Names that the network needs and the file lacks.
        unexpected: Names in the file that the network lacks.
        misshaped: Name in the network and the shapes of both, in words.
    """

    usable: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.misshaped)


def load_weights(network: nn.Module, path: str | Path, *, strict_head: bool = True) -> None:
    """Load a weight file into a network.

    The form of the file is recognised by content: safetensors, ``torch.save`` dictionaries, and pickled dictionaries
    of NumPy arrays; foreign tensor names of ``small``, ``wide`` and ``senet50`` are translated. No code from the file
    is run.

    Args:
        network: The network; its parameters and buffers are overwritten, or left alone on an error.
        path: The weight file.
        strict_head: Whether the file must hold a head of the network's class count. False keeps the network's own
            head where the file has none or one of another size.

    Raises:
        CheckpointError: When the file cannot be read, or lacks tensors, holds others or some of another shape; the
            message names them, and says so where the class count is what differs.
    """
    tensors = _translate(network, read_tensors(path))
    head = head_name(network)
    if not strict_head and head is not None:
        tensors = _without_foreign_head(network, tensors, head)
    comparison = _compare(network, tensors, optional_head=None if strict_head else head)
    if not comparison.fits:
        raise CheckpointError(_message(network, tensors, comparison, path))
    network.load_state_dict(comparison.usable, strict=False)


def head_name(network: nn.Module) -> str | None:
    """Name the module that gives the logits.

    Args:
        network: The network.

    Returns:
        The ``head_name`` that the network states, else the name of its last linear layer; None without any.
    """
    stated = getattr(network, "head_name", None)
    if isinstance(stated, str):
        return stated
    linear = [name for name, module in network.named_modules() if name and isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def checkpoint_classes(network: nn.Module, path: str | Path) -> int | None:
    """Read how many classes the head in a weight file has.

    Args:
        network: The network that the file is for.
        path: The weight file.

    Returns:
        The number of classes, or None when the file holds no head.

    Raises:
        CheckpointError: When the file cannot be read.
    """
    return _head_classes(network, _translate(network, read_tensors(path)))


def _head_classes(network: nn.Module, tensors: dict[str, Tensor]) -> int | None:
    weight = tensors.get(f"{head_name(network)}.weight")
    return None if weight is None or weight.dim() == 0 else int(weight.shape[0])


def _translate(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to the network's names and drop trailing axes of size one where only these differ."""
    own = network.state_dict()
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        target = name if name in own else own_name(network, name)
        if target is not None:
            named[target] = _fit_trailing_axes(tensor, own[target]) if target in own else tensor
    return named


def _fit_trailing_axes(tensor: Tensor, wanted: Tensor) -> Tensor:
    """Reshape between a linear layer and a 1x1 convolution."""
    shapes = sorted((tuple(tensor.shape), tuple(wanted.shape)), key=len)
    shorter, longer = shapes
    same = longer[: len(shorter)] == shorter and all(size == 1 for size in longer[len(shorter) :])
    return tensor.reshape(wanted.shape) if same else tensor


def _without_foreign_head(network: nn.Module, tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Drop the head of a file when it does not fit the network's head in every tensor."""
    prefix = f"{head}."
    wanted = {name: value.shape for name, value in network.state_dict().items() if name.startswith(prefix)}
    found = {name: value.shape for name, value in tensors.items() if name.startswith(prefix)}
    return tensors if wanted == found else {name: value for name, value in tensors.items() if name not in found}


def _compare(network: nn.Module, tensors: dict[str, Tensor], *, optional_head: str | None) -> _Comparison:
    own = network.state_dict()
    usable = {name: value for name, value in tensors.items() if name in own and value.shape == own[name].shape}
    absent = [name for name in own if name not in tensors and not name.endswith(COUNTER)]
    if optional_head is not None:
        absent = [name for name in absent if not name.startswith(f"{optional_head}.")]
    misshaped = [
        f"{name} (network {tuple(own[name].shape)}, file {tuple(value.shape)})"
        for name, value in tensors.items()
        if name in own and name not in usable
    ]
    unexpected = [name for name in tensors if name not in own]
    return _Comparison(usable, tuple(absent), tuple(unexpected), tuple(misshaped))


def _message(network: nn.Module, tensors: dict[str, Tensor], comparison: _Comparison, path: str | Path) -> str:
    parts = [
        f"{len(names)} {kind}: {_first(names)}"
        for kind, names in (
            ("missing", comparison.missing),
            ("unexpected", comparison.unexpected),
            ("of the wrong shape", comparison.misshaped),
        )
        if names
    ]
    hint = _head_hint(network, tensors, comparison.missing)
    return f"checkpoint '{path}' does not fit {type(network).__name__}: {'; '.join(parts)}{hint}"


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _head_hint(network: nn.Module, tensors: dict[str, Tensor], missing: Iterable[str]) -> str:
    """Say in words that the class counts differ, or that a head is all that the file lacks."""
    wanted = _head_classes(network, dict(network.state_dict()))
    found = _head_classes(network, tensors)
    if wanted is None or wanted == found:
        return ""
    if found is None:
        if any(not name.startswith(f"{head_name(network)}.") for name in missing):
            return ""
        return f". The checkpoint has no head, the network has {wanted} classes; train a new head on it"
    return (
        f". The class count does not match the checkpoint: checkpoint has {found} classes, network has {wanted}; "
        "use the data it was trained on, or train a new head on it"
    )
