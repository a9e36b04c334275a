"""Training on a store in S3, and on a disk that fills up: real processes, really ended."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place, Workbench, fingerprint, s3_place
from s3_server import S3Server
from test_train_kills import DEADLINE_SECONDS, Processes
from tiny import make_plan, train_request

from cpt_ml.job import Job
from cpt_ml.parallel import IMPORTED
from cpt_ml.store import Json

STEPS = 10
BUDGET = 128 * STEPS
KILLS_AT = (1, 6)


@pytest.fixture(scope="module")
def processes(s3: S3Server) -> Iterator[Processes]:
    p = Processes(*IMPORTED)
    yield p
    p.close()


class Phase:
    """One phase on a store; each attempt is another process, or as many as `count` says."""

    def __init__(self, bench: Workbench, request: Json, processes: Processes, count: int = 1) -> None:
        self.bench, self.request, self.processes, self.count = bench, request, processes, count
        self.attempts: list[Job] = []
        of = fingerprint("train", request)
        self.checkpoints = f"checkpoints/{of[:2]}/{of}/"

    def start(self) -> int:
        job = self.bench.job("train", self.request, checkpointEverySteps=1, processesPerNode=self.count)
        job.spec["attempt"] = len(self.attempts) + 1
        self.attempts.append(job)
        return self.processes.start(job)

    def end(self) -> Json:
        return json.loads((self.attempts[-1].folder / "end.json").read_bytes())

    def last_seq(self) -> int:
        backend = self.attempts[-1].store.backend
        return max((int(Path(k).stem[4:]) for k in backend.list(self.checkpoints)), default=0)

    def wait_for_checkpoint(self, seq: int) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.last_seq() < seq:
            assert time.monotonic() < deadline
            assert not (self.attempts[-1].folder / "end.json").exists()

    def result(self) -> Json:
        job = self.attempts[-1]
        return job.store.record(job.fingerprint)["result"]


def copy(source: Place, target: Place) -> None:
    for key in source.backend.list(""):
        target.backend.put_if_absent(key, source.backend.get(key) or b"")


@pytest.mark.parametrize("count", [1, 2])
def test_a_training_on_s3_killed_again_and_again_ends_with_the_weights_of_an_undisturbed_one(
    s3: S3Server, tmp_path: Path, processes: Processes, count: int
) -> None:
    place, other = s3_place(s3), s3_place(s3)
    bench = Workbench(tmp_path, place.root)
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    copy(place, other)
    undisturbed = Phase(bench, request, processes, count)
    assert processes.wait(undisturbed.start()) == 0

    bench.roots["store"] = other.root
    phase = Phase(bench, request, processes, count)
    for target in KILLS_AT:
        pid = phase.start()
        phase.wait_for_checkpoint(target)
        os.kill(pid, signal.SIGKILL)
        assert processes.wait(pid) == -signal.SIGKILL
        place.forget_cache()  # the next attempt is on another machine
    assert processes.wait(phase.start()) == 0
    for key in ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement"):
        assert phase.result()[key] == undisturbed.result()[key]
    assert len(phase.result()["restarts"]) == len(KILLS_AT)
    named = {f["path"] for k in other.backend.list(phase.checkpoints)
             for f in json.loads(other.backend.get(k) or b"")["files"]}  # fmt: skip
    assert {k for k in other.everything() if "-checkpoints/" in k} == named


def test_a_disk_that_fills_up_ends_the_job_as_full_and_keeps_the_last_checkpoint(
    tmp_path: Path, processes: Processes
) -> None:
    bench = Workbench(tmp_path)
    phase = Phase(bench, train_request(bench, make_plan(bench, BUDGET), BUDGET), processes)
    pid = phase.start()
    phase.wait_for_checkpoint(2)
    # no file may grow beyond a record from here on: the next weights do not fit
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4_000, 4_000))
    assert processes.wait(pid) == 1
    assert (phase.end()["endClass"], phase.end()["type"]) == ("failed", "DiskFull")
    backend = phase.attempts[-1].store.backend
    kept = backend.list(phase.checkpoints)
    assert len(kept) == 2
    named = [f for k in kept for f in json.loads(backend.get(k) or b"")["files"]]
    assert all(backend.fetch(f["path"], f["sha256"])[1] == f["sha256"] for f in named)
    files = {p.relative_to(tmp_path / "store").as_posix() for p in tmp_path.rglob("*-checkpoints/**/*") if p.is_file()}
    assert files == {f["path"] for f in named}
    assert processes.wait(phase.start()) == 0
    assert [r["step"] for r in phase.result()["restarts"]] == [int(Path(kept[-1]).stem[4:])]
