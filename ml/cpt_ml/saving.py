"""Saves of a training: a thread writes a copy of the state while training goes on; a later step commits it.

One save is in flight at a time. Of several processes each writes its own part, and they commit at a step at which all
have written (train.py asks, in the all-reduce that each step has anyway).
"""

from __future__ import annotations

import threading
import time

from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.failpoint import failpoint
from cpt_ml.job import Job
from cpt_ml.store import Json
from cpt_ml.train_state import SaveRhythm, Snapshot, TrainState


class Saver:
    """Takes snapshots of a state into a chain of checkpoints."""

    def __init__(
        self, job: Job, state: TrainState, chain: CheckpointChain, rhythm: SaveRhythm, plan_sha256: str
    ) -> None:
        self.job, self.state, self.chain, self.rhythm, self.plan_sha256 = job, state, chain, rhythm, plan_sha256
        self._writing: _Writing | None = None

    @property
    def in_flight(self) -> bool:
        return self._writing is not None

    @property
    def written(self) -> bool:
        """Whether this process's part of the save in flight is written, or has failed."""
        return self._writing is not None and not self._writing.thread.is_alive()

    def wait(self) -> None:
        """Until this process's part of the save in flight is written."""
        if self._writing is not None:
            self.job.say("save")
            self._writing.thread.join()

    def begin(self) -> None:
        """Copies the state and begins to write it. Raises UnfitStep, with nothing saved, if a weight is not finite."""
        if self.in_flight:
            self.finish()
        began = time.monotonic()
        self.state.check_finite()
        snapshot = self.state.snapshot(self.plan_sha256)
        self._writing = _Writing(self.state, self.chain, snapshot)
        self._writing.stall_seconds = time.monotonic() - began

    def finish(self, all_written: bool = False) -> None:
        """Waits until all have written the save in flight, unless it is agreed that they have, and commits it.

        Raises what stopped the writing, PeerFailed where that was in another process.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        began = time.monotonic()
        if not all_written and (self.state.world.size > 1 or writing.thread.is_alive()):
            self.job.say("save")  # a phase of its own: how long it may take is not learnt from steps
        try:
            parts = self.state.world.each(writing.written)
        except Exception:
            self.chain.discard(writing.name)
            raise
        snapshot = writing.snapshot
        files = [f for part in parts for f in part]
        self.state.committed(self.chain.commit(snapshot.step, snapshot.tokens, snapshot.record, files))
        stall = writing.stall_seconds + time.monotonic() - began
        self.rhythm.saved(stall, writing.seconds)
        if self.state.world.rank == 0:
            self.job.log("checkpoint", step=snapshot.step, tokens=snapshot.tokens, stallSeconds=round(stall, 3),
                         writeSeconds=round(writing.seconds, 3))  # fmt: skip

    def save(self) -> None:
        """Saves the state now, and returns when it is committed."""
        self.begin()
        self.finish()


class _Writing:
    """A save in flight."""

    def __init__(self, state: TrainState, chain: CheckpointChain, snapshot: Snapshot) -> None:
        self.name = chain.next_name
        self.snapshot = snapshot
        self.files: list[Json] = []
        self.error: Exception | None = None
        self.stall_seconds = self.seconds = 0.0
        self.thread = threading.Thread(target=self._run, args=(state, chain), name="save", daemon=True)
        self.thread.start()

    def written(self) -> list[Json]:
        """The files of this process, once they are durable. Raises what stopped the writing."""
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.files

    def _run(self, state: TrainState, chain: CheckpointChain) -> None:
        began = time.monotonic()
        try:
            failpoint("checkpoint-begun")
            written = state.write(self.snapshot, chain.attempt, f"{self.name}/")
            failpoint("checkpoint-files")
            self.files = chain.attempt.publish(written)
            failpoint("checkpoint-durable")
        except Exception as e:
            if isinstance(e, OSError) and e.filename is None:
                e.filename = str(chain.attempt.folder / self.name)
            self.error = e
        self.seconds = time.monotonic() - began
