"""Networks and images that are measured on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import yaml
from torch import Tensor

from adv_detect.algorithms.features import extract_features
from adv_detect.algorithms.representatives import Representatives, fit_representatives
from adv_detect.algorithms.target_training import FitSettings, fit_target
from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.images import load_images
from adv_detect.networks.target import TargetNetwork, build_target
from adv_detect.params import NetworkParams, PreprocessingParams, RepresentativesParams, TargetTrainingParams
from benchmarks.measure import Settings

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ROOT / "conf" / "base" / "parameters_target_training.yml"
QUICK_EPOCHS = 2
FACE_CHECKPOINT = Path(ROOT, "data", "01_raw", "mobilefacenet-casia.safetensors")
FACE_ARCHIVE = Path(ROOT, "data", "01_raw", "lfw-112x96.zip")
FACE_SIZE = (3, 112, 96)
FACE_CLASSES = 62
FACE_BATCH = 256


@cache
def digits(settings: Settings) -> tuple[TargetNetwork, Tensor, Tensor]:
    """`small` trained as in the main job (quick: shorter), and embedded test images that it classifies correctly."""
    train, test = (EmbeddedMNISTDataset(part=part).load() for part in ("train", "test"))
    target = build_target(NetworkParams(name="small"), class_names=train.class_names, image_shape=(1, 28, 28), seed=0)
    chosen = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))["target_training"]
    params = TargetTrainingParams.model_validate(chosen | ({"epochs": QUICK_EPOCHS} if settings.quick else {}))
    fit_target(target, train, params=params, settings=FitSettings(seed=0, device=settings.device, progress=False))
    target.freeze().to(settings.device)
    images = load_images(test, range(len(test)), (0.0, 1.0)).to(settings.device)
    labels = test.labels.to(settings.device)
    with torch.no_grad():
        correct = target(images).argmax(dim=1) == labels
    return target, images[correct], labels[correct]


@cache
def digit_representatives(settings: Settings) -> Representatives:
    """Representatives of `digits` from embedded training images."""
    target, _, _ = digits(settings)
    device = settings.device
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
def face_network(device: torch.device) -> TargetNetwork:
    """MobileFaceNet with a random head, and with the published weights where they lie in the data folder."""
    params = NetworkParams(
        name="mobilefacenet",
        checkpoint=str(FACE_CHECKPOINT) if FACE_CHECKPOINT.is_file() else None,
        preprocessing=PreprocessingParams(scale=255.0, mean=(127.5,) * 3, std=(128.0,) * 3),
    )
    names = tuple(f"person {number}" for number in range(FACE_CLASSES))
    target = build_target(params, class_names=names, image_shape=FACE_SIZE, seed=0, strict_head=False)
    target.freeze().to(device)
    return target


@cache
def faces(settings: Settings, count: int, seed: int = 11) -> tuple[TargetNetwork, Tensor, Tensor]:
    """The face network, faces, and the classes that it gives them.

    Real faces where the archive lies in the data folder, else smooth random images of their size.
    """
    target = face_network(settings.device)
    images = _faces(count, seed).to(settings.device)
    with torch.no_grad():
        labels = torch.cat([target(batch) for batch in torch.split(images, FACE_BATCH)]).argmax(dim=1)
    return target, images, labels


def _faces(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if FACE_ARCHIVE.is_file():
        known = ImageFolderDataset(filepath=str(FACE_ARCHIVE), folder=FACE_ARCHIVE.stem, min_images_per_class=20).load()
        return load_images(known, torch.randperm(len(known), generator=generator)[:count].tolist(), (0.0, 1.0))
    small = torch.rand(count, 3, 14, 12, generator=generator)
    return torch.nn.functional.interpolate(small, FACE_SIZE[1:], mode="bicubic").clamp(0, 1)


def random_representatives(network: TargetNetwork, images: Tensor) -> Representatives:
    """Random points in place of representatives, where only the time counts."""
    layers, classes = network.spec.layers, network.spec.class_names
    with torch.no_grad():
        widths = [one.shape[1] for one in extract_features(network, images[:1], layers)[1]]
    generator = torch.Generator().manual_seed(0)
    centres = [torch.randn(len(classes), width, generator=generator).to(images.device) for width in widths]
    eyes = [torch.eye(width, device=images.device) for width in widths]
    return Representatives(tuple(layers), tuple(classes), centres, centres, eyes, [[""] * len(classes) for _ in widths])


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """A class to aim at for each image: its own plus one to C - 1, drawn with a fixed seed."""
    generator = torch.Generator().manual_seed(5)
    return (labels + torch.randint(1, classes, (len(labels),), generator=generator).to(labels.device)) % classes
