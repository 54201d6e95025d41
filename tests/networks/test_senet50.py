from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.networks import build_network, default_layers, load_weights
from adv_detect.networks.foreign_names import own_name

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
CLASSES = 11
TORCHVISION = {
    "1x1_reduce": "conv1",
    "1x1_reduce_bn": "bn1",
    "3x3": "conv2",
    "3x3_bn": "bn2",
    "1x1_increase": "conv3",
    "1x1_increase_bn": "bn3",
    "1x1_down": "conv4",
    "1x1_up": "conv5",
    "1x1_proj": "downsample.0",
    "1x1_proj_bn": "downsample.1",
}


@pytest.fixture(scope="module")
def reference_state(draw_convolution, draw_norm) -> dict[str, Tensor]:
    """Weights under the published Caffe-style names."""
    generator = torch.Generator().manual_seed(7)
    state = {"conv1_7x7_s2.weight": draw_convolution(generator, 64, 3, 7, 7)}
    state |= draw_norm(generator, "conv1_7x7_s2_bn", 64)
    width_in = 64
    for stage, count in BLOCKS.items():
        width = 16 * 2**stage
        for block in range(1, count + 1):
            kernels = {
                "1x1_reduce": (width, width_in, 1, 1),
                "3x3": (width, width, 3, 3),
                "1x1_increase": (4 * width, width, 1, 1),
            }
            if block == 1:
                kernels["1x1_proj"] = (4 * width, width_in, 1, 1)
            for part, shape in kernels.items():
                name = f"conv{stage}_{block}_{part}"
                state[f"{name}.weight"] = draw_convolution(generator, *shape) * 0.7
                state |= draw_norm(generator, f"{name}_bn", shape[0])
            for part, shape in {"1x1_down": (width // 4, 4 * width), "1x1_up": (4 * width, width // 4)}.items():
                state[f"conv{stage}_{block}_{part}.weight"] = draw_convolution(generator, *shape, 1, 1)
                state[f"conv{stage}_{block}_{part}.bias"] = torch.randn(shape[0], generator=generator)
            width_in = 4 * width
    state["classifier_1.weight"] = torch.randn(CLASSES, 2048, generator=generator) * 0.05
    state["classifier_1.bias"] = torch.randn(CLASSES, generator=generator)
    return state


def senet50_by_hand(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Compute logits, the sixteen block outputs and the pooled features from the published names."""

    def conv_norm(name: str, inputs: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}_bn.{leaf}"].view(1, -1, 1, 1) for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        outputs = functional.conv2d(inputs, state[f"{name}.weight"], stride=stride, padding=padding)
        return (outputs - mean) / (var + 1e-5).sqrt() * weight + bias

    def dense(name: str, inputs: Tensor) -> Tensor:
        return inputs @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]

    hidden = functional.relu(conv_norm("conv1_7x7_s2", images, stride=2, padding=3))
    hidden = functional.max_pool2d(hidden, 3, stride=2, padding=0, ceil_mode=True)
    outputs = []
    for stage, count in BLOCKS.items():
        for block in range(1, count + 1):
            name, stride = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
            inner = functional.relu(conv_norm(f"{name}_1x1_reduce", hidden, stride=stride))
            inner = functional.relu(conv_norm(f"{name}_3x3", inner, padding=1))
            inner = conv_norm(f"{name}_1x1_increase", inner)
            gates = dense(f"{name}_1x1_up", dense(f"{name}_1x1_down", inner.mean(dim=(2, 3))).relu()).sigmoid()
            shortcut = conv_norm(f"{name}_1x1_proj", hidden, stride=stride) if block == 1 else hidden
            hidden = functional.relu(inner * gates[:, :, None, None] + shortcut)
            outputs.append(hidden)
    pooled = hidden.mean(dim=(2, 3))
    return [dense("classifier_1", pooled), *outputs, pooled]


def torchvision_name(name: str) -> str:
    module, leaf = name.rsplit(".", 1)
    top = {"conv1_7x7_s2": "conv1", "conv1_7x7_s2_bn": "bn1", "classifier_1": "fc"}
    if module in top:
        return f"{top[module]}.{leaf}"
    stage, block, part = module.removeprefix("conv").split("_", 2)
    return f"layer{int(stage) - 1}.{int(block) - 1}.{TORCHVISION[part]}.{leaf}"


@pytest.fixture(scope="module")
def expected(reference_state) -> tuple[Tensor, list[Tensor]]:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 50
    return images, senet50_by_hand(reference_state, images)


def save_caffe_names(state, path):
    torch.save({"model_state_dict": state, "best_acc": 0.97}, path)


def save_numpy_pickle(state, path):
    arrays = {torchvision_name(name): tensor.numpy() for name, tensor in state.items()}
    path.write_bytes(pickle.dumps(arrays, protocol=2))


@pytest.mark.parametrize("save", [save_caffe_names, save_numpy_pickle])
def test_blocks_features_and_logits_agree_with_a_functional_computation(
    tmp_path, reference_state, expected, read_layers, assert_all_close, save
):
    save(reference_state, tmp_path / "weights")
    network = build_network("senet50", num_classes=CLASSES)
    load_weights(network, tmp_path / "weights")
    images, outputs = expected

    logits, layers = read_layers(network, images, (*default_layers("senet50"), "pool"))

    assert len(layers) == 17
    assert_all_close([logits, *layers], outputs)


@pytest.mark.parametrize("name", ["conv4", "se.fc1", "se_module.fc1"])
def test_spellings_of_the_squeeze(name):
    with torch.device("meta"):
        network = build_network("senet50")
    assert own_name(network, f"layer2.3.{name}.bias") == "stages.1.3.se.down.bias"
    assert own_name(network, f"layer2.3.{name}.extra.bias") == f"layer2.3.{name}.extra.bias"


def test_default_has_500_identities_and_the_published_size():
    with torch.device("meta"):
        network = build_network("senet50")
    head = sum(one.numel() for one in network.get_submodule("head").parameters())
    assert head == 500 * 2049
    assert sum(one.numel() for one in network.parameters()) - head == 26_039_024


def test_stride_sits_in_the_first_1x1_convolution_and_the_pool_rounds_up():
    with torch.device("meta"):
        network = build_network("senet50")
    assert network.get_submodule("stages.1.0.reduce").stride == (2, 2)
    assert network.get_submodule("stages.1.0.middle").stride == (1, 1)
    assert network.get_submodule("max_pool")(torch.zeros(1, 1, 112, 112)).shape[-2:] == (56, 56)


def test_dropout_acts_on_the_features_while_training_only():
    network = build_network("senet50", num_classes=3, dropout=0.9).eval()
    features = torch.ones(1, 2048)
    assert torch.equal(network.get_submodule("dropout")(features), features)
    assert (network.train().get_submodule("dropout")(features) == 0).float().mean() > 0.8
