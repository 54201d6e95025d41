"""Networks of all kinds in their working form, attacked: images move, stay finite and fool the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_detect.algorithms.attacks.construction import build_attack
from adv_detect.algorithms.attacks.run import run_attack
from adv_detect.networks.frozen import working_form
from adv_detect.networks.target import build_target
from adv_detect.params import AttackParams, NetworkParams

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Grey(nn.Module):
    """A convolution of grey images with an in-place activation, in a number format, with logits in a mapping."""

    def __init__(self, dtype="float32", num_classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, num_classes))
        self.to(getattr(torch, dtype))

    def forward(self, images):
        return {"logits": self.body(images), "aux": images}


@pytest.mark.parametrize("attack", ["bim", "cw"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_attacks_succeed_on_float32_images(dtype, attack):
    params = NetworkParams(name=f"{__name__}.Grey", arguments={"dtype": dtype}, layers=("body.0", "body.1"))
    target = build_target(params, class_names="abc", image_shape=(1, 8, 8)).freeze()
    network = working_form(target, torch.device("cpu"))
    labels = network(IMAGES).argmax(dim=1)
    search = {"steps": 60, "binary_search_steps": 2, "stepsize": 0.05, "initial_const": 10.0}
    more = {"epsilon": 0.5} if attack == "bim" else {"arguments": search}

    result = run_attack(
        build_attack(attack, AttackParams(attack=attack, **more)),
        network, IMAGES, labels, targets=None, bounds=(0.0, 1.0), seed=0,
    )  # fmt: skip

    assert result.images.dtype == torch.float32
    assert torch.isfinite(result.images).all()
    assert result.success.sum() >= 6
    fooled = network(result.images).argmax(dim=1) != labels
    assert fooled[result.success].all()
