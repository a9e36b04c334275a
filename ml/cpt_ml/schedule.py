"""The learning rate as a function of tokens, continuous over the phases of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cpt_ml.errors import BadRequest


@dataclass(frozen=True)
class Schedule:
    """contracts/src/train.ts: this phase covers tokens [start_tokens, start_tokens + budget) of `total_tokens`."""

    shape: Literal["constant", "cosine", "warmup-stable-decay"]
    peak_lr: float
    min_lr: float
    warmup_tokens: int
    decay_tokens: int
    total_tokens: int
    start_tokens: int

    def check(self) -> None:
        """Raises BadRequest if the parts of the schedule overlap."""
        decay = self.decay_tokens if self.shape == "warmup-stable-decay" else 0
        if self.shape != "constant" and self.warmup_tokens + decay > self.total_tokens:
            raise BadRequest(
                f"train: schedule warms up for {self.warmup_tokens} and decays for {decay} tokens, "
                f"which is more than its {self.total_tokens}"
            )
        if self.min_lr > self.peak_lr:
            raise BadRequest(f"train: schedule.minLr {self.min_lr} is above peakLr {self.peak_lr}")


def learning_rate(s: Schedule, position_tokens: float) -> float:
    """The learning rate at a position of the stage.

    Warm-up is linear from 0. `cosine` falls from peak to min at the end; `warmup-stable-decay` falls over its last
    `decay_tokens` by 1 - sqrt(x) (arXiv:2412.17743, annealing). Past the end the minimum is held.
    """
    if position_tokens < s.warmup_tokens:
        return s.peak_lr * position_tokens / s.warmup_tokens
    if s.shape == "constant":
        return s.peak_lr
    if s.shape == "cosine":
        x = (position_tokens - s.warmup_tokens) / max(s.total_tokens - s.warmup_tokens, 1)
        return s.min_lr + (s.peak_lr - s.min_lr) * 0.5 * (1 + math.cos(math.pi * min(x, 1.0)))
    x = (position_tokens - (s.total_tokens - s.decay_tokens)) / max(s.decay_tokens, 1)
    return s.min_lr + (s.peak_lr - s.min_lr) * (1 - math.sqrt(min(max(x, 0.0), 1.0)))


def step_learning_rate(s: Schedule, tokens_before: int, batch_tokens: int) -> float:
    """The rate of the step that takes the phase from `tokens_before` on: that of the middle of its batch, so that
    neither the first step of a warm-up nor the last of a decay is wasted at 0."""
    return learning_rate(s, s.start_tokens + tokens_before + batch_tokens / 2)
