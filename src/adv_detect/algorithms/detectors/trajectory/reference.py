"""Reader of the detectors that Massoli et al. (arXiv 1912.02918) published."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor

from adv_detect.algorithms.detectors.trajectory.mlp import MLPReadout
from adv_detect.algorithms.detectors.trajectory.readout import TrajectoryReadout
from adv_detect.algorithms.detectors.trajectory.sequence import BidirectionalReadout, SequenceReadout
from adv_detect.errors import CheckpointError, ConfigurationError
from adv_detect.networks.finite import check_finite
from adv_detect.params import Criterion, DetectorParams, Distance, Representative, TrajectoryKind

DETECTOR_KEY = "detector"

_NAME = re.compile(
    r"best_model_with_arch_(?P<arch>[^_]+)_method_(?P<method>[^_]+)_dist_(?P<dist>[^_]+)"
    r"_criterion_(?P<criterion>[^_]+)_lr_(?P<lr>[^_]+)_bs_(?P<bs>\d+)_ba_(?P<ba>\d+)_weightd_(?P<wd>[^_]+)\.pth"
)
_REPRESENTATIVES: dict[str, Representative] = {"m": "medoid", "c": "centroid"}
_DISTANCES: dict[str, Distance] = {"euclidean": "euclidean", "cosine": "cosine"}
_CRITERIA: dict[str, Criterion] = {"t": "targeted", "ut": "untargeted"}
_KINDS = {kind: kind for kind in get_args(TrajectoryKind)}

_SCALARS: list[Any] = [  # harmless companions of the weights, such as a recorded AUC
    np.dtype,
    np.float64(0).__reduce__()[0],
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    *(type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64")),
]


class ReferenceName(NamedTuple):
    """Attributes in the file name of a published detector.

    Attributes:
        params: What the detector reads and how; the hidden width is not in the name.
        criterion: Kind of attacks it was trained on.
    """

    params: DetectorParams
    criterion: Criterion


def parse_reference_name(path: str | Path) -> ReferenceName:
    """Read the configuration of a published detector off its file name.

    Args:
        path: A file, which need not exist, named like
            ``best_model_with_arch_lstm_method_m_dist_cosine_criterion_t_lr_0.0003_bs_32_ba_4_weightd_0.pth``.

    Returns:
        Configuration and criterion.

    Raises:
        ConfigurationError: The name has another form or holds an unknown choice.
    """
    name = Path(path).name
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigurationError(
            "expected a file name like best_model_with_arch_<arch>_method_<m|c>_dist_<euclidean|cosine>"
            f"_criterion_<t|ut>_lr_<rate>_bs_<size>_ba_<batches>_weightd_<decay>.pth, got {name!r}"
        )
    params = DetectorParams.model_validate(
        {
            "kind": _choice(match, "arch", _KINDS),
            "representative": _choice(match, "method", _REPRESENTATIVES),
            "distance": _choice(match, "dist", _DISTANCES),
        }
    )
    return ReferenceName(params, cast(Criterion, _choice(match, "criterion", _CRITERIA)))


def _choice(match: re.Match[str], part: str, choices: Mapping[str, str]) -> str:
    if match[part] not in choices:
        raise ConfigurationError(
            f"expected one of [{', '.join(choices)}] as {part} in the file name, got {match[part]!r} in {match[0]!r}"
        )
    return choices[match[part]]


def load_reference_detector(path: str | Path, *, layers: int | None = None) -> TrajectoryReadout:
    """Load a published detector; kind, hidden width and number of classes follow from its tensors.

    The published detectors read distances as they are: mean 0, standard deviation 1.

    Args:
        path: A ``torch.save`` dictionary with the state dict under ``detector``. Only tensors and plain values
            are unpickled, never code.
        layers: L. Without it an LSTM takes trajectories of any length and an MLP any (L, C) of the right
            product; with it the standardisation has the full shape (L, C) and every other shape is refused.

    Returns:
        A detector in evaluation mode on the CPU: trajectories (N, L, C) to logits (N,).

    Raises:
        CheckpointError: The file is missing or no such dictionary, or tensors are missing, unexpected, of the
            wrong shape or not finite; the message names them.
    """
    tensors = _read_tensors(Path(path))
    detector = _build(tensors, layers, path)
    _check_tensors(tensors, dict(_weights(detector)), path)
    check_finite(detector, tensors, str(path))
    detector.set_standardisation(torch.zeros(()), torch.ones(()))
    detector.load_state_dict(tensors, strict=False)  # strict but for mean and std: checked above
    return detector.eval()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"expected a detector checkpoint at {path}, got no such file")
    try:
        with torch.serialization.safe_globals(_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as exc:
        raise CheckpointError(
            f"{path}: expected a torch.save dictionary of tensors, got a file that holds something else or is damaged"
        ) from exc
    tensors = content.get(DETECTOR_KEY) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(one, Tensor) for one in tensors.values()):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: expected a dictionary whose key {DETECTOR_KEY!r} is a state dict, got {found}")
    return dict(tensors)


def _build(tensors: Mapping[str, Tensor], layers: int | None, path: str | Path) -> TrajectoryReadout:
    recurrent = any(name.startswith("lstm.") for name in tensors)
    backward = any(name.endswith("_reverse") for name in tensors)
    first = "lstm.weight_ih_l0" if recurrent else "fc.0.weight"
    weight = tensors.get(first)
    if weight is None or weight.ndim != 2:
        raise CheckpointError(f"{path}: expected a 2-D tensor {first!r} (of an LSTM or an MLP), got {_shapes(tensors)}")
    rows, width = weight.shape
    with torch.random.fork_rng(devices=[]):
        if not recurrent:
            return MLPReadout(layers, _classes(width, layers, path), hidden=rows, inputs=width)
        made = BidirectionalReadout if backward else SequenceReadout
        return made(layers, width, hidden=max(rows // 4, 1))


def _classes(inputs: int, layers: int | None, path: str | Path) -> int | None:
    if layers is None:
        return None
    if inputs % layers:
        raise CheckpointError(
            f"{path}: expected L * C = {inputs} inputs of the MLP, got L = {layers}, no divisor of it"
        )
    return inputs // layers


def _weights(detector: TrajectoryReadout) -> list[tuple[str, Tensor]]:
    return [(name, one.detach()) for name, one in detector.named_parameters()]


def _check_tensors(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path) -> None:
    missing, unexpected = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    wrong = [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(got[name].shape)}"
        for name in sorted(set(expected) & set(got))
        if expected[name].shape != got[name].shape
    ]
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{path}: the tensors do not fit a published detector; missing {missing}, unexpected {unexpected}, "
            f"wrong shape {wrong}; give an untouched checkpoint"
        )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in tensors.items()}
