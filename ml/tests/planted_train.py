"""Set up in forked jobs by zygote.py: a log of what was fsynced, and bugs that the checker of kills must catch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cpt_ml import durable_files
from cpt_ml.checkpoint_chain import Checkpoint, CheckpointChain
from cpt_ml.failpoint import failpoint
from cpt_ml.train_state import TrainState


def log_syncs(folder: Path) -> None:
    """The inode of every file that reaches the disk is written down in `folder`/synced."""
    fsync = os.fsync

    def logged(fd: int) -> None:
        fsync(fd)
        with (folder / "synced").open("a") as log:
            log.write(f"{os.fstat(fd).st_ino}\n")

    os.fsync = logged


def no_fsync(folder: Path) -> None:
    def forgets(_fd: int) -> None:
        return None

    durable_files.os.fsync = forgets


def record_before_files(folder: Path) -> None:
    commit: Callable[..., Checkpoint] = vars(CheckpointChain)["_commit"]

    def too_soon(self: CheckpointChain, step: int, tokens: int, state: Any, files: Sequence[Any]) -> Checkpoint:
        paths = [self.backend.local(f["path"]) for f in files]
        put = self.backend.put_if_absent

        def put_first(key: str, data: bytes) -> bool:
            won = put(key, data)
            failpoint("checkpoint-recorded")
            for path in paths:
                path.with_suffix(".late").rename(path)
            return won

        for path in paths:
            path.rename(path.with_suffix(".late"))
        setattr(self.backend, "put_if_absent", put_first)  # noqa: B010
        try:
            return commit(self, step, tokens, state, files)
        finally:
            delattr(self.backend, "put_if_absent")

    setattr(CheckpointChain, "_commit", too_soon)  # noqa: B010


def position_not_saved(folder: Path) -> None:
    restore = TrainState.restore

    def forgets(self: TrainState, checkpoint: Checkpoint) -> None:
        restore(self, checkpoint)
        self.tokens = max(0, self.tokens - 128)

    TrainState.restore = forgets


def moments_forgotten(folder: Path) -> None:
    restore = TrainState.restore

    def forgets(self: TrainState, checkpoint: Checkpoint) -> None:
        restore(self, checkpoint)
        for t in self.optimizer.m.values():
            torch.zero_(t)

    TrainState.restore = forgets


PLANTS: dict[str, Callable[[Path], None]] = {
    "no-fsync": no_fsync,
    "record-before-files": record_before_files,
    "position-not-saved": position_not_saved,
    "moments-forgotten": moments_forgotten,
}


def setup(plant: str, job_folder: Path) -> None:
    """Called in each forked job before it begins."""
    log_syncs(job_folder)
    if plant:
        PLANTS[plant](job_folder)
