"""Extraction, medoids, detector training and scoring."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from adv_detect.algorithms.attacks.registry import build_attack
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.algorithms.detector_training import fit_detector
from adv_detect.algorithms.detectors import TrajectoryDetector, build_detector, random_detector, score_trajectories
from adv_detect.algorithms.detectors.end_to_end import DetectionModel
from adv_detect.algorithms.distances import ClassDistances
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.medoids import medoid_index
from adv_detect.algorithms.metrics import area
from adv_detect.algorithms.representatives import Representatives
from adv_detect.algorithms.sampling import TrajectorySet, group_weights
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import AttackParams, DetectorFitParams, DetectorParams
from benchmarks.harness import Row, Settings, alternate, in_child, seconds
from benchmarks.subjects import digit_representatives, digits, faces

BATCH = 256
EXTRACTION_GOAL = SCORING_GOAL = 1.10
MEDOID_GOAL, TRAINING_GOAL = 10.0, 5.0
MEDOID_WIDTH = 200
EPOCHS, TRAIN_BATCH = 5, 128


def measure_extraction(settings: Settings) -> Iterator[Row]:
    """Features and trajectories against a bare forward pass, and against one image at a time."""
    device = str(settings.device)
    network, images, _ = digits(device)
    medoids = digit_representatives(device).medoids
    yield _extracted("`small`", network, images[: settings.size(1024, 256)], medoids, settings)
    face, pictures, _ = faces(device, settings.size(32, 8))
    centres = [torch.randn(62, width, device=settings.device) for width in _widths(face, pictures[:1])]
    yield _extracted("face network", face, pictures, centres, settings)
    yield _against_loop(network, images[: settings.size(100, 20)], medoids, settings)


def _extracted(label: str, network: TargetNetwork, images: Tensor, centres: list[Tensor], settings: Settings) -> Row:
    layers = network.spec.layers
    distances = ClassDistances(centres, "cosine").to(settings.device)

    @torch.no_grad()
    def ours() -> None:
        for batch in torch.split(images, BATCH):
            distances(extract_features(network, batch, layers)[1])

    @torch.no_grad()
    def bare() -> None:
        for batch in torch.split(images, BATCH):
            network(batch)

    ratios = tuple(1 / one for one in alternate(ours, bare, settings, rounds=2 * settings.rounds + 1))
    size = min(BATCH, len(images))
    note = f"n = {len(images)}, batch size {size}, {len(layers)} layers, {len(centres[0])} classes, cosine"
    name = f"features + trajectories, {label}: time / bare forward"
    return Row("extraction", name, ratios, note, EXTRACTION_GOAL, at_most=True)


def _against_loop(network: TargetNetwork, images: Tensor, centres: list[Tensor], settings: Settings) -> Row:
    layers = network.spec.layers
    distances = ClassDistances(centres, "cosine").to(settings.device)

    @torch.no_grad()
    def looped() -> None:
        for image in images:
            for layer, one in enumerate(extract_features(network, image[None], layers)[1]):
                for centre in centres[layer]:
                    nn.functional.cosine_similarity(one, centre[None])

    @torch.no_grad()
    def ours() -> None:
        distances(extract_features(network, images, layers)[1])

    note = f"n = {len(images)}; the way of the published code"
    name = "one image, layer and class at a time / ours"
    return Row("extraction", name, alternate(ours, looped, settings), note)


def _widths(network: TargetNetwork, image: Tensor) -> list[int]:
    with torch.no_grad():
        return [one.shape[1] for one in extract_features(network, image, network.spec.layers)[1]]


def scipy_medoid(count: int) -> int:
    from scipy.spatial.distance import pdist, squareform

    return int(squareform(pdist(points(count).double().numpy())).sum(axis=1).argmin())


def our_medoid(count: int) -> int:
    return medoid_index(points(count))


def points(count: int) -> Tensor:
    return torch.randn(count, MEDOID_WIDTH, generator=torch.Generator().manual_seed(0))


def measure_medoids(settings: Settings) -> Iterator[Row]:
    """Exact medoid against SciPy's full distance matrix: time, peak memory, same index."""
    for count in (1000,) if settings.quick else (1000, 3000, 6000):
        ratios = alternate(lambda: our_medoid(count), lambda: scipy_medoid(count), settings)  # noqa: B023
        (mine, _, memory), (theirs, _, their_memory) = in_child(our_medoid, count), in_child(scipy_medoid, count)
        same = "same index" if mine == theirs else f"OTHER INDEX: {mine} and {theirs}"
        note = f"D = {MEDOID_WIDTH}; {same}; peak memory +{memory:.0f} / +{their_memory:.0f} MiB (ours / theirs)"
        goal = MEDOID_GOAL if count == 6000 else None
        yield Row("medoids", f"n = {count:,}: SciPy / ours", ratios, note, goal)
    if not settings.quick:
        _, spent, memory = in_child(our_medoid, 20_000)
        note = f"ours alone, +{memory:.0f} MiB; SciPy's two matrices would take {20_000**2 * 8 * 1.5 / 2**30:.1f} GiB"
        yield Row("medoids", "n = 20,000: seconds of ours", (spent,), note, unit="s")


