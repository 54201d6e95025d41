"""A survey of a network: the pictures it takes, its layers to read, whether a checkpoint fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adv_detect.command_line.picture_survey import PictureSurvey
from adv_detect.errors import AdvDetectError, CheckpointError, ConfigurationError
from adv_detect.networks import build_network, load_weights
from adv_detect.networks.preprocessing import check_channels
from adv_detect.networks.registry import REGISTRY
from adv_detect.networks.spec import NetworkSpec
from adv_detect.networks.target import TargetNetwork, build_target, target_readings
from adv_detect.networks.trial import try_network
from adv_detect.params import NetworkParams

KNOWN: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "mobilefacenet": (
        (112, 96), {"scale": 255.0, "mean": [127.5, 127.5, 127.5], "std": [128.0, 128.0, 128.0]},
    ),
    "senet50": (
        (224, 224), {"scale": 255.0, "channel_order": "bgr", "mean": [91.4953, 103.8827, 131.0912]},
    ),
    "wide": ((32, 32), {}),
    "small": ((28, 28), {}),
    "strided": ((28, 28), {}),
}  # fmt: skip
"""Published height and width of the input, and preprocessing of pixels from 0 to 1, by registered name."""
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
OF_IMAGENET = ("torchvision.", "timm.")
USUAL = (224, 112, 64, 32, 28)
MOST_LAYERS, FEWEST_LAYERS = 6, 3
CHANNELS = {"grayscale": 1, "rgb": 3}
IMAGES = 2
LARGEST_OWN = 256
"""Pictures with a longer side than that are not taken as they are without being asked for."""


class Input(NamedTuple):
    """Pictures that a network takes."""

    colour: str
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return CHANNELS[self.colour], self.height, self.width


@dataclass(frozen=True)
class NetworkSurvey:
    """Facts on a network that an environment states.

    Attributes:
        params: Name, checkpoint, layers, bounds, preprocessing.
        input: The pictures that it takes.
        head: Whether the checkpoint holds a head for just these classes; None without a checkpoint.
        readings: Lines on the layers: name and width.
    """

    params: NetworkParams
    input: Input
    head: bool | None
    readings: tuple[str, ...]


def survey_network(
    name: str, checkpoint: str | None, layers: Sequence[str], bounds: tuple[float, float], pictures: PictureSurvey
) -> NetworkSurvey:
    """Run a network on images of noise until a size of picture suits it.

    Args:
        name: A registered name or a dotted path.
        checkpoint: A weight file, or None.
        layers: Modules to read; empty for the published ones, or ours.
        bounds: Pixel range.
        pictures: What it is for.

    Returns:
        What was found.

    Raises:
        ConfigurationError: The network cannot be built, or takes no size that was tried.
        CheckpointError: The checkpoint does not fit it.
    """
    params = NetworkParams(name=name, checkpoint=checkpoint, bounds=bounds, layers=tuple(layers) or None)
    refused: list[str] = []
    for one in candidates(name, pictures):
        described = params.model_copy(update={"preprocessing": _preprocessing(params, one)})
        try:
            return _surveyed(described, one, tuple(pictures.classes))
        except CheckpointError:
            raise
        except ConfigurationError as exc:
            refused.append(str(exc))
    option = "--layer" if refused[0].startswith("network.layers") else "--network"
    raise ConfigurationError(f"{option}: {refused[0]}")


def recognise(checkpoint: str, classes: int) -> str:
    """Find the registered network that a checkpoint fits.

    Args:
        checkpoint: A weight file.
        classes: Number of classes.

    Returns:
        Its name.

    Raises:
        ConfigurationError: It fits none.
    """
    for name in REGISTRY:
        with torch.random.fork_rng(devices=[]):
            network = build_network(name, num_classes=classes)
        try:
            load_weights(network, checkpoint, strict_head=False)
        except CheckpointError:
            continue
        return name
    raise ConfigurationError(
        f"--checkpoint: expected weights of one of {sorted(REGISTRY)}, got {checkpoint}, which fits none; name its "
        "constructor with --network=my_package.my_network (in src/, or installed)"
    )


def candidates(name: str, pictures: PictureSurvey) -> Iterator[Input]:
    """List the inputs to try, the likeliest first.

    Args:
        name: The network.
        pictures: What it is for.

    Yields:
        The published input of a registered network, the pictures as they are where they are small and of one size, then
        usual squares, the largest that the pictures fill first; grey pictures are tried as grey ones first.
    """
    sizes: list[tuple[int, int]] = []
    height, width = pictures.size
    if pictures.one_size and max(height, width) <= LARGEST_OWN:
        sizes.append((height, width))
    if name in KNOWN:
        sizes.insert(0 if name in ("mobilefacenet", "senet50") else len(sizes), KNOWN[name][0])
    filled = [side for side in USUAL if side <= min(height, width)]
    sizes += [(side, side) for side in (*filled, *reversed(USUAL))]
    colours = ("grayscale", "rgb") if pictures.colour == "grayscale" else ("rgb", "grayscale")
    for size in dict.fromkeys(sizes):
        for colour in colours:
            yield Input(colour, *size)


def propose_layers(target: TargetNetwork) -> tuple[str, ...]:
    """Choose modules to read from a network that names none: ends of its stages, each of which can be read.

    Args:
        target: The network; it stays as it is.

    Returns:
        Three to six names in the order in which they run, fewer where there are no more.

    Raises:
        ConfigurationError: None can be read.
    """
    seen = _outputs(target)
    level = [name for name, _ in target.network.named_children() if name in seen]
    while len(level) < FEWEST_LAYERS:
        deeper = [one for name in level for one in _children(target.network, name, seen)]
        if deeper == level:
            break
        level = deeper
    ordered = [name for name in seen if name in level]
    chosen = [name for name in _ends(ordered, seen) or seen if _readable(target, name)]
    if not chosen:
        raise ConfigurationError(
            f"--network: expected modules that give features once a pass, got none in {target.spec.name!r}; "
            "name them with --layer"
        )
    if len(chosen) <= MOST_LAYERS:
        return tuple(chosen)
    places = torch.linspace(0, len(chosen) - 1, MOST_LAYERS).round().int().tolist()
    return tuple(chosen[place] for place in places)


def _surveyed(params: NetworkParams, one: Input, classes: tuple[str, ...]) -> NetworkSurvey:
    """Build the network for an input, choose its layers where none are published, look for a head."""
    if params.layers is None and params.name not in REGISTRY:
        params = params.model_copy(update={"layers": propose_layers(_unread(params, one, classes))})
    head = None
    if params.checkpoint is not None:
        head = _has_head(params, one, classes)
    target = build_target(params, class_names=classes, image_shape=one.shape, strict_head=False)
    lines = tuple(f"{reading.name} ({reading.width})" for reading in target.spec.readings)
    return NetworkSurvey(params, one, head, lines)


def _unread(params: NetworkParams, one: Input, classes: tuple[str, ...]) -> TargetNetwork:
    """Build a network without reading any layer."""
    check_channels(params.preprocessing, one.shape[0])
    with torch.random.fork_rng(devices=[]):
        network = build_network(params.name, num_classes=len(classes))
    spec = NetworkSpec(
        name=params.name, num_classes=len(classes), layers=("unread",), bounds=params.bounds, class_names=classes,
        image_shape=one.shape, preprocessing=params.preprocessing,
    )  # fmt: skip
    target = TargetNetwork(spec, network)
    try_network(target)
    return target


def _has_head(params: NetworkParams, one: Input, classes: tuple[str, ...]) -> bool:
    try:
        build_target(params, class_names=classes, image_shape=one.shape)
    except CheckpointError:
        build_target(params, class_names=classes, image_shape=one.shape, strict_head=False)
        return False
    return True


def _preprocessing(params: NetworkParams, one: Input) -> Any:
    known = KNOWN.get(params.name, (None, {}))[1] if one.colour == "rgb" else {}
    if params.name.startswith(OF_IMAGENET) and one.colour == "rgb":
        known = IMAGENET
    return type(params.preprocessing).model_validate(known if params.bounds == (0.0, 1.0) else {})


@torch.no_grad()
def _outputs(target: TargetNetwork) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs of modules with weights that run once and give features, in the order in which they end."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    named = [
        (name, one) for name, one in target.network.named_modules() if name and any(True for _ in one.parameters())
    ]
    hooks = [module.register_forward_hook(_noting(name, seen)) for name, module in named]
    training, low_high = target.training, target.spec.bounds
    try:
        logits = target.eval()(torch.full((IMAGES, *target.spec.image_shape), sum(low_high) / 2))
    finally:
        target.train(training)
        for hook in hooks:
            hook.remove()
    runs = Counter(name for name, _ in seen)
    kept = [(name, shape) for name, shape in seen if runs[name] == 1 and shape[:1] == (IMAGES,)]
    return {name: shape for name, shape in kept if shape != tuple(logits.shape)}


def _noting(name: str, seen: list[tuple[str, tuple[int, ...]]]) -> Any:
    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        seen.append((name, tuple(output.shape) if isinstance(output, Tensor) and 2 <= output.ndim <= 4 else ()))

    return note


def _ends(ordered: Sequence[str], seen: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The last of neighbours whose outputs have one shape, such as a convolution and its normalisation."""
    ends = [name for name, after in zip(ordered, [*ordered[1:], ""], strict=True) if seen[name] != seen.get(after)]
    return ends if len(ends) >= FEWEST_LAYERS else list(ordered)


def _children(network: nn.Module, name: str, seen: Mapping[str, tuple[int, ...]]) -> list[str]:
    inner = [f"{name}.{child}" for child, _ in network.get_submodule(name).named_children()]
    return [one for one in inner if one in seen] or [name]


def _readable(target: TargetNetwork, name: str) -> bool:
    try:
        target_readings(target, [name])
    except AdvDetectError:
        return False
    return True
