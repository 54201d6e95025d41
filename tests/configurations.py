"""Random configurations, legal and broken, drawn from the typed blocks, and a tiny project that runs them.

What passes the checks runs to its end; what does not pass names key and value and what was expected::

    python -m tests.configurations --broken 400 --legal 40 --seed 0
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import math
import os
import random
import tempfile
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from kedro.validation.parameter_validator import ParameterValidator
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adv_detect.checks import check_run
from adv_detect.errors import AdvDetectError
from adv_detect.fields import Once
from adv_detect.params import BLOCKS
from adv_detect.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
from adv_detect.validation.blocks import check_parameters

PROJECT = Path(__file__).resolve().parents[1]
IMAGES = ("train_images", "test_images", "verification_images")
SIDE, CLASSES = 28, 4
NONE = type(None)
FURTHER = ("__default__", "face_recognition", "adaptive_attack")
SMALL = {
    "runtime": {"device": "cpu", "shard_size": 64, "progress": False},
    "target_training": {"epochs": 4, "batch_size": 16, "min_accuracy": 0.3},
    "twin_training": {"epochs": 2, "batch_size": 32, "steps": 1, "holdout_steps": 1, "min_accuracy": 0.0},
    "splits": {"max_images": None},
    "adversarial_generation": {
        "attacks": {
            "cw-confident": None,
            "bim": {"arguments": {"steps": 3}},
            "bim-confident": {"arguments": {"steps": 3}},
            "cw": {"max_images": None, "arguments": {"steps": 4, "binary_search_steps": 1}},
        }
    },
    "detector_training": {
        "fit": {"epochs": 1},
        "leave_one_out": ["lstm-medoid-cosine"],
        "configurations": {
            "lstm-medoid-cosine": {"hidden": 8},
            "lstm-centroid-mahalanobis-ranked": None,
            "mlp-centroid-mahalanobis-ranked": {"hidden": 8},
            "twin-joined": {"arguments": {"members": {"reader": {"hidden": 8}}}},
        },
    },
    "face_recognition": {"pairs": {"number": 20, "folds": 2}},
    "adaptive_attack": {
        "max_images": 4,
        "detectors": ["lstm-medoid-cosine"],
        "attacks": {
            **dict.fromkeys(("orthogonal", "matching", "weighted-sum", "selective-full", "cw-detector-reference")),
            "cw-detector": None,
            "selective": {"budgets": {"linf": [0.3]}, "arguments": {"steps": 2}},
            "transfer": {"arguments": {"steps": 2}},
        },
        "substitute": {"epochs": 2, "attacks": ["bim"], "max_images": 20},
        "hardening": {"test_attacks": ["selective"], "train_images": 3, "validation_images": 3},
    },
}
"""Changes of the environment ``test`` that make a run smaller still."""

LEGAL: dict[str, list[Any]] = {
    "runtime.seed": [0, 1, 2**31 - 1],
    "runtime.device": ["cpu", "auto"],
    "runtime.engine": ["local"],
    "runtime.shard_size": [16, 64, 2**31 - 1],
    "runtime.batch_size": [7, 64, 2**31 - 1],
    "network.bounds": [[0, 1], [-0.5, 0.5]],
    "network.preprocessing": [{"mean": [0.1], "std": [0.3]}, {"scale": 255.0, "mean": [127.5], "std": [128.0]}],
    "network.layers": [None, ["conv1", "dense.relu1"]],
    "splits": [
        {"train": 0.5, "validation": 0.2, "test": 0.3},
        {"train": 0.34, "validation": 0.33, "test": 0.33, "by": "identity"},
        {"train": 0.4, "validation": 0.2, "test": 0.4, "max_images": 60},
    ],
    "serving.name": ["adv-detect", "a", "A_1-b"],
    "serving.fpr": [0.01, 0.05],
    "scoring.model": ["champion"],
    "scoring.reject": [0.001, 0.01],
    "target_training.epochs": [4, 5],
    "target_training.learning_rate": [2e-3, 3e-3],
    "target_training.batch_size": [8, 16],
    "target_training.optimizer": ["adam"],
    "target_training.workers": [0],
    "target_training.min_accuracy": [0.0, 0.3],
    "twin_training.epochs": [0, 2],
    "twin_training.losses": [["softmax"], ["one_vs_all"]],
    "twin_training.method": ["pgd", "fast"],
    "twin_training.epsilon": [0.1, "1/10"],
    "twin_training.steps": [1, 2],
    "twin_training.relative_step": [None, 0.5],
    "twin_training.learning_rate": [1e-3, 4e-3],
    "twin_training.weight_decay": [0.0],
    "twin_training.optimizer": ["adam"],
    "twin_training.batch_size": [16, 32],
    "twin_training.workers": [0],
    "twin_training.averaging": [0.0, 0.9],
    "twin_training.ramp": [0, 0.5, 1],
    "twin_training.beta": [6.0],
    "twin_training.holdout": [0, 20],
    "twin_training.holdout_steps": [1, 2],
    "twin_training.min_accuracy": [0.0],
    "feature_extraction.max_images_per_class": [None, 1, 3],
    "epsilon": [0.25, "3/10"],
    "splits_of_attack": [["train", "validation", "test"]],
    "max_images": [None, 10],
    "max_learning_images": [None, 10],
    "batch_size": [None, 5],
    "criteria": [["targeted"], ["untargeted"], ["untargeted", "targeted"]],
    "detector_training.criteria": [
        ["targeted"],
        ["untargeted"],
        ["both"],
        ["both", "targeted"],
        ["untargeted", "both"],
    ],
    "detector_training.seeds": [[0], [3, 1], [2**31 - 1]],
    "detector_training.leave_one_out": [[], ["lstm-medoid-cosine"], ["mlp-centroid-mahalanobis-ranked"]],
    "detector_training.fit.learning_rate": [1.0, 1e-2, 1e-7],
    "detector_training.fit.lr_floor": [1e-9, 1e-8],
    "top_k": [None],
    "evaluation.fprs": [[0.01, 0.05], [0.05, 0.2, 0.01, 0.99], [0.01, 0.03, 0.05, 0.1]],
    "evaluation.bootstrap": [0, 20, 50],
    "evaluation.confidence_level": [0.5, 0.9, 0.95],
    "evaluation.show_class": [0, 3],
    "face_recognition.pairs": [{"number": 4, "folds": 2}, {"number": 20, "folds": 2}],
    "face_recognition.fars": [[], [0.5], [0.1, 0.001]],
    "face_recognition.thresholds": [["eer"], [0.01], ["accuracy", 0.5]],
    "face_recognition.engine": ["sklearn"],
    "face_recognition.neighbours": [1, 4],
    "adaptive_attack.trained_criteria": [["targeted"], ["untargeted"], ["both"]],
    "adaptive_attack.budgets": [{"linf": [0.3]}, {"l2": [3.0, 1.0]}],
    "adaptive_attack.detectors": [["lstm-medoid-cosine"], ["mlp-centroid-mahalanobis-ranked", "lstm-medoid-cosine"]],
    "adaptive_attack.max_images": [1, 4],
    "adaptive_attack.hardening.rounds": [0, 1],
    "adaptive_attack.hardening.train_images": [1, 3],
    "adaptive_attack.substitute.epochs": [2],
    "adaptive_attack.substitute.twin_epochs": [1],
    "adaptive_attack.substitute.max_images": [20, 30],
}
"""Legal values by dotted name or by last name, where more is meant than the type says, or others would take long."""
KEPT = (
    "network.name", "network.checkpoint", "twin_training.network", "arguments", "attack", "norm", "detectors", "role",
    "form", "classifier", "budgets", "train", "substitute.network", "substitute.attacks", "hardening.attacks",
    "hardening.test_attacks", "hardening.detectors", "reference_checkpoints", "runtime.ray.address",
    "target_training.head_only", "adaptive_attack.max_images_per_class", "runtime.progress",
    "target_training.weight_decay", "kind", "train_forms", "train_against", "learns_from",
    *(f"{name}.{key}" for name in ("twin", "twin-joined", "density", "view-consistency", "multiview")
      for key in ("representative", "distance", "order", "hidden", "dropout")),  # of read-outs of trajectories alone
)  # fmt: skip
"""Names and free-form values that are left as they are."""

Path_ = tuple[str, ...]


class Stripes:
    """Noisy grey images with a bright stripe whose height says the class: mirrored they stay the same."""

    class_names = ("first", "second", "third", "fourth")

    def __init__(self, per_class: int, *, seed: int, name: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(CLASSES).repeat(per_class)
        self._images = torch.randint(0, 60, (len(self.labels), 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        for image, stripe in zip(self._images, self.labels.tolist(), strict=True):
            image[0, 2 + 6 * stripe : 7 + 6 * stripe, 4:24] += 150
        self.source_ids = tuple(f"{name}-{index:03d}" for index in range(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._images[index], int(self.labels[index])


@dataclass(frozen=True)
class Leaf:
    """A value in a block: where it stands and what its type says."""

    path: Path_
    annotation: Any
    metadata: tuple[Any, ...] = ()

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def kinds(self) -> list[tuple[Any, dict[str, Any]]]:
        return list(alternatives(self.annotation, self.metadata))


@dataclass
class Outcome:
    """What a series of configurations gave."""

    legal: int = 0
    refused: int = 0
    broken: int = 0
    faults: list[str] = field(default_factory=list)


def merged(old: Any, new: Any) -> Any:
    """Change single values of nested dictionaries."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {name: merged(old.get(name), value) for name, value in new.items()}


