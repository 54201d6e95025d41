"""The same pixels of a picture in training and in scoring, bit for bit."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from adv_detect.datasets.image_folder import ImageFolderDataset
from adv_detect.images import load_images
from adv_detect.interface.gate import Gate
from adv_detect.pictures import Transform
from adv_detect.serving import pictures as scoring
from adv_detect.serving.pictures import NOT_FINITE, Picture, PictureScorer

BOUNDS = (-1.0, 1.0)
OPTIONS = {"resize_shorter_side": 30, "centre_crop": (28, 28), "colour": "grayscale"}


def photograph(number: int) -> tuple[str, bytes]:
    """A picture of its own size and form; one lies on its side, one is transparent, one has 16 bits."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 256, (33 + number, 52 - number, 3), dtype=np.uint8)
    buffer, image, options, form = io.BytesIO(), Image.fromarray(pixels), {}, ("PNG", "JPEG", "WEBP")[number % 3]
    if number == 4:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        options = {"exif": exif.tobytes()}
    if number == 3:
        image.putalpha(Image.fromarray(pixels[..., 0]))
    if number == 6:
        image = Image.fromarray(generator.integers(0, 65536, (40, 40), dtype=np.uint16))
    image.save(buffer, form, **options)
    return f"{number}.{form.lower()}", buffer.getvalue()


@pytest.fixture
def training(tmp_path):
    """A folder of class folders, read as for training."""
    for number in range(8):
        name, content = photograph(number)
        place = tmp_path / "ab"[number % 2] / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    return tmp_path, ImageFolderDataset(filepath=tmp_path, **OPTIONS).load()


@pytest.fixture
def described(bundle, training):
    """A bundle whose network says how pictures become its input, as a network trained on the folder does."""
    return replace(bundle, network=bundle.network.with_spec(bounds=BOUNDS, pictures=training[1].pictures).freeze())


@pytest.fixture
def seen(monkeypatch) -> list[torch.Tensor]:
    """The tensors that the network is given."""
    given: list[torch.Tensor] = []
    whole = scoring.pass_through

    def watch(model, images, **options):
        given.append(images)
        return whole(model, images, **options)

    monkeypatch.setattr(scoring, "pass_through", watch)
    return given


def test_scoring_sees_the_tensor_of_training(training, described, seen):
    folder, images = training
    expected = load_images(images, range(len(images)), BOUNDS)
    read = [Picture(name, partial((folder / name).read_bytes)) for name in images.source_ids]
    content = PictureScorer(described, explain=False).score(read)
    assert torch.equal(torch.cat(seen), expected)
    assert content.tensors["readable"].all()
    seen.clear()
    Gate(described, "x").score([folder / name for name in images.source_ids])
    assert torch.equal(torch.cat(seen), expected)


def test_a_network_of_before_takes_its_own_size(bundle):
    assert bundle.network.spec.pictures is None
    assert bundle.network.spec.picture_input.transform == Transform(colour="grayscale")


def test_rows_are_in_order_and_in_chunks_whatever_fails(described, seen):
    def fails():
        raise OSError("no disk")

    good = photograph(0)[1]
    read = [Picture(str(number), partial(bytes, good)) for number in range(70)]
    read[3] = Picture("3", fails)
    content = PictureScorer(described, explain=False).score(iter(read))
    assert [len(one) for one in seen] == [31, 32, 6]
    assert content.metadata["paths"] == [str(number) for number in range(70)]
    assert content.metadata["reasons"][3] == "cannot be read (no disk)"
    assert content.tensors["readable"].sum() == len(content.tensors["scores"]) == 69


def test_an_image_without_a_finite_score_is_unreadable(described, monkeypatch):
    class Broken(torch.nn.Module):
        network = described.model().network

        def forward(self, images):
            scores = torch.zeros(len(images))
            scores[1] = torch.nan
            return torch.zeros(len(images), 10), scores

    scorer = PictureScorer(described, explain=False)
    scorer.__dict__["model"] = Broken()
    content = scorer.score([Picture(str(number), partial(bytes, photograph(number)[1])) for number in range(3)])
    assert content.metadata["reasons"] == ["", NOT_FINITE, ""]
    assert content.tensors["scores"].tolist() == [0.0, 0.0]


def test_a_scorer_travels_to_a_worker_without_what_it_derived(described):
    scorer = PictureScorer(described)
    read = [Picture("a", partial(bytes, photograph(1)[1]))]
    first = scorer.score(read)
    again = pickle.loads(pickle.dumps(scorer))
    assert "model" in vars(scorer)
    assert "model" not in vars(again)
    assert torch.equal(again.score(read).tensors["scores"], first.tensors["scores"])
