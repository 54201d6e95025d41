"""Controls: detectors that every other one must beat, stored like the others."""

from __future__ import annotations

from dataclasses import dataclass

from adv_detect.algorithms.detectors import (
    Detector,
    LearnsFrom,
    TrajectoryDetector,
    build_detector,
    score_activations,
    stored_tensors,
    untrained_detector,
)
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activations import natural_activations
from adv_detect.jobs.detectors import restore
from adv_detect.names import CONTROL_KEYS, MARGIN, NO_CRITERION
from adv_detect.params import DetectorParams, RuntimeParams
from adv_detect.sharding import ShardContent, ShardPlan, ShardSpec, ShardStore, fingerprint

NO_SEED = -1
"""In the place of the seed of a control that has no random weights."""


@dataclass(frozen=True)
class ControlJob:
    """One control to make.

    Attributes:
        key: ``margin`` or ``untrained/<draw>``.
        like: Key of the trained detector whose form and standardisation it has; None for the margin.
    """

    key: str
    like: str | None

    @property
    def configuration(self) -> str:
        """Its name in tables, whatever the draw."""
        return self.key.partition("/")[0]

    @property
    def seed(self) -> int:
        """The draw."""
        return int(self.key.partition("/")[2] or NO_SEED)


@dataclass(frozen=True)
class ControlWork:
    """Makes one control and scores the clean validation images with it."""

    activations: ShardStore
    detectors: ShardStore
    representatives: Representatives

    def __call__(self, job: ControlJob) -> ShardContent:
        """Make one shard: state and clean scores, as of a trained detector, with the same facts as metadata."""
        params, detector = self._margin() if job.like is None else self._untrained(job.like, job.seed)
        clean = natural_activations(self.activations, "validation")
        facts = {
            "configuration": job.configuration,
            "params": params.model_dump(mode="json"),
            "trained_criterion": NO_CRITERION,
            "trained_on": LearnsFrom.NOTHING.value,
            "attacks": [],
            "seed": job.seed,
            "history": [],
        }
        return ShardContent(tensors=stored_tensors(detector, score_activations(detector, clean)), metadata=facts)

    def _margin(self) -> tuple[DetectorParams, Detector]:
        params = DetectorParams(kind=MARGIN)
        return params, build_detector(params, self.representatives)

    def _untrained(self, like: str, draw: int) -> tuple[DetectorParams, Detector]:
        trained = restore(self.detectors, like, self.representatives)
        assert isinstance(trained.detector, TrajectoryDetector)  # as control_plan chose it
        return trained.params, untrained_detector(trained.detector, draw)


def control_plan(
    detectors: ShardStore,
    best: str,
    activations: ShardStore,
    representatives: Representatives,
    runtime: RuntimeParams,
) -> ShardPlan:
    """Plan the controls.

    Args:
        detectors: The trained detectors.
        best: Key of the one that the untrained controls resemble, where it reads trajectories; else it is the first
            one that does. Where none does there are no untrained ones.
        activations: Activations of natural images.
        representatives: Class representatives.
        runtime: Engine, progress.

    Returns:
        A plan with the shards ``margin`` and ``untrained/<draw>``.
    """
    fingerprints = activations.fingerprints()
    clean = [(key, fingerprints[key]) for key in activations.select(natural=True, split="validation")]
    readers = (key for key in (best, *detectors) if _reads_trajectories(detectors, key))
    like = next(readers, None)
    jobs = [ControlJob(key, None if key == MARGIN else like) for key in CONTROL_KEYS if key == MARGIN or like]
    shards = tuple(
        ShardSpec(job.key, fingerprint(repr(job), job.like and detectors.fingerprint(job.like), clean), job)
        for job in jobs
    )
    work = ControlWork(activations, detectors, representatives)
    return ShardPlan(work=work, shards=shards, runtime=runtime, description="controls")


def _reads_trajectories(detectors: ShardStore, key: str) -> bool:
    return DetectorParams.model_validate(detectors.metadata(key)["params"]).reads_trajectories
