"""What a profile says of where time went."""

from __future__ import annotations

import cProfile
import pstats
from typing import Any


def costly_functions(profiler: cProfile.Profile) -> str:
    """The ten functions with the largest time of their own, a line each with their share of all."""
    stats: Any = pstats.Stats(profiler)
    total = sum(of[2] for of in stats.stats.values())
    costly = sorted(stats.stats.items(), key=lambda of: -of[1][2])[:10]
    return "\n".join(f"{of[1][2] / total:6.1%} {of[0][0].rsplit('/', 1)[-1]}: {of[0][2]}" for of in costly)
