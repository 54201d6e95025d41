"""Detectors of the library pytorch-ood, as detectors of this project."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adv_detect.algorithms.detectors.activations import Activations
from adv_detect.algorithms.detectors.base import Detector, FitHistory, LearnsFrom, Reads
from adv_detect.algorithms.detectors.published.state import captured_state, with_state
from adv_detect.algorithms.representatives import Representatives
from adv_detect.errors import ConfigurationError, DataError

LIBRARY = "pytorch_ood"
LOGITS, FEATURES, STRUCTURED = "logits", "features", "structured"
WITH_GRADIENT = (
    "Entropy", "EnergyBased", "GEN", "KLMatching", "MaxLogit", "MaxSoftmax", "SHE", "TemperatureScaling",
)  # fmt: skip
"""Detectors of pytorch-ood 0.4 whose scores pass a gradient; the others detach, or leave torch."""
NETWORK = ("model", "encoder")
"""Arguments of constructors that stand for the network, which is not needed for activations."""
HEAD, HEAD_WEIGHT, HEAD_BIAS = "head", "w", "b"
LINEAR_FROM = 0.999
"""Share of the variance of the logits that a linear function of the last layer must explain to count as the head."""


class PytorchOodDetector(Detector):
    """A detector of pytorch-ood on activations: logits, features of the last layer, or features of all layers.

    Labels, where it learns with them, are the classes that the network gives to the clean images, which it classifies
    correctly. Where its constructor takes the last linear layer (``w`` and ``b``, or ``head``), that is recovered by
    least squares from features and logits of clean images; a network whose last layer read does not determine the
    logits linearly is refused. Its fitted state is kept in buffers, by the names of its attributes.

    Attributes:
        wrapped: Class of the library.
        reading: ``logits``, ``features`` or ``structured``.
    """

    learns_from = LearnsFrom.NOTHING
    differentiable = False
    wrapped: ClassVar[Any] = None
    reading: ClassVar[str] = LOGITS

    def __init__(self, representatives: Representatives, **arguments: Any) -> None:
        """Construct the wrapped detector, with zeros for the last layer of the network.

        Args:
            representatives: Class representatives of the network under attack.
            arguments: Those of the wrapped class beside the network and its last layer.

        Raises:
            ConfigurationError: They are of values that it does not take, or its state cannot be stored.
        """
        super().__init__()
        self.layers, self.arguments = representatives.layers, arguments
        self.shape = len(representatives.class_names), representatives.centroids[-1].shape[1]
        self.clean_needed = max(int(arguments.get("k", 0)), 1) if self.learns_from is LearnsFrom.CLEAN else 0
        self._made = self._make(torch.zeros(self.shape), torch.zeros(self.shape[0]))
        captured_state(self._made, self.wrapped.__name__)  # refuses here, not after the attacks, what cannot be stored
        self._in_use: tuple[tuple[int, int], ...] = ()

    def forward(self, activations: Activations) -> Tensor:
        """Score images with the wrapped detector, ``(N,)``."""
        scores: Tensor = getattr(self._ready(), f"predict_{self.reading}")(self._read(activations))
        return scores.to(activations.logits.device, activations.logits.dtype)

    def fit(self, clean: Activations, attacked: Activations | None, *, seed: int) -> FitHistory:
        """Fit the wrapped detector to clean images."""
        if self.learns_from is LearnsFrom.NOTHING:
            return []
        if len(clean) < self.clean_needed:
            raise DataError(
                f"{self.wrapped.__name__}: expected at least {self.clean_needed} clean images, got {len(clean)}; use "
                "more images or a smaller k"
            )
        clean = clean.detach().to("cpu")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if self._takes(HEAD, HEAD_WEIGHT):
                self._made = self._make(*linear_head(clean.features[self.layers[-1]], clean.logits))
            if hasattr(self._made, f"fit_{self.reading}"):
                self._fit_wrapped(clean)
        self._keep(captured_state(self._made, self.wrapped.__name__))
        return []

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Register a buffer for each part of a stored state."""
        self._keep({name: torch.empty_like(value) for name, value in state.items()})

    def _fit_wrapped(self, clean: Activations) -> None:
        labels = clean.logits.argmax(dim=1)
        try:
            getattr(self._made, f"fit_{self.reading}")(self._read(clean), labels)
        except (AssertionError, ValueError, RuntimeError) as exc:
            counts = labels.bincount(minlength=self.shape[0])
            raise DataError(
                f"{self.wrapped.__name__}: it cannot be fitted to {len(clean)} clean images ({exc or 'no reason'}); "
                f"of each of the {self.shape[0]} classes there are {int(counts.min())} to {int(counts.max())}"
            ) from exc

    def _read(self, activations: Activations) -> Any:
        """Give the part of the activations that the wrapped detector reads; fitted ones take float32 alone."""
        if self.reading == LOGITS:
            return activations.logits.float() if self.learns_from is LearnsFrom.CLEAN else activations.logits
        parts = activations.of_layers(self.layers if self.reading == STRUCTURED else self.layers[-1:])
        parts = [part.float() for part in parts]
        return parts if self.reading == STRUCTURED else parts[0]

    def _keep(self, state: Mapping[str, Tensor]) -> None:
        for name in [name for name in self._buffers if name not in state]:
            del self._buffers[name]
        for name, value in state.items():
            self.register_buffer(name, value)
        self._in_use = ()

    def _ready(self) -> Any:
        """Give the wrapped detector with the state that lies in the buffers, on their device."""
        held = dict(self.named_buffers(recurse=False))
        current = tuple((id(value), value._version) for value in held.values())
        if held and current != self._in_use:
            with_state(self._made, held)
            self._in_use = current
        if self.learns_from is LearnsFrom.CLEAN and not held:
            raise DataError(f"{self.wrapped.__name__}: it has not been fitted; call fit")
        return self._made

    def _takes(self, *names: str) -> bool:
        return any(name in signature(self.wrapped.__init__).parameters for name in names)

    def _make(self, weight: Tensor, bias: Tensor) -> Any:
        given: dict[str, Any] = dict.fromkeys(name for name in NETWORK if self._takes(name))
        if self.reading == STRUCTURED:
            given["model"] = [nn.Identity() for _ in self.layers]
        if self._takes(HEAD_WEIGHT):
            given |= {HEAD_WEIGHT: weight, HEAD_BIAS: bias}
        if self._takes(HEAD):
            given[HEAD] = _linear(weight, bias)
        twice = sorted(set(given) & set(self.arguments))
        if twice:
            raise ConfigurationError(f"arguments {twice}: they are given by the network, leave them out")
        try:
            return self.wrapped(**given, **self.arguments)
        except ValueError as exc:
            raise ConfigurationError(f"arguments of {self.wrapped.__name__}: {exc}") from exc


