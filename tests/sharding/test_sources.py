"""Code belongs to what it makes: a change of it makes anew, anything else does not."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest

from adv_detect.algorithms.attacks.adaptive.registry import adaptive_attack_source
from adv_detect.algorithms.attacks.construction import attack_source
from adv_detect.errors import ConfigurationError
from adv_detect.networks.registry import network_source
from adv_detect.networks.target import build_target, target_digest
from adv_detect.params import AttackParams, NetworkParams
from adv_detect.sharding.sources import source_identity

NET = '''
"""A network."""
import os
import torchvision
from torch import nn
from own_package.blocks import hidden
from . import heads


class Net(nn.Module):
    def __init__(self, num_classes=3):
        """Build it."""
        super().__init__()
        self.flat, self.first, self.last = nn.Flatten(), hidden(), heads.head(num_classes)

    def forward(self, images):
        return self.last(self.first(self.flat(images)).relu())
'''

BLOCKS = """
from torch import nn
from own_widths import WIDTH as W


def hidden():
    return nn.Linear(4, W)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's own: its network imports two of its three other modules."""
    folder = tmp_path / "own_package"
    folder.mkdir()
    files = {
        "__init__.py": "from own_package.nets import Net\n",
        "nets.py": NET,
        "blocks.py": BLOCKS,
        "heads.py": "from torch import nn\n\n\ndef head(classes):\n    return nn.Linear(5, classes)\n",
        "unrelated.py": "ANYTHING = 1\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (tmp_path / "own_widths.py").write_text("WIDTH = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    for name in [one for one in sys.modules if one.startswith(("own_package", "own_widths"))]:
        del sys.modules[name]


def replace(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_users_own_modules_and_versions_are_counted(package):
    found = network_source("own_package.Net")
    assert set(found) == {
        "source own_package", "source own_package.nets", "source own_package.blocks", "source own_package.heads",
        "source own_widths", "version torchvision",
    }  # fmt: skip
    assert found["version torchvision"] == version("torchvision")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("nets.py", "relu", "sigmoid"),
        ("blocks.py", "nn.Linear(4, W)", "nn.Linear(4, W, bias=False)"),
        ("heads.py", "nn.Linear(5", "nn.LazyLinear(5"),
        ("../own_widths.py", "5", "6"),
    ],
)
def test_changed_code_is_other_code(package, name, old, new):
    before = network_source("own_package.Net")
    replace(package / name, old, new)
    assert network_source("own_package.Net") != before


def test_comments_docstrings_blank_lines_and_other_modules_change_nothing(package):
    before = network_source("own_package.Net")
    replace(package / "nets.py", '"""Build it."""', '"""Build the network."""\n\n        # with three layers')
    replace(package / "unrelated.py", "1", "2")
    assert network_source("own_package.Net") == before


def test_another_activation_makes_everything_anew(package):
    params = NetworkParams(name="own_package.Net", layers=("first",))

    def digest():
        return target_digest(build_target(params, class_names="abc", image_shape=(1, 2, 2)))

    before = digest()
    assert digest() == before
    replace(package / "nets.py", "relu", "sigmoid")
    importlib.reload(sys.modules["own_package.nets"])
    assert digest() != before


def test_every_process_finds_the_same(package):
    code = "from adv_detect.sharding.sources import source_identity as s; print(s(None, 'own_widths.WIDTH'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{package.parent}:{':'.join(sys.path)}", "PYTHONHASHSEED": "7"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout == f"{source_identity(None, 'own_widths.WIDTH')}\n"
    assert "source own_widths" in found.stdout


def test_networks_of_this_package_are_their_own_module():
    for name in ("small", "wide", "senet50", "mobilefacenet"):
        assert f"source adv_detect.networks.{name}" in network_source(name)
        assert len(network_source(name)) <= 2


def test_networks_of_others_are_their_version():
    found = network_source("torchvision.models.resnet18")
    assert set(found) == {"source torchvision.models", "source torchvision.models.resnet", "version torchvision"}


def test_attacks_are_their_driver_their_class_and_the_version_of_foolbox():
    def source(attack, **more):
        return attack_source("tried", AttackParams(attack=attack, **more))

    bim, cw = source("bim", epsilon=0.3), source("cw")
    assert bim["version foolbox"] == cw["version foolbox"] == version("foolbox")
    assert "source adv_detect.algorithms.attacks.gradient" in bim
    assert "source adv_detect.algorithms.attacks.carlini_wagner_search" in cw
    assert "source adv_detect.algorithms.attacks.gradient" not in cw
    assert "source adv_detect.algorithms.attacks.deep_features_solvers" in source("deep-features")
    assert "source adv_detect.algorithms.attacks.deep_features_solvers" not in bim


def test_an_attack_of_the_users_own_is_its_source(tmp_path, monkeypatch):
    file = tmp_path / "own_attack.py"
    file.write_text(
        "from foolbox.attacks import LinfBasicIterativeAttack\n\nclass Mine(LinfBasicIterativeAttack):\n    SIZE = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    params = AttackParams(attack="own_attack.Mine", epsilon=0.3)
    before = attack_source("mine", params)
    assert "source own_attack" in before
    replace(file, "SIZE = 1", "SIZE = 2")
    assert attack_source("mine", params) != before
    del sys.modules["own_attack"]


def test_adaptive_attacks_are_their_module_and_what_it_stands_on():
    found = adaptive_attack_source("selective")
    place = "source adv_detect.algorithms.attacks.adaptive"
    assert {f"{place}.{name}" for name in ("selective", "descent", "gradients")} <= set(found)
    assert f"{place}.cw_detector" not in found


def test_unknown_networks_are_refused():
    with pytest.raises(ConfigurationError, match="expected one of"):
        network_source("nothing")


def test_code_without_a_file_has_no_source():
    assert source_identity(len) == {}
