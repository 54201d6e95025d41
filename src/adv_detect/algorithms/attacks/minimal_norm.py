"""An attack that looks for the smallest L2 perturbation by walking along the decision boundary."""

from __future__ import annotations

from typing import Any

from foolbox.distances import l2
from torch import Tensor

from adv_detect.algorithms.attacks.foolbox_model import OwnSearch
from adv_detect.algorithms.attacks.minimal_norm_walk import BoundaryWalk, WalkSettings
from adv_detect.algorithms.attacks.result import AttackResult

STEPS = 40
STEP_SIZE = 1.0
PULL = 1.0
FINAL = 0.2
TOLERANCE = 0.001


class MinimalNorm(OwnSearch):
    """Finds the point of the decision boundary next to the source by planes.

    Each step puts a plane in the place of the boundary, draws the point towards the source, and projects it onto that
    plane within the pixel range. The draw and the longest step shrink by a half cosine. Such projections are those of
    FAB (Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020),
    steps that shrink those of DDN (Rony et al., "Decoupling direction and norm", CVPR 2019). Departures from FAB:

    - One gradient a step in the place of one for each class: that of a smooth margin, in which all other classes
      count the less the farther back they lie. How far the plane is off says the margin over the best other class.
    - The normal of the plane is a running mean, so that the sides of an edge of the boundary count together.
    - The pull is of one size, not chosen by distances to the plane; no overshoot, no restarts, no random start.
    - A step is no longer than a share of the norm, so that a plane far away does not lead astray.
    - An image leaves the batch once its success is no farther from the source than the plane at the boundary is, up to
      ``tolerance``. So a result does not depend on what else is in the batch (beyond rounding).

    A failure gives back the source image.
    """

    distance = l2

    def __init__(
        self,
        steps: int = STEPS,
        *,
        stepsize: float = STEP_SIZE,
        confidence: float = 0.0,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Set up the attack.

        Args:
            steps: Most gradient evaluations of an image.
            stepsize: Longest step before the first success, in the network's pixel range.
            confidence: Margin wanted, in logits.
            tolerance: Share of the norm below which nothing more is looked for.

        Raises:
            ValueError: A value cannot be used.
        """
        if steps < 1 or stepsize <= 0 or confidence < 0 or not 0 <= tolerance < 1:
            raise ValueError(
                "expected steps >= 1, stepsize > 0, confidence >= 0 and tolerance in [0, 1), got "
                f"{steps}, {stepsize:g}, {confidence:g} and {tolerance:g}"
            )
        self.settings = WalkSettings(
            steps=steps, stepsize=stepsize, pull=PULL, final=FINAL, confidence=confidence, tolerance=tolerance
        )

    def search(self, model: Any, images: Tensor, classes: Tensor, *, targeted: bool) -> AttackResult:
        """Search the smallest adversarial perturbation of each image; see :class:`OwnSearch`."""
        return BoundaryWalk(model, self.settings, targeted=targeted).run(images, classes)
