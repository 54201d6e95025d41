"""Plan the activations of stored images and make them, by one pass of the network for each shard."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from adv_detect.absent import Absent
from adv_detect.algorithms.attacks.configured import BY_NETWORK
from adv_detect.algorithms.attacks.deep_features_objective import nearest_classes
from adv_detect.algorithms.attacks.perturbations import noise_of_same_norm
from adv_detect.algorithms.detectors import Activations, reads_twin
from adv_detect.algorithms.detectors.end_to_end import network_activations
from adv_detect.algorithms.device import resolve_device
from adv_detect.algorithms.finite import finite_rows
from adv_detect.algorithms.image_changes import build_change, change_identity
from adv_detect.algorithms.margins import margin
from adv_detect.algorithms.pixels import quantise
from adv_detect.algorithms.representatives import Representatives, representatives_digest
from adv_detect.algorithms.views import Views
from adv_detect.errors import ConfigurationError
from adv_detect.jobs.activations import BASE, FEATURES, LOGITS, PARTS, TWIN, VIEWS
from adv_detect.names import BENIGN, EIGHT_BIT, FLOAT, ShardKey
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.networks.twin import check_twin
from adv_detect.params import DetectorParams, ImageChangeParams, Norm, RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, fingerprint

LOGGER = logging.getLogger(__name__)

Variant = Literal["float", "8bit", "noise", "benign"]
"""Form in which stored images are passed through the network."""
KEPT = ("label", "source_index", "target", "l2", "linf")


@dataclass(frozen=True)
class ActivationBlock:
    """One shard of images and the variant of it to pass through the network.

    Attributes:
        shard: Key in the store of adversarial examples.
        variant: ``float`` as attacked, ``8bit`` rounded to 256 levels, ``noise`` with random noise of the same norm,
            ``benign`` changed as below and rounded.
        norm: Norm in which noise is matched.
        seed: Seed of what is drawn.
        change: The benign change.
        made_from: Fingerprint of that shard, kept with the result.
        parts: Fingerprints of the parts of the result; empty where there is neither view nor twin.
    """

    shard: str
    variant: Variant = "float"
    norm: Norm = "l2"
    seed: int = 0
    change: ImageChangeParams | None = None
    made_from: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ActivationWork:
    """Runs stored images through the network and keeps what it said.

    Attributes:
        adversarials: The images.
        network: The network under attack.
        judges: Class representatives of the last layer ``(C, D)`` by kind, for attacks that are judged by them.
        runtime: Batch size, device.
        views: The views to run through the network as well.
        twin: The second network; None where no detector reads it.
    """

    adversarials: ShardStore
    network: TargetNetwork
    judges: Mapping[str, Tensor]
    runtime: RuntimeParams
    views: Mapping[str, ImageChangeParams] = field(default_factory=dict)
    twin: TargetNetwork | None = None

    def __call__(self, block: ActivationBlock) -> ShardContent:
        """Make one shard: logits ``(n, C)``, a tensor ``(n, D_l)`` per layer, and facts on each image."""
        device = resolve_device(self.runtime.device)
        network = working_form(self.network, device)
        twin = None if self.twin is None else working_form(self.twin, device)
        content = self.adversarials[block.shard]
        images = self._vary(block, content)
        views, step = Views.build(self.views, network.spec.bounds), self.runtime.batch_size
        with torch.no_grad():
            found = Activations.concatenate(
                network_activations(network, part.to(device), network.spec.layers, views=views, twin=twin).to("cpu")
                for part in torch.split(images, step)  # one empty part where there is no image
            )
        judged = self._judged(found, content.metadata.get("judge", BY_NETWORK))
        tensors = {LOGITS: found.logits, "predicted": found.logits.argmax(dim=1), "margin": margin(found.logits)}
        tensors |= {f"{FEATURES}{name}": part for name, part in found.features.items()}
        tensors |= {f"{VIEWS}{name}": part for name, part in found.views.items()}
        tensors |= {} if found.twin is None else {TWIN: found.twin}
        tensors |= {name: content.tensors[name] for name in KEPT}
        facts: dict[str, Any] = {"variant": block.variant, "made_from": block.made_from, "layers": list(found.features)}
        if block.parts:
            facts |= {"views": list(found.views), PARTS: dict(block.parts)}
        made = ShardContent(tensors=tensors | _flags(content, judged), metadata=content.metadata | facts)
        return _without_non_finite(block, made)

    def _vary(self, block: ActivationBlock, content: ShardContent) -> Tensor:
        images, bounds = content.tensors["images"], self.network.spec.bounds
        if block.variant == EIGHT_BIT:
            return quantise(images, bounds)
        if block.variant == FLOAT:
            return images
        if block.variant == BENIGN:
            assert block.change is not None
            changed = build_change(BENIGN, block.change)(images, bounds, seed=block.seed)
            return quantise(changed, bounds)
        sources = self.adversarials[ShardKey.parse(block.shard).natural.text]
        clean = _matching(sources, content)
        return noise_of_same_norm(clean, images, norm=block.norm, bounds=bounds, seed=block.seed)

    def _judged(self, found: Activations, judge: str) -> Tensor:
        if judge == BY_NETWORK:
            return found.logits.argmax(dim=1)
        return nearest_classes(found.features[self.network.spec.layers[-1]], self.judges[judge])


def activation_plan(
    adversarials: ShardStore,
    network: TargetNetwork,
    representatives: Representatives,
    blocks: Mapping[str, ActivationBlock],
    *,
    runtime: RuntimeParams,
    views: Mapping[str, ImageChangeParams] | None = None,
    twin: TargetNetwork | None = None,
) -> ShardPlan:
    """Plan the activations of some shards of images.

    Args:
        adversarials: Attacked and natural images.
        network: The network under attack.
        representatives: Class representatives, which judge attacks on deep features.
        blocks: Images and variant by the key of the shard to make.
        runtime: Batch size, device, engine.
        views: The views that detectors read, by name.
        twin: The second network, where a detector reads it.

    Returns:
        The plan. A further view or another twin makes all activations anew; the fingerprint of what detectors without
        them read stays (:func:`read_fingerprint`).
    """
    judges = {"medoid": representatives.medoids[-1], "centroid": representatives.centroids[-1]}
    if twin is not None:
        check_twin(twin, network)
    work = ActivationWork(adversarials, network, judges, runtime, views or {}, twin)
    further = {f"{VIEWS}{name}": change_identity(one) for name, one in work.views.items()}
    further |= {} if twin is None else {TWIN: target_digest(twin, layers=False)}
    of_network, of_judges = target_digest(network), representatives_digest(representatives)
    of_changes = {id(one.change): one.change for one in blocks.values() if one.change is not None}
    identities = {number: change_identity(one) for number, one in of_changes.items()}
    fingerprints = adversarials.fingerprints()
    shards = []
    for key, block in blocks.items():
        judged = adversarials.metadata(block.shard).get("judge", BY_NETWORK) != BY_NETWORK
        made_from = (
            of_network,
            of_judges if judged else None,
            fingerprints[block.shard],
            block.variant,
            block.norm,
            block.seed,
            *([identities[id(block.change)]] if block.change is not None else []),
        )
        base = fingerprint(*made_from)
        parts = {BASE: base} | further if further else {}
        made = replace(block, made_from=fingerprints[block.shard], parts=parts)
        shards.append(ShardSpec(key, fingerprint(parts) if parts else base, made))
    return ShardPlan(work=work, shards=tuple(shards), runtime=runtime, description="activations", one_thread=True)


def twin_that_is_read(
    twin: TargetNetwork | Absent, configurations: Mapping[str, DetectorParams]
) -> TargetNetwork | None:
    """Return the twin where a detector reads it.

    Args:
        twin: The twin, or that there is none.
        configurations: The configured detectors.

    Returns:
        The twin; None where nobody reads it.

    Raises:
        ConfigurationError: A detector reads it, but there is none.
    """
    readers = reads_twin(configurations)
    if readers and isinstance(twin, Absent):
        raise ConfigurationError(no_twin(readers))
    return None if not readers or isinstance(twin, Absent) else twin


def no_twin(readers: Iterable[str]) -> str:
    """Say that detectors read a twin that is not configured."""
    return (
        f"detector_training.configurations: {', '.join(readers)} read the twin, which is configured away with "
        "twin_training.network: null; configure one, or set these detectors to null"
    )


def _without_non_finite(block: ActivationBlock, content: ShardContent) -> ShardContent:
    """Leave out images that cannot be scored: with NaN or infinity in a logit or a feature."""
    read = (LOGITS, TWIN, *(name for name in content.tensors if name.startswith((FEATURES, VIEWS))))
    kept = finite_rows(*(content.tensors[name] for name in read if name in content.tensors))
    if bool(kept.all()):
        return content
    LOGGER.warning(
        "activations: %d of %d images of %s (%s) left out: NaN or infinity in their logits or features",
        int((~kept).sum()),
        len(kept),
        block.shard,
        block.variant,
    )
    names = [name for name, flag in zip(content.metadata["source_ids"], kept.tolist(), strict=True) if flag]
    return ShardContent(
        tensors={name: tensor[kept] for name, tensor in content.tensors.items()},
        metadata=content.metadata | {"source_ids": names},
    )


def _matching(sources: ShardContent, attacked: ShardContent) -> Tensor:
    """Clean images of the rows of an attacked shard."""
    row_of = {index: row for row, index in enumerate(sources.tensors["source_index"].tolist())}
    rows = [row_of[index] for index in attacked.tensors["source_index"].tolist()]
    return sources.tensors["images"][rows]


def _flags(content: ShardContent, judged: Tensor) -> dict[str, Tensor]:
    """``success``: the attack fooled its judge; ``survives``: this variant of the image still fools it."""
    success, target, label = (content.tensors[name] for name in ("success", "target", "label"))
    fools = torch.where(target >= 0, judged == target, judged != label)
    return {"success": success, "survives": success & fools}
