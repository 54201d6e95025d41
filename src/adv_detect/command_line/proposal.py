"""An environment for a folder of pictures and a network: every value proposed with its reason."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adv_detect.command_line.network_survey import NetworkSurvey
from adv_detect.command_line.picture_survey import PictureSurvey, inside
from adv_detect.command_line.project_files import configuration_folder
from adv_detect.params import AdversarialGenerationParams, PreprocessingParams

TEST_FRACTION = 0.4
MOST_ATTACKED = 900
VALIDATION, MOST_VALIDATION, TEST = 0.2, 0.4, 0.3
FEWEST = 34
"""Test images at which each split has 10."""
LOWEST_RATE = 0.01
USUAL_EPSILON = 8 / 255
LEFT_OUT = ("bim2", "pgd", "pgd-confident", "cw", "cw-confident")
NEIGHBOURS = 8
WIDTH = 112
CATALOG = """\
# {images}: {count:,} pictures of {classes} classes, {each} each{looked}.
# Sizes: {sizes}. Modes: {modes}.{unreadable}
{entries}"""
ENTRY = """\
{name}:
  type: adv_detect.datasets.image_folder.ImageFolderDataset
  filepath: {filepath}
{part}  # {why_size}
{resize}  colour: {colour}          # {why_colour}
{skip}  metadata: {{kedro-viz: {{layer: raw}}}}
"""
SKIP = "  on_error: skip      # pictures that cannot be opened are left out and counted\n"
PARAMETERS = """\
# Proposed by adv-detect init: look through the values, then run it with
#   kedro run --env={name}