def placed(path: Path_, value: Any) -> dict[str, Any]:
    """A value at its place in nested dictionaries."""
    for name in reversed(path):
        value = {name: value}
    return value


def alternatives(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Kinds of values that a type takes, each with its bounds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        yield from alternatives(inner, (*metadata, *more))
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from alternatives(one, metadata)
    else:
        yield annotation, _bounds(metadata)


def _bounds(metadata: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in metadata:
        if isinstance(one, FieldInfo):
            found |= _bounds(tuple(one.metadata))
        for name in ("ge", "gt", "le", "lt", "min_length", "multiple_of"):
            if getattr(one, name, None) is not None:
                found[name] = getattr(one, name)
        if one is Once:
            found["once"] = True
    return found


def _block_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _block_in(part))), None)


def leaves(kind: type[BaseModel], raw: dict[str, Any], path: Path_) -> Iterator[Leaf]:
    """All values of a block, those of blocks within included."""
    for name, info in kind.model_fields.items():
        inner, value = _block_in(info.annotation), raw.get(name)
        if inner is None:
            yield Leaf((*path, name), info.annotation, tuple(info.metadata))
        elif get_origin(info.annotation) is dict:
            for key, one in (value or {}).items():
                if isinstance(one, dict):
                    yield from leaves(inner, one, (*path, name, key))
        elif value is not None or NONE not in get_args(info.annotation):
            yield from leaves(inner, value or {}, (*path, name))


