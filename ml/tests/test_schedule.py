"""Learning rates by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_ml.contract import parse
from cpt_ml.errors import BadRequest
from cpt_ml.schedule import Schedule, SchedulePart, learning_rate, step_learning_rate

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


def part(tokens: int, shape: Any, end_lr: float | None = None, rewarm: tuple[int, float] | None = None) -> SchedulePart:
    return SchedulePart(tokens, shape, end_lr, *(rewarm or (None, None)))


def test_the_annealing_of_yulan_mini_falls_to_its_published_rate_and_is_held() -> None:
    """arXiv:2412.17743: 1e-2 to 5.22e-5 in 18,802 steps. 1 - sqrt over 19,000 steps to 0 is there at that step."""
    batch, steps = 4096 * 1024, 18_802
    stable = Schedule("constant", 1e-2, 0.0, 10 * batch, 0, 1000 * batch, 0)
    to_zero = replace(stable, parts=[part(19_000 * batch, "one-minus-sqrt", 0.0)])
    assert learning_rate(to_zero, 1000 * batch) == 1e-2
    assert round(learning_rate(to_zero, (1000 + steps) * batch), 7) == 5.22e-5
    published = replace(stable, parts=[part(steps * batch, "one-minus-sqrt", 5.22e-5), part(200 * batch, "hold")])
    assert learning_rate(published, (1000 + steps) * batch) == pytest.approx(5.22e-5, rel=1e-12)
    assert learning_rate(published, (1000 + steps + 100) * batch) == pytest.approx(5.22e-5, rel=1e-12)
    assert learning_rate(published, 10**15) == pytest.approx(5.22e-5, rel=1e-12)
    quarter = learning_rate(published, (1000 + steps / 4) * batch)
    assert quarter == pytest.approx(5.22e-5 + (1e-2 - 5.22e-5) / 2, rel=1e-9)


def test_the_warmup_of_syne_begins_at_its_published_rate() -> None:
    """arXiv:2407.18743: 10B tokens from 1e-7 to 1e-5, then constant."""
    syne = Schedule("constant", 1e-5, 0.0, 10 * 10**9, 0, 100 * 10**9, 0, initial_lr=1e-7)
    assert learning_rate(syne, 0) == 1e-7
    assert learning_rate(syne, 5 * 10**9) == pytest.approx((1e-7 + 1e-5) / 2, rel=1e-12)
    assert [learning_rate(syne, t * 10**9) for t in (10, 55, 100)] == [1e-5] * 3


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5), ("one-minus-sqrt", 1 - 0.5**0.5)])
def test_each_decay_is_known_in_its_middle_and_at_its_ends(shape: Any, middle: float) -> None:
    rates = [learning_rate(replace(WSD, decay_shape=shape), t) for t in (600, 800, 1000)]
    assert rates == pytest.approx([1e-2, 1e-4 + 9.9e-3 * middle, 1e-4], rel=1e-12)


def test_cosine_warms_again_and_decays_again_in_each_cycle() -> None:
    """arXiv:2403.08763, figure 1: the rate of the first decay's end, up to the peak, down again."""
    cycle = part(1000, "cosine", 1e-4, rewarm=(100, 1e-2))
    cycles = replace(WSD, shape="cosine", decay_tokens=0, parts=[cycle, cycle])
    for begin in (0, 1000, 2000):
        assert learning_rate(cycles, begin + 100) == pytest.approx(1e-2, rel=1e-12)
        assert learning_rate(cycles, begin + 550) == pytest.approx(5.05e-3, rel=1e-12)
        assert learning_rate(cycles, begin + 1000) == pytest.approx(1e-4, rel=1e-12)
    assert learning_rate(cycles, 1050) == pytest.approx((1e-4 + 1e-2) / 2, rel=1e-12)


rates = st.floats(1e-6, 1e-2)
shapes: Any = st.sampled_from(["one-minus-sqrt", "linear", "cosine"])


