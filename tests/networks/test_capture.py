"""Outputs of modules reach those who asked, whatever else the network is doing."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from adv_detect.algorithms.features import capture_activations, extract_features
from adv_detect.errors import ConfigurationError
from adv_detect.networks.capture import drop_reading_hooks, has_own_hooks, read_modules

LAYERS = ("0", "1")
AXES = dict.fromkeys((*LAYERS, "4"), 1)


def make():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ).eval()


def draw(seed):
    return torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def hooks(network):
    return sum(len(one._forward_hooks) for one in network.modules())


def test_threads_read_their_own_passes():
    network = make()
    wanted = [extract_features(network, draw(seed), LAYERS) for seed in range(4)]

    def ask(seed):
        return [extract_features(network, draw(seed), LAYERS) for _ in range(100)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))

    for one, found in zip(wanted, answers, strict=True):
        for again in found:
            torch.testing.assert_close(again, one, rtol=0, atol=1e-6)
    assert hooks(network) == 0


def test_a_pass_of_another_thread_is_not_read():
    network = make()
    with capture_activations(network, LAYERS, channels=AXES) as activations:
        other = threading.Thread(target=network, args=(draw(1),))
        other.start()
        other.join()
        assert activations == {}
        network(draw(0))
    torch.testing.assert_close(activations["1"], extract_features(network, draw(0), ["1"])[1][0])


def test_nested_readers_each_get_all():
    network = make()
    with capture_activations(network, ("1", "4"), channels=AXES) as outer:
        with capture_activations(network, LAYERS, channels=AXES) as inner:
            network(draw(0))
        assert hooks(network) == 2
    assert set(outer) == {"1", "4"}
    assert set(inner) == set(LAYERS)
    assert torch.equal(outer["1"], inner["1"])
    assert hooks(network) == 0


class Recursive(nn.Module):
    """Reads its own inner network while it is read."""

    def __init__(self):
        super().__init__()
        self.inner = make()

    def forward(self, images):
        return extract_features(self.inner, images, ["1"])[1][0]


def test_a_network_that_reads_itself():
    network = Recursive()
    logits, (found,) = extract_features(network, draw(0), ["inner.1"])
    assert torch.equal(logits, found)


def test_an_error_in_one_thread_leaves_the_readers_of_others():
    network = make()
    with capture_activations(network, LAYERS, channels=AXES) as activations:
        with pytest.raises(RuntimeError), capture_activations(network, LAYERS, channels=AXES):
            network(torch.zeros(1, 2, 8, 8))
        assert hooks(network) == 2
        activations.clear()
        network(draw(0))
    assert set(activations) == set(LAYERS)
    assert hooks(network) == 0


def test_a_layer_that_runs_twice_is_an_error_also_when_nested():
    network = make()
    with capture_activations(network, LAYERS, channels=AXES):
        extract_features(network, draw(0), LAYERS)
        with pytest.raises(ConfigurationError, match="layer '0' is run more than once"):
            extract_features(network, draw(0), LAYERS)
    assert hooks(network) == 0


def test_two_names_of_one_module_both_get_its_output():
    network, seen = make(), []
    with read_modules({"a": network[0], "b": network[0]}, lambda name, *_: seen.append(name)):
        network(draw(0))
    assert seen == ["a", "b"]


def test_a_network_can_be_stored_and_copied_while_it_is_read():
    network, stream = make(), io.BytesIO()
    keys = list(network.state_dict())
    with capture_activations(network, LAYERS, channels=AXES) as activations:
        torch.save(network, stream)
        restored, copied = pickle.loads(pickle.dumps(network)), copy.deepcopy(network)
        assert list(network.state_dict()) == keys
        for other in (restored, copied):
            other(draw(1))
        assert activations == {}
    for other in (restored, copied):
        assert not any(has_own_hooks(one) for one in other.modules())
        assert hooks(drop_reading_hooks(other)) == 0
        torch.testing.assert_close(extract_features(other, draw(0), LAYERS), extract_features(network, draw(0), LAYERS))


def test_a_network_that_was_read_is_freed():
    network = make()
    extract_features(network, draw(0), LAYERS)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_a_parallel_network_is_read():
    network = make()
    parallel = nn.DataParallel(network)
    wanted = extract_features(network, draw(0), ["1"])
    torch.testing.assert_close(extract_features(parallel, draw(0), ["module.1"]), wanted)
    parallel.device_ids = [0, 1]
    with pytest.raises(ConfigurationError, match="copies on several devices"):
        extract_features(parallel, draw(0), ["module.1"])
