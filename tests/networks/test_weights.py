from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adv_detect.errors import CheckpointError
from adv_detect.networks import build_network, load_weights
from adv_detect.networks.weights import head_name


class Malicious:
    """Makes a folder when it is unpickled by Python's own reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def assert_same_state(network, state):
    own = network.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], value) for name, value in state.items())


@pytest.fixture
def trained():
    """A small network whose last layer is not zero."""
    torch.manual_seed(1)
    network = build_network("small")
    torch.nn.init.normal_(network.get_parameter("dense.fc3.weight"))
    return network


def save_safetensors(state, path):
    save_file(state, path)


def save_state_dict(state, path):
    torch.save(state, path)


def save_nested(state, path):
    torch.save({"state_dict": state, "optimizer": {"state": {}, "lr": [1e-3]}}, path)


def save_parallel(state, path):
    torch.save({"model_state_dict": {f"module.{name}": value for name, value in state.items()}}, path)


def save_with_numpy_scalar(state, path):
    torch.save({"model_state_dict": state, "best_acc": np.float64(0.5), "epoch": np.int64(3)}, path)


def save_with_old_numpy_scalar(state, path):
    content = {"model_state_dict": state, "best_acc": np.float64(0.5)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    renamed = path.read_bytes().replace(b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar")
    assert b"cnumpy.core.multiarray\nscalar" in renamed
    path.write_bytes(renamed)


def save_numpy(state, path):
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in state.items()}))


@pytest.mark.parametrize(
    "save",
    [
        save_safetensors,
        save_state_dict,
        save_nested,
        save_parallel,
        save_with_numpy_scalar,
        save_with_old_numpy_scalar,
        save_numpy,
    ],
)
def test_every_form_is_recognised_by_content(tmp_path, trained, save):
    path = tmp_path / "weights.anything"
    save(trained.state_dict(), path)
    network = build_network("small")
    load_weights(network, str(path))
    assert_same_state(network, trained.state_dict())


def test_published_names_with_parallel_prefix(tmp_path, small_reference_state):
    save_parallel(small_reference_state, tmp_path / "small.pth")
    network = build_network("small")
    load_weights(network, tmp_path / "small.pth")
    assert torch.equal(network.get_parameter("dense.fc2.weight"), small_reference_state["classifier.fc2.weight"])


def test_counters_of_batches_may_be_missing(tmp_path):
    network = build_network("wide", depth=10, widen=1)
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "wide.safetensors")
    other = build_network("wide", depth=10, widen=1)
    load_weights(other, tmp_path / "wide.safetensors")
    assert torch.equal(other.get_parameter("stem.weight"), network.get_parameter("stem.weight"))


def test_error_lists_missing_unexpected_and_wrong_shapes(tmp_path, trained):
    state = dict(trained.state_dict())
    del state["convolutions.conv1.weight"]
    state["convolutions.conv2.bias"] = torch.zeros(31)
    state |= {f"extra.{index}": torch.zeros(1) for index in range(7)}
    torch.save(state, tmp_path / "bad.pth")
    network = build_network("small")
    before = {name: value.clone() for name, value in network.state_dict().items()}

    with pytest.raises(CheckpointError) as caught:
        load_weights(network, tmp_path / "bad.pth")

    message = str(caught.value)
    assert "does not fit SmallNetwork" in message
    assert "1 missing: convolutions.conv1.weight;" in message
    assert "7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4, and 2 more;" in message
    assert "1 of the wrong shape: convolutions.conv2.bias (network (32,), file (31,))" in message
    assert_same_state(network, before)


def test_another_class_count_is_said_in_words(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "ten.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"class count does not match the checkpoint: checkpoint has 10 classes, network has 62",
    ):
        load_weights(build_network("small", num_classes=62), tmp_path / "ten.safetensors")


def test_a_file_without_head_is_said_in_words(tmp_path, trained):
    state = {name: value for name, value in trained.state_dict().items() if "fc3" not in name}
    save_file(state, tmp_path / "headless.safetensors")
    with pytest.raises(CheckpointError, match=r"2 missing: dense\.fc3.*has no head, the network has 10 classes"):
        load_weights(build_network("small"), tmp_path / "headless.safetensors")


@pytest.mark.parametrize("classes", [None, 4])
def test_a_lenient_head_keeps_the_own_one(tmp_path, trained, classes):
    state = dict(trained.state_dict())
    if classes is None:
        del state["dense.fc3.weight"], state["dense.fc3.bias"]
    save_file(state, tmp_path / "weights.safetensors")
    network = build_network("small", num_classes=classes or 10)
    head = network.get_parameter("dense.fc3.weight").detach().clone()
    load_weights(network, tmp_path / "weights.safetensors", strict_head=False)
    assert torch.equal(network.get_parameter("dense.fc3.weight"), head)
    assert torch.equal(network.get_parameter("dense.fc2.weight"), trained.get_parameter("dense.fc2.weight"))


def test_a_lenient_head_is_loaded_where_it_fits(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    network = build_network("small")
    load_weights(network, tmp_path / "weights.safetensors", strict_head=False)
    assert_same_state(network, trained.state_dict())


def test_a_lenient_head_does_not_excuse_the_backbone(tmp_path, trained):
    state = {name: value for name, value in trained.state_dict().items() if "conv3" not in name}
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"2 missing: convolutions\.conv3\.weight, convolutions\.conv3\.bias"):
        load_weights(build_network("small"), tmp_path / "weights.safetensors", strict_head=False)


def test_head_of_a_foreign_network_is_its_last_linear_layer():
    with torch.device("meta"):
        network = build_network("torchvision.models.alexnet")
    assert head_name(network) == "classifier.6"
    assert head_name(torch.nn.Sequential(torch.nn.ReLU())) is None


def test_a_file_of_another_network_is_not_called_headless(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"14 missing: .*, and 9 more; 1 unexpected: blocks\.0\.weight$"):
        load_weights(build_network("small"), tmp_path / "other.safetensors")


def test_networks_by_dotted_path_load_their_own_names(tmp_path):
    arguments = {"in_channels": 4, "hidden_channels": [3, 2]}
    network = build_network("torchvision.ops.MLP", **arguments)
    save_state_dict(network.state_dict(), tmp_path / "own.pth")
    other = build_network("torchvision.ops.MLP", **arguments)
    load_weights(other, tmp_path / "own.pth")
    assert_same_state(other, network.state_dict())
    with pytest.raises(CheckpointError, match="checkpoint has 2 classes, network has 5"):
        load_weights(build_network("torchvision.ops.MLP", in_channels=4, hidden_channels=[3, 5]), tmp_path / "own.pth")


def test_code_in_a_torch_file_is_refused_and_not_run(tmp_path, trained):
    victim = tmp_path / "made-by-the-file"
    torch.save({"model_state_dict": trained.state_dict(), "trap": Malicious(victim)}, tmp_path / "evil.pth")

    with pytest.raises(CheckpointError, match=r"code in a file is never run\): it asks for \w+\.mkdir") as caught:
        load_weights(build_network("small"), tmp_path / "evil.pth")

    assert "weights_only" not in str(caught.value)
    assert not victim.exists()


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    victim = tmp_path / "made-by-the-file"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"fc.weight": Malicious(victim)}))
    with pytest.raises(CheckpointError, match=r"only NumPy arrays are read, never code"):
        load_weights(build_network("small"), tmp_path / "evil.pkl")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just text, no weights", "cannot be read"),
        (b"", "cannot be read"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}", "cannot be read"),
        (b"PK\x03\x04 and then nothing", "damaged"),
        (pickle.dumps({}), "holds no tensors"),
        (pickle.dumps({"a": np.zeros(2, np.longdouble)}), "cannot be read"),
    ],
)
def test_unreadable_files_are_errors_that_name_the_file(tmp_path, content, message):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"weights\.bin': expected a safetensors file.*{message}"):
        load_weights(build_network("small"), path)


def test_a_torch_file_of_something_else_is_an_error(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="it holds a list"):
        load_weights(build_network("small"), tmp_path / "list.pth")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file: .*nothing\.pth"):
        load_weights(build_network("small"), tmp_path / "nothing.pth")
