"""What a data stage frees goes back to the system, under the allocator settings that jobs are started with."""

from __future__ import annotations

import os
import subprocess
import sys

# activities/src/config.ts
KEEPS_EVERYTHING = (
    "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=67108864"
)
BEGIN = """
import numpy as np
from cpt_ml.process_memory import map_large_buffers, return_free_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
def fill(size, count):
    return [np.ones(size, dtype=np.uint8) for _ in range(count)]
"""


def printed(script: str) -> list[int]:
    env = {**os.environ, "GLIBC_TUNABLES": KEEPS_EVERYTHING}
    run = [sys.executable, "-c", BEGIN + script]
    return [int(n) for n in subprocess.run(run, env=env, check=True, capture_output=True, text=True).stdout.split()]


def test_small_buffers_that_were_freed_stay_with_the_process_until_they_are_given_back() -> None:
    before, freed, given_back = printed(
        "before = resident(); kept = fill(100_000, 640); end = fill(1000, 1); kept = None\n"
        "freed = resident(); return_free_memory(); print(before, freed, resident())"
    )
    assert freed - before > 50
    assert given_back - before < 10


def test_a_large_buffer_is_gone_when_it_is_freed_once_that_was_asked_for() -> None:
    before, kept, after_asking = printed(
        "before = resident(); of = fill(64 << 20, 1); end = fill(1000, 1); of = None; kept = resident()\n"
        "return_free_memory(); map_large_buffers(); of = fill(64 << 20, 1); end = fill(1000, 1); of = None\n"
        "print(before, kept, resident())"
    )
    assert kept - before > 50
    assert after_asking - before < 10