def is_library_detector(found: object) -> bool:
    """Tell whether an object is a detector class of the library; nothing is imported for this."""
    return isinstance(found, type) and any(
        base.__module__ == f"{LIBRARY}.api" and base.__name__ == "Detector" for base in found.__mro__
    )


@cache
def adapted(found: type) -> type[Detector]:
    """Make the detector class for a class of the library.

    Args:
        found: Class of a detector.

    Returns:
        A subclass of :class:`PytorchOodDetector`.

    Raises:
        ConfigurationError: It reads what activations do not hold.
    """
    reading = _reading(found)
    takes_head = any(name in signature(found).parameters for name in (HEAD, HEAD_WEIGHT))
    learns = bool(getattr(found, "requires_fit", False)) or takes_head
    facts: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": found.__doc__,
        "wrapped": found,
        "reading": reading,
        "reads": Reads(layers=reading != LOGITS),
        "learns_from": LearnsFrom.CLEAN if learns else LearnsFrom.NOTHING,
        "differentiable": found.__name__ in WITH_GRADIENT,
    }
    return type(found.__name__, (PytorchOodDetector,), facts)


def linear_head(features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Recover the last linear layer of a network from its input and output.

    Args:
        features: Of the last layer read, ``(N, D)``.
        logits: Shape ``(N, C)``.

    Returns:
        Weight ``(C, D)`` and bias ``(C,)``; of all that explain the logits equally well the shortest.

    Raises:
        DataError: The logits are no linear function of the features.
    """
    points, said = features.double(), logits.double()
    centre, middle = points.mean(dim=0), said.mean(dim=0)
    weight = torch.linalg.lstsq(points - centre, said - middle, driver="gelsd").solution
    rest = (said - middle - (points - centre) @ weight).square().sum() / (said - middle).square().sum().clamp_min(1e-30)
    if float(rest) > 1 - LINEAR_FROM:
        raise DataError(
            f"expected logits that are a linear function of the last layer read, got one that explains "
            f"{1 - float(rest):.1%} of their variance; name the layer before the last linear one last in "
            "network.layers, or use a detector that does not take the weights of the network"
        )
    return weight.T.float().contiguous(), (middle - centre @ weight).float()


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight, "bias": bias})
    return made.requires_grad_(False)


def _reading(found: type) -> str:
    """Name the part of the activations that a class of the library reads."""
    for reading in (LOGITS, FEATURES, STRUCTURED):
        if callable(getattr(found, f"predict_{reading}", None)) and found.__name__ not in UNUSABLE:
            return reading
    needs = "the network and its gradients" if "Gradient" in str(found.__mro__) else "images or unpooled feature maps"
    raise ConfigurationError(
        f"detector kind {found.__module__}.{found.__name__}: it needs {UNUSABLE.get(found.__name__, needs)}, and "
        "detectors read activations (logits and pooled features of layers) and are stored as tensors; use one of "
        "pytorch-ood with predict_logits or predict_features"
    )


UNUSABLE = {
    "Gram": "unpooled feature maps",
    "MCM": "embeddings of texts",
    "OpenMax": "an object of its own as fitted state",
}
"""Classes of the library that read parts of the activations by name only, or cannot be stored, with the reason."""
