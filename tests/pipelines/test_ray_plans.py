"""The plans of the heavy nodes give the same shards in this process and on a Ray cluster, dead workers or not."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adv_detect.keys import TEMPORARY
from adv_detect.params import AdaptiveAttackParams, RayParams
from adv_detect.pipelines.adaptive_attack.attacking import AttackSetting
from adv_detect.pipelines.adaptive_attack.nodes import attack_detectors
from adv_detect.pipelines.adversarial_generation.nodes import generate_adversarials
from adv_detect.pipelines.detector_training.nodes import compute_activations, make_controls, train_detectors
from adv_detect.pipelines.evaluation.nodes import compute_control_activations, score_images
from adv_detect.pipelines.feature_extraction.nodes import extract_class_features
from adv_detect.sharding import ShardContent, ShardPlan, ShardStore, execute_plan, files

pytestmark = pytest.mark.slow

ATTACKED = "bim/targeted/train-0001"
SECONDS_TO_KILL = 60.0
TAKES_TIME = "seconds"
ADAPTIVE = {
    "detectors": ["cosine"],
    "budgets": {"linf": [0.3]},
    "max_images": 8,
    "attacks": {
        "selective": {"attack": "selective", "arguments": {"steps": 6}},
        "matching": {"attack": "matching", "arguments": {"steps": 3}},
        "cw": {
            "attack": "cw_detector",
            "arguments": {"steps": 8, "binary_search_steps": 2, "learning_rate": 0.2, "initial_constant": 10.0},
        },
    },
}


@pytest.fixture(scope="module")
def cluster(finished) -> Iterator[Any]:
    """Two workers of one core; they get the classes of the tests by value, as they cannot import them."""
    ray = pytest.importorskip("ray", reason="needs the extra adv-detect[ray]")
    modules = {sys.modules[type(finished["test_images"]).__module__], sys.modules[__name__]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        for module in modules:
            ray.cloudpickle.register_pickle_by_value(module)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads, and a worker has as many as its task has cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def planned(finished, blocks) -> Callable[..., ShardPlan]:
    """Makes a plan of the finished run anew: ``planned("features", "ray")``."""

    def make(name: str, engine: str, attacks: tuple[str, ...] = ("bim", "cw", "bim-confident")) -> ShardPlan:
        runtime = blocks["runtime"].model_copy(update={"engine": engine, "ray": RayParams(num_cpus=1, max_retries=2)})
        every = blocks["adversarial_generation"]
        some = every.model_copy(update={"attacks": {name: every.attacks[name] for name in attacks}})
        return PLANS[name](finished, blocks | {"adversarial_generation": some}, runtime)

    return make


def features(finished, blocks, runtime) -> ShardPlan:
    return extract_class_features(
        finished["train_images"], finished["network_weights"], blocks["feature_extraction"], runtime
    )


def adversarials(finished, blocks, runtime) -> ShardPlan:
    names = ("test_images", "network_weights", "representatives", "source_splits")
    params = blocks["adversarial_generation"], runtime, blocks["detector_training"]
    return generate_adversarials(*(finished[name] for name in names), *params)


def activations(finished, blocks, runtime) -> ShardPlan:
    names = ("adversarials", "network_weights", "representatives", "twin", "params:detector_training")
    return compute_activations(*(finished[name] for name in names), runtime, blocks["evaluation"])


def controls(finished, blocks, runtime) -> ShardPlan:
    names = ("adversarials", "network_weights", "representatives", "twin", "detectors")
    return compute_control_activations(*(finished[name] for name in names), blocks["adversarial_generation"], runtime)


def detectors(finished, blocks, runtime) -> ShardPlan:
    names = ("detector_training", "adversarial_generation")
    stores = (finished["activations"], finished["representatives"])
    return train_detectors(*stores, *(blocks[name] for name in names), runtime)


def control_detectors(finished, blocks, runtime) -> ShardPlan:
    names = ("detectors", "detector_summary", "activations", "representatives")
    return make_controls(*(finished[name] for name in names), runtime)


def adaptive(finished, blocks, runtime) -> ShardPlan:
    names = ("test_images", "network_weights", "representatives", "activations")
    setting = AttackSetting(*(finished[name] for name in names), substitute=None, runtime=runtime)
    params = AdaptiveAttackParams.model_validate(ADAPTIVE)
    return attack_detectors(setting, finished["detectors"], blocks["detector_training"], params)


def scores(finished, blocks, runtime) -> ShardPlan:
    names = ("activations", "control_activations", "detectors", "control_detectors", "thresholds", "representatives")
    params = blocks["adversarial_generation"], blocks["evaluation"], runtime
    return score_images(*(finished[name] for name in names), *params)


PLANS = {
    make.__name__: make
    for make in (features, adversarials, activations, controls, detectors, control_detectors, adaptive, scores)
}


def carry_out(plan: ShardPlan, folder: Path) -> ShardStore:
    store = ShardStore(str(folder))
    execute_plan(plan, store)
    return store


def assert_equal_but_for_seconds(one: ShardStore, other: ShardStore) -> None:
    assert one.complete
    assert other.complete
    assert one.digest == other.digest
    assert list(one) == list(other)
    assert one.fingerprints() == other.fingerprints()
    for key, content in one.items():
        twin = other[key]
        assert content.tensors.keys() == twin.tensors.keys()
        for name, tensor in content.tensors.items():
            assert tensor.dtype == twin.tensors[name].dtype
            assert torch.equal(tensor, twin.tensors[name]), f"{key}: {name}"
        assert timeless(content) == timeless(twin)


def timeless(content: ShardContent) -> dict[str, Any]:
    return {name: value for name, value in content.metadata.items() if name != TAKES_TIME}


@pytest.mark.parametrize("name", PLANS)
def test_both_engines_make_the_same_shards(name, planned, cluster, tmp_path):
    plans = {engine: planned(name, engine) for engine in ("local", "ray")}

    stores = {engine: carry_out(plan, tmp_path / engine) for engine, plan in plans.items()}

    assert len(stores["ray"]) > 1
    assert stores["ray"].fingerprints() == plans["local"].fingerprints
    assert_equal_but_for_seconds(stores["ray"], stores["local"])


@dataclass(frozen=True)
class Interrupted:
    """The work of a plan; at its first try, one shard says in which process it is and never comes to an end."""

    work: Callable[[Any], ShardContent]
    victim: Any
    moment: str
    marker: Path

    def __call__(self, block: Any) -> ShardContent:
        if block != self.victim or self.marker.exists():
            return self.work(block)
        if self.moment == "writing":
            files.save_file = self._write_half
            return self.work(block)
        self._announce()
        until = time.monotonic() + SECONDS_TO_KILL
        while time.monotonic() < until:
            self.work(block)
        raise TimeoutError("nobody killed this worker while it attacked")

    def _write_half(self, tensors: Any, path: str, metadata: Any) -> None:
        Path(path).write_bytes(b"half a shard")
        self._announce()
        time.sleep(SECONDS_TO_KILL)
        raise TimeoutError("nobody killed this worker while it wrote")

    def _announce(self) -> None:
        written = self.marker.with_suffix(".tmp")
        written.write_text(str(os.getpid()))
        written.replace(self.marker)


def kill_announced(marker: Path, killed: list[int]) -> None:
    until = time.monotonic() + SECONDS_TO_KILL
    while time.monotonic() < until:
        if marker.exists():
            process = int(marker.read_text())
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["attacking", "writing"])
def test_a_worker_killed_in_the_middle_of_an_attack_loses_nothing(moment, planned, cluster, tmp_path):
    plans = {engine: planned("adversarials", engine, attacks=("bim",)) for engine in ("local", "ray")}
    marker, killed = tmp_path / "process", []
    victim = next(spec.arguments for spec in plans["ray"].shards if spec.key == ATTACKED)
    killer = threading.Thread(target=kill_announced, args=(marker, killed), daemon=True)
    killer.start()

    work = Interrupted(plans["ray"].work, victim, moment, marker)
    made = carry_out(replace(plans["ray"], work=work), tmp_path / "ray")

    killer.join(SECONDS_TO_KILL)
    assert len(killed) == 1
    assert os.getpid() not in killed
    assert len(list((tmp_path / "ray").rglob(f"*{TEMPORARY}*"))) == (moment == "writing")
    assert_equal_but_for_seconds(made, carry_out(plans["local"], tmp_path / "local"))
