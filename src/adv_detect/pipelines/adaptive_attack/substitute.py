"""The attacker's own network with its own detectors, trained with another seed; made once and stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adv_detect.algorithms.attacks.registry import build_attack
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.algorithms.attacks.targets import draw_targets
from adv_detect.algorithms.detectors import (
    Activations,
    FitData,
    StoredDetector,
    build_detector,
    score_activations,
    stored_tensors,
)
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import (
    ClassFeatures,
    Representatives,
    fit_representatives,
    representatives_from_tensors,
    representatives_tensors,
)
from adv_detect.algorithms.target_training import FitSettings, fit_target, measure_accuracy
from adv_detect.images import ImageSet, load_images
from adv_detect.jobs.detectors import criteria_of
from adv_detect.names import NATURAL
from adv_detect.networks.target import NetworkSpec, TargetNetwork, build_target, target_from_spec, target_tensors
from adv_detect.params import (
    AttackParams,
    Criterion,
    DetectorFitParams,
    DetectorParams,
    NetworkParams,
    RepresentativesParams,
    RuntimeParams,
    Split,
    TargetTrainingParams,
)
from adv_detect.sharding import ShardContent, ShardStore

KEY = "substitute"
NETWORK, REPRESENTATIVES, DETECTOR = "network:", "representatives:", "detector:"
PER_CLASS = 200
"""Images per class from which the substitute's class representatives come, at most."""


LEARNING_SPLITS: tuple[Split, Split] = ("train", "validation")


@dataclass(frozen=True)
class SubstituteRecipe:
    """How the attacker's network and detectors are trained.

    Attributes:
        detectors: What to train, by ``<configuration>/<criterion>``.
        attacks: Attacks that the detectors learn from.
        network: Architecture, without checkpoint.
        training: How the network is trained.
        representatives: Shrinkage and memory.
        fit: How the detectors are trained.
        seed: Another one than the victim's.
        max_images: Source images per split that the detectors learn from.
    """

    detectors: dict[str, DetectorParams]
    attacks: dict[str, AttackParams]
    network: NetworkParams
    training: TargetTrainingParams
    representatives: RepresentativesParams
    fit: DetectorFitParams
    seed: int
    max_images: int


