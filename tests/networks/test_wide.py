from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adv_detect.errors import CheckpointError, ConfigurationError
from adv_detect.networks import build_network, default_layers, load_weights

DEPTH, WIDEN = 16, 2
WIDTHS = (16, 32, 64, 128)
BLOCKS = 2


@pytest.fixture
def reference_state(draw_convolution, draw_norm) -> dict[str, Tensor]:
    """Weights of a WideResNet-16-2 under the published names, the never-used block included."""
    generator = torch.Generator().manual_seed(5)
    state = {"conv1.weight": draw_convolution(generator, WIDTHS[0], 3, 3, 3)}
    for prefix, stage in (("block1", 1), ("sub_block1", 1), ("block2", 2), ("block3", 3)):
        for block in range(BLOCKS):
            width_in, width = WIDTHS[stage - 1] if block == 0 else WIDTHS[stage], WIDTHS[stage]
            name = f"{prefix}.layer.{block}"
            state |= draw_norm(generator, f"{name}.bn1", width_in) | draw_norm(generator, f"{name}.bn2", width)
            state[f"{name}.conv1.weight"] = draw_convolution(generator, width, width_in, 3, 3)
            state[f"{name}.conv2.weight"] = draw_convolution(generator, width, width, 3, 3) * 0.5
            if block == 0:
                state[f"{name}.convShortcut.weight"] = draw_convolution(generator, width, width_in, 1, 1)
    state |= draw_norm(generator, "bn1", WIDTHS[-1])
    state["bn1.num_batches_tracked"] = torch.tensor(9)
    state["fc.weight"] = torch.randn(10, WIDTHS[-1], generator=generator)
    state["fc.bias"] = torch.randn(10, generator=generator)
    return state


def wide_by_hand(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Compute logits, the second ReLU of each block and the pooled output from the published names."""

    def norm_relu(name: str, inputs: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(inputs, mean, var, weight, bias, eps=1e-5))

    layers = []
    hidden = functional.conv2d(images, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for block in range(BLOCKS):
            name, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
            first = norm_relu(f"{name}.bn1", hidden)
            second = norm_relu(
                f"{name}.bn2", functional.conv2d(first, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            )
            layers.append(second)
            if block == 0:
                hidden = functional.conv2d(first, state[f"{name}.convShortcut.weight"], stride=stride)
            hidden = hidden + functional.conv2d(second, state[f"{name}.conv2.weight"], padding=1)
    pooled = norm_relu("bn1", hidden).mean(dim=(2, 3))
    return pooled @ state["fc.weight"].T + state["fc.bias"], [*layers, pooled]


def test_layers_and_logits_agree_with_a_functional_computation(
    tmp_path, reference_state, read_layers, assert_all_close
):
    path = tmp_path / "wide.pth"
    torch.save({"model_state_dict": reference_state, "best_acc": 0.9}, path)
    network = build_network("wide", depth=DEPTH, widen=WIDEN)
    load_weights(network, path)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    logits, layers = read_layers(network, images, network.default_layers)

    expected_logits, expected_layers = wide_by_hand(reference_state, images)
    assert_all_close([logits, *layers], [expected_logits, *expected_layers])


def test_only_the_unused_block_is_dropped(tmp_path, reference_state):
    path = tmp_path / "wide.pth"
    torch.save({"model_state_dict": reference_state | {"block4.layer.0.conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"1 unexpected: block4\.layer\.0\.conv1\.weight$"):
        load_weights(build_network("wide", depth=DEPTH, widen=WIDEN), path)


def test_default_is_wide_34_10_and_reads_sixteen_layers():
    with torch.device("meta"):
        network = build_network("wide")
    assert sum(one.numel() for one in network.parameters()) == 46_160_474
    layers = default_layers("wide")
    assert len(layers) == 16
    assert set(layers) <= {name for name, _ in network.named_modules()}
    assert network.default_layers == layers


@pytest.mark.parametrize("depth", [4, 12, 35])
def test_a_depth_that_no_network_has_is_refused(depth):
    with pytest.raises(ConfigurationError, match=rf"depth: expected 6 \* n \+ 4 .* got {depth}"):
        build_network("wide", depth=depth)


def test_equal_widths_need_no_shortcut_convolution():
    network = build_network("wide", depth=10, widen=1)
    assert network.get_submodule("stages.0.0").shortcut is None
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
