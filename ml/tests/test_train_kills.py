"""Real processes, really killed: wherever a job dies, the phase ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Workbench, fingerprint
from job_processes import Processes
from tiny import make_plan, train_request

from cpt_ml.job import Job
from cpt_ml.store import Json

STEPS = 30
BUDGET = 128 * STEPS
DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes()
    yield p
    p.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> tuple[Path, Json, Json]:
    """A store with a plan, the request of a phase, and the result of the phase undisturbed (in a store of its own)."""
    bench = Workbench(tmp_path_factory.mktemp("world"))
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    undisturbed = Run((bench.folder, request, {}), tmp_path_factory.mktemp("undisturbed"), processes)
    pid = processes.start(undisturbed.attempt())
    assert processes.wait(pid) == 0
    return bench.folder, request, undisturbed.result()


class Run:
    """One phase in a store of its own; each attempt is another process."""

    def __init__(self, world: tuple[Path, Json, Json], folder: Path, processes: Processes) -> None:
        source, self.request, self.undisturbed = world
        shutil.copytree(source, folder, dirs_exist_ok=True)
        self.bench = Workbench(folder)
        self.bench.jobs = 100
        self.processes = processes
        self.attempts: list[Job] = []
        self.placement: Json = {"checkpointEverySteps": 1}

    def attempt(self) -> Job:
        job = self.bench.job("train", self.request, **self.placement)
        job.spec["attempt"] = len(self.attempts) + 1
        self.attempts.append(job)
        return job

    @property
    def checkpoints(self) -> list[Path]:
        of = fingerprint("train", self.request)
        return sorted((self.bench.folder / "store" / "checkpoints" / of[:2] / of).glob("*.json"))

    def last_seq(self) -> int:
        return max((int(p.stem[4:]) for p in self.checkpoints), default=0)

    def phase_of_beat(self) -> str:
        path = self.attempts[-1].folder / "beat.json"
        return json.loads(path.read_bytes())["phase"] if path.exists() else ""

    def saving(self) -> bool:
        """Whether files of a checkpoint without a record are there."""
        folders = {p.name for p in self.bench.folder.glob("store/data/*/*/*-checkpoints/*")}
        return bool(folders - {p.stem for p in self.checkpoints})

    def signal_when(self, condition: Callable[[], bool], number: int) -> int:
        """Starts an attempt, sends it a signal once the condition holds, and returns how it ended."""
        pid = self.processes.start(self.attempt())
        end = self.attempts[-1].folder / "end.json"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition() and not end.exists():
            assert time.monotonic() < deadline
            os.sched_yield()
        if not end.exists():
            os.kill(pid, number)
        return self.processes.wait(pid)

    def finish(self) -> int:
        return self.processes.wait(self.processes.start(self.attempt()))

    def result(self) -> Json:
        job = self.attempts[-1]
        return job.store.record(job.fingerprint)["result"]

    def is_undisturbed(self) -> bool:
        return all(self.result()[k] == self.undisturbed[k] for k in ("model", "checkpoint", "curve", "weightsSha256"))


@pytest.fixture
def run(world: tuple[Path, Json, Json], tmp_path: Path, processes: Processes) -> Run:
    return Run(world, tmp_path, processes)


def test_a_job_killed_again_and_again_ends_with_the_same_weights_and_curve(run: Run) -> None:
    targets = [1, 2, 7, 13, 20, 29]
    for target in targets:
        assert run.signal_when(lambda target=target: run.last_seq() >= target, signal.SIGKILL) == -signal.SIGKILL
        assert target <= run.last_seq() <= STEPS
    assert run.finish() == 0
    assert run.is_undisturbed()
    restarts = run.result()["restarts"]
    assert len(restarts) == len(targets)
    assert [r["attempt"] for r in restarts] == list(range(2, len(targets) + 2))


def test_a_job_killed_while_it_saves_loses_at_most_that_checkpoint(run: Run) -> None:
    for _ in range(5):
        before = run.last_seq()
        code = run.signal_when(lambda before=before: run.last_seq() > before and run.saving(), signal.SIGKILL)
        assert code in (-signal.SIGKILL, 0)
    assert run.finish() == 0
    assert run.is_undisturbed()
    for record in run.checkpoints:
        for f in json.loads(record.read_bytes())["files"]:
            assert (run.bench.folder / "store" / f["path"]).stat().st_size == f["bytes"]


def test_a_job_killed_before_its_first_checkpoint_begins_again(run: Run) -> None:
    assert run.signal_when(lambda: run.phase_of_beat() == "load", signal.SIGKILL) == -signal.SIGKILL
    assert run.finish() == 0
    assert run.is_undisturbed()


def test_a_job_killed_while_it_validates_does_not_train_again(run: Run) -> None:
    assert run.signal_when(lambda: run.last_seq() == STEPS, signal.SIGKILL) == -signal.SIGKILL
    records = [p.read_bytes() for p in run.checkpoints]
    assert run.finish() == 0
    assert run.is_undisturbed()
    assert [p.read_bytes() for p in run.checkpoints] == records


def test_a_job_told_to_stop_saves_what_it_has_and_says_so(run: Run) -> None:
    code = run.signal_when(lambda: run.last_seq() >= 3, signal.SIGTERM)
    end = json.loads((run.attempts[-1].folder / "end.json").read_bytes())
    assert (code, end["endClass"]) == (75, "stopped")
    tip = json.loads(run.checkpoints[-1].read_bytes())
    assert end["progressTokens"] == tip["tokens"] == 128 * tip["step"]
    assert run.finish() == 0
    assert run.is_undisturbed()


def test_a_paused_job_leaves_at_its_next_checkpoint_and_the_next_attempt_goes_on(run: Run) -> None:
    job = run.attempt()
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "pause").touch()
    assert run.processes.wait(run.processes.start(job)) == 75
    end = json.loads((job.folder / "end.json").read_bytes())
    assert (end["endClass"], end["type"], run.last_seq()) == ("stopped", "Paused", 1)
    assert run.finish() == 0
    assert run.is_undisturbed()


def test_the_command_line_gives_the_same_weights_as_a_forked_job_also_after_kill_9(run: Run) -> None:
    codes: list[int] = []
    for kill in (True, False):
        job = run.attempt()
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        paths = ["--request", str(job.folder / "request.json"), "--result", str(job.folder / "result.json")]
        process = subprocess.Popen([sys.executable, "-m", "cpt_ml", "train", *paths], stderr=subprocess.DEVNULL)
        while kill and run.last_seq() < 5 and process.poll() is None:
            os.sched_yield()
        if kill:
            process.kill()
        codes.append(process.wait())
    assert codes == [-signal.SIGKILL, 0]
    assert run.is_undisturbed()


def test_a_loss_that_is_not_finite_ends_with_its_own_exit_code(run: Run) -> None:
    run.request = {**run.request, "schedule": {**run.request["schedule"], "peakLr": 1e38}}
    assert run.finish() == 95
    end = json.loads((run.attempts[-1].folder / "end.json").read_bytes())
    assert (end["endClass"], end["type"]) == ("diverged", "LossNotFinite")
    assert not (run.bench.folder / "store" / "commits" / run.attempts[0].fingerprint[:2]).exists()
