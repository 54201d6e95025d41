"""Forms of the gate: detectors that ask about the class, the twin that is asked for the similarity too, or both."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from adv_detect.algorithms.similarity_thresholds import carries, pairs_needed, threshold_at_rejection
from adv_detect.measures.faces.gate import NOT_READ, PAIRS, VALIDATION, GateThreshold
from adv_detect.measures.faces.verification import Scores
from adv_detect.names import GATE_BOTH, GATE_DETECTOR, GATE_SIMILARITY

LOGGER = logging.getLogger(__name__)
NO_DETECTOR = ""
"""In the place of a detector: a gate without any."""


@dataclass(frozen=True)
class Gate:
    """One gate of the table.

    Attributes:
        form: ``detector``, ``similarity`` or ``both``.
        detector: Key of the detector in it; empty for none.
        label: Name in tables: the configuration of the detector, ``similarity``, or both joined by ``and``.
    """

    form: str
    detector: str
    label: str


def list_gates(forms: Sequence[str], detectors: Mapping[str, str]) -> list[Gate]:
    """List the gates to measure.

    Args:
        forms: The configured forms.
        detectors: Configuration of each detector by its key.

    Returns:
        Of each form with a detector one gate per detector, in the order of the forms.
    """
    gates = []
    for form in forms:
        if form == GATE_SIMILARITY:
            gates.append(Gate(form, NO_DETECTOR, GATE_SIMILARITY))
        else:
            ending = f" and {GATE_SIMILARITY}" if form == GATE_BOTH else ""
            gates += [Gate(form, key, f"{name}{ending}") for key, name in detectors.items()]
    return gates


def similarity_thresholds(validation: Scores, pairs: pd.DataFrame, rates: Iterable[float]) -> list[GateThreshold]:
    """Fix the thresholds of the twin's similarity, on clean pairs of the same person.

    Args:
        validation: Similarities in the twin of validation images, each with another picture of the person, ``(n,)``.
        pairs: Clean pairs of the protocol: ``same``, ``fold``, ``twin_score``.
        rates: Shares of clean pairs of the same person that may be turned away.

    Returns:
        The thresholds, by kind of pairs, then by rate. A rate that the pairs cannot carry is left out, with a warning;
        those of the protocol must carry it without any one fold.
    """
    wanted = tuple(rates)
    same = pairs[pairs["same"].to_numpy(dtype=bool)]
    largest = int(same["fold"].value_counts().max()) if same["fold"].nunique() > 1 else 0
    kinds = (
        (VALIDATION, validation, len(validation)),
        (PAIRS, same["twin_score"].to_numpy(dtype=np.float64), len(same) - largest),
    )
    found = []
    for name, values, count in kinds:
        good = [rate for rate in wanted if carries(count, rate)]
        if len(good) < len(wanted):
            _report(name, count, [rate for rate in wanted if rate not in good])
        found += [_threshold(name, rate, values) for rate in good]
    return found


def joined_thresholds(detector: Iterable[GateThreshold], twin: Iterable[GateThreshold]) -> list[GateThreshold]:
    """Join the thresholds of a detector and of the twin that were fixed on the same kind of images at the same rate.

    Args:
        detector: Thresholds of a detector.
        twin: Thresholds of the twin's similarity.

    Returns:
        Those for which there are both, in the order of the detector's.
    """
    second = {(one.calibrated_on, one.fpr): one for one in twin}
    return [
        replace(one, twin=other.twin, n_pairs=other.n_pairs)
        for one in detector
        if (other := second.get((one.calibrated_on, one.fpr))) is not None
    ]


def thresholds_of(gate: Gate, detector: list[GateThreshold], twin: list[GateThreshold]) -> list[GateThreshold]:
    """Choose the thresholds of a gate.

    Args:
        gate: The gate.
        detector: Thresholds of its detector; not read for a gate without one.
        twin: Thresholds of the twin's similarity; not read for a gate without it.

    Returns:
        The thresholds that it reads.
    """
    if gate.form == GATE_DETECTOR:
        return detector
    return list(twin) if gate.form == GATE_SIMILARITY else joined_thresholds(detector, twin)


def _threshold(name: str, rate: float, same: Scores) -> GateThreshold:
    value = threshold_at_rejection(torch.tensor(same), rate)
    return GateThreshold(name, rate, NOT_READ, 0, twin=value, n_pairs=len(same))


def _report(name: str, count: int, rates: list[float]) -> None:
    told = ", ".join(f"{rate:g} (needs {pairs_needed(rate)})" for rate in rates)
    LOGGER.warning(
        "face_recognition: gates that ask the twin are left out at thresholds from %s at the rates %s: there are %d "
        "clean pairs of the same person",
        name,
        told,
        count,
    )
