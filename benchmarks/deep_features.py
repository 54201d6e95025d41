"""Attack on deep features against SciPy's L-BFGS-B, one image at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from adv_detect.algorithms.attacks.deep_features import last_features, run_deep_features
from adv_detect.algorithms.attacks.deep_features_objective import PIXEL_LEVELS
from adv_detect.algorithms.attacks.result import AttackContext
from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives
from benchmarks.harness import Row, Settings, seconds
from benchmarks.subjects import digit_representatives, digits, faces, other_classes

GOAL = 20.0
MAX_THRES = 10.0


def measure_deep_features(settings: Settings) -> Iterator[Row]:
    """Impersonation with early stop: our batch against SciPy image by image, each until the judge is fooled."""
    device = str(settings.device)
    network, images, labels = digits(device)
    representatives = digit_representatives(device)
    count = settings.size(64, 8)
    chosen = slice(700, 700 + count)
    yield _compared(
        "`small`", network, images[chosen], labels[chosen], representatives, settings, max_thres=76.5,
        iterations=settings.size(100, 10),
    )  # fmt: skip
    face, pictures, _ = faces(device, settings.size(8, 2) + 20)
    pictures = pictures[20:]
    people = _people(face)
    with torch.no_grad():
        features = extract_features(face, pictures, face.spec.layers[-1:])[1][0]
        owners = torch.cdist(features, people.medoids[-1]).argmin(dim=1)
    yield _compared(
        "face network", face, pictures, owners, people, settings, max_thres=MAX_THRES, iterations=settings.size(30, 3)
    )


def _people(network: torch.nn.Module) -> Representatives:
    """Medoids at the last layer: the features of other pictures."""
    _, pictures, _ = faces(str(next(network.parameters()).device), 48)
    with torch.no_grad():
        last = extract_features(network, pictures[-20:], network.spec.layers[-1:])[1][0]
    names = tuple(str(number) for number in range(len(last)))
    return Representatives(
        tuple(network.spec.layers[-1:]), names, [last], [last], [torch.eye(last.shape[1], device=last.device)],
        [list(names)],
    )  # fmt: skip


def _compared(
    label: str,
    network: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    representatives: Representatives,
    settings: Settings,
    *,
    max_thres: float,
    iterations: int,
) -> Row:
    targets = other_classes(labels, len(representatives.class_names))
    medoids = representatives.medoids[-1]
    features = last_features(network, representatives.layers)
    context = AttackContext(representatives=representatives, layers=representatives.layers)
    outcome: dict[str, Tensor] = {}

    def ours() -> None:
        result = run_deep_features(
            {"max_thres": max_thres, "iterations": iterations, "solver": "lbfgs"}, network, images, labels,
            targets=targets, bounds=(0.0, 1.0), seed=0, context=context, return_early=True,
        )  # fmt: skip
        outcome["ours"] = result.images

    def theirs() -> None:
        radius = max_thres / PIXEL_LEVELS
        outcome["other"] = torch.stack(
            [
                _scipy(features, image, target, medoids, radius, iterations)
                for image, target in zip(images, targets, strict=True)
            ]
        )

    ours()
    ratios = []
    for _ in range(1 if settings.quick else 2):
        mine, other = seconds(ours, settings.device), seconds(theirs, settings.device)
        ratios.append(other / mine)
    (rate, near), (their_rate, their_near) = (
        _judged(features(outcome[name].to(images)).detach(), medoids, targets) for name in ("ours", "other")
    )
    note = (
        f"n = {len(images)}, max_thres {max_thres:g}, at most {iterations} iterations, stopped when the nearest medoid "
        f"is the target; success {rate:.3f} / {their_rate:.3f}, distance to the guide {near:.3f} / {their_near:.3f} "
        "(ours / theirs)"
    )
    return Row("deep features", f"{label}: SciPy L-BFGS-B / ours", tuple(ratios), note, GOAL)


def _judged(features: Tensor, medoids: Tensor, targets: Tensor) -> tuple[float, float]:
    found = torch.cdist(features, medoids)
    success = found.argmin(dim=1) == targets
    return float(success.float().mean()), float(found.gather(1, targets[:, None]).mean())


def _scipy(features, image: Tensor, target: Tensor, medoids: Tensor, radius: float, iterations: int) -> Tensor:  # type: ignore[no-untyped-def]
    from scipy.optimize import minimize

    guide = medoids[target]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(flat.reshape(image.shape)).to(image).requires_grad_(True)
        value = (features(leaf[None])[0] - guide).norm()
        return float(value), torch.autograd.grad(value, leaf)[0].cpu().numpy().ravel().astype(np.float64)

    def stop(flat: np.ndarray) -> None:
        with torch.no_grad():
            now = features(torch.from_numpy(flat.reshape(1, *image.shape)).to(image))
        if int(torch.cdist(now, medoids).argmin()) == int(target):
            raise StopIteration

    start = image.cpu().numpy().ravel().astype(np.float64)
    box = np.stack([np.clip(start - radius, 0, 1), np.clip(start + radius, 0, 1)], axis=1)
    options = {"maxiter": iterations}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=box, options=options, callback=stop)
    return torch.from_numpy(found.x.reshape(image.shape)).to(torch.float32)
