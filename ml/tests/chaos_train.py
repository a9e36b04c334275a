"""Random kills of a real training: signals, points, moments and victims by seed, over one process or several.

`python tests/chaos_train.py --kills 200 --seed 1 --processes 2 [--validate-every 7] [--kinds power,TERM]
[--points checkpoint-written] [--plant NAME] [--rows FILE]`. Each training is killed until it ends; then its weights,
curve and ledger must be those of the undisturbed one, and where it is validated on its way each measurement and the
best step's model. After every kill each visible record must be whole and no committed step gone. Beside signals
there is `failpoint` (SIGKILL at a named place) and `power`: all processes SIGKILLed, and what was never fsynced lost.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Workbench, fingerprint
from job_processes import Processes
from planted_train import PLANTS
from tiny import make_plan, train_request

from cpt_ml.amendments import Amendments, check_ledger
from cpt_ml.errors import BadData
from cpt_ml.job import Job
from cpt_ml.parallel import IMPORTED
from cpt_ml.store import Json, commit_key

BATCH = 128
KINDS = ("KILL", "KILL", "power", "TERM", "USR2", "failpoint")
FAILPOINTS = (
    "checkpoint-begun", "checkpoint-files", "checkpoint-durable", "checkpoint-written", "checkpoint-recorded",
    "checkpoint-pruned", "commit-written", "committed", "end-written", "job-started", "validated",
)  # fmt: skip
SEVERAL_TIMES = ("checkpoint-", "validated")
SAME = ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement", "validations", "best")
# a rate that rises until it is too high: the frozen sets are best before the last step, so a phase leaves two models
RISING = {"shape": "constant", "peakLr": 1.0, "minLr": 0.0, "decayTokens": 0}
DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.002


class Training:
    """One phase of `steps` steps in a store of its own; each attempt is another job."""

    def __init__(self, folder: Path, request: Json, processes: int, jobs: Processes, plant: str = "") -> None:
        self.folder, self.request, self.processes, self.jobs, self.plant = folder, request, processes, jobs, plant
        self.attempts: list[Job] = []
        self.fingerprint = fingerprint("train", request)
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir(exist_ok=True)

    def start(self, save_every: int) -> int:
        bench = Workbench(self.folder)
        bench.jobs = 100 + len(self.attempts)
        placement: Json = {"checkpointEverySteps": save_every, "processesPerNode": self.processes}
        job = bench.job("train", self.request, **placement)
        self.attempts.append(job)
        job.spec |= {"attempt": len(self.attempts), "leaseSeconds": 600}  # which nobody renews
        return self.jobs.start(job, self.failpoints, f"planted_train:{self.plant}")

    def wait(self, pid: int) -> int:
        """How the job ended, once none of its processes is left, as the runner sees to it."""
        code = self.jobs.wait(pid)
        deadline = time.monotonic() + DEADLINE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(pid, signal.SIGKILL)
                threading.Event().wait(POLL_SECONDS)
        return code

    def told(self, name: str) -> Json:
        """A status file of the running attempt; empty where there is none yet."""
        try:
            return json.loads((self.attempts[-1].folder / name).read_bytes())
        except (OSError, ValueError):
            return {}

    def step(self) -> int:
        """The last step that the running attempt told of or committed."""
        return max(self.told("beat.json").get("step", 0), self.last_commit())

    def has_left(self, pid: int) -> bool:
        """Whether the job has written its end or its first process is gone."""
        if self.told("end.json"):
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def last_commit(self) -> int:
        return max((step_of(p) for p in self.checkpoints()), default=0)

    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "store/checkpoints" / self.fingerprint[:2] / self.fingerprint).glob("[0-9]*.json"))

    def members(self, pid: int) -> list[int]:
        """The processes of the job, the first rank first."""
        return self.told("ranks.json").get("pids", [pid])

    def lose_power(self) -> None:
        """Of what was written since the attempt began and never fsynced half is gone."""
        folder = self.attempts[-1].folder
        log, began = folder / "synced", (folder / "request.json").stat().st_mtime
        synced = set(log.read_text().split()) if log.exists() else set[str]()
        for path in (self.folder / "store").rglob("*"):
            if path.is_file() and path.stat().st_mtime >= began and str(path.stat().st_ino) not in synced:
                with path.open("r+b") as f:
                    f.truncate(path.stat().st_size // 2)

    def broken_records(self) -> list[str]:
        """Visible records that are not whole, or name a file that is not there or not whole."""
        broken: list[str] = []
        commit = self.folder / "store" / commit_key(self.fingerprint)
        for path in [*self.checkpoints(), *([commit] if commit.exists() else [])]:
            try:
                files = json.loads(path.read_bytes())["files"]
            except ValueError:
                broken.append(f"the record {path.name} is not whole")
                continue
            for f in files:
                file = self.folder / "store" / f["path"]
                if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != f["sha256"]:
                    broken.append(f"{path.name} names {f['path']}, which is not whole")
        return broken

    def result(self) -> Json:
        return self.attempts[-1].store.record(self.fingerprint)["result"]

    def unlike(self, undisturbed: Json) -> list[str]:
        """What of the committed result is not that of the undisturbed training, and what is left over."""
        result = self.result()
        problems = [f"{k} differs from the undisturbed training's" for k in SAME if result.get(k) != undisturbed.get(k)]
        curve = [json.loads(line) for line in self.attempts[-1].store.file(result["curve"]).read_bytes().splitlines()]
        try:
            check_ledger(curve, Amendments(), self.request["tokenBudget"], BATCH)
        except BadData as e:
            problems.append(f"the ledger is not the plan: {e}")
        named = {f["path"] for p in self.checkpoints() for f in json.loads(p.read_bytes())["files"]}
        store = self.folder / "store"
        found = {p.relative_to(store).as_posix() for p in store.rglob("*-checkpoints/**/*") if p.is_file()}
        return problems + [f"{p} is left over" for p in sorted(found - named)]

    def last_words(self) -> str:
        """What the last attempt said at its end."""
        log = self.attempts[-1].folder / "log.jsonl"
        return self.told("end.json").get("message") or (log.read_text()[-500:] if log.exists() else "it said nothing")


def step_of(record: Path) -> int:
    """The step of a checkpoint; 0 where its record is not whole, or has been removed meanwhile."""
    try:
        return int(json.loads(record.read_bytes())["step"])
    except (OSError, ValueError):
        return 0


@dataclass(frozen=True)
class Undisturbed:
    """A store in which all before a training is done, and what it ends with when nobody disturbs it."""

    store: Path
    request: Json
    processes: int
    result: Json
    seconds: float

    @staticmethod
    def prepare(folder: Path, steps: int, validate_every: int | None = None) -> tuple[Path, Json]:
        """The store, and the request of a training in it."""
        bench = Workbench(folder)
        more: Json = {}
        if validate_every is not None:
            more = {"validateEverySteps": validate_every, "schedule": {**RISING, "warmupTokens": BATCH * steps}}
        return folder, train_request(bench, make_plan(bench, BATCH * steps), BATCH * steps, **more)

    @staticmethod
    def train(prepared: tuple[Path, Json], folder: Path, processes: int, jobs: Processes) -> Undisturbed:
        shutil.copytree(prepared[0], folder, dirs_exist_ok=True)
        training = Training(folder, prepared[1], processes, jobs)
        began = time.monotonic()
        code = training.wait(training.start(2))
        assert code == 0, f"the undisturbed training ended with {code}: {training.last_words()}"
        return Undisturbed(*prepared, processes, training.result(), time.monotonic() - began)


@dataclass
class Chaos:
    """Kills of trainings like the undisturbed one, and what was found wrong."""

    undisturbed: Undisturbed
    jobs: Processes
    seed: int
    kinds: Sequence[str] = KINDS
    points: Sequence[str] = FAILPOINTS
    plant: str = ""
    say: Callable[[str], None] = lambda _: None
    kills: int = 0
    trainings: int = 0
    shortest_seconds: float = float("inf")  # of an attempt that nothing ended
    by_kind: dict[str, int] = field(default_factory=dict[str, int])
    problems: list[str] = field(default_factory=list[str])

    @property
    def processes(self) -> int:
        return self.undisturbed.processes

    @property
    def validate_every(self) -> int:
        """Steps between validations, 0 without any before the end."""
        return self.undisturbed.request.get("validateEverySteps", 0)

    def go(self, kills: int, folder: Path, seconds: float = float("inf")) -> None:
        """Trains until so many kills have landed, each training to its end; stops at the first problem, and begins no
        training after so many seconds."""
        rng = random.Random(f"{self.seed} {self.processes}")
        began = time.monotonic()
        while self.kills < kills and not self.problems and time.monotonic() - began < seconds:
            place = folder / f"training-{self.trainings}"
            shutil.copytree(self.undisturbed.store, place)
            training = Training(place, self.undisturbed.request, self.processes, self.jobs, self.plant)
            self._train(training, rng, kills)
            self.trainings += 1
            shutil.rmtree(place)
            self.say(f"{self.kills} kills, {self.trainings} trainings, {time.monotonic() - began:.0f} s")

    def _train(self, training: Training, rng: random.Random, kills: int) -> None:
        """Attempts until one ends well or a problem is found."""
        while not self.problems:
            shutil.rmtree(training.failpoints)
            training.failpoints.mkdir()
            kind = rng.choice(self.kinds) if self.kills < kills else "nothing"
            what = kind
            if kind == "failpoint":
                point = rng.choice([p for p in self.points if p != "validated" or self.validate_every])
                passes = rng.randint(1, 4) if point.startswith(SEVERAL_TIMES) else 1
                what = f"{point}, pass {passes}"
                (training.failpoints / point).write_text(str(passes))
            before = training.last_commit()
            code = self._attempt(training, before, kind, rng)
            self.problems += [f"after {what}: {b}" for b in training.broken_records()]
            if training.last_commit() < before:
                self.problems.append(f"after {what}: step {before} was committed, now it is {training.last_commit()}")
            if code == 0:
                self.problems += training.unlike(self.undisturbed.result)
                return
            if not _is_due(training, kind, code):
                said = training.last_words()
                self.problems.append(f"attempt {len(training.attempts)} ended with {code} after {what}: {said}")
            self.kills += 1
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1

    def _attempt(self, training: Training, before: int, kind: str, rng: random.Random) -> int:
        """One attempt, struck at a random step beyond the last commit or at a random time; how it ended."""
        left = self.undisturbed.result["steps"] - before
        by_step = rng.random() < 0.5 and left > 0
        at = before + rng.randint(1, min(left, 10)) if by_step else float("inf")
        seconds = DEADLINE_SECONDS if by_step else rng.random() * min(self.shortest_seconds, self.undisturbed.seconds)
        grain, victim = rng.random() * 0.01, rng.randrange(self.processes)
        began = time.monotonic()
        pid = training.start(rng.choice([1, 2, 3, 5]))
        if kind not in {"nothing", "failpoint"}:
            while training.step() < at and not training.has_left(pid) and time.monotonic() - began < seconds:
                threading.Event().wait(POLL_SECONDS)
            threading.Event().wait(grain)
            if not training.has_left(pid):
                with contextlib.suppress(ProcessLookupError):  # it left by itself at this moment
                    _strike(kind, training.members(pid), victim)
        code = training.wait(pid)
        if code == 0 and before == 0:
            self.shortest_seconds = min(self.shortest_seconds, time.monotonic() - began)
        if kind == "power" and code != 0:
            training.lose_power()
        return code

    def row(self, seconds: float) -> Json:
        """A row of chaos-train.json."""
        of = "one process" if self.processes == 1 else f"{self.processes} processes (gloo)"
        of += f", validated every {self.validate_every} steps," if self.validate_every else ""
        kinds = ", ".join(f"{n} {k}" for k, n in sorted(self.by_kind.items()))
        holds = not self.problems
        return {
            "measure": f"random kills of trainings on {of} that left a trace in weights, curve, ledger or checkpoints",
            "ours": len(self.problems), "peer": None, "peerName": None, "ratio": None,
            "unit": f"of {self.kills} kills ({kinds}) over {self.trainings} trainings", "goal": "0", "holds": holds,
            "bound": f"0 of {self.kills}: < {3 / max(1, self.kills):.4f} (95 %)" if holds else None,
            "processes": self.processes, "validateEverySteps": self.validate_every, "kills": self.kills,
            "byKind": self.by_kind, "trainings": self.trainings, "seed": self.seed, "seconds": round(seconds),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }  # fmt: skip


def _strike(kind: str, members: list[int], victim: int) -> None:
    if kind == "power":
        os.killpg(members[0], signal.SIGKILL)
    elif kind == "KILL":
        os.kill(members[victim % len(members)], signal.SIGKILL)
    else:
        os.kill(members[0], signal.Signals[f"SIG{kind}"])


def _is_due(training: Training, kind: str, code: int) -> bool:
    """Whether what was done to an attempt ends it in this way."""
    if kind in {"TERM", "USR2"}:
        # until it listens, a signal ends it as any process
        return code == 75 or (code == -signal.Signals[f"SIG{kind}"] and not training.told("beat.json"))
    # where another rank was killed, the first one says so
    other_killed = training.processes > 1 and training.told("end.json").get("signal") == "SIGKILL"
    return kind != "nothing" and (code == -signal.SIGKILL or (code == 1 and other_killed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no training begins after them")
    parser.add_argument("--steps", type=int, default=40, help="of each training")
    parser.add_argument("--validate-every", type=int, default=None, metavar="STEPS", help="the frozen sets on the way")
    parser.add_argument("--kinds", type=lambda s: s.split(","), default=KINDS, help=", ".join(dict.fromkeys(KINDS)))
    parser.add_argument("--points", type=lambda s: s.split(","), default=FAILPOINTS, help=", ".join(FAILPOINTS))
    parser.add_argument("--plant", choices=["", *PLANTS], default="", help="a bug that is to be caught")
    parser.add_argument(
        "--rows", type=Path, default=None, help="file of rows; that of the same processes and validations is replaced"
    )
    given = parser.parse_args()
    if wrong := sorted({*given.kinds} - {*KINDS} | {*given.points} - {*FAILPOINTS}):
        parser.error(f"{', '.join(wrong)}: kinds are {', '.join(KINDS[1:])}; points are {', '.join(FAILPOINTS)}")
    if [*given.points] == ["validated"] and given.validate_every is None:
        parser.error("--points validated: no training gets there without --validate-every STEPS")
    began = time.monotonic()
    jobs = Processes(*IMPORTED)
    with tempfile.TemporaryDirectory() as name, contextlib.closing(jobs):
        folder = Path(name)
        prepared = Undisturbed.prepare(folder / "prepared", given.steps, given.validate_every)
        undisturbed = Undisturbed.train(prepared, folder / "undisturbed", given.processes, jobs)
        say: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: E731
        say(f"undisturbed: {undisturbed.seconds:.1f} s, weights {undisturbed.result['weightsSha256'][:12]}")
        chaos = Chaos(undisturbed, jobs, given.seed, given.kinds, given.points, given.plant, say)
        chaos.go(given.kills, folder, given.minutes * 60)
    row = chaos.row(time.monotonic() - began)
    print(f"{row['measure']}: {row['ours']} {row['unit']}; {row['bound']} ({row['seconds']} s, seed {given.seed})")
    for problem in chaos.problems:
        print(f"  {problem}")
    if given.rows:
        old: list[Json] = json.loads(given.rows.read_bytes()) if given.rows.exists() else []
        of: Callable[[Json], tuple[int, int]] = lambda r: (r["processes"], r.get("validateEverySteps", 0))  # noqa: E731
        rows = sorted([*(r for r in old if of(r) != of(row)), row], key=of)
        given.rows.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if chaos.problems else 0


if __name__ == "__main__":
    sys.exit(main())
