"""One job: parse the request, prove the attempt is ours, run the stage, commit, write the end record.

`python -m cpt_ml <stage> --request request.json --result result.json` is the whole interface. Beside request.json
live `started.json` (created only if absent: the attempt's first act), `beat.json`, `lease` (a counter that whoever
watches the job raises), `pulse` (a counter that the job raises while it lives), `stop` (present: save and leave, within
as many milliseconds as it says), `pause` (present: leave at the next commit), `stacks` (a word: each process writes
where it stands to the log, and then the word to `stacks-<rank>`) and `end.json`, most of them described in
contracts/src/job.ts.

A stage whose module says PARALLEL runs as `placement.processesPerNode` processes (ranks.py), or as those that torchrun
started; rank 0 alone claims the start, beats, commits and writes the end record. Any other stage is rank 0's alone.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import faulthandler
import importlib
import itertools
import json
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpt_ml.durable_files import put_if_absent, replace_file
from cpt_ml.errors import BadRequest, JobFailure, Orphaned, Paused, PeerFailed, Stopped, Superseded, TimeLimit
from cpt_ml.failpoint import failpoint
from cpt_ml.process_identity import process_identity
from cpt_ml.process_memory import map_large_buffers, return_free_memory
from cpt_ml.ranks import LEAVE_SECONDS, SETTLE_SECONDS, Ending, Ranks, fork_ranks, tell_ending, told_ending
from cpt_ml.store import Attempt, Json, Store, commit_key

BEAT_SECONDS = 0.5
LEASE_POLL_SECONDS = 1.0
SIGTERM_GRACE_SECONDS = 20.0
SUPERSEDED_EXIT = 94
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# where a job left no end record, its exit code is all there is
EXIT_CLASS = {
    0: "done",
    65: "bad-data",
    75: "again",
    78: "bad-request",
    93: "do-not-restart",
    94: "superseded",
    95: "diverged",
}


@dataclass(frozen=True)
class Unit:
    """One unit of a map stage: its own fingerprint, and row-aligned inputs (manifest entries, or the item itself)."""

    index: int
    fingerprint: str
    inputs: Json


class Job:
    """What a stage's code sees of the job around it."""

    def __init__(self, folder: Path, spec: Json) -> None:
        self.folder = folder
        self.spec = spec
        self.stage: str = spec["stage"]
        self.request: Json = spec["request"]
        self.placement: Json = spec["placement"]
        self.fingerprint: str = spec["fingerprint"]
        self.token: str = spec["token"]
        self.threads: int = spec["placement"]["threads"]
        # one process reads for all of a machine
        self.store = Store(spec["roots"], self.threads * spec["placement"].get("processesPerNode", 1))
        self.progress_tokens = 0
        self._beat: Json = {"phase": "starting", "done": 0, "total": 0, "unit": "", "seq": 0}
        self._last_beat = -math.inf
        self._stop_reason: str | None = None
        self.know_rank()
        self._started = time.monotonic()
        self._computing_since: float | None = None

    def know_rank(self) -> None:
        """Takes from the environment which of how many processes this one is."""
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))

    # --- what stages call ---

    @property
    def units(self) -> list[Unit]:
        """The units of this range that are not committed yet."""
        return [Unit(u["index"], u["fingerprint"], u["inputs"]) for u in self.spec["units"] or []]

    def beat(self, phase: str, done: float = 0, total: float = 0, unit: str = "", **more: Any) -> None:
        """Says where the job is; at most every BEAT_SECONDS it reaches the disk.

        Raises Stopped or Orphaned when the job should leave.
        """
        self._computing_since = self._computing_since or time.monotonic()
        self._beat = {**self._beat, "phase": phase, "done": done, "total": total, "unit": unit, **more}
        self._write_beat()
        self._check_alone()

    def say(self, phase: str, **more: Any) -> None:
        """Says what the job waits for now, and in `more` how much of it is done: it is not asked to leave here."""
        self._beat |= {"phase": phase, **more}
        self._write_beat()

    def tell_of(self, phase: str, unit: str) -> Callable[[int, int], None]:
        """Says of a phase in which nobody is asked to leave how much of it is done."""
        return lambda done, total: self.say(phase, done=done, total=total, unit=unit)

    def _write_beat(self) -> None:
        now, phase = time.monotonic(), self._beat["phase"]
        if self.rank == 0 and (now - self._last_beat >= BEAT_SECONDS or phase != self._beat.get("written")):
            self._last_beat = now
            self._beat |= {"seq": self._beat["seq"] + 1, "written": phase}
            replace_file(self.folder / "beat.json", json.dumps(_finite(self._beat)).encode())

    def _check_alone(self) -> None:
        # of several processes none may leave by itself: they agree on a step (parallel.py)
        if self.world == 1:
            self.check_stop()

    def check_agreed(self, reason: str | None) -> None:
        """check_stop for processes that leave together: None where they agreed to go on, though this one may have been
        told to leave since."""
        if reason is not None:
            self._stop_reason = self._stop_reason or reason
            self.check_stop()

    def check_stop(self) -> None:
        """Raises Stopped or Orphaned when the job should leave."""
        if self._stop_reason == "orphaned":
            raise Orphaned(f"{self.stage}: nobody renewed the lease for {self.spec['leaseSeconds']} s")
        if self._stop_reason == "time-limit":
            raise TimeLimit(
                f"{self.stage}: the time it was given is over (placement.timeLimitSeconds, or a pool's limit)"
            )
        if self._stop_reason:
            raise Stopped(f"{self.stage}: told to stop ({self._stop_reason})")

    def check_pause(self) -> None:
        """Raises Paused when a person wants the work held; called where everything so far is committed."""
        if self.pausing:
            raise Paused(f"{self.stage}: paused at a commit")

    @property
    def pausing(self) -> bool:
        """Whether a person wants the work held, at the next commit."""
        return (self.folder / "pause").exists()

    @property
    def stopping(self) -> str | None:
        """Why the job should save and leave, or None."""
        return self._stop_reason

    def attempt(self, fingerprint: str | None = None) -> Attempt:
        """The attempt's own folder for the files of a fingerprint (the job's own, or a unit's)."""
        return Attempt(self.store, fingerprint or self.fingerprint, self.token)

    def commit(self, attempt: Attempt, result: Json) -> Json:
        """Publishes an attempt's files with their result; the record is created only if absent, the winner returned."""
        self.fence()
        record: Json = {
            "format": "cpt-commit/1",
            "fingerprint": attempt.fingerprint,
            "stage": self.stage,
            "version": self.spec["version"],
            "request": self.request,
            "files": attempt.publish(),
            "result": _strict(result),
            "parents": self.spec["parents"],
            "attempt": self.token,
            "wallSeconds": round(time.monotonic() - self._started, 3),
            "committedAt": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        data = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        failpoint("commit-written")
        if not self.store.backend.put_if_absent(commit_key(attempt.fingerprint), data):
            record = self.store.record(attempt.fingerprint)
        failpoint("committed")
        self.log("committed", fingerprint=attempt.fingerprint, files=len(record["files"]))
        return record

    def fence(self) -> None:
        """Raises Superseded if a newer attempt of this range is claimed: a stale attempt publishes nothing.

        One claimed between this look and the put that follows does no harm: the fingerprint is the same, so either
        result means the same, and the record is put if absent, so exactly one of them holds and the other is debris.
        """
        range_, newer = self.spec["range"], self.spec["attempt"] + 1
        if self.store.backend.exists(f"claims/{self.fingerprint[:2]}/{self.fingerprint}/{range_}/{newer}.json"):
            raise Superseded(f"{self.stage}: attempt {newer} exists, this one is {self.spec['attempt']}")

    def map_units(self, work: Callable[[Unit, Attempt], Json], *, keeps_memory: bool = False) -> None:
        """Runs `work` on each unit and commits it; `work` returns {outputs: {kind: [shard, ...]}, counts}.

        What all units say alike may stand under `alike`: the merged result has it once. What a unit frees goes back to
        the system, unless `keeps_memory`: torch asks for the same sizes again and again.
        """
        units = self.units
        if not keeps_memory:
            map_large_buffers()
        for i, unit in enumerate(units):
            self.beat(self.stage, i, len(units), f"shard {unit.index}")
            attempt = self.attempt(unit.fingerprint)
            self.commit(attempt, work(unit, attempt))
            if not keeps_memory:
                return_free_memory()
            if i + 1 < len(units):
                self.check_pause()
        self.beat(self.stage, len(units), len(units))

    def log(self, event: str, **fields: Any) -> None:
        """One JSON line on stderr, which the runner keeps; never document text."""
        line = {"t": datetime.datetime.now(datetime.UTC).isoformat(), "stage": self.stage, "event": event, **fields}
        print(json.dumps(_finite(line), ensure_ascii=False), file=sys.stderr, flush=True)

    # --- around the stage ---

    def claim_start(self) -> None:
        """The first act: creates started.json, so that an attempt that was submitted twice runs once."""
        if not put_if_absent(self.folder / "started.json", json.dumps(process_identity()).encode()):
            raise Superseded(f"{self.stage}: attempt {self.spec['attempt']} was started already")

    def listen(self) -> None:
        """Signals set the stop reason."""

        def on_signal(number: int, _frame: object) -> None:
            if self._stop_reason is None:
                self._stop_reason = signal.Signals(number).name
            signal.setitimer(signal.ITIMER_REAL, SIGTERM_GRACE_SECONDS)

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGUSR2, on_signal)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def watch(self) -> None:
        """A thread measures how long the lease has stood still on this job's own clock."""
        threading.Thread(target=self._watch_lease, name="lease", daemon=True).start()

    def _watch_lease(self) -> None:
        lease, stop = self.folder / "lease", self.folder / "stop"
        seen, since = self._read(lease), time.monotonic()
        leave_by, asked = math.inf, False
        told = b""
        for pulse in itertools.count():
            if self.rank == 0:
                with contextlib.suppress(OSError):  # a full disk must not end the watch
                    replace_file(self.folder / "pulse", str(pulse).encode())
            time.sleep(LEASE_POLL_SECONDS)
            clock = time.monotonic()
            if clock > leave_by:
                self._leave_by_force()
            if (word := self._read(self.folder / "stacks")) not in {b"", told}:
                self._tell_stacks(told := word)
            if not asked and stop.exists():
                # who asks from another host cannot make this process leave: it does so itself when the grace is over
                grace_ms = self._read(stop).strip()
                # the batch script says so of a scheduler's limit, some time before it
                self._stop_reason = self._stop_reason or ("time-limit" if grace_ms == b"time-limit" else "asked")
                if asked := grace_ms.isdigit():
                    leave_by = min(leave_by, clock + int(grace_ms) / 1000)
            now = self._read(lease)
            if now != seen:
                seen, since = now, clock
            elif clock - since > self.spec["leaseSeconds"] and self._stop_reason is None:
                self._stop_reason = "orphaned"
                leave_by = clock + self.placement.get("noProgressSeconds", 900)
            limit = self.placement.get("timeLimitSeconds", math.inf)
            # a scheduler has a time limit of its own, with a signal before it
            if self.placement.get("runner") == "local" and clock - self._started > limit and self._stop_reason is None:
                self._stop_reason = "time-limit"

    def _tell_stacks(self, word: bytes) -> None:
        """For who asks from another host: SIGUSR1 does not get here from there. All processes answer at once, so each
        writes its own in one piece and begins every line with its rank."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        lines = [f"rank {self.rank} (process {os.getpid()} on {socket.gethostname()}) stands here:"]
        for ident, innermost in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]
            lines.append(f"rank {self.rank}: Thread {names.get(ident, ident)} (most recent call first):")
            for frame, line in traceback.walk_stack(innermost):
                code = frame.f_code
                lines.append(f'rank {self.rank}:   File "{code.co_filename}", line {line} in {code.co_name}')
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
            replace_file(self.folder / f"stacks-{self.rank}", word)

    def _leave_by_force(self) -> None:
        """The stage does not listen, and nobody may be left to end it: this process ends itself and its group."""
        if self.rank == 0:
            end_class = "orphaned" if self._stop_reason == "orphaned" else "killed"
            why = f"{self.stage}: told to leave ({self._stop_reason}) and did not listen: it ended itself"
            with contextlib.suppress(OSError):
                self.end(end_class, "JobEnded", why, None, "SIGKILL")
        self.kill_group()

    @staticmethod
    def kill_group() -> None:
        """Ends this process, and with a leader its group."""
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError:
            return b""

    def end(self, end_class: str, type: str, message: str, exit_code: int | None, by_signal: str | None = None) -> None:
        """Writes the end record, only if absent."""
        record = {
            "format": "cpt-end/1",
            "endClass": end_class,
            "type": type,
            "message": message[:4000],
            "exitCode": exit_code,
            "signal": by_signal,
            "progressTokens": self.progress_tokens,
            "logTail": [],
            "wallSeconds": round(time.monotonic() - self._started, 3),
            "startupSeconds": round((self._computing_since or time.monotonic()) - self._started, 3),
        }
        try:
            put_if_absent(self.folder / "end.json", json.dumps(record, ensure_ascii=False).encode())
        except OSError as e:  # the exit code and this line are then all there is
            with contextlib.suppress(OSError):
                self.log("end-not-written", type=type, message=message, error=str(e))


def run(stage: str, request_path: Path, result_path: Path) -> int:
    """Runs one job to its end record and returns the exit code."""
    spec = json.loads(request_path.read_bytes())
    if spec.get("format") != "cpt-job/1" or spec.get("stage") != stage:
        print(f"cpt_ml: {request_path} is not a cpt-job/1 request of stage {stage}", file=sys.stderr)
        return BadRequest.exit_code
    job = Job(request_path.parent, spec)
    # from the moment started.json names this process, SIGUSR1 asks it for the stacks of all its threads
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        if job.rank == 0:
            job.claim_start()
            failpoint("job-started")
    except Superseded as e:
        print(f"cpt_ml: {e}", file=sys.stderr)
        return e.exit_code
    job.listen()
    ranks: Ranks | None = None
    end = Ending("failed", "JobEnded", "the stage did not return", 1)
    try:
        wanted: int = job.placement.get("processesPerNode", 1)
        alone = job.world > 1 or wanted == 1
        if alone:
            job.watch()
        set_threads(job.threads if alone else 1)
        module = importlib.import_module(f"cpt_ml.{stage.replace('-', '_')}")
        parallel: Sequence[str] | None = getattr(module, "PARALLEL", None)
        if not alone:
            ranks = _start_ranks(job, parallel or (), wanted if parallel is not None else 1)
        if parallel is None:
            job.world = 1
        result = module.run(job) if job.rank == 0 or parallel is not None else None
        end = Ending("done", "Done", "", 0)
        if job.rank == 0:
            if ranks is not None:
                ranks.leaving = True
                ranks.close(LEAVE_SECONDS)
            if spec["units"] is None:
                result = job.store.record(job.fingerprint)["result"]
            replace_file(result_path, json.dumps(result or {}, ensure_ascii=False).encode())
    except JobFailure as e:
        end = ending_of(e)
        with contextlib.suppress(OSError):  # the log may lie on the disk that is full
            job.log("ended", type=e.type, message=str(e), **({"rank": job.rank} if job.world > 1 else {}))
    except Exception as e:
        _print_trace()
        end = ending_of(e)
        end = replace(end, message=f"{stage}: {end.message}", lost=end.lost and job.world > 1)
    if job.rank > 0:
        tell_ending(job.folder, job.rank, end)
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(end.exit_code or 0)  # what rank 0 forked must not run what its callers have left to do
    if ranks is not None and end.exit_code != 0:
        ranks.leaving = True
        end = (ranks.failure(SETTLE_SECONDS) or end) if end.lost else end
        ranks.close(0.5)
    elif end.lost:
        end = told_ending(job.folder, job.world, SETTLE_SECONDS) or end
    job.end(end.end_class, end.type, end.message, end.exit_code, end.by_signal)
    failpoint("end-written")
    return 1 if end.exit_code is None else end.exit_code


def _start_ranks(job: Job, heavy: Sequence[str], count: int) -> Ranks | None:
    """Imports what all ranks need, and forks them; in rank 0 a thread ends the job when one of them fails."""
    for name in heavy:
        importlib.import_module(name)
    ranks = fork_ranks(job.folder, count) if count > 1 else None
    job.know_rank()
    set_threads(job.threads)
    job.watch()
    if ranks is not None:
        threading.Thread(target=_end_with_ranks, args=(job, ranks), name="ranks", daemon=True).start()
    return ranks


def _end_with_ranks(job: Job, ranks: Ranks) -> None:
    """Where a rank has failed and this process does not notice by itself, waiting for it: the job ends here."""
    ranks.wait_for_failure()
    end = ranks.failure(SETTLE_SECONDS)
    time.sleep(SETTLE_SECONDS)
    if ranks.leaving or end is None:
        return
    job.end(end.end_class, end.type, end.message, end.exit_code, end.by_signal)
    job.kill_group()


def _print_trace() -> None:
    with contextlib.suppress(OSError):  # the log may lie on the disk that is full
        traceback.print_exc()


def ending_of(error: Exception) -> Ending:
    """How a process ends that this stops; one of several is lost where that may be for want of another."""
    if isinstance(error, JobFailure):
        lost = isinstance(error, PeerFailed) and error.ending is None
        return Ending(error.end_class, error.type, str(error), error.exit_code, lost=lost)
    if isinstance(error, MemoryError):
        return Ending("failed", "OutOfMemory", "out of memory", 1)
    type = "DiskFull" if is_disk_full(error) else "JobEnded"
    lost = type == "JobEnded" and isinstance(error, RuntimeError)
    return Ending("failed", type, f"{error.__class__.__name__}: {error}", 1, lost=lost)


def is_disk_full(error: Exception) -> bool:
    """Whether no space, no quota, or a limit on file sizes stopped a write; libraries in Rust say so in words only."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(f"(os error {number})" in str(error) for number in FULL)


def set_threads(threads: int) -> None:
    """Thread pools of libraries imported from here on; torch and pyarrow are set by the modules that import them."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    # on shared cores OpenMP threads that spin while they wait made two-thread training 10 times as slow
    os.environ["OMP_WAIT_POLICY"] = "passive"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value


def _strict(value: Any) -> Any:
    """The value itself; raises ValueError on NaN or infinity, which JSON cannot carry."""
    json.dumps(value, allow_nan=False)
    return value


def chunks(total: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most `size` that cover `total`."""
    for start in range(0, total, size):
        yield range(start, min(start + size, total))