def measure_training(settings: Settings) -> Iterator[Row]:
    """One detector against a plain loop over a DataLoader: the same network, optimiser, batch size and draws."""
    train, validation = _trajectories(settings)
    params = DetectorParams(kind="lstm", representative="medoid", distance="cosine")
    fit = DetectorFitParams(
        epochs=settings.size(EPOCHS, 2), batch_size=TRAIN_BATCH, stop_patience=EPOCHS, lr_patience=EPOCHS
    )
    aucs: dict[str, float] = {}

    def ours() -> None:
        fitted = fit_detector(train, validation, params=params, fit=fit, seed=0, device=settings.device)
        aucs["ours"] = _auc(fitted.detector, validation)

    def plain() -> None:
        aucs["other"] = _auc(_plain_loop(train, validation, params, fit, settings.device), validation)

    ratios = alternate(ours, plain, settings)
    note = (
        f"{len(train):,} trajectories of {train.trajectories.shape[1]} layers, {fit.epochs} epochs, batch size "
        f"{TRAIN_BATCH}; validation AUC {aucs['ours']:.3f} / {aucs['other']:.3f} (ours / theirs)"
    )
    yield Row("detector training", "DataLoader loop / ours", ratios, note, TRAINING_GOAL)


def _trajectories(settings: Settings) -> tuple[TrajectorySet, TrajectorySet]:
    device = str(settings.device)
    network, images, labels = digits(device)
    count = settings.size(1500, 300)
    images, labels = images[:count], labels[:count]
    attack = build_attack("bim", AttackParams(attack="bim", norm="linf", epsilon=0.3, arguments={"steps": 10}))
    result = run_attack(attack, network, images, labels, bounds=(0.0, 1.0), seed=0)
    distances = ClassDistances(digit_representatives(device).medoids, "cosine").to(settings.device)
    with torch.no_grad():
        clean, attacked = (
            torch.cat([distances(extract_features(network, part, network.spec.layers)[1]) for part in one.split(BATCH)])
            for one in (images, result.images[result.success])
        )
    sets = []
    for part in (slice(0, None, 2), slice(1, None, 2)):
        rows = torch.cat([clean[part], attacked[part]]).cpu()
        flags = torch.cat([torch.zeros(len(clean[part])), torch.ones(len(attacked[part]))]).bool()
        sets.append(TrajectorySet(rows, flags, ["bim" if flag else "natural" for flag in flags.tolist()]))
    return sets[0], sets[1]


