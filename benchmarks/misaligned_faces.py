"""What detectors say of faces that are not aligned.

``python -m benchmarks.misaligned_faces``, after ``kedro run --env=lfw`` or a run file of it in this folder: test faces
are turned, moved and cropped; for each change the share that the network still recognises, and the share of all,
recognised or not, that each detector flags.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from adv_detect.algorithms.detectors import StoredDetector
from adv_detect.algorithms.image_changes import build_change
from adv_detect.command_line.running import project_session
from adv_detect.images import load_images
from adv_detect.jobs.detectors import restore
from adv_detect.jobs.joint_models import join
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import ImageChangeParams

FPR, BATCH = 0.05, 64
CHANGES = {
    **{
        f"turned by {angle} degrees": ImageChangeParams(kind="rotation", arguments={"degrees": angle})
        for angle in (10, 20, 45)
    },
    **{f"moved by {size} pixels": ImageChangeParams(kind="shift", arguments={"dx": size}) for size in (4, 8, 16)},
    **{f"middle {keep:.0%}": ImageChangeParams(kind="crop", arguments={"keep": keep}) for keep in (0.8, 0.6)},
    "upside down": ImageChangeParams(kind="rotation", arguments={"degrees": 180}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per change."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.misaligned_faces", description=__doc__)
    parser.add_argument("--env", default="lfw", help="environment with a trained network and detectors")
    given = parser.parse_args(arguments)
    with project_session(given.env, {}) as session:
        catalog = session.load_context().catalog
        names = ("test_images", "network_weights", "detectors", "representatives", "source_splits", "twin")
        images, network, detectors, representatives, splits, twin = (catalog.load(name) for name in names)
    stored = [restore(detectors, key, representatives) for key in detectors]
    test = splits.loc[splits["split"] == "test", "source_index"].tolist()
    faces, labels = load_images(images, test, network.spec.bounds), images.labels[test]
    print(f"n = {len(test)}; change, recognised, flagged by {', '.join(one.key for one in stored)}")
    for name, params in {"as aligned": None, **CHANGES}.items():
        changed = faces if params is None else build_change(name, params)(faces, network.spec.bounds)
        recognised, flagged = judge(changed, labels, network, stored, twin)
        print(f"{name}, {recognised:.1%}, {', '.join(f'{share:.1%}' for share in flagged)}", flush=True)
    return 0


@torch.no_grad()
def judge(
    images: Tensor, labels: Tensor, network: TargetNetwork, stored: Sequence[StoredDetector], twin: TargetNetwork | None
) -> tuple[float, list[float]]:
    """Share of images that get their label, and share of all that each detector flags."""
    shares, right = [], 0.0
    for one in stored:
        model = join(one, network, torch.device("cpu"), twin=twin)
        logits, scores = (torch.cat(parts) for parts in zip(*map(model, torch.split(images, BATCH)), strict=True))
        right = float((logits.argmax(dim=1) == labels).double().mean())
        shares.append(float((scores > one.threshold(FPR)).double().mean()))
    return right, shares


if __name__ == "__main__":
    sys.exit(main())
