"""All processes of one job, as each of them sees them: its place, and what all add up, tell each other and agree on.

Alone it needs nothing but this file; several meet by parallel.py and talk through torch.distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cpt_ml.errors import PeerFailed
from cpt_ml.job import Job, ending_of

T = TypeVar("T")

REASONS = (None, "asked", "time-limit", "orphaned")


@dataclass(frozen=True)
class World:
    """All processes of a training; this one is `rank` of `size`, and has part `shard` of `shards` of each parameter."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    replicas: int = 1
    mesh: Any = None

    @property
    def shards(self) -> int:
        return self.size // self.replicas

    @property
    def shard(self) -> int:
        return self.rank % self.shards

    @property
    def writes(self) -> bool:
        """Whether this process saves its part: of equal replicas the first does."""
        return self.rank < self.shards

    def sum(self, values: Sequence[float]) -> list[float]:
        """Adds up float64 numbers over all processes."""
        if self.size == 1:
            return list(values)
        import torch  # noqa: PLC0415

        total = torch.tensor(values, dtype=torch.float64)
        distributed().all_reduce(total)
        return total.tolist()

    def sum_array(self, values: Any) -> Any:
        """Adds up a numpy array over all processes, in place."""
        if self.size > 1:
            import torch  # noqa: PLC0415

            distributed().all_reduce(torch.from_numpy(values))
        return values

    def share(self, value: Any) -> Any:
        """What rank 0 has."""
        if self.size == 1:
            return value
        box = [value]
        distributed().broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """What each process has, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed().all_gather_object(values, value)
        return values

    def each(self, work: Callable[[], T]) -> list[T]:
        """What `work`, in which nobody waits for another, gives in each process, by rank.

        Where it fails in one, all raise and nobody waits for it: that one what it failed of, the others PeerFailed.
        """
        if self.size == 1:
            return [work()]
        done: list[T] = []
        error: Exception | None = None
        try:
            done.append(work())
        except Exception as e:
            error = e
        told: list[Any] = []
        try:
            told = self.gather((done, None if error is None else ending_of(error)))
        finally:
            if error is not None:
                raise error
        for rank, (_, ending) in enumerate(told):
            if ending is not None:
                raise PeerFailed(f"rank {rank}: {ending.message}", ending)
        return [value for (value,), _ in told]

    def check_stop(self, job: Job) -> None:
        """Raises Stopped or Orphaned in all processes as soon as one of them was told to leave."""
        if self.size == 1:
            return job.check_stop()
        job.check_agreed(agreed_reason(self.sum(stop_flags(job))))


ALONE = World()


def stop_flags(job: Job) -> list[float]:
    """One number a reason to leave, to be added up over all processes."""
    told = job.stopping
    reason = told if told in REASONS else "asked"
    return [float(reason == r) for r in REASONS[1:]]


def agreed_reason(told: Sequence[float]) -> str | None:
    return next((reason for reason, n in zip(REASONS[1:], told, strict=True) if n), None)


def distributed() -> Any:
    """torch.distributed, of whose functions most have no types."""
    import torch.distributed as dist  # noqa: PLC0415

    return dist
