"""A frozen network in its fastest form: the same function, other arithmetic.

Attacks, features and scores never change the network, so what training needs can go: batch normalisation becomes a
part of the convolution before it, or one multiplication and addition, and the gradient of PReLU leaves out that of its
slopes. On a processor the channels of a pixel lie together in memory, as its convolutions, poolings and PReLU want it.
Logits, read layers and gradients agree with the plain network up to rounding. That is checked before the fast form is
used: a rewrite with which they do not is left out.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import RLock
from typing import Any, Literal, TypedDict, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adv_detect.networks.capture import drop_reading_hooks, has_own_hooks, hooks_at_rest, read_modules
from adv_detect.networks.frozen_modules import FrozenNorm, FrozenPReLU, GreyConvolution
from adv_detect.networks.outputs import HALF
from adv_detect.networks.target import TargetNetwork

LOGGER = logging.getLogger(__name__)
Rewrite = Literal["fold", "norm", "prelu", "channels_last", "grey"]

TOLERANCE = 1e-4
"""Largest difference of logits and layers from the plain network, relative to the largest, of a form that is used."""
GRADIENT_TOLERANCE = 1e-2
"""Largest difference of gradients, as a share of their norm; rounding may move a ReLU across its kink."""
LEAST_LOGIT = 1e-6
PROBES = 2
"""Random images by which the two forms are compared."""
USUAL: tuple[Rewrite, ...] = ("fold", "norm", "prelu")
LAID_LAST: tuple[Rewrite, ...] = ("channels_last", "grey")
"""Rewrites for activations whose channels lie last in memory, as a processor wants them."""
_FORMS: WeakKeyDictionary[TargetNetwork, dict[tuple[torch.device, int], TargetNetwork | None]] = WeakKeyDictionary()


class _Making:
    """One fast form is made at a time; a forked process starts with a free lock."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = RLock()


_MAKING = _Making()


def working_form(target: TargetNetwork, device: torch.device) -> TargetNetwork:
    """Give the form of a frozen network in which it is attacked and read; made once per network and device.

    Args:
        target: The network under attack; it is moved to the device, and else left as it is.
        device: Where the work is done.

    Returns:
        A network of the same spec, module names, outputs and gradients (up to ``TOLERANCE``), on the device, whose
        tensors are not those of the stored network; or the network itself, where it is not frozen (``freeze``),
        computes in half precision, or has no fast form that agrees with it.
    """
    with _MAKING.lock:
        target.to(device)
        tensors = [*target.parameters(), *target.buffers()]
        if target.training or any(one.requires_grad or one.dtype in HALF for one in tensors):
            return target
        forms = _FORMS.setdefault(target, {})
        state = device, sum(one._version for one in tensors)  # weights loaded since count as another network
        if state not in forms:
            forms[state] = _best_form(target, device)
        return forms[state] or target


def agreeing_rewrites(target: TargetNetwork, device: torch.device) -> tuple[Rewrite, ...] | None:
    """Find the most rewrites with which a fast form agrees with the network.

    Args:
        target: The network, in evaluation mode without parameter gradients, on the device.
        device: Where the work is done.

    Returns:
        What :func:`fast_form` takes; None where no form agrees.
    """
    wanted = _evaluate(target)
    for rewrites in _choices(device):
        if _agrees(fast_form(target, rewrites=rewrites), wanted, rewrites):
            return rewrites
    LOGGER.warning("no fast form of network %s agrees with it, none is used", target.spec.name)
    return None


def _best_form(target: TargetNetwork, device: torch.device) -> TargetNetwork | None:
    """Make the form with the most rewrites that agrees with the network; None where none does."""
    rewrites = agreeing_rewrites(target, device)
    return None if rewrites is None else fast_form(target, rewrites=rewrites)


def _choices(device: torch.device) -> Iterator[tuple[Rewrite, ...]]:
    """Sets of rewrites to try: all, then all but one, then one alone."""
    if device.type == "cpu":
        yield (*USUAL, *LAID_LAST)
        yield (*USUAL, "channels_last")
    yield USUAL
    for left_out in USUAL:
        yield tuple(one for one in USUAL if one != left_out)
    for alone in USUAL:
        yield (alone,)


