"""Class representatives: medoid and centroid of every class, and the whitening, of every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.medoids import medoid_index
from adv_detect.algorithms.whitening import RowSampler, WithinClassCovariance
from adv_detect.errors import DataError, unknown_choice
from adv_detect.params import RepresentativesParams
from adv_detect.sharding.digests import tensors_digest

__all__ = [
    "ClassFeatures",
    "Representatives",
    "centroid",
    "fit_representatives",
    "medoid_index",
    "representatives_digest",
    "representatives_from_tensors",
    "representatives_tensors",
]

ClassFeatures = tuple[int, Sequence[Tensor], Sequence[str]]
"""Class index, one ``(n_c, D_l)`` tensor per layer, and the source id of each of the ``n_c`` images."""

PARTS = ("medoids", "centroids", "whitening")


@dataclass(frozen=True, eq=False)
class Representatives:
    """Class representatives of all layers.

    Attributes:
        layers: Names of the L layers, in network order.
        class_names: Names of the C classes.
        medoids: Per layer, float32, ``(C, D_l)``.
        centroids: Per layer, float32, ``(C, D_l)``.
        whitening: Per layer, symmetric, float32, ``(D_l, D_l)``.
        medoid_source_ids: Per layer and class, the training image that is the medoid.
    """

    layers: tuple[str, ...]
    class_names: tuple[str, ...]
    medoids: list[Tensor]
    centroids: list[Tensor]
    whitening: list[Tensor]
    medoid_source_ids: list[list[str]]

    def of(self, kind: str) -> list[Tensor]:
        """Return one kind of representatives.

        Args:
            kind: ``medoid`` or ``centroid``.

        Returns:
            Per layer, ``(C, D_l)``.

        Raises:
            ConfigurationError: Unknown kind.
        """
        kinds = {"medoid": self.medoids, "centroid": self.centroids}
        if kind not in kinds:
            raise unknown_choice("representative", kind, kinds)
        return kinds[kind]

    def to(self, device: torch.device | str) -> Representatives:
        """Return the same representatives on a device."""
        return replace(
            self,
            medoids=[tensor.to(device) for tensor in self.medoids],
            centroids=[tensor.to(device) for tensor in self.centroids],
            whitening=[tensor.to(device) for tensor in self.whitening],
        )


def centroid(features: Tensor) -> Tensor:
    """Average the members of a class.

    Args:
        features: Shape ``(n, D)``, at least one row.

    Returns:
        Shape ``(D,)``, in the dtype of the features; summed in float64.

    Raises:
        DataError: There is no row, or the shape is not ``(n, D)``.
    """
    if features.dim() != 2 or len(features) == 0:
        raise DataError(f"features: expected shape (n, D) with at least one row, got {tuple(features.shape)}")
    return features.to(torch.float64).mean(dim=0).to(features.dtype)


def fit_representatives(
    class_features: Iterable[ClassFeatures] | Callable[[], Iterable[ClassFeatures]],
    *,
    layers: Sequence[str],
    class_names: Sequence[str],
    params: RepresentativesParams,
    seed: int = 0,
) -> Representatives:
    """Compute all representatives in one pass, with one class in memory at a time.

    The whitening is the inverse square root of the covariance around the class means (divided by the number of
    images, not by the degrees of freedom), accumulated exactly and shrunk; the shrinkage coefficient comes from a
    random sample of at most ``params.shrinkage_samples`` images.

    Args:
        class_features: Features of correctly classified training images, each class once, in any order; or a function
            that gives them.
        layers: Names of the layers, in the order of the features.
        class_names: Name of each class.
        params: Shrinkage, sample size, memory budget.
        seed: Seed of the sample.

    Returns:
        The representatives, on the CPU.

    Raises:
        DataError: A class has no image (all such classes are named), comes twice or is unknown; or features do not
            have one finite ``(n, D_l)`` tensor per layer with one source id per row.
    """
    fit = _Fit(tuple(layers), tuple(class_names), params, seed)
    for class_index, features, source_ids in class_features() if callable(class_features) else class_features:
        fit.add(class_index, features, source_ids)
    return fit.result()


def representatives_tensors(representatives: Representatives) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split representatives into what safetensors and JSON can hold.

    Args:
        representatives: What to store.

    Returns:
        Tensors ``<part>.<layer number>``, and the names as plain lists.
    """
    tensors = {
        f"{part}.{number:03d}": tensor.detach().cpu().contiguous()
        for part in PARTS
        for number, tensor in enumerate(getattr(representatives, part))
    }
    names = {
        "layers": list(representatives.layers),
        "class_names": list(representatives.class_names),
        "medoid_source_ids": [list(ids) for ids in representatives.medoid_source_ids],
    }
    return tensors, names


