"""When a step is unfit to be taken: a loss or gradient that is no number, or a loss far above the ones before it.

The loss of a batch is known before the update it would cause, so the weights are still whole. What follows from an
unfit step is in amendments.py. Every rank sees the same all-reduced loss and norm, so all decide alike.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cpt_ml.errors import BadRequest, Diverged

Reason = Literal["not-finite", "weights-not-finite", "spike"]
# of a normal distribution: standard deviation = 1.4826 × median absolute deviation
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class GuardSettings:
    """contracts/src/train.ts, Guard: a loss is a spike when it stands both `spike_z` robust standard deviations and
    `min_rise` nats per token above the median of the `window_steps` trained steps before it."""

    window_steps: int
    spike_z: float
    min_rise: float
    skip_steps: int
    max_amendments: int

    def check(self) -> None:
        """Raises BadRequest naming the field that makes no sense."""
        for name, value, least in (
            ("windowSteps", self.window_steps, 2),
            ("skipSteps", self.skip_steps, 1),
            ("maxAmendments", self.max_amendments, 0),
        ):
            if value < least:
                raise BadRequest(f"train: guard.{name} is {value}, expected at least {least}")
        if not (self.spike_z > 0 and self.min_rise >= 0):
            found = f"guard.spikeZ {self.spike_z}, guard.minRise {self.min_rise}"
            raise BadRequest(f"train: {found}: expected one above 0 and one of at least 0")


class UnfitStep(Diverged):
    """A step that was not taken; the weights are as they were before it."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class LossWatch:
    """The losses of the last trained steps, and whether the next one fits them. Without settings: whether it is a
    number at all."""

    def __init__(self, settings: GuardSettings | None = None) -> None:
        self.settings = settings
        self._losses: deque[float] = deque(maxlen=settings.window_steps if settings else 1)

    def judge(self, loss: float, grad_norm: float) -> Reason | None:
        """Why a step with this loss (nats per token) and gradient norm is unfit, or None."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return "not-finite"
        if self.settings is None or len(self._losses) < self.settings.window_steps:
            return None
        median = statistics.median(self._losses)
        sigma = MAD_TO_SIGMA * statistics.median(abs(x - median) for x in self._losses)
        limit = median + max(self.settings.spike_z * sigma, self.settings.min_rise)
        return "spike" if loss > limit else None

    def took(self, loss: float) -> None:
        """Takes note of a step that was trained."""
        self._losses.append(loss)

    def follow(self, losses: Iterable[float]) -> None:
        """Begins anew after these losses: those of the curve up to the checkpoint that was taken up."""
        self._losses.clear()
        self._losses.extend(losses)
