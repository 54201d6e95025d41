"""Plans of attacks: which shards there are and what each is made from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.representatives import representatives_digest
from adv_detect.errors import DataError
from adv_detect.jobs.detectors import restore
from adv_detect.names import BOTH_CRITERIA, LEARNED_FROM_ALL, NO_CRITERION, DetectorKey
from adv_detect.networks.target import target_digest
from adv_detect.params import AdaptiveAttackParams
from adv_detect.pipelines.adaptive_attack.attack_shards import AdaptiveBlock, AdaptiveWork
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.clean_scores import score_naturals
from adv_detect.pipelines.adaptive_attack.conditions import Condition, choose_sources
from adv_detect.sharding import ShardPlan, ShardSpec, ShardStore, fingerprint

LOGGER = logging.getLogger(__name__)


def attack_plan(
    setting: AttackSetting,
    detectors: ShardStore,
    keys: Iterable[str],
    chosen: tuple[Condition, ...],
    params: AdaptiveAttackParams,
) -> ShardPlan:
    """Plan attacks on some detectors.

    Args:
        setting: Network, images and all else that is shared.
        detectors: Where the detectors are.
        keys: Which of them.
        chosen: The attacks.
        params: How many images.

    Returns:
        The plan.
    """
    shared, shards = shared_fingerprints(setting), []
    for key in keys:
        of_detector = fingerprint_of(detectors, key)
        meant = _meant_for(chosen, str(detectors.metadata(key)["configuration"]))
        blocks = list(_blocks(setting, detectors, key, meant, params))
        _check_sources(key, meant, blocks)
        for shard_key, block in blocks:
            condition = block.condition
            made_from = (
                shared, of_detector, condition.identity, adaptive_attack_source(condition.spec.attack), block.indices,
                [setting.images.source_ids[index] for index in block.indices],
                setting.activations.digest if condition.kind.guide != "none" else None,
                substitute_fingerprint(setting, (condition,), detectors, key),
                *([fingerprint_of(detectors, block.surrogate)] if block.surrogate is not None else []),
            )  # fmt: skip
            shards.append(ShardSpec(shard_key, fingerprint(*made_from), block))
    work = AdaptiveWork(setting, detectors)
    what = "adaptive adversarials"
    return ShardPlan(work=work, shards=tuple(shards), runtime=setting.runtime, description=what, one_thread=True)


def _blocks(
    setting: AttackSetting, detectors: ShardStore, key: str, meant: tuple[Condition, ...], params: AdaptiveAttackParams
) -> Iterator[tuple[str, AdaptiveBlock]]:
    stored = restore(detectors, key, setting.representatives)
    scored = score_naturals(setting.activations, "test", stored, setting.representatives)
    size = setting.runtime.shard_size
    for condition in meant:
        count = min(params.max_images, condition.spec.max_images or params.max_images)
        surrogate = _surrogate_of(detectors, key, condition.spec.surrogate)
        indices = choose_sources(
            scored,
            condition.spec,
            stored,
            seed=setting.runtime.seed,
            count=count,
            per_class=params.max_images_per_class,
        )
        for number, start in enumerate(range(0, len(indices), size)):
            block = AdaptiveBlock(key, condition, indices[start : start + size], surrogate)
            yield f"{key.replace('/', '.')}/{condition.key}/{number:04d}", block


def _surrogate_of(detectors: ShardStore, key: str, configuration: str | None) -> str | None:
    """Key of the detector that stands in for another: for the same criterion where there is one, of the first seed."""
    if configuration is None:
        return None
    keys = [one for one in map(DetectorKey.parse, detectors) if one.trained_on in LEARNED_FROM_ALL]
    own = sorted(one for one in keys if one.configuration == configuration)
    wanted = (DetectorKey.parse(key).criterion, BOTH_CRITERIA, NO_CRITERION)
    found = [one for criterion in wanted for one in own if one.criterion == criterion] or own
    if not found:
        raise DataError(
            f"adaptive_attack: there is no trained detector of the configuration {configuration!r}, which is to stand "
            f"in for {key!r}; run `kedro run --pipeline=detector_training` with the same environment first"
        )
    return found[0].text


def _meant_for(chosen: Iterable[Condition], configuration: str) -> tuple[Condition, ...]:
    """Conditions of the attacks that are run on a configuration of detector."""
    return tuple(one for one in chosen if one.spec.detectors is None or configuration in one.spec.detectors)


def _check_sources(key: str, meant: tuple[Condition, ...], blocks: list[tuple[str, AdaptiveBlock]]) -> None:
    """Refuse a detector without anything to attack; name the attacks that are left out for that reason."""
    left_out = sorted({condition.name for condition in meant} - {block.condition.name for _, block in blocks})
    if meant and not blocks:
        raise DataError(
            f"adaptive_attack: there is no clean test image that the network classifies correctly and detector {key!r} "
            "passes; train network and detector on more images"
        )
    if left_out:
        LOGGER.warning(
            "adaptive_attack: detector %s passes no clean test image at the threshold of %s, which are left out",
            key,
            ", ".join(left_out),
        )


def fingerprint_of(detectors: ShardStore, key: str) -> str | None:
    """Fingerprint of a detector, for what is made from it.

    Args:
        detectors: Where it is.
        key: Its key.

    Returns:
        The fingerprint.

    Raises:
        DataError: There is no such detector.
    """
    if key not in detectors:
        raise DataError(
            f"adaptive_attack: there is no trained detector {key!r}, only {list(detectors)}; run "
            "`kedro run --pipeline=detector_training` with the same environment first"
        )
    return detectors.fingerprint(key)


def shared_fingerprints(setting: AttackSetting) -> tuple[object, ...]:
    """Return the ingredients of every shard of a run."""
    own = target_digest(setting.network), representatives_digest(setting.representatives), setting.runtime.seed
    return own if setting.twin is None else (*own, target_digest(setting.twin, layers=False))


def substitute_fingerprint(
    setting: AttackSetting, chosen: tuple[Condition, ...], detectors: ShardStore, key: str
) -> str | None:
    """Fingerprint of what stands in for a detector, where one of the attacks is made on the substitute."""
    wanted = any(condition.spec.needs_substitute for condition in chosen)
    return (
        setting.substitute.fingerprint_for(detectors.metadata(key))
        if wanted and setting.substitute is not None
        else None
    )
