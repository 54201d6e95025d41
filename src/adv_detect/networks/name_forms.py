"""Tensor names without what training frameworks put before them, such as ``module._orig_mod.``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Parts that compilation and parallel training put before a name or within it."""

BOOKKEEPING = ("n_averaged",)
"""Tensors that wrappers keep beside the network's."""

MOST_PARTS = 4
"""How many first parts of names are tried, the most frequent ones."""

MOST_STRIPPED = 4
"""How many parts are taken off one after the other."""


@dataclass(frozen=True)
class NameForm:
    """The tensors of a state dict under one reading of their names.

    Attributes:
        removed: What was taken off the names, such as ``module._orig_mod.``; empty for nothing.
        added: Prefix of all names; empty for nothing.
        tensors: Tensor by its name in this form.
    """

    removed: str
    added: str
    tensors: dict[str, Tensor]

    @property
    def change(self) -> str:
        """The change of the names in words; empty for none."""
        if self.added:
            return f"with the prefix {self.added!r} added"
        return f"without the prefix {self.removed!r}" if self.removed else ""


def name_forms(tensors: Mapping[str, Tensor], own: Collection[str]) -> Iterator[NameForm]:
    """List the readings of the names of a state dict: as they stand first, then with ever more taken off.

    Which one is right is for the caller to find out: the one under which every name fits the network.

    Args:
        tensors: Tensor by its name in the file.
        own: Names in the network.

    Yields:
        Forms without repetition; a part is taken off all names that begin with it, where these stay distinct.
    """
    layer = [NameForm("", "", dict(tensors))]
    seen = {frozenset(tensors)}
    for _ in range(MOST_STRIPPED + 1):
        yield from layer
        grown = [longer for form in layer for longer in _stripped(form, own)]
        layer = []
        for form in grown:
            names = frozenset(form.tensors)
            if names not in seen:
                seen.add(names)
                layer.append(form)
    added = _common_part(own)
    if added and not any(name.startswith(added) for name in tensors):
        yield NameForm("", added, {added + name: tensor for name, tensor in tensors.items()})


def _stripped(form: NameForm, own: Collection[str]) -> Iterator[NameForm]:
    for part in _candidates(form.tensors, own):
        prefix = f"{part}."
        yield from _renamed(form, prefix, [name.removeprefix(prefix) for name in form.tensors])
    for wrapper in WRAPPERS:
        within = [".".join(part for part in name.split(".") if part != wrapper) for name in form.tensors]
        yield from _renamed(form, f"{wrapper}.", within)


def _renamed(form: NameForm, removed: str, names: list[str]) -> Iterator[NameForm]:
    """Give the form with these names, less the bookkeeping of wrappers; nothing where two names become one."""
    if len(set(names)) == len(names) and "" not in names:
        pairs = zip(names, form.tensors.values(), strict=True)
        yield NameForm(form.removed + removed, "", {name: one for name, one in pairs if name not in BOOKKEEPING})


def _candidates(names: Collection[str], own: Collection[str]) -> list[str]:
    """First parts of names that the network does not have, or that all names share; the most frequent first."""
    firsts = Counter(name.split(".", 1)[0] for name in names if "." in name)
    present = {name.split(".", 1)[0] for name in own}
    usual = [part for part, count in firsts.most_common() if part not in present or count == len(names)]
    return usual[:MOST_PARTS]


def _common_part(names: Collection[str]) -> str:
    """First part that all names share, with its dot; empty for none."""
    firsts = {name.split(".", 1)[0] for name in names if "." in name}
    return f"{firsts.pop()}." if len(firsts) == 1 and all("." in name for name in names) else ""
