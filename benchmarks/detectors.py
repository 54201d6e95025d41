"""Training of a detector against a plain loop over a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count as numbers
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.algorithms.detectors import TrajectoryReadout, build_readout, score_trajectories
from adv_detect.algorithms.detectors.trajectory.sampling import TrajectorySet, group_weights
from adv_detect.algorithms.detectors.trajectory.training import fit_readout
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.roc import area
from adv_detect.params import AttackParams, DetectorFitParams, DetectorParams
from benchmarks.measure import OURS, Row, Settings, in_turns, ratios
from benchmarks.subjects import digit_representatives, digits

GOAL = 2.0
"""Of the time to the same AUC: both sides learn the same in an epoch (same AUC within the slack), so of an epoch's."""
EPOCHS, BATCH = 5, 128
AUC_SLACK = 0.01
CONFIGURATIONS = {
    "lstm": DetectorParams(kind="lstm", representative="medoid", distance="cosine"),
    "mlp": DetectorParams(kind="mlp", representative="medoid", distance="cosine"),
}


def measure_training(settings: Settings) -> Iterator[Row]:
    """The same architecture, optimiser, batch size, weights of the draws and number of draws; a seed a run."""
    train, validation = trajectory_sets(settings)
    fit = DetectorFitParams(
        epochs=settings.size(EPOCHS, 2), batch_size=BATCH, stop_patience=EPOCHS + 1, lr_patience=EPOCHS + 1
    )
    for kind, params in CONFIGURATIONS.items():
        yield _against_loop(kind, train, validation, params, fit, settings)


def _against_loop(
    kind: str,
    train: TrajectorySet,
    validation: TrajectorySet,
    params: DetectorParams,
    fit: DetectorFitParams,
    settings: Settings,
) -> Row:
    aucs: dict[str, list[float]] = {OURS: [], "loop": []}
    seeds = {name: numbers() for name in aucs}

    def ours() -> None:
        seed = next(seeds[OURS])
        fitted = fit_readout(train, validation, params=params, fit=fit, seed=seed, device=settings.device)
        aucs[OURS].append(auc(fitted.detector, validation))

    def loop() -> None:
        detector = plain_loop(train, validation, params, fit, seed=next(seeds["loop"]), device=settings.device)
        aucs["loop"].append(auc(detector, validation))

    times = in_turns({OURS: ours, "loop": loop}, settings.device, rounds=settings.rounds)
    behind = median(other - own for own, other in zip(aucs[OURS], aucs["loop"], strict=True))
    rows = fit.epochs * len(train)
    rates = {name: rows / min(values) for name, values in times.items()}
    note = (
        f"{len(train):,} trajectories {tuple(train.trajectories.shape[1:])}, {fit.epochs} epochs, batch size {BATCH}; "
        f"ours / loop: {rates[OURS]:,.0f} / {rates['loop']:,.0f} samples a second, validation AUC "
        f"{_range(aucs[OURS])} / {_range(aucs['loop'])} over {len(aucs[OURS])} seeds, "
        f"median of the differences of equal seeds {-behind:+.4f}"
    )
    worse = "lower AUC" if behind > AUC_SLACK else ""
    outcome = {"samples_per_second": rates[OURS], "other_samples_per_second": rates["loop"]}
    values = ratios(times["loop"], times[OURS])
    return Row("detector training", f"{kind}: DataLoader loop / ours", values, note, GOAL, worse=worse, outcome=outcome)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f} - {max(values):.3f}"


def plain_loop(
    train: TrajectorySet,
    validation: TrajectorySet,
    params: DetectorParams,
    fit: DetectorFitParams,
    *,
    seed: int,
    device: torch.device,
) -> TrajectoryReadout:
    """Train as most would: a DataLoader in this process, Adam, the validation AUC after each epoch."""
    _, layers, classes = train.trajectories.shape
    detector = build_readout(params, layers=layers, classes=classes, seed=seed)
    detector.fit_standardisation(train.trajectories)
    detector.to(device)
    data = TensorDataset(train.trajectories, train.adversarial.float())
    generator = torch.Generator().manual_seed(seed)
    sampler = WeightedRandomSampler(group_weights(train.group_ids).tolist(), len(train), generator=generator)
    loader = DataLoader(data, batch_size=fit.batch_size, sampler=sampler, num_workers=0)
    optimizer = torch.optim.Adam(detector.parameters(), lr=fit.learning_rate)
    for _ in range(fit.epochs):
        _plain_epoch(detector.train(), loader, optimizer, device)
        auc(detector, validation)
    return detector


def _plain_epoch(
    detector: nn.Module, loader: DataLoader[tuple[Tensor, ...]], optimizer: torch.optim.Optimizer, device: torch.device
) -> float:
    loss = nn.BCEWithLogitsLoss()
    total = 0.0
    for rows, targets in loader:
        optimizer.zero_grad()
        value = loss(detector(rows.to(device)), targets.to(device))
        value.backward()
        optimizer.step()
        total += value.item()
    return total


def auc(detector: TrajectoryReadout, rows: TrajectorySet) -> float:
    """Area under the ROC curve of a detector on labelled trajectories."""
    place = next(detector.parameters()).device
    scores = score_trajectories(detector.eval(), rows.trajectories.to(place)).cpu().numpy()
    flags = rows.adversarial.numpy()
    return area(scores[flags], scores[~flags])


def trajectory_sets(settings: Settings) -> tuple[TrajectorySet, TrajectorySet]:
    """Trajectories of digits and of their early-stopped BIM images; even images to train, odd ones to validate."""
    network, images, labels = digits(settings)
    count = settings.size(1500, 200)
    images, labels = images[:count], labels[:count]
    attack = build_attack("bim", AttackParams(attack="bim", norm="linf", epsilon=0.3, arguments={"steps": 10}))
    result = run_attack(attack, network, images, labels, bounds=(0.0, 1.0), seed=0)
    distances = ClassDistances(digit_representatives(settings).medoids, "cosine").to(settings.device)
    with torch.no_grad():
        clean, attacked = (
            distances(extract_features(network, one, network.spec.layers)[1]).cpu() for one in (images, result.images)
        )
    success = result.success.cpu()
    even, odd = (_labelled(clean[part::2], attacked[part::2][success[part::2]]) for part in (0, 1))
    return even, odd


def _labelled(clean: Tensor, attacked: Tensor) -> TrajectorySet:
    flags = torch.cat([torch.zeros(len(clean)), torch.ones(len(attacked))]).bool()
    return TrajectorySet(torch.cat([clean, attacked]), flags, ["bim" if flag else "natural" for flag in flags.tolist()])