@dataclass(frozen=True)
class SubstituteWork:
    """Trains network, class representatives and detectors that share nothing with the victim but the recipe.

    The attacker has images of the same kind: the training images, and the train and validation split of the source
    images. The detectors learn from attacks on the substitute itself.

    Attributes:
        train_images: Images that the network is trained on.
        source_images: Images that are attacked.
        members: Source indices by split, ``train`` and ``validation``.
        recipe: How everything is trained.
        runtime: Device, batch size.
    """

    train_images: ImageSet
    source_images: ImageSet
    members: dict[Split, tuple[int, ...]]
    recipe: SubstituteRecipe
    runtime: RuntimeParams

    def __call__(self, _: object) -> ShardContent:
        """Make the one shard: all tensors with prefixes; specs and accuracy as metadata."""
        network = self._train_network()
        representatives = self._fit_representatives(network)
        accuracy = measure_accuracy(
            network, self.source_images, batch_size=self.runtime.batch_size, device=self._device
        )
        tensors, header = representatives_tensors(representatives)
        trained = self._train_detectors(network, representatives)
        states = {f"{name}/{part}": tensor for name, (_, state) in trained.items() for part, tensor in state.items()}
        return ShardContent(
            tensors=_prefixed(NETWORK, target_tensors(network))
            | _prefixed(REPRESENTATIVES, tensors)
            | _prefixed(DETECTOR, states),
            metadata={
                "spec": network.spec.model_dump(mode="json"),
                "representatives": header,
                "detectors": {name: about for name, (about, _) in trained.items()},
                "accuracy": accuracy,
                "seed": self.recipe.seed,
            },
        )

    @property
    def _device(self) -> torch.device:
        return resolve_device(self.runtime.device)

    def _train_network(self) -> TargetNetwork:
        shape = tuple(self.train_images[0][0].shape)
        network = build_target(
            self.recipe.network,
            class_names=self.train_images.class_names,
            image_shape=(shape[0], shape[1], shape[2]),
            seed=self.recipe.seed,
        )
        settings = FitSettings(seed=self.recipe.seed, device=self._device, progress=self.runtime.progress)
        fit_target(network, self.train_images, params=self.recipe.training, settings=settings)
        return network.freeze()

    def _fit_representatives(self, network: TargetNetwork) -> Representatives:
        return fit_representatives(
            lambda: self._class_features(network),
            layers=network.spec.layers,
            class_names=network.spec.class_names,
            params=self.recipe.representatives,
            seed=self.recipe.seed,
        )

    def _class_features(self, network: TargetNetwork) -> Iterator[ClassFeatures]:
        """Features of correctly classified training images, class by class."""
        for label in range(len(network.spec.class_names)):
            members = torch.nonzero(self.train_images.labels == label).flatten().tolist()[:PER_CLASS]
            parts = [self._features(network, load_images(self.train_images, block, network.spec.bounds))
                     for block in _blocks(members, self.runtime.batch_size)]  # fmt: skip
            correct = torch.cat([logits.argmax(dim=1) for logits, _ in parts]) == label
            layers = [torch.cat([features[number] for _, features in parts])[correct]
                      for number in range(len(network.spec.layers))]  # fmt: skip
            names = [self.train_images.source_ids[index] for index in members]
            kept = [name for name, good in zip(names, correct.tolist(), strict=True) if good]
            if kept:
                yield label, layers, kept

    @torch.no_grad()
    def _features(self, network: TargetNetwork, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, features = extract_features(network, images.to(self._device), network.spec.layers)
        return logits.cpu(), [layer.cpu() for layer in features]

    def _train_detectors(
        self, network: TargetNetwork, representatives: Representatives
    ) -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
        """Facts and tensors of each detector."""
        seen = {split: list(self._shown(network, split)) for split in LEARNING_SPLITS}
        return {
            name: self._train_detector(name, params, seen, representatives)
            for name, params in self.recipe.detectors.items()
        }

    def _train_detector(
        self, name: str, params: DetectorParams, seen: dict[Split, list[Activations]], representatives: Representatives
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        clean, attacked = (
            {split: _of(seen[split], which, criteria_of(name.rsplit("/", 1)[1])) for split in LEARNING_SPLITS}
            for which in (True, False)
        )
        validation = clean["validation"]
        assert clean["train"] is not None  # the natural images are always there
        assert validation is not None
        data = FitData(
            clean["train"], attacked["train"], validation, attacked["validation"], self.recipe.fit, str(self._device)
        )
        detector = build_detector(params, representatives, seed=self.recipe.seed)
        detector.fit_chosen(data, seed=self.recipe.seed)
        detector.cpu().eval()
        return {"params": params.model_dump(mode="json")}, stored_tensors(
            detector, score_activations(detector, validation)
        )

    def _shown(self, network: TargetNetwork, split: Split) -> Iterator[Activations]:
        """Activations of the clean images of a split and of attacks on the substitute."""
        images = load_images(self.source_images, self.members[split], network.spec.bounds)
        labels = self.source_images.labels[torch.tensor(self.members[split])]
        clean = self._look(network, images, NATURAL)
        yield clean
        correct = clean.logits.argmax(dim=1) == labels
        for name, attack in self.recipe.attacks.items():
            for criterion in attack.criteria:
                attacked = self._attack(network, name, attack, criterion, images[correct], labels[correct], split)
                if len(attacked):
                    yield self._look(network, attacked, f"{name}/{criterion}")

    def _attack(
        self,
        network: TargetNetwork,
        name: str,
        attack: AttackParams,
        criterion: Criterion,
        images: Tensor,
        labels: Tensor,
        split: Split,
    ) -> Tensor:
        """Images with which an attack fooled the substitute."""
        numbers = torch.arange(len(images)) + (0 if split == "train" else len(self.members["train"]))
        targets = None
        if criterion == "targeted":
            targets = draw_targets(labels, len(network.spec.class_names), seed=self.recipe.seed, source_indices=numbers)
        configured, found = build_attack(name, attack), []
        for rows in torch.split(torch.arange(len(images)), self.runtime.batch_size):
            result = run_attack(
                configured,
                network,
                images[rows].to(self._device),
                labels[rows].to(self._device),
                targets=None if targets is None else targets[rows].to(self._device),
                bounds=network.spec.bounds,
                seed=self.recipe.seed,
            )
            found.append(result.images[result.success].cpu())
        return torch.cat(found) if found else images

    @torch.no_grad()
    def _look(self, network: TargetNetwork, images: Tensor, group: str) -> Activations:
        network = network.to(self._device)
        parts = [
            network_activations(network, batch.to(self._device), network.spec.layers).to("cpu")
            for batch in torch.split(images, self.runtime.batch_size)
        ]
        return replace(Activations.concatenate(parts), groups=(group,) * len(images))


def _of(seen: list[Activations], natural: bool, criteria: tuple[str, ...]) -> Activations | None:
    """Natural images, or attacks of some criteria."""
    groups = [(one.groups[0] == NATURAL, one.groups[0].rpartition("/")[2], one) for one in seen]
    parts = [one for clean, criterion, one in groups if clean is natural and (clean or criterion in criteria)]
    return Activations.concatenate(parts) if parts else None


def restore_substitute(store: ShardStore, known: StoredDetector) -> tuple[TargetNetwork, StoredDetector]:
    """Read the attacker's network and the detector that stands in for a known one.

    Args:
        store: What :class:`SubstituteWork` made.
        known: The detector under attack; its configuration and criterion choose.

    Returns:
        Network and detector, on the CPU.
    """
    content = store.read(KEY)
    name = f"{known.facts['configuration']}/{known.facts['trained_criterion']}"
    network = target_from_spec(
        NetworkSpec.model_validate(content.metadata["spec"]), _part(content.tensors, NETWORK)
    ).freeze()
    representatives = representatives_from_tensors(
        _part(content.tensors, REPRESENTATIVES), content.metadata["representatives"]
    )
    state = _part(content.tensors, f"{DETECTOR}{name}/")
    return network, StoredDetector.restore(name, content.metadata["detectors"][name], state, representatives)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _blocks(members: list[int], size: int) -> list[list[int]]:
    return [members[start : start + size] for start in range(0, len(members), size)]
