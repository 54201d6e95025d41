"""Checkpoints as people have them: prefixes, dictionaries within dictionaries, running averages, NaN."""

from __future__ import annotations

import argparse
import logging
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adv_detect.errors import CheckpointError
from adv_detect.networks import build_network, load_weights
from adv_detect.networks.finite import check_finite
from adv_detect.networks.name_forms import name_forms
from adv_detect.networks.target import target_from_spec


class Net(nn.Module):
    """A network of the user's own, with a batch normalisation and its counter."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.bn1 = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, classes)

    def forward(self, images):
        return self.fc(self.bn1(self.conv1(images)).mean(dim=(2, 3)))


class Masked(nn.Module):
    """Keeps an attention mask with infinities as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


@pytest.fixture
def trained():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Net()


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def assert_loads(path, state):
    network = Net()
    load_weights(network, path)
    own = network.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "backbone.", "module._orig_mod.", "_orig_mod.module.", "model.net.",
     "module.model.backbone.", "my_wrapper.", "model.model."],
)  # fmt: skip
@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_a_prefix_of_all_names_is_taken_off(tmp_path, trained, prefix, save, caplog):
    save(prefixed(trained.state_dict(), prefix), tmp_path / "weights")
    with caplog.at_level(logging.INFO):
        assert_loads(tmp_path / "weights", trained.state_dict())
    assert f"without the prefix {prefix!r}" in caplog.text


def test_wrappers_within_names_and_beside_them_are_taken_off(tmp_path, trained):
    state = trained.state_dict()
    within = {name.replace("bn1.", "bn1._orig_mod."): value for name, value in state.items()}
    torch.save(within, tmp_path / "within.pth")
    assert_loads(tmp_path / "within.pth", state)
    torch.save(prefixed(state, "module.") | {"n_averaged": torch.tensor(7)}, tmp_path / "averaged.pth")
    assert_loads(tmp_path / "averaged.pth", state)


def test_a_prefix_that_the_network_has_and_the_file_lacks_is_added(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "plain.pth")
    wrapped = nn.ModuleDict({"backbone": Net()})
    load_weights(wrapped, tmp_path / "plain.pth")
    assert torch.equal(wrapped["backbone"].fc.weight, trained.fc.weight)


def test_foreign_names_are_translated_below_a_prefix(tmp_path, small_reference_state):
    torch.save({"state_dict": prefixed(small_reference_state, "model._orig_mod.")}, tmp_path / "small.ckpt")
    network = build_network("small")
    load_weights(network, tmp_path / "small.ckpt")
    assert torch.equal(network.get_parameter("dense.fc2.weight"), small_reference_state["classifier.fc2.weight"])


def lightning(state):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    return {"state_dict": prefixed(state, "model."), "optimizer_states": [optimizer], "epoch": 3, "loops": {"a": {}}}


@pytest.mark.parametrize(
    "wrap",
    [
        lightning,
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state, "best_acc": 0.5},
        lambda state: {"net": prefixed(state, "module."), "acc": 93.1},
        lambda state: {"weights": state},
        lambda state: {"ema_state_dict": state},
        lambda state: {"checkpoint": {"state_dict": prefixed(state, "module.")}},
        lambda state: {"student": {"params": {"all": state}}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {"a": state}}},
    ],
)
def test_state_dicts_are_found_in_dictionaries(tmp_path, trained, wrap):
    torch.save(wrap(trained.state_dict()), tmp_path / "checkpoint.pth")
    assert_loads(tmp_path / "checkpoint.pth", trained.state_dict())


def test_arrays_are_found_in_dictionaries(tmp_path, trained):
    arrays = {name: value.numpy() for name, value in prefixed(trained.state_dict(), "module.").items()}
    (tmp_path / "arrays.pkl").write_bytes(pickle.dumps({"checkpoint": {"state_dict": arrays}}))
    assert_loads(tmp_path / "arrays.pkl", trained.state_dict())


def test_a_pickled_dictionary_within_itself_is_no_endless_search(tmp_path):
    endless: dict[str, object] = {}
    endless["again"] = endless
    (tmp_path / "endless.pkl").write_bytes(pickle.dumps(endless))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_weights(Net(), tmp_path / "endless.pkl")


