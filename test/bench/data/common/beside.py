"""Ours and a peer measured in turns, as a row of the benchmark; and where our time goes."""

from __future__ import annotations

import cProfile
import io
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 5
LINES = 8


def in_turns(ours: Callable[[], None], *peers: Callable[[], None]) -> list[float]:
    """Median seconds of each over five rounds, in every round one after the other; a run of ours before them is for
    the imports."""
    ours()
    acts = (ours, *peers)
    rounds = [[seconds(act) for act in acts] for _ in range(ROUNDS)]
    return [statistics.median(of) for of in zip(*rounds, strict=True)]


def seconds(act: Callable[[], None]) -> float:
    """What this process computes: others on the machine count for neither side."""
    began = time.process_time()
    act()
    return time.process_time() - began


def row(
    measure: str, *, amount: float, unit: str, ours: float, peer: float, peer_name: str, least: float
) -> dict[str, Any]:
    """A line of the result: so much of `unit` in these seconds; at least so many times the peer is the goal."""
    ratio = peer / ours
    return {
        "measure": measure,
        "ours": amount / ours,
        "peer": amount / peer,
        "peerName": peer_name,
        "unit": f"{unit}/s",
        "ratio": ratio,
        "goal": f">= {least:g}",
        "holds": ratio >= least,
        "profile": None,
    }


def profile(act: Callable[[], None]) -> str:
    """The functions in which most of the time goes, by their own share of it."""
    profiler = cProfile.Profile()
    profiler.runcall(act)
    stats = pstats.Stats(profiler, stream=io.StringIO())
    total = sum(tottime for _, _, tottime, _, _ in stats.stats.values())  # type: ignore[attr-defined]
    costly = sorted(stats.stats.items(), key=lambda of: -of[1][2])[:LINES]  # type: ignore[attr-defined]
    return "\n".join(f"{of[1][2] / total:6.1%} {name(*of[0])}" for of in costly)


def name(file: str, _line: int, function: str) -> str:
    """A function as a reader knows it."""
    return function if file == "~" else f"{file.rsplit('/', 1)[-1]}: {function}"