def representatives_from_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Representatives:
    """Put together what :func:`representatives_tensors` gave.

    Args:
        tensors: The tensors.
        metadata: The names.

    Returns:
        The representatives.

    Raises:
        DataError: A tensor or a name is missing.
    """
    try:
        layers = tuple(metadata["layers"])
        lists = {part: [tensors[f"{part}.{number:03d}"] for number in range(len(layers))] for part in PARTS}
        class_names, ids = tuple(metadata["class_names"]), [list(one) for one in metadata["medoid_source_ids"]]
    except KeyError as exc:
        raise DataError(f"representatives: {exc} is missing; run the pipeline representatives again") from exc
    return Representatives(layers=layers, class_names=class_names, medoid_source_ids=ids, **lists)


def representatives_digest(representatives: Representatives) -> str:
    """Fingerprint representatives.

    Args:
        representatives: What to fingerprint.

    Returns:
        SHA-256, in hexadecimal, of all tensors and names.
    """
    return tensors_digest(*representatives_tensors(representatives))


@dataclass(frozen=True)
class _ClassSummary:
    """Summary of one class at one layer."""

    medoid: Tensor
    centroid: Tensor
    source_id: str


class _Fit:
    """The state of one pass over the classes."""

    def __init__(
        self, layers: tuple[str, ...], names: tuple[str, ...], params: RepresentativesParams, seed: int
    ) -> None:
        self._layers = layers
        self._names = names
        self._params = params
        self._sampler = RowSampler(params.shrinkage_samples, seed)
        self._covariances: list[WithinClassCovariance] = []
        self._summaries: dict[int, list[_ClassSummary]] = {}

    def add(self, class_index: int, features: Sequence[Tensor], source_ids: Sequence[str]) -> None:
        """Take in one class; one without images is left for :meth:`result` to name."""
        self._check(class_index, features, source_ids)
        if len(source_ids) == 0:
            return
        if not self._covariances:
            widths = [layer.shape[1] for layer in features]
            self._covariances = [WithinClassCovariance(width, self._params.shrinkage_samples) for width in widths]
        rows, slots = self._sampler.offer(len(source_ids))
        for layer, covariance in zip(features, self._covariances, strict=True):
            covariance.add(layer, rows=rows, slots=slots)
        self._summaries[class_index] = [self._summary(layer, source_ids) for layer in features]

    def result(self) -> Representatives:
        """Stack the classes and invert the covariances."""
        missing = [name for index, name in enumerate(self._names) if index not in self._summaries]
        if missing:
            raise DataError(
                "representatives: expected at least one correctly classified training image of every class, got none "
                f"for {missing}; train the network longer, give these classes more images or leave them out"
            )
        per_layer = [[self._summaries[index][layer] for index in range(len(self._names))] for layer in self._numbers]
        return Representatives(
            layers=self._layers,
            class_names=self._names,
            medoids=[torch.stack([one.medoid for one in classes]) for classes in per_layer],
            centroids=[torch.stack([one.centroid for one in classes]) for classes in per_layer],
            whitening=[one.whitening(self._params.shrinkage, self._sampler.filled) for one in self._covariances],
            medoid_source_ids=[[one.source_id for one in classes] for classes in per_layer],
        )

    @property
    def _numbers(self) -> range:
        return range(len(self._layers))

    def _summary(self, features: Tensor, source_ids: Sequence[str]) -> _ClassSummary:
        index = medoid_index(features, memory_budget_mb=self._params.memory_budget_mb)
        values = features.detach().to(torch.float32)
        return _ClassSummary(values[index].cpu().clone(), centroid(values).cpu(), source_ids[index])

    def _check(self, class_index: int, features: Sequence[Tensor], source_ids: Sequence[str]) -> None:
        if not 0 <= class_index < len(self._names) or class_index in self._summaries:
            raise DataError(
                f"representatives: expected each class 0 to {len(self._names) - 1} once, got {class_index} "
                f"after {sorted(self._summaries)}"
            )
        known = [one.width for one in self._covariances] or [layer.shape[-1] for layer in features]
        expected = [(len(source_ids), width) for width in known]
        got = [tuple(layer.shape) for layer in features]
        if len(features) != len(self._layers) or got != expected:
            raise DataError(
                f"representatives: expected features of shapes {expected} for class {self._names[class_index]!r}, "
                f"one for each of {len(self._layers)} layers and one row for each source id, got {got}"
            )