@pytest.mark.parametrize("order", [("ema_state_dict", "state_dict"), ("state_dict", "model_ema")])
def test_trained_weights_go_before_averages_and_the_log_says_so(tmp_path, trained, caplog, order):
    averages = {name: torch.zeros_like(value) for name, value in trained.state_dict().items()}
    content = {name: trained.state_dict() if name == "state_dict" else averages for name in order}
    torch.save(content, tmp_path / "both.pth")
    with caplog.at_level(logging.INFO):
        assert_loads(tmp_path / "both.pth", trained.state_dict())
    other = next(name for name in order if name != "state_dict")
    assert (
        f"took entry 'state_dict' (trained weights go before running averages); fitting too: '{other}'" in caplog.text
    )


def test_two_networks_in_one_file_are_refused(tmp_path, trained):
    torch.save({"first": trained.state_dict(), "second": Net().state_dict()}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"weights of one network, got 2 entries that fit: first, second"):
        load_weights(Net(), tmp_path / "two.pth")


def test_where_not_all_names_fit_the_message_names_entry_prefix_and_counts(tmp_path, trained):
    state = prefixed(trained.state_dict(), "model.") | {f"loss.{index}": torch.zeros(1) for index in range(300)}
    torch.save({"state_dict": state}, tmp_path / "loss.ckpt")
    with pytest.raises(CheckpointError) as caught:
        load_weights(Net(), tmp_path / "loss.ckpt")
    message = str(caught.value)
    assert "entry 'state_dict', without the prefix 'model.' does not fit Net: 300 unexpected: loss.0, " in message
    assert "and 295 more" in message
    assert len(message) < 500


def test_the_class_count_is_named_below_a_prefix(tmp_path, trained):
    torch.save({"state_dict": prefixed(trained.state_dict(), "model.")}, tmp_path / "three.ckpt")
    with pytest.raises(CheckpointError, match="checkpoint has 3 classes, network has 5"):
        load_weights(Net(5), tmp_path / "three.ckpt")
    network = Net(5)
    load_weights(network, tmp_path / "three.ckpt", strict_head=False)
    assert torch.equal(network.conv1.weight, trained.conv1.weight)


def test_forms_are_few_however_many_names():
    names = {f"a{index}.b{index % 7}.c.weight": torch.zeros(1) for index in range(300)}
    assert len(list(name_forms(names, ["conv.weight"]))) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("save", [torch.save, save_file], ids=["torch", "safetensors"])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, trained, value, kind, save):
    state = {name: one.to(kind) if one.is_floating_point() else one for name, one in trained.state_dict().items()}
    state["bn1.running_var"] = torch.tensor([1.0, value], dtype=kind)
    state["fc.bias"] = torch.full((3,), value, dtype=kind)
    save(state, tmp_path / "weights")
    network = Net()
    before = network.fc.weight.clone()
    with pytest.raises(
        CheckpointError, match=r"NaN or infinity in 2 of 9 tensors, first in 'bn1\.running_var' \(1 of 2"
    ):
        load_weights(network, tmp_path / "weights")
    assert torch.equal(network.fc.weight, before)


def test_a_number_too_large_for_the_network_is_refused(tmp_path, trained):
    state = trained.state_dict() | {"fc.bias": torch.tensor([0.0, 1e300, 0.0], dtype=torch.float64)}
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(CheckpointError, match=r"first in 'fc\.bias' \(1 of 3 numbers\)"):
        load_weights(Net(), tmp_path / "large.pth")


def test_infinities_of_a_mask_are_the_networks_own(tmp_path):
    torch.save(Masked().state_dict(), tmp_path / "masked.pth")
    load_weights(Masked(), tmp_path / "masked.pth")
    with pytest.raises(CheckpointError, match=r"first in 'mask' \(1 of 2 numbers\)"):
        check_finite(Masked(), {"mask": torch.tensor([float("inf"), float("-inf")])}, "stored network")


def test_a_stored_network_with_nan_is_refused(finished_network):
    spec, tensors = finished_network
    tensors["dense.fc1.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"stored network: .* first in 'dense\.fc1\.bias'"):
        target_from_spec(spec, tensors)


@pytest.fixture
def finished_network():
    from adv_detect.networks.target import build_target, target_tensors
    from adv_detect.params import NetworkParams

    target = build_target(NetworkParams(), class_names=["a", "b"], image_shape=(1, 28, 28))
    return target.spec, target_tensors(target)