def _plain_loop(
    train: TrajectorySet,
    validation: TrajectorySet,
    params: DetectorParams,
    fit: DetectorFitParams,
    device: torch.device,
) -> TrajectoryDetector:
    torch.manual_seed(0)
    _, layers, classes = train.trajectories.shape
    detector = build_detector(params, layers=layers, classes=classes).to(device)
    detector.fit_standardisation(train.trajectories.to(device))
    data = TensorDataset(train.trajectories, train.adversarial.float())
    sampler = WeightedRandomSampler(group_weights(train.group_ids).tolist(), len(train))
    loader = DataLoader(data, batch_size=fit.batch_size, sampler=sampler)
    optimizer = torch.optim.Adam(detector.parameters(), lr=fit.learning_rate)
    loss = nn.BCEWithLogitsLoss()
    for _ in range(fit.epochs):
        detector.train()
        for rows, targets in loader:
            optimizer.zero_grad()
            value = loss(detector(rows.to(device)), targets.to(device))
            value.backward()
            optimizer.step()
            value.item()
        _auc(detector.eval(), validation)
    return detector.cpu()


def _auc(detector: TrajectoryDetector, rows: TrajectorySet) -> float:
    place = next(detector.parameters()).device
    scores = score_trajectories(detector.eval(), rows.trajectories.to(place)).cpu().numpy()
    flags = rows.adversarial.numpy()
    return area(scores[flags], scores[~flags])


def measure_scoring(settings: Settings) -> Iterator[Row]:
    """Network with detector against the network alone."""
    device = str(settings.device)
    network, images, _ = digits(device)
    representatives = digit_representatives(device)
    for params in (
        DetectorParams(kind="lstm", representative="medoid", distance="cosine"),
        DetectorParams(kind="lstm", representative="centroid", distance="mahalanobis", order="ranked"),
    ):
        detector = random_detector(params, len(network.spec.layers), 10, seed=0).to(settings.device)
        model = DetectionModel(network, representatives, detector, params).eval().to(settings.device)
        for size in (1, BATCH):
            repeats = settings.size(200 if size == 1 else 10, 3)
            batch = images[:size]
            yield _scored(f"`small`, {params.distance}, batch {size}", model, network, batch, repeats, settings)
    face, pictures, _ = faces(device, settings.size(32, 8))
    centres = _random_representatives(face, pictures)
    params = DetectorParams(kind="lstm", representative="medoid", distance="cosine")
    detector = random_detector(params, len(face.spec.layers), len(face.spec.class_names), seed=0).to(settings.device)
    model = DetectionModel(face, centres, detector, params).eval().to(settings.device)
    yield _scored(f"face network, cosine, batch {len(pictures)}", model, face, pictures, 2, settings)


def _random_representatives(network: TargetNetwork, images: Tensor) -> Representatives:
    widths = _widths(network, images[:1])
    classes = network.spec.class_names
    generator = torch.Generator().manual_seed(0)
    centres = [torch.randn(len(classes), width, generator=generator).to(images.device) for width in widths]
    eyes = [torch.eye(width, device=images.device) for width in widths]
    names = [[""] * len(classes) for _ in widths]
    return Representatives(tuple(network.spec.layers), tuple(classes), centres, centres, eyes, names)


@torch.no_grad()
def _scored(label: str, model: nn.Module, network: nn.Module, batch: Tensor, repeats: int, settings: Settings) -> Row:
    def ours() -> None:
        for _ in range(repeats):
            model(batch)

    def alone() -> None:
        for _ in range(repeats):
            network(batch)

    with torch.no_grad():
        ratios = tuple(1 / one for one in alternate(ours, alone, settings, rounds=2 * settings.rounds + 1))
        latency = seconds(ours, settings.device) / repeats
    note = f"{1000 * latency:.1f} ms a batch with the detector, {len(batch) / latency:,.0f} images a second"
    goal = SCORING_GOAL if len(batch) > 1 else None
    return Row("scoring", f"{label}: with detector / without", ratios, note, goal, at_most=True)


def measure_parts(settings: Settings) -> Iterator[Row]:
    np.random.seed(0)
    yield from measure_extraction(settings)
    yield from measure_medoids(settings)
    yield from measure_training(settings)
    yield from measure_scoring(settings)
