"""The Carlini-Wagner L2 attack with a search of its own for every image.

Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, sections V and VI.
"""

from __future__ import annotations

from typing import Any

from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
from torch import Tensor

from adv_detect.algorithms.attacks.carlini_wagner_search import ConstantSearch, SearchSettings
from adv_detect.algorithms.attacks.foolbox_model import OwnSearch
from adv_detect.algorithms.attacks.result import AttackResult

BINARY_SEARCH_STEPS = 10
STEPS = 1000
STEP_SIZE = 0.01
INITIAL_CONST = 0.01


class L2CarliniWagner(OwnSearch, L2CarliniWagnerAttack):
    """Minimises ``||x' - x||^2 + c max(0, confidence - margin)`` over ``x'`` in tanh space by Adam, c by bisection.

    The margin is the logit of the wanted class less the largest other one (targeted), or the largest other logit
    less that of the true class (untargeted). Defaults are the published ones (Massoli et al., CVIU 2021).
    Departures from foolbox's attack of the same objective:

    - ``abort_early`` watches each image by itself: a round of Adam ends when the smallest loss of the image has not
      fallen by 0.01 % per step since the last check. Checks divide a round into at most ten parts of at least 25 steps.
      Foolbox watches the summed loss of the batch for a fall of 0.01 % in a tenth of the steps.
    - Each image goes to its next constant on its own, and leaves the batch after its last one, so a result does not
      depend on what else is in the batch (beyond rounding).
    - A bisection ends once its bounds are within a factor of two. The last of ten rounds does not repeat the best
      constant, which would repeat its iterates as well; images without a success still get the largest constant.
    - A success needs a margin above ``confidence`` by more than float32 rounding, so that it survives re-evaluation in
      a batch of another size.
    - A failure gives back the source image, not a black one.
    - ``steps`` is rounded up so that the parts of a round are equal.
    """

    def __init__(  # noqa: PLR0917 - the signature of foolbox's attack
        self,
        binary_search_steps: int = BINARY_SEARCH_STEPS,
        steps: int = STEPS,
        stepsize: float = STEP_SIZE,
        confidence: float = 0.0,
        initial_const: float = INITIAL_CONST,
        abort_early: bool = True,
    ) -> None:
        """Set up the attack.

        Args:
            binary_search_steps: Number of constants c tried per image.
            steps: Steps of Adam per constant.
            stepsize: Step size of Adam in tanh space.
            confidence: Margin wanted, in logits.
            initial_const: First constant c.
            abort_early: Whether a round ends when it makes no progress.
        """
        super().__init__(
            binary_search_steps=binary_search_steps,
            steps=steps,
            stepsize=stepsize,
            confidence=confidence,
            initial_const=initial_const,
            abort_early=abort_early,
        )

    def search(self, model: Any, images: Tensor, classes: Tensor, *, targeted: bool) -> AttackResult:
        """Search the smallest adversarial perturbation of each image; see :class:`OwnSearch`."""
        settings = SearchSettings(
            rounds=self.binary_search_steps,
            steps=self.steps,
            step_size=self.stepsize,
            confidence=self.confidence,
            initial_const=self.initial_const,
            abort_early=self.abort_early,
        )
        return ConstantSearch(model, settings, targeted=targeted).run(images, classes)
