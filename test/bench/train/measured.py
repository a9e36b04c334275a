"""A phase of ours as a job runs it, with the times of its steps; and rows of the result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from cpt_ml import train
from cpt_ml.job import Job
from cpt_ml.store import Json

from conftest import Workbench

NO_SAVES = 1 << 30


class StepJob(Job):
    """A job that tells when a step is done; what its beat costs is the step's."""

    def __init__(self, job: Job, step_done: Callable[[], None]) -> None:
        super().__init__(job.folder, job.spec)
        self.step_done = step_done

    def beat(self, phase: str, done: float = 0, total: float = 0, unit: str = "", **more: Any) -> None:
        super().beat(phase, done, total, unit, **more)
        if phase == "train" and done:
            self.step_done()


def train_ours(bench: Workbench, request: Json, step_done: Callable[[], None], **placement: Any) -> Json:
    """Runs the whole job, from its request to its commit; returns its result."""
    job = StepJob(bench.job("train", request, **placement), step_done)
    train.run(job)
    return job.store.record(job.fingerprint)["result"]


def processor_seconds() -> float:
    """What this process computes: others on the machine count for no side."""
    return time.process_time()


def show(
    measure: str,
    ours: float,
    unit: str,
    goal: str,
    holds: bool,
    *,
    peer: float | None = None,
    peer_name: str | None = None,
    ratio: float | None = None,
    profile: str | None = None,
) -> None:
    """Prints a line of the result."""
    print(json.dumps({"measure": measure, "ours": ours, "peer": peer, "peerName": peer_name, "unit": unit,
                      "ratio": ratio, "goal": goal, "holds": holds, "profile": profile}), flush=True)  # fmt: skip
