"""Where tensors live."""

from __future__ import annotations

import pytest
import torch

from adv_detect.algorithms.device import resolve_device
from adv_detect.errors import ConfigurationError


@pytest.mark.parametrize(("gpu", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_gpu_when_there_is_one(monkeypatch, gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    assert resolve_device("auto") == torch.device(expected)


def test_a_named_device_is_taken():
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["banana", "", "cuda:x", "mps", "meta", "cpu:1", "cuda:-1"])
def test_another_name_is_refused(name):
    with pytest.raises(ConfigurationError, match=rf"runtime.device: expected auto, cpu.*got '{name}'"):
        resolve_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigurationError, match=r"'cuda:1' was asked for, but torch sees no CUDA device"):
        resolve_device("cuda:1")


def test_a_gpu_beyond_the_last_one_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigurationError, match="expected cuda:0 to cuda:1 on this machine, got 'cuda:9'"):
        resolve_device("cuda:9")
