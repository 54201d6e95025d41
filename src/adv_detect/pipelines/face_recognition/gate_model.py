"""Node that assembles the gate for verification that is registered."""

from __future__ import annotations

import pandas as pd

from adv_detect.absent import Absent
from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.representatives import Representatives
from adv_detect.jobs.activation_plans import twin_that_is_read
from adv_detect.jobs.detectors import best_detector, restore
from adv_detect.measures.detector_keys import SUMMARY_FIGURES
from adv_detect.measures.faces.gate import gate_detectors
from adv_detect.names import GATE_DETECTOR, DetectorKey
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import FaceRecognitionParams, ServingParams
from adv_detect.pipelines.face_recognition.clean_pairs import CleanPairs
from adv_detect.pipelines.face_recognition.embedders import asked_twin
from adv_detect.serving.bundle import ScoringBundle
from adv_detect.serving.verification import FORM, VerificationBundle
from adv_detect.sharding import ShardStore

SUFFIX = "-verification"
PICTURES = 2
"""Of a pair: a request holds so many times fewer pairs than images."""


def assemble_verifier(
    clean_pairs: CleanPairs,
    detectors: ShardStore,
    detector_summary: pd.DataFrame,
    network_weights: TargetNetwork,
    representatives: Representatives,
    twin: TargetNetwork | Absent,
    face_recognition: FaceRecognitionParams,
    serving: ServingParams,
) -> VerificationBundle:
    """Bundle network, a detector and the similarities of clean pairs for serving.

    Args:
        clean_pairs: Similarities of clean pairs, which fix the thresholds at any rate.
        detectors: The trained detectors.
        detector_summary: Their validation figures.
        network_weights: The network whose last layer is the embedding.
        representatives: Class representatives.
        twin: The second network, which is served where the detector reads it, or the gate asks it.
        face_recognition: Form and detector of the gate, the default false-accept rate, whether mirror images count.
        serving: Name, default false-positive rate and limits.

    Returns:
        Everything that verifying a pair of pictures takes.
    """
    gate = face_recognition.gate
    key = _detector(detector_summary, gate.detector)
    stored = restore(detectors, key, representatives)
    figures = detector_summary.set_index("detector")[[*SUMMARY_FIGURES]]
    own = {
        "name": f"{serving.name}{SUFFIX}",
        "fprs": sorted({*gate.fprs, serving.fpr}),
        "far": gate.far,
        FORM: gate.served,
        "mirror": face_recognition.mirror,
        "max_images": max(1, serving.max_images // PICTURES),
    }
    bundle = ScoringBundle(
        network=network_weights,
        representatives=representatives,
        stored=stored,
        twin=_served_twin(twin, stored, face_recognition),
        metadata=serving.model_dump() | own | {name: float(figures[name][key]) for name in SUMMARY_FIGURES},
    )
    return VerificationBundle(bundle, clean_pairs.same, clean_pairs.different, clean_pairs.twin_same)


def _served_twin(
    twin: TargetNetwork | Absent, stored: StoredDetector, params: FaceRecognitionParams
) -> TargetNetwork | None:
    read = twin_that_is_read(twin, {stored.key: stored.params})
    return read if params.gate.served == GATE_DETECTOR else asked_twin(twin, params)


def _detector(summary: pd.DataFrame, configuration: str | None) -> str:
    """Find the detector of a configuration; the best one for None."""
    if configuration is None:
        return best_detector(summary)
    return next(key for key in gate_detectors(summary) if DetectorKey.parse(key).configuration == configuration)
