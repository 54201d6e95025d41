from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adv_detect.networks import build_network, default_layers, load_weights

STAGES = [(64, 5, 2), (128, 1, 2), (128, 6, 1), (128, 1, 2), (128, 2, 1)]


def mobilefacenet_by_hand(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Compute the embedding straight from the tensors of the published file."""

    def norm(name: str, inputs: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(inputs, mean, var, weight, bias, eps=1e-5)

    def block(name: str, inputs: Tensor, **kwargs: int) -> Tensor:
        outputs = norm(f"{name}.bn", functional.conv2d(inputs, state[f"{name}.conv.weight"], **kwargs))
        return functional.prelu(outputs, state[f"{name}.prelu.weight"]) if f"{name}.prelu.weight" in state else outputs

    hidden = block("conv1", images, stride=2, padding=1)
    hidden = block("dw_conv1", hidden, padding=1, groups=64)
    index = 0
    for width, count, first_stride in STAGES:
        for position in range(count):
            stride, name = first_stride if position == 0 else 1, f"blocks.{index}.conv"
            inner = functional.prelu(
                norm(f"{name}.1", functional.conv2d(hidden, state[f"{name}.0.weight"])), state[f"{name}.2.weight"]
            )
            inner = functional.conv2d(inner, state[f"{name}.3.weight"], stride=stride, padding=1, groups=inner.shape[1])
            inner = functional.prelu(norm(f"{name}.4", inner), state[f"{name}.5.weight"])
            inner = norm(f"{name}.7", functional.conv2d(inner, state[f"{name}.6.weight"]))
            same = stride == 1 and hidden.shape[1] == width
            hidden, index = (hidden + inner if same else inner), index + 1
    hidden = block("linear7", block("conv2", hidden), groups=512)
    return block("linear1", hidden).flatten(1)


@pytest.fixture
def face_network(shared_data) -> nn.Module:
    network = build_network("mobilefacenet")
    load_weights(network, shared_data / "mobilefacenet-casia.safetensors")
    return network.eval()


def read_faces(shared_data, names: list[str]) -> Tensor:
    from PIL import Image

    with zipfile.ZipFile(shared_data / "lfw-112x96.zip") as archive:
        files = [archive.read(f"lfw-112x96/{name.rsplit('_', 1)[0]}/{name}.jpg") for name in names]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), np.float32) for file in files])
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) - 127.5) / 128


def test_published_weights_give_the_embedding_of_a_functional_computation(face_network, shared_data, assert_all_close):
    from safetensors.torch import load_file

    images = torch.randn(2, 3, 112, 96, generator=torch.Generator().manual_seed(0))
    state = load_file(shared_data / "mobilefacenet-casia.safetensors")
    with torch.no_grad():
        assert_all_close([face_network(images)], [mobilefacenet_by_hand(state, images)])


def test_published_weights_tell_people_apart(face_network, shared_data):
    people = ["Ariel_Sharon", "Colin_Powell", "Hugo_Chavez"]
    faces = read_faces(shared_data, [f"{name}_{index:04d}" for name in people for index in (1, 2)])
    with torch.no_grad():
        embeddings = functional.normalize(face_network(faces), dim=1)
    similarity = embeddings @ embeddings.T
    same = torch.stack([similarity[0, 1], similarity[2, 3], similarity[4, 5]])
    person = torch.arange(6) // 2
    different = similarity[person[:, None] != person[None]]
    assert same.min() > different.max() + 0.1


def test_backbone_loads_under_a_new_head(shared_data, face_network):
    network = build_network("mobilefacenet", num_classes=62)
    head = network.get_submodule("head").weight.detach().clone()
    load_weights(network, shared_data / "mobilefacenet-casia.safetensors", strict_head=False)
    images = torch.randn(1, 3, 112, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = face_network(images) @ head.T + network.get_submodule("head").bias
        assert torch.allclose(network.eval()(images), expected, atol=1e-5)


def test_size_and_layers():
    with torch.device("meta"):
        network = build_network("mobilefacenet")
    assert sum(one.numel() for one in network.parameters()) == pytest.approx(1.0e6, rel=0.02)
    assert set(default_layers("mobilefacenet")) <= {name for name, _ in network.named_modules()}


def test_layers_are_the_blocks_the_last_convolution_and_the_embedding(read_layers):
    network = build_network("mobilefacenet", num_classes=5, dropout=0.5, image_size=(32, 48))
    logits, layers = read_layers(network, torch.rand(2, 3, 32, 48), default_layers("mobilefacenet"))
    assert [layer.shape[1] for layer in layers] == [64] * 5 + [128] * 10 + [512, 128]
    assert layers[-1].dim() == 2
    head = network.get_submodule("head")
    assert torch.allclose(logits, layers[-1] @ head.weight.T + head.bias, atol=1e-5)


def test_without_classes_the_output_is_the_embedding(read_layers):
    network = build_network("mobilefacenet", image_size=(16, 16))
    output, (embedding,) = read_layers(network, torch.rand(2, 3, 16, 16), ["embedding"])
    assert output.shape == (2, 128)
    assert torch.equal(output, embedding)