def illegal_values(leaf: Leaf) -> list[Any]:  # noqa: C901 - a line per kind of value
    """Values that the type of a field must refuse."""
    kinds = leaf.kinds
    plain = {kind for kind, _ in kinds}
    values: list[Any] = [] if NONE in plain or Any in plain else [None]
    numeric = plain & {int, float} and not plain & {str, bool}
    if numeric:
        values += ["ten", True, [[]], {"a": 1}, math.nan, math.inf, -math.inf]
    if int in plain and float not in plain:
        values += [1.5]
    if plain - {NONE} == {bool}:
        values += ["maybe", 3, [True]]
    if plain - {NONE} == {str}:
        values += [3, ["a"], True]
    for kind, bounds in kinds:
        values += _out_of_bounds(bounds) if kind in (int, float) and len(plain - {NONE}) == 1 else []
        if get_origin(kind) is Literal:
            values += ["nonesuch", ""] if plain & {int, float} else ["nonesuch", "", 7]
        if get_origin(kind) is tuple:
            values += [3, "nonesuch"] + ([[]] if "min_length" in bounds else [])
            element = Leaf(leaf.path, get_args(kind)[0])
            values += [[one] for one in illegal_values(element) if one is not None]
            if "once" in bounds and (good := legal_value(element, random.Random(0))) is not None:
                values.append([good, good])
        if get_origin(kind) is dict:
            values += [3, [1]]
            if Any in get_args(kind):
                values += [{"steps": math.nan}, {"deep": {"er": [math.inf, 1.0]}}, {"steps": "nan"}]
    return values


