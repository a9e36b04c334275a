"""Which checkpoints of a phase stay while it runs, and that nothing but them lies around."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Workbench
from tiny import make_plan, train_request

from cpt_ml import train
from cpt_ml.errors import Stopped
from cpt_ml.job import Job
from cpt_ml.store import Json

STEPS = 12
BUDGET = 128 * STEPS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    """A store with a plan, and the request of a phase over it."""
    bench = Workbench(tmp_path_factory.mktemp("world"))
    return bench.folder, train_request(bench, make_plan(bench, BUDGET), BUDGET)


class Kept:
    """A phase whose checkpoints are looked at after each save."""

    def __init__(self, folder: Path, request: Json) -> None:
        self.bench, self.request = Workbench(folder), request
        self.bench.jobs = 100
        self.store = folder / "store"
        self.seen: list[list[str]] = []

    def job(self, **checkpoints: int) -> Job:
        kept = {"meanSecondsBetweenFailures": 3600, **checkpoints}
        return self.bench.job("train", self.request, checkpointEverySteps=1, checkpoints=kept)

    def records(self) -> list[Path]:
        of = self.job().fingerprint
        return sorted((self.store / "checkpoints" / of[:2] / of).glob("*.json"))

    def names(self) -> list[str]:
        return [p.stem for p in self.records()]

    def files(self, record: Path) -> list[Path]:
        return [self.store / f["path"] for f in json.loads(record.read_bytes())["files"]]

    def run(self, stop_after: int | None = None, **checkpoints: int) -> Json | None:
        """Runs an attempt, or one that is told to stop after a step."""
        job = self.job(**checkpoints)
        log, beat = job.log, job.beat

        def look(event: str, **fields: Any) -> None:
            log(event, **fields)
            if event == "checkpoint":
                self.seen.append(self.names())
                self.assert_whole()

        def stop(*of: Any, **more: Any) -> None:
            beat(*of, **more)
            if more.get("step") == stop_after is not None:
                raise Stopped("train: told to stop (a test)")

        job.log, job.beat = look, stop
        try:
            train.run(job)
        except Stopped:
            return None
        return job.store.record(job.fingerprint)["result"]

    def assert_whole(self) -> None:
        """Every file that a record names is there with its digest, and no other file of a checkpoint is."""
        named: set[Path] = set()
        for record in self.records():
            for f in json.loads(record.read_bytes())["files"]:
                path = self.store / f["path"]
                assert hashlib.sha256(path.read_bytes()).hexdigest() == f["sha256"], (record.name, f["name"])
                named.add(path)
        assert {p for p in self.store.rglob("*-checkpoints/**/*") if p.is_file()} == named


@pytest.fixture
def kept(world: tuple[Path, Json], tmp_path: Path) -> Kept:
    shutil.copytree(world[0], tmp_path, dirs_exist_ok=True)
    return Kept(tmp_path, world[1])


def names(*seqs: int, branch: int = 0) -> list[str]:
    return [f"{branch:03d}-{s:06d}" for s in seqs]


@pytest.mark.parametrize("last", [2, 3, 100])
def test_the_last_checkpoints_stay_and_no_others(kept: Kept, last: int) -> None:
    kept.run(keepLast=last)
    assert kept.seen == [names(*range(max(1, n - last + 1), n + 1)) for n in range(1, STEPS + 1)]


def test_each_checkpoint_of_a_number_stays_beside_the_last(kept: Kept) -> None:
    kept.run(keepLast=2, keepEvery=4)
    assert kept.seen[5] == names(4, 5, 6)
    assert kept.seen[-1] == names(4, 8, 11, 12)
    tokens = [json.loads(p.read_bytes())["tokens"] for p in kept.records()]
    assert tokens == [128 * n for n in (4, 8, 11, 12)]


def test_a_kept_checkpoint_is_what_the_phase_goes_on_from_when_all_later_ones_are_damaged(kept: Kept) -> None:
    undisturbed = kept.run(keepLast=2, keepEvery=4)
    assert undisturbed is not None
    of = kept.job().fingerprint
    (kept.store / "commits" / of[:2] / f"{of}.json").unlink()
    for record in kept.records()[1:]:
        damage(kept, record)
    result = kept.run(keepLast=2, keepEvery=4)
    assert result is not None
    assert [r["step"] for r in result["restarts"]] == [4]
    assert all(result[k] == undisturbed[k] for k in ("model", "checkpoint", "curve", "weightsSha256"))
    assert kept.names() == [*names(4), *names(8, 11, 12, branch=1)]
    kept.assert_whole()


def damage(kept: Kept, record: Path) -> None:
    path = next(p for p in kept.files(record) if p.name == "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])


def test_after_damage_nothing_of_the_branch_that_was_left_stays(kept: Kept) -> None:
    """The damaged tip has a number that is to be kept; what has it on the new branch is kept in its place."""
    assert kept.run(stop_after=8, keepLast=3, keepEvery=4) is None
    assert kept.names() == names(4, 6, 7, 8)
    damage(kept, kept.records()[-1])
    kept.seen.clear()
    assert kept.run(keepLast=3, keepEvery=4) is not None
    assert kept.seen[0] == [*names(4, 6, 7), *names(8, branch=1)]
    assert kept.seen[-1] == [*names(4), *names(8, 10, 11, 12, branch=1)]


def test_a_resumed_phase_may_keep_more_than_it_did_before(kept: Kept) -> None:
    assert kept.run(stop_after=5, keepLast=2) is None
    assert kept.names() == names(4, 5)
    kept.run(keepLast=4)
    assert kept.names() == names(9, 10, 11, 12)
