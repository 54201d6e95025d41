"""Network, twin and detector as an attacker of a gate sees them that asks the twin for the similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.device import device_of
from adv_detect.algorithms.features import capture_activations, extract_features
from adv_detect.errors import DataError
from adv_detect.images import load_images
from adv_detect.networks.target import TargetNetwork

if TYPE_CHECKING:
    from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting

QUANTILE = 0.05
"""Share of clean pictures less similar to their person than the level that an attacker aims at."""
LEAST_SPREAD = 1e-3
PER_CLASS = 20
"""Clean pictures of a person that its template is made of, at most."""


@dataclass(frozen=True)
class Templates:
    """Templates of the people as an attacker knows them: their mean directions in network and twin.

    Attributes:
        values: Unit vectors, the narrower ones filled up with zeros, ``(C, 2, D)``; zeros for a class without pictures.
        levels: Per network the similarity of clean pictures to the template of the others of their class, exceeded by
            all but `QUANTILE`, and its standard deviation, ``(2, 2)``.
    """

    values: Tensor
    levels: Tensor


class GateModel(nn.Module):
    """A joint model described by the embeddings of network and twin; the class is the one most similar in both.

    Attributes:
        model: Images to class logits, scores and activations.
        twin: The second network.
        templates: Of the classes, ``(C, 2, D)``.
        levels: Of clean pictures, ``(2, 2)``.
    """

    templates: Tensor
    levels: Tensor

    def __init__(self, model: DetectionModel, twin: TargetNetwork, templates: Templates) -> None:
        """Join the parts; networks are not copied."""
        super().__init__()
        self.model = model
        self.twin = twin
        self.register_buffer("templates", templates.values)
        self.register_buffer("levels", templates.levels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give class logits ``(N, C)`` and detector logits ``(N,)``."""
        return self.evade(images, None)[:2]

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give class logits ``(N, C)``, detector logits ``(N,)`` and both embeddings ``(N, 2, D)``."""
        return self.evade(images, None)[:3]

    def evade(self, images: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give what :meth:`describe` gives, and the detector's parts ``(N, M)`` if the network named other classes.

        Args:
            images: Shape ``(N, channels, H, W)``.
            targets: The other classes, int64, ``(N,)``; None for those that the network names.
        """
        last = self.twin.spec.layers[-1:]
        if self.model.twin is None:
            activations = self.model.activations(images)
            (second,) = extract_features(self.twin, images, last)[1]
        else:  # the detector runs it anyway
            with capture_activations(self.model.twin, last) as seen:
                activations = self.model.activations(images)
            second = seen[last[0]]
        embeddings = stack_embeddings(activations.features[self.model.layers[-1]], second)
        scores = self.model.detector(activations)
        named = activations.logits.detach().argmax(dim=1) if targets is None else targets
        parts = self.model.detector.score_parts(activations, named, scores=scores)
        return self.name(embeddings), scores, embeddings, parts

    def name(self, embeddings: Tensor) -> Tensor:
        """Give class logits ``(N, C)`` of embeddings ``(N, 2, D)``: the worse similarity, in standard deviations."""
        similarity = functional.cosine_similarity(embeddings[:, None], self.templates[None], dim=3)
        level, spread = self.levels.unbind(dim=1)
        return ((similarity - level) / spread).amin(dim=2)


def stack_embeddings(first: Tensor, second: Tensor) -> Tensor:
    """Put embeddings of two networks beside each other.

    Args:
        first: Shape ``(N, D1)``.
        second: Shape ``(N, D2)``.

    Returns:
        Shape ``(N, 2, D)``, the narrower ones filled up with zeros, which leave similarities as they are.
    """
    width = max(first.shape[1], second.shape[1])
    return torch.stack([functional.pad(one, (0, width - one.shape[1])) for one in (first, second)], dim=1)


def make_templates(embeddings: Tensor, labels: Tensor, classes: int) -> Templates:
    """Average clean embeddings to one direction per class, and measure how similar clean pictures are to theirs.

    Args:
        embeddings: Of clean pictures, ``(M, 2, D)``.
        labels: Their classes, int64, ``(M,)``.
        classes: Number of classes.

    Returns:
        The templates. Each picture is compared with the mean of the others of its class.

    Raises:
        DataError: No class has two pictures.
    """
    unit = functional.normalize(embeddings.double(), dim=2)
    sums = unit.new_zeros((classes, *unit.shape[1:])).index_add_(0, labels, unit)
    counted = torch.bincount(labels, minlength=classes)[labels] > 1
    if not bool(counted.any()):
        raise DataError(
            "adaptive_attack: an attack on a gate that asks the twin needs a class with two clean images of the train "
            "split, got none; attack more images"
        )
    others = (sums[labels] - unit)[counted]
    found = functional.cosine_similarity(unit[counted], others, dim=2)
    levels = torch.stack([found.quantile(QUANTILE, dim=0), found.std(dim=0).clamp_min(LEAST_SPREAD)], dim=1)
    return Templates(functional.normalize(sums, dim=2).to(embeddings), levels.to(embeddings))


@torch.no_grad()
def clean_templates(setting: AttackSetting, network: nn.Module, twin: TargetNetwork) -> Templates:
    """Make the templates of an attack from clean images of the train split that the network classifies correctly.

    Args:
        setting: Images and activations.
        network: The network under attack, in the form that gradients are taken from.
        twin: The second network, likewise.

    Returns:
        The templates, on the device of the networks.
    """
    spec = setting.network.spec
    indices = _clean_indices(setting)
    device = device_of(network)
    parts = []
    for block in torch.split(indices, setting.runtime.batch_size):
        images = load_images(setting.images, block.tolist(), spec.bounds).to(device)
        first, second = (
            extract_features(one, images, of.layers[-1:])[1][0] for one, of in ((network, spec), (twin, twin.spec))
        )
        parts.append(stack_embeddings(first, second))
    labels = setting.images.labels[indices].to(device)
    return make_templates(torch.cat(parts), labels, len(spec.class_names))


def _clean_indices(setting: AttackSetting) -> Tensor:
    """At most `PER_CLASS` source indices of each class, in the order in which they are stored."""
    kept: dict[int, list[int]] = {}
    naturals = setting.activations.select(split="train", natural=True)
    for content in naturals.only("source_index", "label", "predicted").values():
        index, label, predicted = (content.tensors[name].tolist() for name in ("source_index", "label", "predicted"))
        for one, person, named in zip(index, label, predicted, strict=True):
            if person == named:
                kept.setdefault(person, []).append(one)
    found = [index for label in sorted(kept) for index in kept[label][:PER_CLASS]]
    if not found:
        raise DataError(
            "adaptive_attack: expected clean images of the train split that are classified correctly, got none; train "
            "the network on more images"
        )
    return torch.tensor(found)


def no_twin(name: str) -> str:
    """Say that an attack asks a twin that does not exist."""
    return (
        f"adaptive_attack.attacks.{name}: it follows the similarity in the twin, and there is none; set "
        "twin_training.network and run the main job, or set the attack to null"
    )
