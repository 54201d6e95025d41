"""Stored embeddings of natural and attacked images as tables for measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adv_detect.errors import DataError
from adv_detect.names import ShardKey
from adv_detect.pipelines.face_recognition.embedding_shards import EMBEDDING, TEMPLATE, TWIN_TEMPLATE
from adv_detect.sharding import ShardContent, ShardStore

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class FaceRows:
    """Images of one attack and criterion, or natural ones.

    Attributes:
        attack: Configured name, or ``natural``.
        criterion: ``targeted``, ``untargeted`` or ``none``.
        form: ``early``, ``confident`` or ``none``.
        source_ids: Name of each source image.
        source_index: Position of each source image, int64 ``(n,)``.
        embedding: Pooled features of the last layer, ``(n, D)``.
        template: What verification compares, ``(n, D)``.
        twin_template: What the twin compares, ``(n, D')``; width 0 where it is not asked.
        label: Identity of each, int64 ``(n,)``.
        target: Identity aimed at, -1 for none, int64 ``(n,)``.
        success: Whether the attack reached its own aim, bool ``(n,)``.
    """

    attack: str
    criterion: str
    form: str
    source_ids: tuple[str, ...]
    source_index: Tensor
    embedding: Tensor
    template: Tensor
    twin_template: Tensor
    label: Tensor
    target: Tensor
    success: Tensor

    @classmethod
    def of(cls, contents: Sequence[ShardContent]) -> FaceRows:
        """Join stored embeddings of one attack and criterion.

        Args:
            contents: At least one shard; the first one names attack, criterion and form.

        Returns:
            The rows.
        """
        facts = contents[0].metadata
        names = ("source_index", EMBEDDING, TEMPLATE, "label", "target", "success")
        return cls(
            attack=facts["attack"],
            criterion=facts["criterion"],
            form=facts["form"],
            source_ids=tuple(name for content in contents for name in content.metadata["source_ids"]),
            twin_template=torch.cat([_twin_template(content) for content in contents]),
            **{name: torch.cat([content.tensors[name] for content in contents]) for name in names},
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source_ids)

    def take(self, rows: NDArray[np.int64]) -> FaceRows:
        """Keep some rows, in the order given."""
        index = torch.from_numpy(rows)
        return replace(
            self,
            source_ids=tuple(self.source_ids[row] for row in rows.tolist()),
            source_index=self.source_index[index],
            embedding=self.embedding[index],
            template=self.template[index],
            twin_template=self.twin_template[index],
            label=self.label[index],
            target=self.target[index],
            success=self.success[index],
        )


def joined(first: FaceRows, second: FaceRows) -> FaceRows:
    """Put rows of one kind below each other; attack, criterion and form are those of the first.

    Args:
        first: Rows.
        second: Rows.

    Returns:
        All rows.
    """
    tensors: dict[str, Any] = {
        one.name: torch.cat([getattr(first, one.name), getattr(second, one.name)])
        for one in fields(FaceRows)
        if isinstance(getattr(first, one.name), Tensor)
    }
    return replace(first, source_ids=first.source_ids + second.source_ids, **tensors)


def natural_faces(store: ShardStore, split: str | None = None) -> FaceRows:
    """Read the natural images of one split, or of all.

    Args:
        store: Embeddings of natural and attacked images.
        split: ``train``, ``validation`` or ``test``; None for all.

    Returns:
        The rows.
    """
    return _read(store.select(split=split, natural=True))


def attacked_faces(store: ShardStore) -> Iterator[FaceRows]:
    """Read the attacked test images, one attack and criterion at a time; those without any image are passed over.

    Args:
        store: Embeddings of natural and attacked images.

    Yields:
        The rows.
    """
    attacked = store.select(split=TEST, natural=False)
    for attack, criterion in sorted({ShardKey.parse(key)[:2] for key in attacked}):
        rows = _read(attacked.select(attack=attack, criterion=criterion))
        if len(rows):
            yield rows


def _twin_template(content: ShardContent) -> Tensor:
    template = content.tensors[TEMPLATE]
    return content.tensors.get(TWIN_TEMPLATE, template.new_zeros((len(template), 0)))


def _read(store: ShardStore) -> FaceRows:
    if not store:
        raise DataError(f"{store.root}: expected embeddings of natural test images, got none; run face_recognition")
    return FaceRows.of(list(store.values()))