network:
  name: {network}
  checkpoint: {checkpoint}   # {why_checkpoint}
  layers: {layers}
  # {why_layers}
  bounds: {bounds}    # pixel range that the network takes, before the preprocessing
  preprocessing: {preprocessing}
  # {why_preprocessing}
{training}
{splits}
{attacks}
detector_training:
  configurations:     # left out of a first, short run: a line taken away brings the detector back
    lstm-medoid-euclidean: null
    lstm-centroid-euclidean: null
    lstm-centroid-cosine: null
    twin: null        # wants a second network, below
    twin-joined: null
{neighbours}  leave_one_out: []
twin_training: {{network: null}}   # {{name: same}} trains a second network, which is hard to mislead: minutes to hours
"""


@dataclass(frozen=True)
class Division:
    """Numbers of the attacked images.

    Attributes:
        attacked: Test images that are attacked.
        available: Test images.
        validation: Share of the validation split.
    """

    attacked: int
    available: int
    validation: float

    @property
    def thresholds_rest_on(self) -> int:
        """Clean validation images."""
        return int(self.attacked * self.validation + 1e-9)


def environment_files(name: str, pictures: PictureSurvey, network: NetworkSurvey, project: Path) -> dict[str, str]:
    """Write the files of an environment.

    Args:
        name: Of the environment.
        pictures: What was found of the pictures.
        network: What was found of the network.
        project: Folder of the project; paths within it are written relative to it.

    Returns:
        Content by path relative to the project.
    """
    return {
        f"conf/{name}/catalog.yml": _catalog(pictures, network, project),
        f"conf/{name}/parameters.yml": _parameters(name, pictures, network, project),
    }


def divide(pictures: PictureSurvey) -> Division:
    """Propose how many test images are attacked, and the share that thresholds rest on."""
    total = sum(pictures.classes.values())
    available = total if pictures.parts[1] else round(total * TEST_FRACTION)
    attacked = min(available, MOST_ATTACKED)
    wanted = 1 / LOWEST_RATE / max(1, attacked)
    return Division(attacked, available, round(min(MOST_VALIDATION, max(VALIDATION, wanted)), 2))


def _catalog(pictures: PictureSurvey, network: NetworkSurvey, project: Path) -> str:
    counts = pictures.classes.values()
    total = sum(counts)
    looked = f"; {pictures.looked_at:,} of them looked at" if pictures.looked_at < total else ""
    sizes = ", ".join(f"{h} x {w} ({n:,})" for (h, w), n in pictures.sizes.most_common(4))
    more = len(pictures.sizes) - 4
    unreadable = ""
    if pictures.unreadable:
        unreadable = f"\n# {len(pictures.unreadable)} cannot be opened, such as {pictures.unreadable[0]}."
    return CATALOG.format(
        images=inside(pictures.address, project), count=total, classes=len(counts),
        each=" to ".join(f"{one:,}" for one in sorted({min(counts), max(counts)})), looked=looked,
        sizes=f"{sizes}{f', and {more} others' if more > 0 else ''}",
        modes=", ".join(f"{mode} ({n:,})" for mode, n in pictures.modes.most_common()), unreadable=unreadable,
        entries="\n".join(_entry(part, pictures, network, project) for part in ("train", "test")),
    )  # fmt: skip


def _entry(part: str, pictures: PictureSurvey, network: NetworkSurvey, project: Path) -> str:
    if pictures.parts[0]:
        where = f"  folder: {part}\n"
    else:
        why = (
            "" if part == "train" else "   # of each class; these images are attacked, the others stand for their class"
        )
        where = f"  part: {part}\n  test_fraction: {TEST_FRACTION}{why}\n"
    grey = network.input.colour == "grayscale"
    why_colour = "as the pictures are" if network.input.colour == pictures.colour else "as the network takes them"
    resize, why_size = _resize(pictures, network)
    return ENTRY.format(
        name=f"{part}_images", filepath=_text(inside(pictures.address, project)), part=where, why_size=why_size,
        resize=resize, colour="grayscale" if grey else "rgb", why_colour=why_colour,
        skip=SKIP * bool(pictures.unreadable),
    )  # fmt: skip


def _resize(pictures: PictureSurvey, network: NetworkSurvey) -> tuple[str, str]:
    """Lines on the size, and the reason."""
    height, width = network.input.height, network.input.width
    image_size = f"  image_size: [{height}, {width}]\n"
    if pictures.one_size and pictures.size == (height, width):
        return image_size, "all pictures looked at have this size, and the network takes it"
    lines = f"  resize_shorter_side: {max(height, width)}\n  centre_crop: [{height}, {width}]\n{image_size}"
    return (
        lines,
        "a size that the network takes: the shorter side is scaled to it, the middle cut out; faces want alignment",
    )


def _parameters(name: str, pictures: PictureSurvey, network: NetworkSurvey, project: Path) -> str:
    params, division = network.params, divide(pictures)
    checkpoint = "null" if params.checkpoint is None else _text(inside(params.checkpoint, project))
    return PARAMETERS.format(
        name=name, network=params.name, checkpoint=checkpoint, why_checkpoint=_why_checkpoint(network),
        layers="null" if params.layers is None else f"[{', '.join(map(_layer, params.layers))}]",
        why_layers=_why_layers(network), bounds=[*map(float, params.bounds)],
        preprocessing=_preprocessing(params.preprocessing), why_preprocessing=_why_preprocessing(network),
        training=_training(network), splits=_splits(division), attacks=_attacks(pictures, params.bounds),
        neighbours=_neighbours(pictures),
    )  # fmt: skip


def _why_checkpoint(network: NetworkSurvey) -> str:
    if network.head is None:
        return "null: the network is trained on the train images, below; or a file of weights"
    return "holds a head for these classes" if network.head else "holds no head for these classes: it is trained, below"


def _why_layers(network: NetworkSurvey) -> str:
    read = ", ".join(network.readings)
    chosen = "null: the published ones" if network.params.layers is None else "ends of the network's stages"
    return textwrap.fill(f"{chosen}. Read, with their widths: {read}", WIDTH, subsequent_indent="  # ")


def _why_preprocessing(network: NetworkSurvey) -> str:
    if network.params.preprocessing == PreprocessingParams():
        return "none; where the network was trained on standardised pixels, mean and std of that training belong here"
    return "published for this network; if it was trained otherwise, that belongs here"


def _training(network: NetworkSurvey) -> str:
    if network.head is None:
        return "target_training: {min_accuracy: 0.5}   # less is refused; conf/base says the epochs and more\n"
    if network.head:
        return (
            "target_training: {min_accuracy: 0.5}   # below, a run ends: checkpoint or preprocessing would be wrong\n"
        )
    return "target_training: {head_only: true, min_accuracy: 0.5}   # a linear head over these classes\n"


def _splits(division: Division) -> str:
    n, train = division.thresholds_rest_on, 1 - division.validation - TEST
    carried = f"a rate below 1 in {n} promises nothing" if n else "none, so no rate is carried"
    drawn = (
        f"max_images: {MOST_ATTACKED}    # a draw, for a first run of minutes; null attacks all {division.available:,}"
        if division.available > MOST_ATTACKED
        else f"max_images: null   # all {division.available:,}"
    )
    few = (
        ""
        if division.available >= FEWEST
        else f"  # TOO FEW: each split needs 10 images, so {FEWEST} test images at least\n"
    )
    return (
        f"splits:               # of the attacked test images, {division.attacked:,}\n{few}"
        f"  train: {train:.2f}\n"
        f"  validation: {division.validation:.2f}    # {n} clean images for thresholds; {carried}\n"
        f"  test: {TEST:.2f}\n"
        f"  {drawn}\n"
    )


def _attacks(pictures: PictureSurvey, bounds: tuple[float, float]) -> str:
    """Sizes of the attacks of the base configuration, for this pixel range and kind of picture."""
    span = bounds[1] - bounds[0]
    attacks = AdversarialGenerationParams.model_validate(_base("adversarial_generation")).active
    if pictures.natural:
        value = "8/255" if span == 1 else f"{USUAL_EPSILON * span:.6g}"
        lines = [
            "These are photographs: 8 of 255 levels is usual. The base's .3 of the range is plainly visible on them."
        ]
        sizes = {name: value for name, one in attacks.items() if str(one.norm) == "linf" and name not in LEFT_OUT}
        dropped = [name for name in LEFT_OUT if name in attacks]
    else:
        lines = ["These are drawings or digits, mostly black or white: .3 of the range, as published for such."]
        sizes = {
            name: f"{float(one.epsilon or 0) * span:.6g}" for name, one in attacks.items() if str(one.norm) == "linf"
        }
        dropped = ["bim2"] if pictures.size != (28, 28) or span != 1 else []
    text = [f"  # {lines[0]}", "  attacks:", *(f"    {name}: {{epsilon: {value}}}" for name, value in sizes.items())]
    if dropped:
        text.append(
            "    # left out of a first, short run; whoever takes a line away gives an epsilon where the norm has one"
        )
    return "\n".join(["adversarial_generation:", *text, *(f"    {name}: null" for name in dropped)]) + "\n"


def _neighbours(pictures: PictureSurvey) -> str:
    """``dknn`` reads train images of the attacked ones, about half of the test images of a class."""
    fewest = min(pictures.classes.values()) * (1.0 if pictures.parts[1] else TEST_FRACTION) / 2
    return "" if fewest > 2 * NEIGHBOURS else "    dknn: null        # wants more images of a class than its k, 8\n"


def _preprocessing(params: PreprocessingParams) -> str:
    stated = params.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(stated, default_flow_style=True, width=1000).strip()


def _layer(entry: Any) -> str:
    return str(entry if isinstance(entry, str) else entry.name)


def _text(value: str) -> str:
    """A text as YAML writes it."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def _base(block: str) -> Mapping[str, Any]:
    file = configuration_folder() / "base" / f"parameters_{block}.yml"
    found: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))[block]
    return found
