"""False alarms of the twin by the number of clean images that its threshold rests on.

``python -m benchmarks.clean_images --env mnist``, after ``kedro run`` of that environment in this folder: half of the
test images give thresholds, in 20 draws of each size; the other half, as they are and after each benign change that
leaves the class of the network as it is, are judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adv_detect.algorithms.image_changes import build_change
from adv_detect.algorithms.thresholds import thresholds_at_fpr
from adv_detect.command_line.running import project_session
from adv_detect.images import load_images
from adv_detect.networks.target import TargetNetwork

FPR, DRAWS, SEED = 0.05, 20, 0
SIZES = (100, 300, 1000)
BATCH = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per change: share of images that keep their class, false alarms as least, median and largest."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clean_images", description=__doc__)
    parser.add_argument("--env", help="environment with a trained network and twin")
    given = parser.parse_args(arguments)
    with project_session(given.env, {}) as session:
        context = session.load_context()
        catalog, changes = context.catalog, context.params["evaluation"].benign_changes
        images, network, twin = (catalog.load(name) for name in ("test_images", "network_weights", "twin"))
    bounds = network.spec.bounds
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED)).tolist()
    half = len(drawn) // 2
    clean, _ = score(network, twin, load_images(images, drawn[:half], bounds))
    judged = load_images(images, drawn[half:], bounds)
    thresholds = draw_thresholds(clean)
    _, classes = score(network, twin, judged)
    print("change, class kept, false alarms at a threshold from " + ", ".join(f"{size} images" for size in thresholds))
    for name, params in {"unchanged": None, **changes}.items():
        changed = judged if params is None else build_change(name, params)(judged, bounds, seed=SEED)
        scores, named = score(network, twin, changed)
        kept = named == classes
        shares = [rates(scores[kept], values) for values in thresholds.values()]
        print(f"{name}, {float(kept.double().mean()):.4f}, {', '.join(shares)}", flush=True)
    return 0


@torch.no_grad()
def score(network: TargetNetwork, twin: TargetNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the log-probability that the twin gives to the class of the network, and that class."""
    scores, classes = [], []
    for batch in torch.split(images, BATCH):
        named = network(batch).argmax(dim=1)
        scores.append(-torch.log_softmax(twin(batch), dim=1).gather(1, named[:, None]).squeeze(1))
        classes.append(named)
    return torch.cat(scores), torch.cat(classes)


def draw_thresholds(clean: Tensor) -> dict[int, list[float]]:
    """Thresholds by the number of clean images, in several draws of fewer than all."""
    generator = torch.Generator().manual_seed(SEED)
    found = {}
    for size in (*(one for one in SIZES if one < len(clean)), len(clean)):
        draws = DRAWS if size < len(clean) else 1
        rows = [torch.randperm(len(clean), generator=generator)[:size] for _ in range(draws)]
        found[size] = [thresholds_at_fpr(clean[one], [FPR])[FPR] for one in rows]
    return found


def rates(scores: Tensor, thresholds: Sequence[float]) -> str:
    """Least, median and largest share of scores above the thresholds."""
    shares = [float((scores > one).double().mean()) for one in thresholds]
    return " / ".join(f"{100 * value:.1f} %" for value in np.quantile(shares, (0, 0.5, 1)))


if __name__ == "__main__":
    sys.exit(main())
