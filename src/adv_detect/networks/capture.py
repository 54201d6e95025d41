"""Outputs of modules, handed to whoever asked for them in the same thread of work.

One forward hook per module serves all readers of a moment. It keeps nothing itself: its receiver lies in a
context variable, so that concurrent forward passes of one network, nested ones, and ones that nobody reads do not see
each other. The hook is there only while somebody reads; networks are stored, copied and freed as without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock

from torch import nn
from torch.utils.hooks import RemovableHandle

Receiver = Callable[[str, nn.Module, object, object], None]
"""Is given the name of a module, the module, its arguments and its output."""


@dataclass(frozen=True)
class _Reader:
    """Reader of this thread of work: names by the identity of a module, and the place of outputs."""

    names: Mapping[int, tuple[str, ...]]
    receive: Receiver


@dataclass
class _Registration:
    """The hook of one module and how many readers it has, in all threads."""

    module: nn.Module
    handle: RemovableHandle
    readers: int = 0


_READERS: ContextVar[tuple[_Reader, ...]] = ContextVar("readers", default=())


class _Registrations:
    """Puts the hook on a module for its first reader and takes it off after the last.

    The lock is held while hooks come and go, never during a forward pass.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._registrations: dict[int, _Registration] = {}
        if hasattr(os, "register_at_fork"):  # a process forked while another thread held the lock would wait for ever
            os.register_at_fork(after_in_child=self._renew)

    def add(self, modules: Mapping[int, nn.Module]) -> None:
        with self.lock:
            for key, module in modules.items():
                registration = self._registrations.get(key)
                if registration is None:
                    registration = self._registrations[key] = _Registration(
                        module, module.register_forward_hook(_deliver)
                    )
                registration.readers += 1

    def remove(self, modules: Mapping[int, nn.Module]) -> None:
        with self.lock:
            for key in modules:
                registration = self._registrations[key]
                registration.readers -= 1
                if not registration.readers:
                    registration.handle.remove()
                    del self._registrations[key]

    def _renew(self) -> None:
        self.lock = RLock()


_REGISTRATIONS = _Registrations()


@contextmanager
def read_modules(modules: Mapping[str, nn.Module], receive: Receiver) -> Iterator[None]:
    """Hand over the outputs of modules during the forward passes that are run inside the context.

    Safe in threads and tasks: only passes of the same thread of work are read. Contexts may be nested, each gets all.

    Args:
        modules: Module by name; one module may have several names.
        receive: Called at each run of each module, while the forward pass goes on; what it raises ends the pass.

    Yields:
        Nothing; leaving the context takes the hooks off, also after an error.
    """
    names: dict[int, tuple[str, ...]] = {}
    for name, module in modules.items():
        names[id(module)] = (*names.get(id(module), ()), name)
    by_key = {id(module): module for module in modules.values()}
    _REGISTRATIONS.add(by_key)
    token = _READERS.set((*_READERS.get(), _Reader(names, receive)))
    try:
        yield
    finally:
        _REGISTRATIONS.remove(by_key)
        _READERS.reset(token)


@contextmanager
def unread() -> Iterator[None]:
    """Keep outputs of forward passes inside the context from the readers around it."""
    token = _READERS.set(())
    try:
        yield
    finally:
        _READERS.reset(token)


@contextmanager
def hooks_at_rest() -> Iterator[None]:
    """Let no hook come or go, so that a network can be copied while others read it."""
    with _REGISTRATIONS.lock:
        yield


def drop_reading_hooks(network: nn.Module) -> nn.Module:
    """Take the hooks that a copy has from readers of its original off it; return it."""
    for module in network.modules():
        for key in [key for key, hook in module._forward_hooks.items() if hook is _deliver]:
            del module._forward_hooks[key]
    return network


def has_own_hooks(module: nn.Module) -> bool:
    """Tell whether a module has hooks of its own, readers left out."""
    return bool(module._forward_pre_hooks) or any(hook is not _deliver for hook in module._forward_hooks.values())


def _deliver(module: nn.Module, inputs: object, output: object) -> None:
    """Forward hook: a function without state, so that a network can be pickled while it is read."""
    key = id(module)
    for reader in _READERS.get():
        for name in reader.names.get(key, ()):
            reader.receive(name, module, inputs, output)
