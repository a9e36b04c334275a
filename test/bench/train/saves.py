"""What a checkpoint costs a phase that trains on: seconds of stall a save, and seconds that a resume takes.

`saves.py --work DIR --seed S`. Wall seconds, one thread for training. Stall: what a cycle of EVERY steps with one save
takes longer than EVERY steps that no save touches, the median over the cycles; so what a write in the background slows
down counts too. Resume: from the request to the end of the first step, for a phase that goes on from a checkpoint,
less the same for one that begins; imports are done, both load plan, model and tokenizer.
"""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import Any

import torch

import world  # the path to the tests' helpers  # isort: skip
from cpt_ml.errors import Stopped
from cpt_ml.saving import Saver
from cpt_ml.store import Json

from conftest import Workbench
from measured import NO_SAVES, show, train_ours

EVERY, CYCLES, RESUMES = 4, 4, 3
MOST_SECONDS = 1.0


def main() -> None:
    args = world.arguments()
    torch.set_num_threads(1)
    for case in (world.SMALL, world.LARGE):
        bench = world.opened(args.work, f"saves-{case.model}")
        measure_stall(bench, case, args.seed, "in the background")
        begin = Saver.begin

        def save_now(self: Saver, begin: Any = begin) -> None:
            begin(self)
            self.finish()

        Saver.begin = save_now
        measure_stall(bench, case, args.seed + 100, "waited for")
        Saver.begin = begin
        measure_resume(bench, case, args.seed)


def measure_stall(bench: Workbench, case: world.Case, seed: int, how: str) -> None:
    times: list[float] = []
    request = world.train_request(bench, case, EVERY * (CYCLES + 2), seed)
    train_ours(bench, request, lambda: times.append(time.perf_counter()), **_placement(case, EVERY))
    # interval i ends with step i + 2; the save of step k·EVERY comes before that step's beat
    steps = [b - a for a, b in pairwise(times)]
    first = EVERY - 2
    cycles = [steps[first + i * EVERY : first + (i + 1) * EVERY] for i in range(CYCLES)]
    plain = median(step for cycle in cycles for step in cycle[-2:])
    stall = median(sum(cycle) - EVERY * plain for cycle in cycles)
    goal = "printed" if how == "waited for" else "<= 1 step"
    show(
        f"stall of a save {how}, {case.name}", stall, "s", goal, goal == "printed" or stall <= plain,
        peer=plain, peer_name="a step", ratio=stall / plain,
    )  # fmt: skip


def measure_resume(bench: Workbench, case: world.Case, seed: int) -> None:
    taken: list[float] = []
    for turn in range(RESUMES):
        request = world.train_request(bench, case, 12, seed + 1 + turn)
        begun = _until_step(bench, request, case, 2)
        resumed = _until_step(bench, request, case, 1)
        taken.append(resumed[0] - begun[0])
    show(f"resume beyond imports and load, {case.name}", median(taken), "s", f"<= {MOST_SECONDS:g} s",
         median(taken) <= MOST_SECONDS)  # fmt: skip


def _until_step(bench: Workbench, request: Json, case: world.Case, steps: int) -> list[float]:
    """Seconds from the request to the end of each step, of an attempt that is left after so many; each is saved."""
    times: list[float] = []
    began = time.perf_counter()

    def step_done() -> None:
        times.append(time.perf_counter() - began)
        if len(times) == steps:
            raise Stopped("saves: left at a step, its save is finished")

    try:
        train_ours(bench, request, step_done, **_placement(case, 2))
    except Stopped:
        return times
    raise SystemExit("saves: the phase ended before it was left")


def _placement(case: world.Case, every: int = NO_SAVES) -> dict[str, Any]:
    return {"batchTokens": case.micro_batch * world.SEQUENCE, "checkpointEverySteps": every}


if __name__ == "__main__":
    main()
