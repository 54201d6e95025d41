"""Views: cheap copies of an image whose logits detectors compare with those of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from adv_detect.algorithms.features import network_logits
from adv_detect.algorithms.image_changes import ImageChange, build_change, is_random
from adv_detect.errors import ConfigurationError
from adv_detect.params import ImageChangeParams

KEY = "detector_training.views"


@dataclass(frozen=True)
class Views:
    """The views that a detector reads, in the pixel range of a network.

    Attributes:
        changes: Images to changed images, by the name of the view.
        bounds: Lowest and highest pixel value of the network.
    """

    changes: Mapping[str, ImageChange] = field(default_factory=dict)
    bounds: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def build(cls, configured: Mapping[str, ImageChangeParams], bounds: tuple[float, float]) -> Views:
        """Make views from their configuration.

        Args:
            configured: Kind and arguments by name.
            bounds: Lowest and highest pixel value of the network.

        Returns:
            The views, in configured order.

        Raises:
            ConfigurationError: A kind is unknown, does not take the arguments, or draws what it does.
        """
        drawn = [name for name, one in configured.items() if is_random(one)]
        if drawn:
            raise ConfigurationError(
                f"{KEY}.{drawn[0]}.kind: expected a change that is the same each time, got "
                f"{configured[drawn[0]].kind!r}, which draws what it does"
            )
        return cls({name: build_change(f"{KEY}.{name}", one) for name, one in configured.items()}, bounds)

    def logits(self, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Run the network once per view.

        Args:
            network: The network under attack.
            images: Shape ``(N, channels, H, W)``, in its pixel range.

        Returns:
            Class logits ``(N, C)`` by view, with gradients to the images where autograd records.
        """
        return {name: network_logits(network, change(images, self.bounds)) for name, change in self.changes.items()}