def _out_of_bounds(bounds: dict[str, Any]) -> list[Any]:
    values = []
    for name, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
        if name in bounds:
            values.append(bounds[name] + step)
    if "multiple_of" in bounds:
        values.append(2 * bounds["multiple_of"] + 1)
    return [*values, 2**70] if {"le", "lt"} & set(bounds) else values


def legal_value(leaf: Leaf, draw: random.Random) -> Any:
    """A value that the type of a field takes; a field that is new is covered without a word here."""
    kind, bounds = draw.choice([one for one in leaf.kinds if one[0] is not NONE] or [(NONE, {})])
    if get_origin(kind) is Literal:
        return draw.choice(get_args(kind))
    if kind is bool:
        return draw.random() < 0.5
    if kind is int:
        step = bounds.get("multiple_of", 1)
        low = max(bounds.get("ge", bounds.get("gt", -1) + 1), 0)
        return (low + draw.randrange(3)) * step if step > 1 else min(low + draw.randrange(4), bounds.get("le", 2**31))
    if kind is float:
        low, high = bounds.get("ge", bounds.get("gt", 0.0)), bounds.get("le", bounds.get("lt", 1.0))
        return low + (high - low) * draw.uniform(0.05, 0.95)
    if get_origin(kind) is tuple:
        element = Leaf(leaf.path, get_args(kind)[0])
        return list(dict.fromkeys(legal_value(element, draw) for _ in range(draw.randrange(1, 4))))
    return None


class Project:
    """A tiny project in the current folder, whose results serve all configurations that would make the same."""

    def __init__(self) -> None:
        configure_project("adv_detect")
        loader = CONFIG_LOADER_CLASS(conf_source=str(PROJECT / "conf"), env="test", **CONFIG_LOADER_ARGS)
        self.parameters: dict[str, Any] = merged(loader["parameters"], SMALL)
        self._entries = {name: entry for name, entry in loader["catalog"].items() if name not in IMAGES}
        test = Stripes(20, seed=1, name="test")
        self._images = {"train_images": Stripes(40, seed=0, name="train"), "test_images": test}
        self._images["verification_images"] = test
        self.pipeline: Pipeline = sum((pipelines[name] for name in FURTHER), start=Pipeline([]))

    def check(self, parameters: dict[str, Any]) -> DataCatalog:
        """Do what is done before a run, for all pipelines at once."""
        check_parameters(parameters)
        typed = ParameterValidator(dict(pipelines)).validate_raw_params(parameters)
        catalog = DataCatalog.from_config(self._entries)
        for name, images in self._images.items():
            catalog[name] = MemoryDataset(images, copy_mode="assign")
        for name, value in typed.items():
            catalog[f"params:{name}"] = MemoryDataset(value)
        catalog["parameters"] = MemoryDataset(typed)
        check_run(self.pipeline, catalog)
        return catalog

    def run(self, catalog: DataCatalog) -> None:
        """Run everything to the end of the last report."""
        SequentialRunner().run(self.pipeline, catalog)

    def leaves(self) -> list[Leaf]:
        return [leaf for name, kind in BLOCKS.items() for leaf in leaves(kind, self.parameters.get(name, {}), (name,))]


def misspelt(parameters: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], str, str]:
    """The configuration with one key of a block misspelt: the new key, and the right one."""
    changed = copy.deepcopy(parameters)
    places: list[tuple[dict[str, Any], type[BaseModel] | None]] = [(changed, None)]
    for name, kind in BLOCKS.items():
        if isinstance(changed.get(name), dict):
            places.append((changed[name], kind))
    place, kind = draw.choice(places)
    names = [name for name in place if kind is None or name in kind.model_fields]
    right = draw.choice(names)
    position = draw.randrange(1, len(right))
    wrong = right[:position] + right[position - 1 :]
    place[wrong] = place.pop(right)
    return changed, wrong, right


