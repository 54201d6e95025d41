"""Activations: what a network said about images, the one input of every detector."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from adv_detect.errors import DataError
from adv_detect.names import BENIGN


@dataclass(frozen=True, eq=False)
class Activations:
    """Logits and pooled features of N images, and what further detectors ask for.

    Attributes:
        logits: Class logits of the network under attack, ``(N, C)``.
        features: Pooled features ``(N, D_l)`` by layer name, in network order.
        views: Class logits ``(N, C)`` of altered copies of the images, by the name of the view.
        twin: Log-probabilities ``(N, C)`` of the classes by a second network; None where no detector reads them.
        groups: ``natural``, ``benign/<change>`` or ``<attack>/<criterion>`` of each row; empty where not known.
        sources: Number of the source image of each row, int64 ``(N,)``; None where not known.
    """

    logits: Tensor
    features: Mapping[str, Tensor]
    views: Mapping[str, Tensor] = field(default_factory=dict)
    twin: Tensor | None = None
    groups: tuple[str, ...] = ()
    sources: Tensor | None = None
    _derived: dict[Hashable, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that all parts have a row per image."""
        rows = len(self.logits)
        for name, part in self._named():
            if len(part) != rows:
                raise DataError(f"activations: expected {rows} rows of {name} as there are logits, got {len(part)}")
        if self.groups and len(self.groups) != rows:
            raise DataError(f"activations: expected {rows} groups as there are logits, got {len(self.groups)}")
        if self.sources is not None and len(self.sources) != rows:
            raise DataError(f"activations: expected {rows} sources as there are logits, got {len(self.sources)}")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.logits)

    def derived(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """Compute a quantity of these images once, for all detectors that read it.

        Args:
            key: Names the quantity.
            compute: Called where it was not computed before.

        Returns:
            The quantity, a row per image.
        """
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]

    def of_layers(self, layers: Sequence[str]) -> list[Tensor]:
        """Give the features of some layers.

        Args:
            layers: Their names.

        Returns:
            One ``(N, D_l)`` tensor per layer, in the order of the names.

        Raises:
            DataError: A layer was not read.
        """
        missing = [name for name in layers if name not in self.features]
        if missing:
            raise DataError(
                f"activations: expected features of the layers {list(layers)}, missing are {missing}; read them "
                "with the layers that the representatives come from"
            )
        return [self.features[name] for name in layers]

    def select(self, rows: Tensor) -> Activations:
        """Keep some images.

        Args:
            rows: Bool ``(N,)``, or indices.

        Returns:
            Their activations.
        """
        indices = torch.nonzero(rows).flatten() if rows.dtype == torch.bool else rows
        groups = tuple(self.groups[row] for row in indices.tolist()) if self.groups else ()
        return replace(self._map(lambda part: part[indices.to(part.device)]), groups=groups)

    def to(self, device: torch.device | str) -> Activations:
        """Return the same activations on a device."""
        return self if self.logits.device == torch.device(device) else self._map(lambda part: part.to(device))

    def keep(self, *, views: Collection[str], twin: bool) -> Activations:
        """Return the same activations without the views and the twin that nobody reads.

        Args:
            views: Names of the views to keep, where they are there.
            twin: Whether to keep what the twin says.

        Returns:
            Logits, features and these.
        """
        kept = {name: part for name, part in self.views.items() if name in views}
        return replace(self, views=kept, twin=self.twin if twin else None)

    def unchanged(self) -> Activations:
        """Leave out the images that a benign change was made to."""
        kept = torch.tensor([not group.startswith(BENIGN) for group in self.groups])
        return self if not self.groups or bool(kept.all()) else self.select(kept)

    def detach(self) -> Activations:
        """Return the same activations without their graph."""
        return self._map(Tensor.detach)

    def blocks(self, size: int) -> Iterator[Activations]:
        """Cut into blocks of at most ``size`` images; nothing is copied."""
        for start in range(0, len(self), size):
            block = slice(start, start + size)
            yield replace(self._map(lambda part, block=block: part[block]), groups=self.groups[block])  # type: ignore[misc]

    @classmethod
    def concatenate(cls, parts: Iterable[Activations]) -> Activations:
        """Put activations of the same layers and views below each other.

        Args:
            parts: At least one.

        Returns:
            All rows, in order.

        Raises:
            DataError: There is no part, or they hold different layers or views.
        """
        found = list(parts)
        if not found:
            raise DataError("activations: expected at least one part, got none; run the pipeline detector_training")
        first = found[0]
        if any(tuple(dict(one._named())) != tuple(dict(first._named())) for one in found):
            held = sorted({", ".join(name for name, _ in one._named()) for one in found})
            raise DataError(f"activations: expected parts of the same layers and views, got {held}")
        if len(found) == 1:
            return first
        sources = [one.sources for one in found if one.sources is not None]
        twins = [one.twin for one in found if one.twin is not None]
        return cls(
            logits=torch.cat([one.logits for one in found]),
            features={name: torch.cat([one.features[name] for one in found]) for name in first.features},
            views={name: torch.cat([one.views[name] for one in found]) for name in first.views},
            twin=torch.cat(twins) if twins else None,
            groups=tuple(group for one in found for group in one.groups),
            sources=torch.cat(sources) if len(sources) == len(found) else None,
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> Activations:
        return Activations(
            logits=change(self.logits),
            features={name: change(part) for name, part in self.features.items()},
            views={name: change(part) for name, part in self.views.items()},
            twin=None if self.twin is None else change(self.twin),
            sources=None if self.sources is None else change(self.sources),
        )

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"layer {name!r}", part) for name, part in self.features.items())
        yield from ((f"view {name!r}", part) for name, part in self.views.items())
        if self.twin is not None:
            yield "the twin", self.twin
