"""The learning rate as a function of tokens, continuous over the phases of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cpt_ml.errors import BadRequest

Decay = Literal["one-minus-sqrt", "linear", "cosine"]


@dataclass(frozen=True)
class SchedulePart:
    """Begins at the rate at which what is before it ended: rises to `rewarm_lr` over `rewarm_tokens` if it has them,
    then holds, or falls to `end_lr` at its last token."""

    tokens: int
    shape: Literal["hold", "one-minus-sqrt", "linear", "cosine"]
    end_lr: float | None
    rewarm_tokens: int | None
    rewarm_lr: float | None

    def rate(self, position_tokens: float, begin_lr: float) -> float:
        """The learning rate `position_tokens` after the part's begin, of which it has no more than `tokens`."""
        rise, top = self.rewarm_tokens or 0, begin_lr if self.rewarm_lr is None else self.rewarm_lr
        if position_tokens < rise:
            return begin_lr + (top - begin_lr) * (position_tokens / rise)
        if self.shape == "hold" or self.end_lr is None:
            return top
        x = (position_tokens - rise) / max(self.tokens - rise, 1)
        return self.end_lr + (top - self.end_lr) * remaining(self.shape, x)


@dataclass(frozen=True)
class Schedule:
    """contracts/src/train.ts: this phase covers tokens [start_tokens, start_tokens + budget) of `total_tokens` and of
    the parts behind them."""

    shape: Literal["constant", "cosine", "warmup-stable-decay"]
    peak_lr: float
    min_lr: float
    warmup_tokens: int
    decay_tokens: int
    total_tokens: int
    start_tokens: int
    initial_lr: float | None = None
    decay_shape: Decay | None = None
    parts: list[SchedulePart] | None = None

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
        if (self.initial_lr or 0.0) > self.peak_lr:
            raise BadRequest(f"train: schedule.initialLr {self.initial_lr} is above peakLr {self.peak_lr}")
        for i, part in enumerate(self.parts or []):
            where = f"train: schedule.parts[{i}]"
            if (part.shape == "hold") != (part.end_lr is None):
                raise BadRequest(f"{where}: {part.shape} with endLr {part.end_lr}: what falls has one, what holds none")
            if (part.rewarm_tokens is None) != (part.rewarm_lr is None):
                raise BadRequest(f"{where}: expected rewarmTokens and rewarmLr together")
            if (part.rewarm_tokens or 0) > part.tokens:
                raise BadRequest(f"{where}: rises for {part.rewarm_tokens} of its {part.tokens} tokens")


def remaining(shape: Decay, x: float) -> float:
    """What is left, from 1 to 0, of a fall after the share x of it; 1 - sqrt(x) is that of arXiv:2412.17743."""
    x = min(max(x, 0.0), 1.0)
    if shape == "linear":
        return 1 - x
    return 0.5 * (1 + math.cos(math.pi * x)) if shape == "cosine" else 1 - math.sqrt(x)


def learning_rate(s: Schedule, position_tokens: float) -> float:
    """The learning rate at a position of the stage.

    Warm-up is linear from `initial_lr`. `cosine` falls from peak to min at the end; `warmup-stable-decay` falls over
    its last `decay_tokens`. Behind `total_tokens` come the parts, and past the last of them its rate is held.
    """
    if not s.parts or position_tokens <= s.total_tokens:
        return _whole(s, position_tokens)
    lr, begin = _whole(s, s.total_tokens), float(s.total_tokens)
    for part in s.parts:
        if position_tokens <= begin + part.tokens:
            return part.rate(position_tokens - begin, lr)
        lr, begin = part.rate(part.tokens, lr), begin + part.tokens
    return lr


def _whole(s: Schedule, position_tokens: float) -> float:
    if position_tokens < s.warmup_tokens:
        if s.initial_lr:
            return s.initial_lr + (s.peak_lr - s.initial_lr) * (position_tokens / s.warmup_tokens)
        return s.peak_lr * position_tokens / s.warmup_tokens
    if s.shape == "constant":
        return s.peak_lr
    if s.shape == "cosine":
        x = (position_tokens - s.warmup_tokens) / max(s.total_tokens - s.warmup_tokens, 1)
        return s.min_lr + (s.peak_lr - s.min_lr) * remaining("cosine", x)
    x = (position_tokens - (s.total_tokens - s.decay_tokens)) / max(s.decay_tokens, 1)
    return s.min_lr + (s.peak_lr - s.min_lr) * remaining(s.decay_shape or "one-minus-sqrt", x)


def step_learning_rate(s: Schedule, tokens_before: int, batch_tokens: int) -> float:
    """The rate of the step that takes the phase from `tokens_before` on: that of the middle of its batch, so that
    neither the first step of a warm-up nor the last of a decay is wasted at 0."""
    return learning_rate(s, s.start_tokens + tokens_before + batch_tokens / 2)
