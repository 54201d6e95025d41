"""Command line: ``python -m benchmarks`` prints a Markdown table of ratios with their spread."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROUNDS = 5
MEDOID_ROWS, MEDOID_WIDTH = 6000, 200
ATTACKED = 128
EPSILON = 0.3


@dataclass(frozen=True)
class Row:
    """One comparison: time of the other over ours, round by round."""

    name: str
    ratios: tuple[float, ...]
    note: str

    def line(self) -> str:
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        return f"| {self.name} | {middle:.2f} | {low:.2f} - {high:.2f} | {self.note} |"


def alternate(ours: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, ...]:
    """Time both in turn after one round that does not count."""
    ours(), other()
    ratios = []
    for _ in range(rounds):
        mine, theirs = seconds(ours), seconds(other)
        ratios.append(theirs / mine)
    return tuple(ratios)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medoids() -> Row:
    """Exact medoid against SciPy's full distance matrix; the index must be the same."""
    from scipy.spatial.distance import pdist, squareform

    from adv_detect.algorithms.medoids import medoid_index

    features = torch.randn(MEDOID_ROWS, MEDOID_WIDTH, generator=torch.Generator().manual_seed(0))
    found, expected = [], []
    ratios = alternate(
        lambda: found.append(medoid_index(features)),
        lambda: expected.append(int(squareform(pdist(features.double().numpy())).sum(axis=1).argmin())),
        rounds=3,
    )
    same = "same index" if set(found) == set(expected) else "OTHER INDEX"
    return Row(f"medoid, n = {MEDOID_ROWS}, D = {MEDOID_WIDTH}: SciPy / ours", ratios, same)


def early_stopping() -> Row:
    """Untargeted BIM that stops per image against foolbox's fixed number of steps, on the trained embedded task."""
    import foolbox

    from adv_detect.algorithms.attacks.registry import build_attack
    from adv_detect.algorithms.attacks.run import run_attack
    from adv_detect.params import AttackParams

    network, images, labels = trained_network()
    attack = build_attack("bim", AttackParams(attack="bim", norm="linf", epsilon=EPSILON, arguments={"steps": 10}))
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.LinfBasicIterativeAttack(rel_stepsize=0.2, steps=10)
    rates: dict[str, float] = {}

    def ours() -> None:
        result = run_attack(attack, network, images, labels, bounds=(0.0, 1.0), seed=0)
        rates["ours"] = float(result.success.float().mean())

    def other() -> None:
        success = theirs(model, images, labels, epsilons=EPSILON)[2]
        rates["foolbox"] = float(success.float().mean())

    ratios = alternate(ours, other)
    note = f"success {rates['ours']:.3f} and {rates['foolbox']:.3f}, n = {len(images)}"
    return Row("BIM untargeted, stopped early: foolbox / ours", ratios, note)


def trained_network() -> tuple[nn.Module, Tensor, Tensor]:
    """The small network after two passes over the embedded training images, and images it classifies correctly."""
    from adv_detect.algorithms.target_training import FitSettings, fit_target
    from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
    from adv_detect.images import load_images
    from adv_detect.networks.target import build_target
    from adv_detect.params import NetworkParams, TargetTrainingParams

    train, test = (EmbeddedMNISTDataset(part=part).load() for part in ("train", "test"))
    target = build_target(NetworkParams(name="small"), class_names=train.class_names, image_shape=(1, 28, 28))
    params = TargetTrainingParams(epochs=4, learning_rate=2e-3)
    fit_target(target, train, params=params, settings=FitSettings(seed=0, device=torch.device("cpu"), progress=False))
    images = load_images(test, range(4 * ATTACKED), (0.0, 1.0))
    labels = test.labels[: 4 * ATTACKED]
    with torch.no_grad():
        correct = target(images).argmax(dim=1) == labels
    return target, images[correct][:ATTACKED], labels[correct][:ATTACKED]


def main() -> int:
    """Run all comparisons and print the table."""
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, CPU\n")
    print("| comparison | median ratio | min - max | result |\n| --- | --- | --- | --- |")
    for comparison in (medoids, early_stopping):
        print(comparison().line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