def fast_form(
    target: TargetNetwork,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    rewrites: Iterable[Rewrite] | None = None,
) -> TargetNetwork:
    """Copy a frozen network into its fast form.

    Args:
        target: The network under attack, in evaluation mode.
        memory_format: How activations of four dimensions lie in memory, where ``rewrites`` is None.
        rewrites: What is done; None means all for the memory format. ``fold`` makes batch normalisation a part of the
            convolution before it, ``norm`` a multiplication and an addition; ``prelu`` saves the gradient of slopes;
            ``channels_last`` lays activations so in memory, ``grey`` makes convolutions of one channel fit that.

    Returns:
        The copy. Every layer of the spec keeps its name and output; a convolution that took in its normalisation gives
        the normalised output, so one whose own output is read stays as it is.
    """
    last = LAID_LAST if memory_format is torch.channels_last else ()
    chosen = set((*USUAL, *last) if rewrites is None else rewrites)
    with hooks_at_rest():
        network = drop_reading_hooks(copy.deepcopy(target.network))
    if "fold" in chosen:
        _fold(network, target.spec.layers)
    if "norm" in chosen:
        _replace(network, nn.BatchNorm2d, FrozenNorm, where=_has_statistics)
    if "prelu" in chosen:
        _replace(network, nn.PReLU, FrozenPReLU)
    if "grey" in chosen:
        _replace(network, nn.Conv2d, GreyConvolution, where=_is_grey)
    if "channels_last" in chosen:
        network.to(memory_format=torch.channels_last)
    return TargetNetwork(target.spec, network).freeze()


def _fold(network: nn.Module, layers: Iterable[str]) -> None:
    """Make batch normalisations a part of the convolutions before them."""
    for convolution, norm in _foldable_pairs(network, layers):
        pair = cast(nn.Conv2d, network.get_submodule(convolution)), cast(nn.BatchNorm2d, network.get_submodule(norm))
        network.set_submodule(convolution, fuse_conv_bn_eval(*pair))
        network.set_submodule(norm, nn.Identity())


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
    return plain and not any(has_own_hooks(module) for module in (convolution, norm))


def _sees(layer: str, convolution: str, norm: str) -> bool:
    """Tell whether the output of a layer could be that of the convolution, before its normalisation."""
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
        if type(module) is kind and name and not has_own_hooks(module) and where(module):
            network.set_submodule(name, make(module))


def _has_statistics(norm: nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None


def _is_grey(convolution: nn.Conv2d) -> bool:
    padded = isinstance(convolution.padding, tuple) and convolution.padding_mode == "zeros"
    return convolution.in_channels == 1 and padded


class _Evaluation(TypedDict):
    """Outputs of a network for the probe images."""

    values: dict[str, Tensor]
    gradient: Tensor | None


def _evaluate(target: TargetNetwork) -> _Evaluation:
    """Run a network on random images: its logits, the outputs of its layers, and a gradient where it has one."""
    spec = target.spec
    low, high = spec.bounds
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(PROBES, *spec.image_shape, generator=generator) * (high - low) + low
    images = images.to(next((one.device for one in target.parameters()), torch.device("cpu")))
    values: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            values[name] = output.detach().clone()

    modules = {name: module for name, module in target.network.named_modules() if name in spec.layers}
    with torch.enable_grad(), read_modules(modules, keep):
        logits = target(images.requires_grad_())
    values[""] = logits.detach()
    weights = torch.rand(logits.shape, generator=generator).to(logits) + 0.5
    return _Evaluation(values=values, gradient=_gradient(logits, weights, images))


def _gradient(logits: Tensor, weights: Tensor, images: Tensor) -> Tensor | None:
    """Gradient of a weighted sum of the logits; None where there is none, such as after a broken in-place operation."""
    try:
        (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    except RuntimeError as exc:
        LOGGER.debug("the backward pass fails: %s", exc)
        return None
    return gradient


def _agrees(fast: TargetNetwork, wanted: _Evaluation, rewrites: Sequence[Rewrite]) -> bool:
    """Compare a form with what the plain network gave."""
    name = fast.spec.name
    try:
        found = _evaluate(fast)
    except RuntimeError as exc:  # such as `view` of activations that lie channels last
        LOGGER.debug("a fast form of network %s (%s) is not used: %s", name, ", ".join(rewrites), exc)
        return False
    values = [_difference(found["values"][key], value) for key, value in wanted["values"].items()]
    gradients = _gradient_difference(found["gradient"], wanted["gradient"])
    if all(one <= TOLERANCE for one in values) and gradients <= GRADIENT_TOLERANCE:  # NaN is neither
        return True
    LOGGER.warning(
        "a fast form of network %s (%s) is off by %.1e, its gradient by %.1e, and is not used",
        name, ", ".join(rewrites), max(values), gradients,
    )  # fmt: skip
    return False


def _difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(LEAST_LOGIT))


def _gradient_difference(found: Tensor | None, wanted: Tensor | None) -> float:
    """Norm of the difference as a share of the norm; infinite where one of them alone has no gradient."""
    if found is None or wanted is None:
        return 0.0 if found is wanted else float("inf")
    return float((found - wanted).norm() / wanted.norm().clamp_min(LEAST_LOGIT))
