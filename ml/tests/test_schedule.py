"""Learning rates by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cpt_ml.errors import BadRequest
from cpt_ml.schedule import Schedule, learning_rate, step_learning_rate

WSD = Schedule(
    "warmup-stable-decay", 1e-2, 1e-4, warmup_tokens=100, decay_tokens=400, total_tokens=1000, start_tokens=0
)


@pytest.mark.parametrize(
    ("position", "lr"),
    [(0, 0.0), (50, 5e-3), (100, 1e-2), (600, 1e-2), (700, 1e-4 + 9.9e-3 * 0.5), (1000, 1e-4), (5000, 1e-4)],
)
def test_warmup_stable_decay_falls_by_one_minus_the_square_root(position: int, lr: float) -> None:
    assert learning_rate(WSD, position) == pytest.approx(lr)


@pytest.mark.parametrize(("position", "lr"), [(50, 5e-3), (100, 1e-2), (550, 5.05e-3), (1000, 1e-4), (2000, 1e-4)])
def test_cosine_is_half_way_in_the_middle(position: int, lr: float) -> None:
    assert learning_rate(replace(WSD, shape="cosine"), position) == pytest.approx(lr)


def test_constant_holds_its_peak_after_the_warmup() -> None:
    constant: Any = replace(WSD, shape="constant")
    assert [learning_rate(constant, p) for p in (25, 100, 10**9)] == pytest.approx([2.5e-3, 1e-2, 1e-2])


def test_a_second_round_goes_on_where_the_first_one_ended() -> None:
    second = replace(WSD, start_tokens=500)
    assert step_learning_rate(second, 0, 100) == step_learning_rate(WSD, 500, 100)


def test_no_step_is_wasted_at_rate_zero() -> None:
    to_zero = replace(WSD, min_lr=0.0)
    rates = [step_learning_rate(to_zero, t, 100) for t in range(0, 1000, 100)]
    assert min(rates) > 0
    assert rates[0] == pytest.approx(5e-3)


def test_a_warmup_and_decay_that_overlap_are_refused() -> None:
    with pytest.raises(BadRequest, match="warms up for 700 and decays for 400"):
        replace(WSD, warmup_tokens=700).check()
    with pytest.raises(BadRequest, match="minLr"):
        replace(WSD, min_lr=0.1).check()
