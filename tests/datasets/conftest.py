from __future__ import annotations

import gzip
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from adv_detect.algorithms.representatives import Representatives
from adv_detect.networks import default_layers
from adv_detect.networks.registry import build_network
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, target_from_spec


def paint(path, *, size=(8, 6), colour=(10, 20, 30)):
    """Write an image of one colour; ``size`` is height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three classes with 4, 5 and 2 images of 8 x 6 pixels (height x width)."""
    root = tmp_path / "images"
    for number, (name, count) in enumerate({"ant": 4, "bee": 5, "cat": 2}.items()):
        for index in range(count):
            paint(root / name / f"{index}.png", colour=(40 * number, index, 200))
    (root / "readme.txt").write_text("not an image")
    return root


@pytest.fixture
def archive(folder, tmp_path):
    """The same images in a zip, one level deeper, with what a Mac adds."""
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as sink:
        for file in sorted(folder.rglob("*.png")):
            sink.write(file, f"faces/{file.relative_to(folder)}")
        sink.writestr("__MACOSX/faces/ant/._0.png", b"x")
    return path


@pytest.fixture
def target() -> TargetNetwork:
    """A small network with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network("small", num_classes=10)
        nn.init.normal_(network.get_parameter(list(dict(network.named_parameters()))[-2]))
    spec = NetworkSpec(
        name="small",
        num_classes=10,
        layers=default_layers("small"),
        bounds=(0.0, 1.0),
        class_names=tuple("0123456789"),
        image_shape=(1, 28, 28),
        accuracy=0.5,
    )
    return target_from_spec(spec, network.state_dict()).freeze()


@pytest.fixture
def representatives() -> Representatives:
    """Two layers, three classes."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return Representatives(
        layers=("a", "b"),
        class_names=("x", "ÿ", "z"),
        medoids=[draw(3, 4), draw(3, 2)],
        centroids=[draw(3, 4), draw(3, 2)],
        whitening=[draw(4, 4), draw(2, 2)],
        medoid_source_ids=[["i1", "i2", "i3"], ["i4", "i5", "i6"]],
    )


COUNTS = {"train": 20, "t10k": 10}


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def raw(tmp_path):
    """A tiny MNIST in its own file format, packed."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count in COUNTS.items():
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return folder
