"""Where the time of our own work goes: shares of single operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from adv_detect.algorithms.attacks import minimal_norm_walk
from adv_detect.algorithms.attacks.deep_features_lbfgs import LbfgsSteps
from adv_detect.algorithms.detectors.trajectory.training import fit_readout
from adv_detect.algorithms.medoids import medoid_index
from adv_detect.params import DetectorFitParams
from benchmarks.attacks import digit_task, face_task
from benchmarks.bare import best_gradient, gradient
from benchmarks.deep_features import Impersonation, digit_impersonation, solve_ours
from benchmarks.detectors import BATCH, CONFIGURATIONS, trajectory_sets
from benchmarks.libraries import Ours, Task, attack_all
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios, seconds, synchronise
from benchmarks.medoids import GOAL_COUNT, points
from benchmarks.scoring import CONFIGURATIONS as SCORED
from benchmarks.scoring import GOAL_BATCH, digit_model
from benchmarks.subjects import digits

GROUP = "profile"
ALONE = 10
"""How often the gradient of one image is timed at a stretch."""
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")
LSTM = (
    "aten::lstm", "aten::mkldnn_rnn_layer_backward", "aten::_cudnn_rnn_backward",
    "aten::_thnn_fused_lstm_cell_backward_impl",
)  # fmt: skip
"""Forward and backward; the names of the backward pass depend on processor and GPU."""


def measure_profile(settings: Settings) -> Iterator[Row]:
    """Figures behind the explanations in the document; none has a goal."""
    yield _convolutions(settings)
    yield _lstm(settings)
    yield from _scoring(settings)
    yield _medoid(settings)
    aim = digit_impersonation(settings, early=False)
    task = Task(aim.network, aim.images, aim.labels, aim.targets, "deep-features")
    yield _share_of_gradients(aim, task, settings)
    search = _shares_within(LbfgsSteps, "advance", partial(solve_ours, aim), settings)
    note = f"n = {len(aim.images)}, directions and line search"
    yield Row(GROUP, "search in deep features (L-BFGS), `small`", search, note, unit="%")
    yield _projections("`small`", digit_task(settings, "minimal-norm", "untargeted", len(aim.images)), settings)
    faces = face_task(settings, "minimal-norm", "untargeted", settings.size(64, 2, gpu=256))
    yield _projections("face network", faces, settings)
    yield _one_at_a_time("`small`", task, settings)
    yield _one_at_a_time("face network", face_task(settings, "bim", "untargeted", 2), settings)


def _convolutions(settings: Settings) -> Row:
    task = digit_task(settings, "bim", "untargeted", settings.size(256, 32, gpu=1536))
    values = _shares(partial(attack_all, Ours(task, early=False), task), CONVOLUTIONS, settings)
    note = f"n = {len(task.images)}, {task.steps} steps, forward and backward"
    return Row(GROUP, "convolutions in bim untargeted, all steps, `small`", values, note, unit="%")


def _lstm(settings: Settings) -> Row:
    train, validation = trajectory_sets(settings)
    epochs = settings.size(2, 1)
    fit = DetectorFitParams(epochs=epochs, batch_size=BATCH)
    params = CONFIGURATIONS["lstm"]
    work = partial(fit_readout, train, validation, params=params, fit=fit, seed=0, device=settings.device)
    note = f"{len(train):,} trajectories, {epochs} epochs, batch size {BATCH}, forward and backward"
    return Row(GROUP, "LSTM in detector training", _shares(work, LSTM, settings), note, unit="%")


def _scoring(settings: Settings) -> Iterator[Row]:
    """What scoring adds to the network: the read-out, and the averages over each layer."""
    params = SCORED[1]
    model = digit_model(params, settings)
    images = digits(settings)[1][:GOAL_BATCH]

    @torch.no_grad()
    def work() -> None:
        model(images)

    note = f"batch {len(images)}, {params.kind} {params.distance} {params.order}"
    for label, operations in (("LSTM", ("aten::lstm",)), ("averages over layers", ("aten::mean",))):
        yield Row(GROUP, f"{label} in scoring, `small`", _shares(work, operations, settings), note, unit="%")


def _medoid(settings: Settings) -> Row:
    features = points(settings.size(GOAL_COUNT, 500))
    values = _shares(partial(medoid_index, features), ("aten::mm",), settings)
    note = f"n = {len(features):,}, D = {features.shape[1]}"
    return Row(GROUP, "matrix products in the medoid", values, note, unit="%")


def _shares(work: Callable[[], object], operations: Iterable[str], settings: Settings) -> tuple[float, ...]:
    """Per cent of the time of all operations that some take, with what they call; a value a round."""
    work()
    return tuple(_share(work, frozenset(operations), settings) for _ in range(settings.rounds))


def _share(work: Callable[[], object], operations: frozenset[str], settings: Settings) -> float:
    on_gpu = settings.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        work()
    rows = [row for row in profiled.key_averages() if row.device_type == DeviceType.CPU]
    own, whole = (
        ("self_device_time_total", "device_time_total") if on_gpu else ("self_cpu_time_total", "cpu_time_total")
    )
    chosen = sum(getattr(row, whole) for row in rows if row.key in operations)
    return 100 * chosen / sum(getattr(row, own) for row in rows)


def _share_of_gradients(aim: Impersonation, task: Task, settings: Settings) -> Row:
    """The rest is the search itself."""
    bare, size = best_gradient(task, settings)
    each = solve_ours(aim)[1]
    times = in_turns({OURS: partial(solve_ours, aim), "bare": bare}, settings.device, rounds=settings.rounds)
    values = ratios(times["bare"], times[OURS], scale=100 * each * len(aim.images) / size)
    note = (
        f"n = {len(aim.images)}, {each:.1f} gradients an image x time of a bare one at batch size {size} / whole time"
    )
    return Row(GROUP, "network gradients in deep features (L-BFGS), `small`", values, note, unit="%")


def _projections(label: str, task: Task, settings: Settings) -> Row:
    work = partial(attack_all, Ours(task), task)
    values = _shares_within(minimal_norm_walk, "project_to_plane", work, settings)
    return Row(GROUP, f"projections in minimal-norm, {label}", values, f"n = {len(task.images)}, untargeted", unit="%")


def _shares_within(owner: object, name: str, work: Callable[[], object], settings: Settings) -> tuple[float, ...]:
    """Per cent of the time of a work that passes in one function or method, with what it calls; a value a round."""
    inner = getattr(owner, name)
    spent = 0.0

    def timed(*values: object, **named: object) -> object:
        nonlocal spent
        synchronise(settings.device)
        started = time.perf_counter()
        answer = inner(*values, **named)
        synchronise(settings.device)
        spent += time.perf_counter() - started
        return answer

    work()
    shares = []
    for _ in range(settings.rounds):
        spent = 0.0
        with patch.object(owner, name, timed):
            whole = seconds(work, settings.device)
        shares.append(100 * spent / whole)
    return tuple(shares)


def _one_at_a_time(label: str, task: Task, settings: Settings) -> Row:
    """What batches save at most."""
    many, size = best_gradient(task, settings)
    repeats = settings.size(ALONE, 1)
    one = gradient(task, 1)
    works: dict[str, Callable[[], object]] = {"one": lambda: [one() for _ in range(repeats)], "many": many}
    times = in_turns(works, settings.device, rounds=settings.rounds)
    values = ratios(times["one"], times["many"], scale=size / repeats)
    note = f"per image; {1000 * min(times['one']) / repeats:.2f} ms alone, best batch size {size}"
    return Row(GROUP, f"gradient of one image / of one in a batch, {label}", values, note)
