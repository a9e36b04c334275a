"""Real processes, really killed: wherever dedup or its signatures die, the next attempt ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Workbench
from documents import bytes_of, doc, ingest, json_lines, request, source

from cpt_ml.job import Job
from cpt_ml.store import Json

DEADLINE_SECONDS = 120
SHARDS = 3


@pytest.fixture
def corpus(workbench: Workbench) -> Json:
    """Three shards, every document in two of them."""
    rng = random.Random(3)
    texts = [" ".join(f"w{rng.randrange(10_000)}" for _ in range(60)) for _ in range(600)]
    lines = [json_lines(doc(str(i), f"{t} {shard}") for i, t in enumerate(texts[shard::3] * 2)) for shard in range(2)]
    lines.append(json_lines(doc(str(i), f"{t} 2") for i, t in enumerate(texts)))
    return ingest(workbench, *(source(workbench, f"s{i}", data) for i, data in enumerate(lines)))["corpus"]


class Attempts:
    """Attempts at one stage's request, each a process of its own."""

    def __init__(self, workbench: Workbench, stage: str, asked: Json) -> None:
        self.workbench = workbench
        self.stage = stage
        self.asked = asked
        self.units = workbench.units(stage, asked)
        self.failpoints = workbench.folder / "failpoints"
        self.failpoints.mkdir(exist_ok=True)
        self.jobs: list[Job] = []

    def committed(self) -> int:
        """How many units have a record."""
        store = self.workbench.job(self.stage, self.asked).store
        return sum(store.backend.get(f"commits/{f[:2]}/{f}.json") is not None for f in self.fingerprints())

    def fingerprints(self) -> list[str]:
        return [u["fingerprint"] for u in self.units or []]

    def start(self) -> subprocess.Popen[bytes]:
        pending = None
        if self.units is not None:
            backend = self.workbench.job(self.stage, self.asked).store.backend
            done = [f for f in self.fingerprints() if backend.get(f"commits/{f[:2]}/{f}.json") is not None]
            pending = [u for u in self.units if u["fingerprint"] not in done]
        job = self.workbench.job(self.stage, self.asked, units=pending)
        job.spec["attempt"] = len(self.jobs) + 1
        self.jobs.append(job)
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        command = [sys.executable, "-m", "cpt_ml", self.stage]
        command += ["--request", str(job.folder / "request.json"), "--result", str(job.folder / "result.json")]
        env = {**os.environ, "CPT_FAILPOINTS": str(self.failpoints)}
        return subprocess.Popen(command, cwd=Path(__file__).parents[1], env=env, stderr=subprocess.DEVNULL)

    def killed_at(self, point: str, passes: int = 1) -> int:
        (self.failpoints / point).write_text(str(passes))
        return self.start().wait(DEADLINE_SECONDS)

    def killed_in(self, phase: str) -> int:
        """Kills an attempt as soon as its beat names the phase."""
        process = self.start()
        beat = self.jobs[-1].folder / "beat.json"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (beat.exists() and json.loads(beat.read_bytes())["phase"] == phase) and process.poll() is None:
            assert time.monotonic() < deadline
            os.sched_yield()
        process.kill()
        return process.wait(DEADLINE_SECONDS)


def test_signatures_of_a_shard_are_made_once_however_often_the_job_is_killed(
    workbench: Workbench, corpus: Json, tmp_path: Path
) -> None:
    asked = request("dedup-signatures", corpus=corpus, drops=[])
    attempts = Attempts(workbench, "dedup-signatures", asked)
    assert attempts.killed_at("commit-written") == -signal.SIGKILL
    assert attempts.committed() == 0
    assert attempts.killed_at("committed") == -signal.SIGKILL
    assert attempts.committed() == 1
    assert attempts.killed_at("commit-written", passes=2) == -signal.SIGKILL
    assert attempts.committed() == SHARDS - 1
    assert attempts.start().wait(DEADLINE_SECONDS) == 0
    job = attempts.jobs[-1]
    records = [job.store.record(f) for f in attempts.fingerprints()]
    assert [r["attempt"] for r in records] == [attempts.jobs[i].token for i in (1, 2, 3)]
    shards = [entry for r in records for entry in r["result"]["outputs"]["signatures"]]
    made = [job.store.shard(entry).read_bytes() for entry in shards]
    undisturbed = Workbench(tmp_path / "undisturbed")
    for path in (workbench.folder / "store").glob("commits/*/*.json"):
        if json.loads(path.read_bytes())["stage"] == "ingest":
            copy = undisturbed.folder / path.relative_to(workbench.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    shutil.copytree(workbench.folder / "store" / "data", undisturbed.folder / "store" / "data")
    assert bytes_of(undisturbed, undisturbed.run("dedup-signatures", asked)["signatures"]) == made


@pytest.mark.parametrize("phase", ["dedup: bands", "dedup: candidates"])
def test_a_killed_dedup_leaves_no_verdict_and_no_scratch_and_the_next_one_all(
    workbench: Workbench, corpus: Json, phase: str
) -> None:
    signed = request("dedup-signatures", corpus=corpus, drops=[])
    asked = request("dedup", corpus=corpus, drops=[])
    asked["signatures"] = workbench.run("dedup-signatures", signed)["signatures"]
    attempts = Attempts(workbench, "dedup", asked)
    killed = attempts.killed_in(phase)
    assert killed in (-signal.SIGKILL, 0)
    left = [p for p in attempts.jobs[-1].folder.rglob("*") if p.is_file() and p.stat().st_size > 1 << 16]
    assert left == []
    if killed != 0:
        assert attempts.killed_at("commit-written") == -signal.SIGKILL
        assert attempts.start().wait(DEADLINE_SECONDS) == 0
    job = attempts.jobs[-1]
    result = job.store.record(job.fingerprint)["result"]
    assert result["counts"]["docs"] == 1400
    assert result["counts"]["kept"] == 600
    undisturbed = workbench.run("dedup", {k: v for k, v in asked.items() if k != "signatures"})
    assert bytes_of(workbench, result["verdicts"]) == bytes_of(workbench, undisturbed["verdicts"])
