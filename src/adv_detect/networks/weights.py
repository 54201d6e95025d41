"""Loading of weights: every tensor accounted for, or an error that says which are not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from adv_detect.errors import CheckpointError
from adv_detect.networks.checkpoint_files import read_state_dicts
from adv_detect.networks.finite import check_finite
from adv_detect.networks.foreign_names import own_name
from adv_detect.networks.name_forms import NameForm, name_forms

LOGGER = logging.getLogger(__name__)
COUNTER = "num_batches_tracked"
SHOWN = 5
USUAL = (
    "model_state_dict", "state_dict", "model_state", "model", "network", "net", "module", "weights", "params",
    "checkpoint", "ckpt",
)  # fmt: skip
"""Names of the dictionaries that hold the trained weights, the most telling first."""
AVERAGED = ("ema", "swa", "averag", "teacher", "shadow")
"""Parts of the names of dictionaries that hold running averages of weights."""


@dataclass(frozen=True)
class _Comparison:
    """Comparison of the tensors of a file with those of a network.

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
    def misfits(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)


@dataclass(frozen=True)
class _Reading:
    """One state dict of a file in the form of its names that fits a network best.

    Attributes:
        entry: Dotted path of the dictionary in the file; empty for the file itself.
        form: Its tensors, named as in the file but for a prefix.
        tensors: The same by their names in the network.
        comparison: How they fit.
    """

    entry: str
    form: NameForm
    tensors: dict[str, Tensor]
    comparison: _Comparison

    @property
    def place(self) -> str:
        """Describe the place of the tensors, in words that follow the name of the file."""
        parts = [f"entry {self.entry!r}" if self.entry else "", self.form.change]
        return "".join(f", {part}" for part in parts if part)

    @property
    def rank(self) -> tuple[int, int]:
        """Order of preference: trained weights under a usual name, under another one, running averages."""
        words = [word.lower() for word in self.entry.split(".") if word]
        if any(part in word for word in words for part in AVERAGED):
            return 2, 0
        usual = [USUAL.index(word) for word in words if word in USUAL]
        return (0, min(usual, default=-1)) if len(usual) == len(words) else (1, 0)


def load_weights(network: nn.Module, path: str | Path, *, strict_head: bool = True) -> None:
    """Load a weight file into a network.

    The form of the file is recognised by content: safetensors, ``torch.save`` dictionaries, and pickled dictionaries
    of NumPy arrays; foreign tensor names of ``small``, ``wide`` and ``senet50`` are translated. Dictionaries within
    dictionaries are looked into, and prefixes such as ``module.`` or ``model.`` taken off, where every name then fits;
    of several state dicts that fit, trained weights go before running averages, and the log says so. No code from the
    file is run.

    Args:
        network: The network; its parameters and buffers are overwritten, or left alone on an error.
        path: The weight file.
        strict_head: Whether the file must hold a head of the network's class count. False keeps the network's own
            head where the file has none or one of another size.

    Raises:
        CheckpointError: When the file cannot be read, lacks tensors, holds others or some of another shape, or numbers
            that are not finite; the message names them, and says so where the class count is what differs.
    """
    readings = _readings(network, path, strict_head=strict_head)
    fitting = [one for one in readings if not one.comparison.misfits]
    if not fitting:
        raise CheckpointError(_message(network, min(readings, key=lambda one: one.comparison.misfits), path))
    chosen = _choose(fitting, path)
    usable = chosen.comparison.usable
    check_finite(network, usable, f"checkpoint '{path}'{chosen.place}")
    network.load_state_dict(usable, strict=False)


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


def _readings(network: nn.Module, path: str | Path, *, strict_head: bool) -> list[_Reading]:
    own = dict(network.state_dict())
    head = head_name(network)
    return [
        _best_reading(network, own, entry, tensors, optional_head=None if strict_head else head)
        for entry, tensors in read_state_dicts(path).items()
    ]


def _best_reading(
    network: nn.Module, own: dict[str, Tensor], entry: str, tensors: dict[str, Tensor], *, optional_head: str | None
) -> _Reading:
    """Read the names as they stand, else in the first form that fits, else in the one that nearly does."""
    best: _Reading | None = None
    for form in name_forms(tensors, own):
        named = _translate(network, own, form.tensors)
        kept = named if optional_head is None else _without_foreign_head(own, named, optional_head)
        comparison = _compare(own, kept, optional_head=optional_head)
        if best is None or comparison.misfits < best.comparison.misfits:
            best = _Reading(entry, form, named, comparison)
        if not comparison.misfits:
            break
    assert best is not None  # the first form is the tensors as they stand
    return best


def _choose(fitting: list[_Reading], path: str | Path) -> _Reading:
    """Take trained weights before running averages, and say in the log what was taken."""
    ordered = sorted(fitting, key=lambda one: one.rank)
    chosen, others = ordered[0], ordered[1:]
    unclear = [one.entry for one in ordered if one.rank == (1, 0)]
    if chosen.rank == (1, 0) and len(unclear) > 1:
        raise CheckpointError(
            f"checkpoint '{path}': expected weights of one network, got {len(unclear)} entries that fit: "
            f"{_first(unclear)}; save the one that is meant alone"
        )
    if others:
        LOGGER.info(
            "checkpoint '%s': took entry %r (trained weights go before running averages); fitting too: %s; save one of "
            "these alone to have it instead", path, chosen.entry, _first(repr(one.entry) for one in others),
        )  # fmt: skip
    if chosen.form.change:
        LOGGER.info("checkpoint '%s': names taken %s", path, chosen.form.change)
    return chosen


def _head_classes(network: nn.Module, tensors: dict[str, Tensor]) -> int | None:
    weight = tensors.get(f"{head_name(network)}.weight")
    return None if weight is None or weight.dim() == 0 else int(weight.shape[0])


def _translate(network: nn.Module, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to the network's names and drop trailing axes of size one where only these differ."""
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


def _without_foreign_head(own: Mapping[str, Tensor], tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Drop the head of a file when it does not fit the network's head in every tensor."""
    prefix = f"{head}."
    wanted = {name: value.shape for name, value in own.items() if name.startswith(prefix)}
    found = {name: value.shape for name, value in tensors.items() if name.startswith(prefix)}
    return tensors if wanted == found else {name: value for name, value in tensors.items() if name not in found}


def _compare(own: Mapping[str, Tensor], tensors: dict[str, Tensor], *, optional_head: str | None) -> _Comparison:
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


def _message(network: nn.Module, reading: _Reading, path: str | Path) -> str:
    comparison = reading.comparison
    parts = [
        f"{len(names)} {kind}: {_first(names)}"
        for kind, names in (
            ("missing", comparison.missing),
            ("unexpected", comparison.unexpected),
            ("of the wrong shape", comparison.misshaped),
        )
        if names
    ]
    hint = _head_hint(network, reading.tensors, comparison.missing)
    return f"checkpoint '{path}'{reading.place} does not fit {type(network).__name__}: {'; '.join(parts)}{hint}"


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