@st.composite
def schedules(draw: Any) -> Schedule:
    whole = draw(st.integers(2000, 10_000))
    peak = draw(rates)
    parts = [
        part(
            tokens := draw(st.integers(1000, 10_000)),
            shape := draw(st.sampled_from(["hold", "one-minus-sqrt", "linear", "cosine"])),
            None if shape == "hold" else draw(rates),
            draw(st.none() | st.tuples(st.integers(100, tokens // 2), rates)),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    return Schedule(
        draw(st.sampled_from(["constant", "cosine", "warmup-stable-decay"])), peak, peak * draw(st.floats(0, 1)),
        draw(st.integers(100, whole // 2)), draw(st.integers(100, whole // 2)), whole, 0,
        draw(st.none() | st.floats(0, peak)), draw(st.none() | shapes), parts,
    )  # fmt: skip


@given(schedules())
@settings(max_examples=200, deadline=None)
def test_no_schedule_jumps_or_leaves_the_rates_it_was_given(s: Schedule) -> None:
    s.check()
    end = s.total_tokens + sum(p.tokens for p in s.parts or [])
    given_rates = [s.peak_lr, s.min_lr, s.initial_lr or 0.0]
    given_rates += [r for p in s.parts or [] for r in (p.end_lr, p.rewarm_lr) if r is not None]
    found = [learning_rate(s, t) for t in range(0, end + 20, 10)]
    assert min(given_rates) - 1e-12 <= min(found)
    assert max(found) <= max(given_rates) + 1e-12
    # 10 tokens into a fall of 500 or more: 1 - sqrt is steepest at its begin, sqrt(10/100) of it at the most
    steepest = (10 / 100) ** 0.5 * (max(given_rates) - min(given_rates)) + 1e-12
    assert all(abs(b - a) <= steepest for a, b in itertools.pairwise(found))
    for edge in itertools.accumulate([s.total_tokens, *(p.tokens for p in s.parts or [])]):
        before, after = learning_rate(s, edge - 1e-6), learning_rate(s, edge + 1e-6)
        assert after == pytest.approx(before, abs=1e-4 * max(given_rates))


@given(schedules(), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_phases_of_any_length_have_the_rates_of_the_whole(s: Schedule, batches: int) -> None:
    batch = 100
    whole = [step_learning_rate(s, t, batch) for t in range(0, 200 * batch, batch)]
    phase = batches * batch
    found = [
        step_learning_rate(replace(s, start_tokens=start), t, batch)
        for start in range(0, 200 * batch, phase)
        for t in range(0, phase, batch)
    ]
    assert found[: len(whole)] == whole


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"initial_lr": 0.1}, "initialLr"),
        ({"parts": [part(10, "linear")]}, r"parts\[0\]: linear with endLr None"),
        ({"parts": [part(10, "hold"), part(10, "hold", 1e-3)]}, r"parts\[1\]: hold with endLr"),
        ({"parts": [part(10, "hold", rewarm=(11, 1e-3))]}, "rises for 11 of its 10"),
        ({"parts": [SchedulePart(10, "hold", None, 5, None)]}, "together"),
    ],
)
def test_parts_that_cannot_be_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        replace(WSD, **bad).check()


def test_a_schedule_without_the_new_settings_parses_as_before() -> None:
    plain = {"shape": "cosine", "peakLr": 1e-2, "minLr": 0, "warmupTokens": 1, "decayTokens": 0, "totalTokens": 10,
             "startTokens": 0}  # fmt: skip
    parsed = parse(Schedule, plain)
    assert (parsed.initial_lr, parsed.decay_shape, parsed.parts) == (None, None, None)
    more = {"initialLr": 1e-7, "decayShape": "linear",
            "parts": [{"shape": "linear", "endLr": 0, "rewarmTokens": 2, "rewarmLr": 1e-3, "tokens": 5}]}  # fmt: skip
    assert parse(Schedule, plain | more).parts == [SchedulePart(5, "linear", 0.0, 2, 1e-3)]
