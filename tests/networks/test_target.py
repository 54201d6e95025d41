from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from adv_detect.errors import CheckpointError, ConfigurationError
from adv_detect.networks import build_network, default_layers, load_weights
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import (
    build_target,
    check_layers,
    inner_network,
    target_digest,
    target_from_spec,
    target_tensors,
)
from adv_detect.params import NetworkParams

DIGITS = tuple("0123456789")
GREY = (1, 28, 28)


def small_target(**changes):
    seed = changes.pop("seed", 0)
    return build_target(NetworkParams(**{"name": "small", **changes}), class_names=DIGITS, image_shape=GREY, seed=seed)


def test_spec_holds_what_was_configured():
    target = small_target(bounds=(0, 255), preprocessing={"scale": "1/255"})
    assert target.spec == NetworkSpec(
        name="small",
        num_classes=10,
        layers=default_layers("small"),
        readings=target.spec.readings,
        bounds=(0.0, 255.0),
        preprocessing={"scale": 1 / 255},
        class_names=DIGITS,
        image_shape=GREY,
    )
    assert [(one.name, one.channels, one.width, one.found_by) for one in target.spec.readings] == [
        ("convolutions.relu2", 1, 32, "input size"),
        ("convolutions.relu3", 1, 64, "input size"),
        ("convolutions.relu4", 1, 64, "input size"),
        ("dense.relu1", 1, 200, "vector"),
        ("dense.relu2", 1, 200, "vector"),
    ]
    with pytest.raises(ValidationError):
        NetworkSpec(**target.spec.model_dump(), colour="red")


def test_forward_preprocesses():
    target = small_target(bounds=(0, 255), preprocessing={"scale": "1/255"}).freeze()
    torch.nn.init.normal_(target.network.get_parameter("dense.fc3.weight"), generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, *GREY)
    assert torch.allclose(target(images * 255), target.network(images), atol=1e-5)
    assert target(images).std() > 0


def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone():
    state = torch.get_rng_state()
    first, again, other = small_target(seed=4), small_target(seed=4), small_target(seed=5)
    assert torch.equal(state, torch.get_rng_state())
    assert target_digest(first) == target_digest(again)
    assert target_digest(first) != target_digest(other)


def test_digest_depends_on_spec_and_tensors_but_not_on_accuracy():
    target = small_target()
    digest = target_digest(target)
    target.spec = target.spec.model_copy(update={"accuracy": 0.9})
    assert target_digest(target) == digest
    target.spec = target.spec.model_copy(update={"bounds": (0.0, 2.0)})
    assert target_digest(target) != digest
    target.spec = target.spec.model_copy(update={"bounds": (0.0, 1.0)})
    with torch.no_grad():
        target.network.get_parameter("dense.fc3.bias")[0] = 1e-7
    assert target_digest(target) != digest


def test_freeze_stops_gradients_of_parameters():
    target = small_target()
    assert target.training
    assert target.freeze() is target
    assert not target.training
    assert not any(parameter.requires_grad for parameter in target.parameters())


def test_round_trip_through_spec_and_tensors():
    target = small_target(seed=3).freeze()
    spec = NetworkSpec.model_validate_json(target.spec.model_dump_json())
    restored = target_from_spec(spec, target_tensors(target))
    assert target_digest(restored) == target_digest(target)


def test_tensors_are_copies_that_the_weight_reader_takes(tmp_path):
    target = small_target(seed=3)
    tensors = target_tensors(target)
    save_file(tensors, tmp_path / "own.safetensors")
    network = build_network("small")
    load_weights(network, tmp_path / "own.safetensors")
    assert torch.equal(network.get_parameter("dense.fc1.weight"), target.network.get_parameter("dense.fc1.weight"))
    tensors["dense.fc1.weight"].zero_()
    assert target.network.get_parameter("dense.fc1.weight").any()


