"""Amendments: ranges of a token plan that a phase skipped, because a step in them was unfit (divergence.py).

An amendment is part of every later checkpoint and of the phase's result, so that trained + skipped = plan. Step i of a
phase is always the plan's global batch i, tokens [(i-1)·G, i·G): a skipped step changes nothing but the position, the
learning rate goes on by tokens. Where the skipped window begins depends on the step that was unfit alone, never on
where checkpoints happen to lie, and the phase goes on from the state that it had there. So a phase killed anywhere
around an amendment ends with the same bits: it either knows the amendment or finds it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cpt_ml.divergence import GuardSettings, Reason
from cpt_ml.errors import BadData, Diverged
from cpt_ml.store import Json


@dataclass(frozen=True)
class Amendment:
    """Tokens [from_token, to_token) of the plan are skipped, because of what step `step` showed."""

    from_token: int
    to_token: int
    reason: Reason
    step: int

    def to_json(self) -> Json:
        return {"fromToken": self.from_token, "toToken": self.to_token, "reason": self.reason, "step": self.step}


class Amendments:
    """The amendments of one phase, in the order of the plan, without overlap."""

    def __init__(self, ranges: Iterable[Amendment] = ()) -> None:
        self._ranges = sorted(ranges, key=lambda a: a.from_token)
        for before, after in zip(self._ranges, self._ranges[1:], strict=False):
            assert before.to_token <= after.from_token, f"{before} and {after} overlap"

    @classmethod
    def from_json(cls, saved: Sequence[Json]) -> Amendments:
        return cls(Amendment(a["fromToken"], a["toToken"], a["reason"], a["step"]) for a in saved)

    def to_json(self) -> list[Json]:
        return [a.to_json() for a in self._ranges]

    def __len__(self) -> int:
        return len(self._ranges)

    def at(self, token: int) -> Amendment | None:
        """The amendment that skips the token at this offset, or None."""
        return next((a for a in self._ranges if a.from_token <= token < a.to_token), None)

    def add(self, amendment: Amendment) -> None:
        self.__init__([*self._ranges, amendment])

    def agree(self, saved: Sequence[Json], tokens: int) -> bool:
        """Whether a checkpoint at position `tokens`, whose amendments these are, lies on the way of this phase."""
        return Amendments.from_json(saved)._before(tokens) == self._before(tokens)

    def _before(self, tokens: int) -> list[Amendment]:
        return [a for a in self._ranges if a.from_token < tokens]

    @property
    def tokens(self) -> int:
        """Tokens skipped."""
        return sum(a.to_token - a.from_token for a in self._ranges)

    def amend(self, settings: GuardSettings, reason: Reason, step: int, batch_tokens: int) -> Amendment:
        """The amendment that an unfit step `step` asks for; it is not added yet.

        A step that is no number while the weights are costs its own batch. Else something before it may have done
        harm: the window is the `skip_steps` steps that end with it, less what is skipped already. Raises Diverged when
        the phase has had all that it may have.
        """
        if len(self) >= settings.max_amendments:
            raise Diverged(
                f"train: {len(self)} windows of this phase were skipped already (guard.maxAmendments "
                f"{settings.max_amendments}): {json.dumps(self.to_json())}"
            )
        first = step - 1 if reason == "not-finite" else max(0, step - settings.skip_steps)
        skipped_to = max((a.to_token for a in self._ranges if a.to_token < step * batch_tokens), default=0)
        return Amendment(max(first * batch_tokens, skipped_to), step * batch_tokens, reason, step)


def check_ledger(curve: Sequence[Json], amendments: Amendments, budget: int, batch_tokens: int) -> int:
    """Each global batch of the plan was trained once or skipped by an amendment; returns the tokens trained.

    Raises BadData naming the first line of the curve that is not so.
    """
    for i, line in enumerate(curve):
        skipped = amendments.at(i * batch_tokens)
        expected = (i + 1, (i + 1) * batch_tokens, skipped.reason if skipped else None)
        if (line["step"], line["tokens"], line.get("skipped")) != expected:
            raise BadData(f"train: line {i + 1} of the curve is {line}, expected (step, tokens, skipped) = {expected}")
    trained = sum("skipped" not in line for line in curve) * batch_tokens
    if trained + amendments.tokens != budget:
        raise BadData(f"train: {trained} tokens trained + {amendments.tokens} skipped are not the plan's {budget}")
    return trained


def trained_losses(curve: Iterable[bytes]) -> list[float]:
    """The losses of a curve's trained steps, in nats per token."""
    return [line["loss"] for line in map(json.loads, curve) if "skipped" not in line]
