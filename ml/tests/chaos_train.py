"""Random kills of a real training: signals, points and victims by seed, over one process or several.

`python tests/chaos_train.py --kills 200 --seed 1 --processes 2 [--plant NAME] [--rows FILE]`. Each run is killed until
it ends; then its weights, curve and ledger must be those of the undisturbed run. After every kill each visible
checkpoint must be whole. Beside signals there is `power`: SIGKILL, and what was never fsynced is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Workbench
from tiny import make_plan, train_request

from cpt_ml.amendments import Amendments, check_ledger
from cpt_ml.job import Job
from cpt_ml.store import Json

STEPS = 40
BATCH = 128
BUDGET = BATCH * STEPS
FAILPOINTS = (
    "checkpoint-begun", "checkpoint-files", "checkpoint-durable", "checkpoint-written", "checkpoint-recorded",
    "checkpoint-pruned", "commit-written", "job-started",
)  # fmt: skip
SAME = ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement")
DEADLINE_SECONDS = 120.0


class Zygote:
    """Forks job processes; `plant` names a bug of planted_train.py that they get."""

    def __init__(self, processes: int, plant: str = "") -> None:
        here = Path(__file__).parent
        env = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}", "CPT_ZYGOTE_SETUP": f"planted_train:{plant}"}
        several = ("torch.distributed.fsdp", "torch.distributed.tensor") if processes > 1 else ()
        needed = ("pyarrow.parquet", "safetensors.torch", "tokenizers", "cpt_ml.train", *several)
        env["CPT_ZYGOTE_IMPORTS"] = ",".join(needed)
        self.process = subprocess.Popen(
            [sys.executable, str(here / "zygote.py")], cwd=here.parent, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, line: str) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Run:
    """One phase in a store of its own."""

    folder: Path
    request: Json
    zygote: Zygote
    processes: int
    attempts: int = 0
    jobs: list[Job] = field(default_factory=list[Job])

    def start(self, every: int) -> int:
        bench = Workbench(self.folder)
        bench.jobs = 100 + self.attempts
        self.attempts += 1
        job = bench.job("train", self.request, checkpointEverySteps=every, processesPerNode=self.processes)
        job.spec["attempt"] = self.attempts
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        self.jobs.append(job)
        (self.folder / "failpoints").mkdir(exist_ok=True)
        paths = (job.folder / "request.json", job.folder / "result.json", self.folder / "failpoints")
        return self.zygote.ask(f"train {' '.join(map(str, paths))}")

    def wait(self, pid: int) -> int:
        """How the job ended, when all its processes are gone, as the runner sees to it."""
        code = os.waitstatus_to_exitcode(self.zygote.ask(f"wait {pid}"))
        deadline = time.monotonic() + DEADLINE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(pid, signal.SIGKILL)
                threading.Event().wait(0.005)
        return code

    def step(self) -> int:
        """The last step that the running attempt told of."""
        try:
            return json.loads((self.jobs[-1].folder / "beat.json").read_bytes()).get("step", 0)
        except (OSError, ValueError):
            return 0

    def last_commit(self) -> int:
        return max((int(json.loads(p.read_bytes())["step"]) for p in self.records()), default=0)

    def records(self) -> list[Path]:
        of = self.jobs[-1].fingerprint
        return sorted((self.folder / "store" / "checkpoints" / of[:2] / of).glob("[0-9]*.json"))

    def ended(self) -> bool:
        return (self.jobs[-1].folder / "end.json").exists()

    def members(self, pid: int) -> list[int]:
        """The processes of the job, the first rank first."""
        try:
            return list(json.loads((self.jobs[-1].folder / "ranks.json").read_bytes())["pids"])
        except OSError:
            return [pid]

    def lose_power(self) -> None:
        """What was written but never fsynced is half gone."""
        log, began = self.jobs[-1].folder / "synced", (self.jobs[-1].folder / "request.json").stat().st_mtime
        synced = set(log.read_text().split()) if log.exists() else set[str]()
        for path in (self.folder / "store").rglob("*"):
            if path.is_file() and path.stat().st_mtime >= began and str(path.stat().st_ino) not in synced:
                with path.open("r+b") as f:
                    f.truncate(path.stat().st_size // 2)

    def broken_records(self) -> list[str]:
        """Visible records that name a file which is not there or not whole."""
        broken: list[str] = []
        for path in self.records():
            for f in json.loads(path.read_bytes())["files"]:
                file = self.folder / "store" / f["path"]
                if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != f["sha256"]:
                    broken.append(f"{path.name} names {f['path']}, which is not whole")
        return broken

    def wrong(self, undisturbed: Json) -> list[str]:
        """What of the committed result is not that of the undisturbed run."""
        record = self.jobs[-1].store.record(self.jobs[-1].fingerprint)
        result = record["result"]
        problems = [f"{k} differs from the undisturbed run's" for k in SAME if result[k] != undisturbed[k]]
        curve = [json.loads(line) for line in self.jobs[-1].store.file(result["curve"]).read_bytes().splitlines()]
        if check_ledger(curve, Amendments(), BUDGET, BATCH) != BUDGET:
            problems.append("the ledger is not the plan")
        named = {f["path"] for p in self.records() for f in json.loads(p.read_bytes())["files"]}
        store = self.folder / "store"
        found = {p.relative_to(store).as_posix() for p in store.rglob("*-checkpoints/**/*") if p.is_file()}
        return problems + [f"{p} is left over" for p in sorted(found - named)]


@dataclass
class Chaos:
    """Kills done so far, and what was found wrong."""

    seed: int
    processes: int
    plant: str = ""
    kills: int = 0
    runs: int = 0
    by_kind: dict[str, int] = field(default_factory=dict[str, int])
    problems: list[str] = field(default_factory=list[str])

    def go(self, kills: int, folder: Path) -> None:
        """Runs phases until so many kills have landed, each run to its end; stops at the first problem."""
        bench = Workbench(folder / "world")
        request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
        healthy = Zygote(self.processes)
        shutil.copytree(bench.folder, folder / "undisturbed")
        reference = Run(folder / "undisturbed", request, healthy, self.processes)
        code = reference.wait(reference.start(2))
        assert code == 0, f"the undisturbed run ended with {code}"
        undisturbed = reference.jobs[-1].store.record(reference.jobs[-1].fingerprint)["result"]
        rng = random.Random(f"{self.seed} {self.processes}")
        zygote = Zygote(self.processes, self.plant) if self.plant else healthy
        try:
            while self.kills < kills and not self.problems:
                place = folder / f"run-{self.runs}"
                shutil.copytree(bench.folder, place)
                self._one_run(Run(place, request, zygote, self.processes), rng, kills, undisturbed)
                self.runs += 1
                shutil.rmtree(place)
        finally:
            zygote.close()
            if self.plant:
                healthy.close()

    def _one_run(self, run: Run, rng: random.Random, kills: int, undisturbed: Json) -> None:
        for _ in range(10 * STEPS):
            for point in run.folder.glob("failpoints/*"):
                point.unlink()
            kind = rng.choice(["KILL", "KILL", "power", "TERM", "USR2", "failpoint"]) if self.kills < kills else ""
            every = rng.choice([1, 2, 3, 5])
            if kind == "failpoint":
                (run.folder / "failpoints").mkdir(exist_ok=True)
                (run.folder / "failpoints" / rng.choice(FAILPOINTS)).write_text(str(rng.randint(1, 4)))
            pid = run.start(every)
            if kind not in {"", "failpoint"}:
                self._strike(run, pid, kind, rng)
            code = run.wait(pid)
            if kind == "power" and code != 0:
                run.lose_power()
            self.problems += [f"after {kind}: {b}" for b in run.broken_records()]
            if code == 0:
                self.problems += run.wrong(undisturbed)
                return
            peer_killed = kind in {"KILL", "power"} and self.processes > 1 and code == 1
            if code not in {-signal.SIGKILL, 75} and not peer_killed:
                self.problems.append(f"after {kind} the job ended with {code}: {self._last_words(run)}")
            if self.problems:
                return
            self.kills += 1
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.problems.append("a run did not come to its end")

    def _strike(self, run: Run, pid: int, kind: str, rng: random.Random) -> None:
        """Sends the signal at a random step beyond the last commit, or at a random time of the start."""
        at = run.last_commit() + rng.randint(1, 10)
        early = time.monotonic() + rng.uniform(0, 1.0) if rng.random() < 0.15 else float("inf")
        grain, deadline = rng.random() * 0.01, time.monotonic() + DEADLINE_SECONDS
        while run.step() < at and not run.ended() and time.monotonic() < min(early, deadline):
            threading.Event().wait(0.002)
        threading.Event().wait(grain)
        members = run.members(pid)
        victim = rng.choice(members) if kind in {"KILL", "power"} else members[0]
        if not run.ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL if kind == "power" else signal.Signals[f"SIG{kind}"])

    def _last_words(self, run: Run) -> str:
        end = run.jobs[-1].folder / "end.json"
        return str(json.loads(end.read_bytes())["message"])[:300] if end.exists() else "no end record"

    def row(self) -> Json:
        kinds = ", ".join(f"{n} {k}" for k, n in sorted(self.by_kind.items()))
        bound = f"0 of {self.kills}: below {3 / max(1, self.kills):.2%} at 95 %" if not self.problems else ""
        of = "one process" if self.processes == 1 else f"{self.processes} processes (gloo)"
        return {
            "measure": f"random kills over {self.runs} trainings on {of} that left a trace in weights, curve, ledger or"
            " checkpoints",
            "ours": len(self.problems), "peer": None, "peerName": None, "unit": f"of {self.kills} ({kinds}); {bound}",
            "ratio": None, "goal": "0", "holds": not self.problems,
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--plant", default="")
    parser.add_argument("--rows", type=Path, default=None)
    given = parser.parse_args()
    chaos = Chaos(given.seed, given.processes, given.plant)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        chaos.go(given.kills, Path(folder))
    row = chaos.row()
    print(f"{row['measure']}: {row['ours']} {row['unit']} ({time.monotonic() - began:.0f} s, seed {given.seed})")
    for problem in chaos.problems:
        print(f"  {problem}")
    if given.rows:
        old: list[Json] = json.loads(given.rows.read_bytes()) if given.rows.exists() else []
        kept = [r for r in old if row["measure"].split(" on ")[1] not in r["measure"]]
        given.rows.write_text(json.dumps([*kept, row], indent=1) + "\n")
    return 1 if chaos.problems else 0


if __name__ == "__main__":
    sys.exit(main())