def broken_configurations(project: Project, count: int, seed: int) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Configurations that cannot work, each with the words that its refusal must hold."""
    draw = random.Random(seed)
    every = [(leaf, value) for leaf in project.leaves() for value in illegal_values(leaf)]
    draw.shuffle(every)
    for number in range(count):
        if number % 5 == 0:
            changed, wrong, right = misspelt(project.parameters, draw)
            yield changed, ["expected", repr(wrong), f"did you mean {right!r}"]
        else:
            leaf, value = every[number % len(every)]
            yield merged(project.parameters, placed(leaf.path, value)), ["expected", leaf.key, *_words(value)]


def _words(value: Any) -> list[str]:
    """What of a value must stand in a message: one scalar of it."""
    while isinstance(value, list | dict) and value:
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return [] if value in ([], {}, None) else [str(value)[:40]]


def legal_configurations(project: Project, count: int, seed: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Configurations whose values are each legal, with what was changed; together they may still not fit."""
    draw = random.Random(seed)
    every = [leaf for leaf in project.leaves() if not _is_kept(leaf)]
    for _ in range(count):
        changes: dict[str, Any] = {}
        for leaf in draw.sample(every, draw.randrange(3, 9)):
            path, value = _legal(leaf, draw)
            changes = merged(changes, placed(path, value))
        yield merged(project.parameters, changes), changes


def _is_kept(leaf: Leaf) -> bool:
    return any(leaf.key == name or leaf.key.endswith(f".{name}") for name in KEPT)


def _legal(leaf: Leaf, draw: random.Random) -> tuple[Path_, Any]:
    for end in range(len(leaf.path), 0, -1):
        if (values := LEGAL.get(".".join(leaf.path[:end]))) is not None:
            return leaf.path[:end], draw.choice(values)
    name = "splits_of_attack" if leaf.path[-1] == "splits" else leaf.path[-1]
    return leaf.path, draw.choice(LEGAL[name]) if name in LEGAL else legal_value(leaf, draw)


def try_broken(project: Project, parameters: dict[str, Any], words: list[str]) -> str | None:
    """Say what is wrong with the refusal of a broken configuration."""
    try:
        project.check(parameters)
    except AdvDetectError as exc:
        missing = [word for word in words if word not in str(exc)]
        return f"{missing} not in: {exc}" if missing else None
    except Exception as exc:
        return f"{words}: {type(exc).__name__} instead of a refusal: {exc}"
    return f"{words}: passes"


def try_legal(project: Project, parameters: dict[str, Any]) -> tuple[bool, str | None]:
    """Whether a configuration passes, and what happens then."""
    try:
        catalog = project.check(parameters)
    except AdvDetectError as exc:
        return False, None if "expected" in str(exc) or "needs" in str(exc) else f"says no choices: {exc}"
    except Exception as exc:
        return False, f"{type(exc).__name__} instead of a refusal: {exc}"
    try:
        project.run(catalog)
    except Exception as exc:
        return True, f"passes, then {type(exc).__name__}: {exc}"
    return True, None


def hold(project: Project, *, broken: int, legal: int, seed: int, verbose: bool = False) -> Outcome:
    """Try so many configurations of both kinds."""
    outcome = Outcome()
    for parameters, words in broken_configurations(project, broken, seed):
        outcome.broken += 1
        if fault := try_broken(project, parameters, words):
            outcome.faults.append(fault)
    passed = 0
    for number, (parameters, changes) in enumerate(legal_configurations(project, 20 * legal, seed)):
        if passed >= legal:
            break
        started = time.perf_counter()
        ran, fault = try_legal(project, parameters)
        passed += ran
        outcome.legal, outcome.refused = outcome.legal + ran, outcome.refused + (not ran)
        if fault:
            outcome.faults.append(f"{changes}: {fault}")
        if verbose:
            words = ("ran" if ran else "refused", f"{time.perf_counter() - started:.1f} s", fault or "")
            print(number, *words, flush=True)  # noqa: T201
    return outcome


def main() -> None:
    """Try configurations in a temporary folder and print what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broken", type=int, default=400)
    parser.add_argument("--legal", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        project = Project()
        logging.disable(logging.ERROR)
        outcome = hold(project, broken=given.broken, legal=given.legal, seed=given.seed, verbose=True)
    seconds = time.perf_counter() - started
    print(*outcome.faults, sep="\n")  # noqa: T201
    print(  # noqa: T201
        f"{outcome.broken} broken, {outcome.legal} legal run to their end, {outcome.refused} refused as a whole, "
        f"{len(outcome.faults)} faults, {seconds:.0f} s"
    )
    os._exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
