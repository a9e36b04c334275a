"""Failures of a job and the class each ends with; the names are those of contracts/src/failures.ts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpt_ml.ranks import Ending


class JobFailure(Exception):
    """A failure with a type that operators know; `end_class` decides whether the job is tried again."""

    end_class = "failed"
    exit_code = 1

    def __init__(self, message: str, type: str | None = None) -> None:
        super().__init__(message)
        self.type = type or self.__class__.__name__


class BadRequest(JobFailure):
    """The request cannot be carried out as it stands; trying again cannot help."""

    end_class = "bad-request"
    exit_code = 78


class BadData(JobFailure):
    """The data cannot be used; trying again cannot help."""

    end_class = "bad-data"
    exit_code = 65


class StoreCorrupt(BadData):
    """Committed bytes do not match their digest."""


class Diverged(JobFailure):
    """The loss or gradient is not finite. The type operators see is LossNotFinite."""

    end_class = "diverged"
    exit_code = 95

    def __init__(self, message: str) -> None:
        super().__init__(message, "LossNotFinite")


class TryAgain(JobFailure):
    """A passing trouble of the outside world."""

    end_class = "again"
    exit_code = 75


class Superseded(JobFailure):
    """A newer attempt exists, or this attempt was started twice: nothing may be published."""

    end_class = "superseded"
    exit_code = 94


class Stopped(JobFailure):
    """The job was told to stop and has saved what it could."""

    end_class = "stopped"
    exit_code = 75


class Paused(Stopped):
    """A person wants the work held: the job left at a commit, nothing is lost."""


class TimeLimit(Stopped):
    """The time that the job was given is over: it has saved, and another goes on from there."""

    end_class = "time-limit"


class Orphaned(JobFailure):
    """Nobody has renewed the lease: the asker is gone."""

    end_class = "orphaned"
    exit_code = 75


class PeerFailed(JobFailure):
    """Another process of this job has failed; this one ends as that one does, where it has told how."""

    def __init__(self, message: str, ending: Ending | None = None) -> None:
        super().__init__(message, ending.type if ending else None)
        self.ending = ending
        if ending is not None:
            self.end_class, self.exit_code = ending.end_class, ending.exit_code or 1
