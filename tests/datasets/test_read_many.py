"""Reading many images at once gives the same as reading them one by one."""

from __future__ import annotations

import pytest
import torch

from adv_detect.datasets.embedded_mnist import EmbeddedMNISTDataset
from adv_detect.datasets.torchvision_images import TorchvisionImages
from adv_detect.images import load_images


class FakeSet:
    """Pixels in memory, as torchvision keeps them."""

    def __init__(self, data: object, channels: int) -> None:
        self.data = data
        self.targets = [0, 1, 0, 1]
        self.classes = ["a", "b"]
        self._mode = {1: "L", 3: "RGB"}[channels]

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        import numpy as np
        from PIL import Image

        return Image.fromarray(np.asarray(self.data[index]), mode=self._mode), self.targets[index]


@pytest.mark.parametrize("kind", ["grey tensor", "colour array"])
def test_torchvision_sets_agree_with_single_reads(kind: str):
    pixels = torch.randint(0, 256, (4, 6, 5) if kind == "grey tensor" else (4, 6, 5, 3), dtype=torch.uint8)
    data, channels = (pixels, 1) if kind == "grey tensor" else (pixels.numpy(), 3)
    images = TorchvisionImages(FakeSet(data, channels), name="fake")

    many = images.read_many([2, 0, 3])

    assert many.shape == (3, channels, 6, 5)
    assert torch.equal(many, torch.stack([images[row][0] for row in (2, 0, 3)]))


def test_a_part_of_the_embedded_images_agrees_with_single_reads():
    images = EmbeddedMNISTDataset(part="test", max_images=40).load()

    loaded = load_images(images, [5, 1, 7], (0.0, 1.0))

    assert torch.equal(loaded * 255, torch.stack([images[row][0] for row in (5, 1, 7)]).float())
