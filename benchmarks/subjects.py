"""Networks and images that are measured on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives, fit_representatives
from adv_detect.algorithms.target_training import FitSettings, fit_target
from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.images import load_images
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import NetworkParams, PreprocessingParams, RepresentativesParams, TargetTrainingParams

FACE_CHECKPOINT = Path("data", "01_raw", "mobilefacenet-casia.safetensors")
FACE_SIZE = (3, 112, 96)
FACE_CLASSES = 62


@cache
def digits(device: str) -> tuple[TargetNetwork, Tensor, Tensor]:
    """`small` after four passes over the embedded images, and test images that it classifies correctly."""
    train, test = (EmbeddedMNISTDataset(part=part).load() for part in ("train", "test"))
    target = build_target(NetworkParams(name="small"), class_names=train.class_names, image_shape=(1, 28, 28), seed=0)
    params = TargetTrainingParams(epochs=4, learning_rate=2e-3)
    fit_target(target, train, params=params, settings=FitSettings(seed=0, device=torch.device(device), progress=False))
    target.freeze().to(device)
    images = load_images(test, range(len(test)), (0.0, 1.0)).to(device)
    labels = test.labels.to(device)
    with torch.no_grad():
        correct = target(images).argmax(dim=1) == labels
    return target, images[correct], labels[correct]


@cache
def digit_representatives(device: str) -> Representatives:
    """Representatives of `digits` from embedded training images."""
    target, _, _ = digits(device)
    train = EmbeddedMNISTDataset(part="train").load()
    images = load_images(train, range(len(train)), (0.0, 1.0)).to(device)
    layers = target.spec.layers
    with torch.no_grad():
        _, features = extract_features(target, images, layers)
    parts = [
        (label, [one[(train.labels == label).to(device)].cpu() for one in features],
         [train.source_ids[i] for i in (train.labels == label).nonzero().flatten().tolist()])
        for label in range(len(target.spec.class_names))
    ]  # fmt: skip
    return fit_representatives(
        parts, layers=layers, class_names=target.spec.class_names, params=RepresentativesParams()
    ).to(device)


@cache
def faces(device: str, count: int) -> tuple[TargetNetwork, Tensor, Tensor]:
    """MobileFaceNet with a random head (and published weights where they lie there); noise images, its own labels."""
    params = NetworkParams(
        name="mobilefacenet",
        checkpoint=str(FACE_CHECKPOINT) if FACE_CHECKPOINT.is_file() else None,
        preprocessing=PreprocessingParams(scale=255.0, mean=(127.5,) * 3, std=(128.0,) * 3),
    )
    names = tuple(f"person {number}" for number in range(FACE_CLASSES))
    target = build_target(params, class_names=names, image_shape=FACE_SIZE, seed=0, strict_head=False)
    target.freeze().to(device)
    generator = torch.Generator().manual_seed(11)
    small = torch.rand(count, 3, 14, 12, generator=generator)
    images = torch.nn.functional.interpolate(small, FACE_SIZE[1:], mode="bicubic").clamp(0, 1).to(device)
    with torch.no_grad():
        labels = target(images).argmax(dim=1)
    return target, images, labels


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """A class to aim at for each image: its own plus one to C - 1, drawn with a fixed seed."""
    generator = torch.Generator().manual_seed(5)
    return (labels + torch.randint(1, classes, (len(labels),), generator=generator).to(labels.device)) % classes
