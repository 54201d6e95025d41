"""The attacker's own network and detectors: what the main job, run for them, is given and what it leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from adv_detect.absent import ABSENT, Absent, pass_on_absent
from adv_detect.algorithms.detectors import StoredDetector, reads_twin
from adv_detect.algorithms.representatives import Representatives, representatives_digest
from adv_detect.algorithms.splits import interleave
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.fields import LARGEST, Block
from adv_detect.jobs.detectors import LEARNING_SPLITS, restore
from adv_detect.names import DetectorKey
from adv_detect.networks.target import TargetNetwork, target_digest
from adv_detect.params import (
    SPLITS,
    AdaptiveAttackParams,
    AdversarialGenerationParams,
    DetectorTrainingParams,
    FeatureExtractionParams,
    NetworkParams,
    RepresentativesParams,
    RuntimeParams,
    SubstituteParams,
    TargetTrainingParams,
    TwinTrainingParams,
)
from adv_detect.pipelines.adaptive_attack.conditions import check_adaptive
from adv_detect.sharding import ShardStore, fingerprint

SEED_STEP = 1
"""Added to the seeds of the run for everything that the attacker trains."""
BLOCKS = (
    "network",
    "target_training",
    "twin_training",
    "feature_extraction",
    "representatives",
    "adversarial_generation",
    "detector_training",
    "runtime",
)
"""Blocks of parameters that the main job takes up to the detectors, in the order of :func:`configure_substitute`."""

BlockT = TypeVar("BlockT", bound=Block)
SubstituteBlocks = tuple[
    NetworkParams,
    TargetTrainingParams,
    TwinTrainingParams,
    FeatureExtractionParams,
    RepresentativesParams,
    AdversarialGenerationParams,
    DetectorTrainingParams,
    RuntimeParams,
]


@dataclass(frozen=True)
class Substitute:
    """Network and detectors that the attacker trained; picklable.

    Attributes:
        network: The attacker's network.
        representatives: Its class representatives.
        detectors: Detectors trained on attacks on it.
        seed: Another one than the victim's.
        twin: The attacker's own twin; None where none of the detectors reads it.
    """

    network: TargetNetwork
    representatives: Representatives
    detectors: ShardStore
    seed: int
    twin: TargetNetwork | None = None

    @cached_property
    def digest(self) -> str:
        """Fingerprint of network, representatives and twin."""
        twin = () if self.twin is None else (target_digest(self.twin, layers=False),)
        return fingerprint(target_digest(self.network), representatives_digest(self.representatives), *twin)

    def key_for(self, facts: Mapping[str, Any]) -> str:
        """Find the detector that stands in for another one.

        Args:
            facts: Metadata of the detector under attack; its configuration, its criterion and what it was trained
                on choose.

        Returns:
            The key among the attacker's detectors.

        Raises:
            DataError: There is none.
        """
        wanted = tuple(str(facts[name]) for name in ("configuration", "trained_criterion", "trained_on"))
        found = next((key for key in self.detectors if DetectorKey.parse(key)[:-1] == wanted), None)
        if found is None:
            raise DataError(
                f"substitute: expected a detector {'/'.join(wanted)!r}, got {list(self.detectors)}; run the pipeline "
                "adaptive_attack as a whole"
            )
        return found

    def fingerprint_for(self, facts: Mapping[str, Any]) -> str:
        """Fingerprint of all that stands in for a detector: network, representatives and the detector itself."""
        return fingerprint(self.digest, self.detectors.fingerprint(self.key_for(facts)))


def configure_substitute(  # noqa: PLR0913 - a block for each pipeline of the main job
    network: NetworkParams,
    target_training: TargetTrainingParams,
    twin_training: TwinTrainingParams,
    feature_extraction: FeatureExtractionParams,
    representatives: RepresentativesParams,
    adversarial_generation: AdversarialGenerationParams,
    detector_training: DetectorTrainingParams,
    runtime: RuntimeParams,
    adaptive_attack: AdaptiveAttackParams,
) -> SubstituteBlocks | tuple[Absent, ...]:
    """Set the parameters with which the main job is run for the attacker.

    Args:
        network: The architecture under attack.
        target_training: How the victim was trained; the epochs are the substitute's.
        twin_training: How the victim's twin was trained; the epochs are the substitute's.
        feature_extraction: Images per class.
        representatives: Shrinkage and memory.
        adversarial_generation: The ordinary attacks.
        detector_training: The detector configurations.
        runtime: Seed, device, batch size, engine.
        adaptive_attack: The substitute and the detectors it has to stand in for.

    Returns:
        The blocks named in `BLOCKS`; absent where no attack is transferred.
    """
    check_adaptive(adaptive_attack, detector_training, network.bounds)
    wanted = _stood_in_for(adaptive_attack)
    if not wanted:
        return (ABSENT,) * len(BLOCKS)
    substitute, detectors = adaptive_attack.substitute, _detectors(detector_training, adaptive_attack, wanted)
    return (
        substitute.network or _changed(network, checkpoint=None),
        _changed(target_training, epochs=substitute.epochs, head_only=False, min_accuracy=0.0),
        _twin(twin_training, detectors, substitute),
        feature_extraction,
        representatives,
        _attacks(adversarial_generation, substitute.attacks),
        detectors,
        _changed(runtime, seed=_other(runtime.seed)),
    )


@pass_on_absent
def choose_substitute_sources(
    source_splits: pd.DataFrame, adaptive_attack: AdaptiveAttackParams, runtime: RuntimeParams
) -> pd.DataFrame:
    """Choose the source images that the attacker has: some of the train and validation splits, none of the test split.

    Args:
        source_splits: The split of each source image.
        adaptive_attack: How many images of a split.
        runtime: The attacker's seed.

    Returns:
        Rows of ``source_splits``: a stratified draw from each of the two splits.
    """
    rng, limit = np.random.default_rng(runtime.seed), adaptive_attack.substitute.max_images
    parts = (source_splits[source_splits["split"] == split] for split in LEARNING_SPLITS)
    drawn = [part.iloc[interleave(part["label"].to_numpy(), rng)[:limit]] for part in parts]
    return pd.concat(drawn).sort_values("source_index", ignore_index=True)


@pass_on_absent
def gather_substitute(
    network_weights: TargetNetwork,
    representatives: Representatives,
    detectors: ShardStore,
    twin: TargetNetwork | Absent,
    runtime: RuntimeParams,
) -> Substitute:
    """Gather what the main job left for the attacker.

    Args:
        network_weights: The attacker's network.
        representatives: Its class representatives.
        detectors: The attacker's detectors.
        twin: The attacker's twin.
        runtime: The attacker's seed.

    Returns:
        What transfer attacks are made on.
    """
    second = None if isinstance(twin, Absent) else twin
    return Substitute(network_weights, representatives, detectors, runtime.seed, second)


def describe_substitute(substitute_models: Substitute | Absent) -> dict[str, Any]:
    """Gather the facts of the substitute for the report.

    Args:
        substitute_models: What the attacker trained.

    Returns:
        ``seed`` and ``accuracy`` on the source images; empty where there is none.
    """
    if isinstance(substitute_models, Absent):
        return {}
    return {"seed": substitute_models.seed, "accuracy": substitute_models.network.spec.accuracy}


def restore_substitute(substitute: Substitute, stored: StoredDetector) -> tuple[TargetNetwork, StoredDetector]:
    """Read the attacker's network and the detector that stands in for the one under attack.

    Args:
        substitute: What the attacker trained.
        stored: The detector under attack.

    Returns:
        Network and detector, on the CPU.
    """
    key = substitute.key_for(stored.facts)
    return substitute.network.freeze(), restore(substitute.detectors, key, substitute.representatives)


def _attacks(params: AdversarialGenerationParams, names: Iterable[str]) -> AdversarialGenerationParams:
    """The attacks that the attacker's detectors learn from, whether or not the victim's do."""
    found = {name: _changed(params.active[name], train=True, splits=SPLITS) for name in names if name in params.active}
    if not found:
        raise ConfigurationError(
            f"adaptive_attack.substitute.attacks: expected names of {sorted(params.active)}, got {list(names)}"
        )
    return AdversarialGenerationParams(attacks=dict(found))


def _twin(
    params: TwinTrainingParams, detectors: DetectorTrainingParams, substitute: SubstituteParams
) -> TwinTrainingParams:
    """The attacker's own twin, trained for fewer epochs; none where no detector that is attacked reads one."""
    if not reads_twin(detectors.active):
        return _changed(params, network=None)
    return _changed(params, epochs=min(params.epochs, substitute.twin_epochs), min_accuracy=0.0)


def _stood_in_for(adaptive: AdaptiveAttackParams) -> set[str]:
    """Configurations of attacked or hardened detectors that an attack made on the substitute is meant for."""
    attacks = [spec for spec in adaptive.active.values() if spec.needs_substitute]
    every = {*adaptive.detectors, *adaptive.hardening.detectors}
    return {name for name in every if any(one.detectors is None or name in one.detectors for one in attacks)}


def _detectors(
    params: DetectorTrainingParams, adaptive: AdaptiveAttackParams, names: Collection[str]
) -> DetectorTrainingParams:
    """The detectors that the attacker needs, once each, with a seed of his own."""
    return _changed(
        params,
        configurations={name: one for name, one in params.active.items() if name in names},
        criteria=adaptive.trained_criteria,
        seeds=(_other(params.seeds[0]),),
        leave_one_out=(),
        reference_checkpoints={},
    )


def _changed(block: BlockT, **changes: Any) -> BlockT:
    """Copy a block with other values, which are checked as those of the files are."""
    kept = {name: getattr(block, name) for name in block.model_fields_set}
    return type(block).model_validate(kept | changes)


def _other(seed: int) -> int:
    return (seed + SEED_STEP) % (LARGEST + 1)