def test_tensors_of_another_network_are_refused():
    target = small_target()
    tensors = target_tensors(target)
    del tensors["dense.fc1.weight"]
    with pytest.raises(CheckpointError, match=r"do not fit network 'small' of its spec(?s:.*)dense\.fc1\.weight"):
        target_from_spec(target.spec, tensors)


def test_checkpoint_is_loaded(tmp_path):
    trained = small_target(seed=8)
    save_file(target_tensors(trained), tmp_path / "own.safetensors")
    loaded = small_target(checkpoint=str(tmp_path / "own.safetensors"))
    assert target_digest(loaded) == target_digest(trained)


def test_checkpoint_of_another_class_count_is_an_error_unless_the_head_is_new(tmp_path):
    save_file(target_tensors(small_target(seed=8)), tmp_path / "own.safetensors")
    params = NetworkParams(name="small", checkpoint=str(tmp_path / "own.safetensors"))
    with pytest.raises(CheckpointError, match="checkpoint has 10 classes, network has 3"):
        build_target(params, class_names="abc", image_shape=GREY)
    target = build_target(params, class_names="abc", image_shape=GREY, strict_head=False)
    assert target.spec.num_classes == 3


def test_missing_checkpoint_is_an_error():
    with pytest.raises(ConfigurationError, match=r"network\.checkpoint: no such file: 'nowhere\.pth'"):
        small_target(checkpoint="nowhere.pth")


def test_layers_follow_the_arguments_of_the_network():
    params = NetworkParams(name="wide", arguments={"depth": 10, "widen": 1})
    target = build_target(params, class_names=DIGITS, image_shape=(3, 32, 32))
    assert target.spec.layers == ("stages.0.0.relu2", "stages.1.0.relu2", "stages.2.0.relu2", "pool")


def test_dotted_path_with_layers():
    params = NetworkParams(name="timm.models.resnet18", layers=("layer1", "global_pool"))
    target = build_target(params, class_names="ab", image_shape=(3, 32, 32))
    assert target(torch.zeros(2, 3, 32, 32)).shape == (2, 2)


def test_dotted_path_without_layers_is_an_error():
    with pytest.raises(ConfigurationError, match="set layers to a list"):
        build_target(NetworkParams(name="torch.nn.Identity"), class_names="ab", image_shape=GREY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ("dense.relu9",)}, r"no module 'dense\.relu9'; expected of \[dense\.relu2, dense\.relu1, .*fc2\]"),
        ({"layers": ("dense.relu1", "dense.relu1")}, r"expected at least one module name, each once"),
        ({"layers": ()}, r"expected at least one module name, each once, got \[\]"),
        ({"arguments": {"num_classes": 10}}, r"network\.arguments: num_classes comes from the data \(10 classes\)"),
        ({"arguments": {"in_channels": 3}}, r"'small' .* does not take images of shape \(1, 28, 28\)"),
        ({"preprocessing": {"mean": (1, 2)}}, r"preprocessing\.mean: expected 1 or 1 values"),
        (
            {"name": "torch.nn.Flatten", "layers": ("",)},
            r"no module ''",
        ),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        small_target(**changes)


def test_a_network_with_another_number_of_outputs_is_an_error():
    params = NetworkParams(
        name="torchvision.ops.MLP", arguments={"in_channels": 28, "hidden_channels": [4]}, layers=("0",)
    )
    with pytest.raises(ConfigurationError, match=r"expected 10 logits per image.*gives shape \(2, 1, 28, 4\)"):
        build_target(params, class_names=DIGITS, image_shape=GREY)


def test_check_layers_looks_inside_a_target_network():
    target = small_target()
    check_layers(target, ["dense.fc1"])
    with pytest.raises(ConfigurationError, match=r"no module 'network\.dense\.fc1'"):
        check_layers(target, ["network.dense.fc1"])


def test_no_layers_are_an_error():
    with pytest.raises(ConfigurationError, match=r"each once, got \[\]"):
        check_layers(build_network("small"), [])


def test_inner_network():
    target = small_target()
    assert inner_network(target) is target.network
    assert inner_network(target.network) is target.network
