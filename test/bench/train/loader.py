"""Reading the next batch as a share of a training step: from disk, nothing of it in memory, in perplexity order.

`loader.py --work DIR --seed S`. The plan is drawn over all of the corpus, so a batch's documents lie anywhere. Before
each pass the system is told to forget the token shards, and that none of their pages is in memory is checked with
mincore; a batch then is what the trainer reads for a step. A step's seconds are those of the processor.
"""

from __future__ import annotations

import cProfile
import ctypes
import mmap
import os
import time
from pathlib import Path
from statistics import mean, median

import torch

import world  # the path to the tests' helpers  # isort: skip
from cpt_ml.store import Json, Store
from cpt_ml.token_stream import TokenStream

from costly import costly_functions
from measured import NO_SAVES, processor_seconds, show, train_ours
from turns import Turns

STEPS, PASSES, MOST = 200, 3, 0.01


def main() -> None:
    args = world.arguments()
    torch.set_num_threads(1)
    bench = world.opened(args.work, "loader")
    plan = world.draw_plan(bench, STEPS, args.seed)
    store = bench.job("read", plan).store
    shards = sorted((args.work / "store").rglob("tokens-*.u32"))
    cold = [seconds_a_batch(store, store.folder(plan), shards, evict=True) for _ in range(PASSES)]
    warm = [seconds_a_batch(store, store.folder(plan), shards, evict=False) for _ in range(PASSES)]
    for case in (world.SMALL, world.LARGE):
        request = world.train_request(bench, case, 8, args.seed)
        turns = Turns(processor_seconds)
        placement = {"batchTokens": case.micro_batch * world.SEQUENCE, "checkpointEverySteps": NO_SAVES}
        turns.run({"ours": lambda done, r=request, p=placement: train_ours(bench, r, done, **p)})
        step = median(turns.seconds["ours"])
        for state, passes in (("cold", cold), ("warm", warm)):
            share = median(passes) / step
            goal = "printed" if state == "warm" else f"< {MOST}"
            holds = goal == "printed" or share < MOST
            show(
                f"loader's share of a step, {state}, {case.name}", share, "of the time", goal, holds,
                peer=1000 * step, peer_name="a step, ms", profile=None if holds else profile_of(store, plan, shards),
            )  # fmt: skip
    show(f"reading a batch of {world.BATCH} tokens, cold", 1000 * median(cold), "ms", "printed", True,
         peer=1000 * median(warm), peer_name="warm", ratio=median(cold) / median(warm))  # fmt: skip


def seconds_a_batch(store: Store, plan: Path, shards: list[Path], evict: bool) -> float:
    """Wall seconds of reading a global batch, the mean over the plan's."""
    stream = TokenStream(store, plan)
    for shard in shards if evict else []:
        forget(shard)
    sequences, times = world.BATCH // world.SEQUENCE, list[float]()
    for step in range(STEPS):
        began = time.perf_counter()
        torch.from_numpy(stream.sequences(step * sequences, sequences, world.SEQUENCE))
        times.append(time.perf_counter() - began)
    return mean(times)


def profile_of(store: Store, plan: Json, shards: list[Path]) -> str:
    profiler = cProfile.Profile()
    profiler.runcall(seconds_a_batch, store, store.folder(plan), shards, evict=True)
    return costly_functions(profiler)


def forget(path: Path) -> None:
    """Takes a file out of memory. Raises SystemExit where the system keeps it."""
    with path.open("rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if kept := resident_pages(path):
        raise SystemExit(f"loader: {kept} pages of {path.name} are still in memory: a cold read cannot be measured")


def resident_pages(path: Path) -> int:
    """Pages of a file that are in memory (mincore)."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    with path.open("rb") as f, mmap.mmap(f.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        found, first = (ctypes.c_ubyte * pages)(), ctypes.c_ubyte.from_buffer(m)
        address = ctypes.addressof(first)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), found)
        del first
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in found)


if __name__ == "__main__":
    main()
