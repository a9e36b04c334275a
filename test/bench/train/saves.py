"""What a checkpoint costs a phase that trains on: seconds of stall a save, and seconds that a resume takes.

`saves.py --work DIR --seed S`. Wall seconds of jobs in processes of their own (attempt.py), one thread each. Stall:
what a cycle of EVERY steps with one save takes longer than EVERY steps that no save touches, the median over the
cycles; so what a write in the background slows down counts too. Saves in the background and saves that are waited for
take turns in one phase. Resume: from the start of the process to the beginning of its first step, less what importing
and reading weights takes; so the verification of what is read counts. Median of the attempts that go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

import world  # the path to the tests' helpers  # isort: skip
from cpt_ml.store import Json

from conftest import Workbench
from measured import NO_SAVES, show

EVERY, CYCLES, RESUMES = 4, 3, 3
STEPS = (2 * CYCLES + 1) * EVERY
MOST_SECONDS = 1.0
STOPPED = 75


def main() -> None:
    args = world.arguments()
    torch.set_num_threads(1)
    for case, processes in ((world.SMALL, 1), (world.LARGE, 1), (world.LARGE, 2)):
        phase = Phase(world.opened(args.work, f"saves-{case.model}{processes}"), case, processes, args.seed)
        phase.measure_stall()
        phase.measure_resume()


class Phase:
    """Attempts at phases of a case on so many processes; with several, rows are printed and held to no goal."""

    def __init__(self, bench: Workbench, case: world.Case, processes: int, seed: int) -> None:
        self.bench, self.case, self.processes, self.seed = bench, case, processes, seed
        self.what = case.name + (f", {processes} processes" if processes > 1 else "")

    def measure_stall(self) -> None:
        request = world.train_request(self.bench, self.case, STEPS + 2, self.seed + self.processes)
        steps = self.attempt(request, 1, EVERY, STEPS, "--alternate")["steps"]
        seconds = [b - a for a, b in pairwise(steps)]
        # the save after step k·EVERY ends interval k·EVERY - 1
        cycles = [seconds[k * EVERY - 1 : (k + 1) * EVERY - 1] for k in range(1, 2 * CYCLES + 1)]
        plain = median(s for cycle in cycles for s in cycle[-2:])
        for how, chosen, limit in (("in the background", cycles[::2], 1.0), ("waited for, of the same phase",
                                                                               cycles[1::2], None)):  # fmt: skip
            stall = median(sum(cycle) - EVERY * plain for cycle in chosen)
            goal = limit is not None and self.processes == 1
            holds = not goal or stall <= plain
            show(
                f"stall of a save {how}, {self.what}", stall, "s", "<= 1 step" if goal else "printed", holds,
                peer=plain, peer_name="a step", ratio=stall / plain, profile=None if holds else self.profile_saves(),
            )  # fmt: skip

    def profile_saves(self) -> str:
        request = world.train_request(self.bench, self.case, STEPS + 2, self.seed + 50)
        return self.attempt(request, 1, EVERY, 3 * EVERY, "--profile", "all")["profile"]

    def measure_resume(self) -> None:
        request = world.train_request(self.bench, self.case, STEPS, self.seed + 100)
        self.attempt(request, 1, NO_SAVES, 2)
        resumed = [self.attempt(request, 2 + i, NO_SAVES, 1) for i in range(RESUMES)]
        beyond = median(r["steps"][0] - r["imported"] - r["load"] for r in resumed)
        before = median(r["imported"] - r["started"] + r["load"] for r in resumed)
        goal = self.processes == 1
        holds = not goal or beyond <= MOST_SECONDS
        profile = None if holds else self.attempt(request, 9, NO_SAVES, 1, "--profile", "start")["profile"]
        show(
            f"resume beyond imports and load, {self.what}", beyond, "s",
            f"<= {MOST_SECONDS:g} s" if goal else "printed", holds, peer=before, peer_name="imports and load",
            profile=profile,
        )  # fmt: skip

    def attempt(self, request: Json, number: int, save_every: int, leave_after: int, *more: str) -> Json:
        """Runs an attempt that is left after so many steps; returns its notes and when it was `started`."""
        placement: dict[str, Any] = {"batchTokens": self.case.micro_batch * world.SEQUENCE,
                                     "checkpointEverySteps": save_every}  # fmt: skip
        if self.processes > 1:
            placement["processesPerNode"] = self.processes
        job = self.bench.job("train", request, **placement)
        job.spec |= {"attempt": number, "leaseSeconds": 3600}
        paths = [job.folder / name for name in ("request.json", "result.json", "notes.json")]
        paths[0].write_text(json.dumps(job.spec))
        script = Path(__file__).with_name("attempt.py")
        command = [sys.executable, script, *paths, "--leave-after", str(leave_after), *more]
        started = time.monotonic()
        with (job.folder / "log.jsonl").open("wb") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode != STOPPED:
            raise SystemExit(f"saves: an attempt ended with {done.returncode}, expected {STOPPED}:\n"
                             + (job.folder / "log.jsonl").read_text()[-2000:])  # fmt: skip
        return {**json.loads(paths[2].read_bytes()), "started": started}


if __name__ == "__main__":
    main()
