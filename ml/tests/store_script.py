"""One commit, or one checkpoint on top of two, by a process of its own: what the crash tests kill.

`python store_script.py <work> <store root> <job folder> <attempt>`. What is done before `mark("begin")` and after
`mark("end")` is set-up; a mark is a system call and, on S3, a request that cannot succeed. Two works are wrong on
purpose, so that the tests can show that they would notice: `commit-record-first` and `commit-unsynced`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from cpt_ml import disk_store
from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.job import Job
from cpt_ml.store import Attempt, Json

REQUEST = {"work": 1}
FINGERPRINT = hashlib.sha256(json.dumps(REQUEST).encode()).hexdigest()
MARK = "/cpt-mark-"
FILES = {"model/weights": b"weights", "rows.json": b"rows"}


def job_at(root: str, folder: Path, attempt: int) -> Job:
    """Attempt `attempt` at the one piece of work there is."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "format": "cpt-job/1", "stage": "work", "version": 1, "fingerprint": FINGERPRINT, "range": 0,
        "attempt": attempt, "token": f"attempt-{attempt}", "roots": {"store": root}, "request": REQUEST, "units": None,
        "parents": [], "placement": {"threads": 1}, "leaseSeconds": 60,
    }  # fmt: skip
    return Job(folder, spec)


def commit(job: Job) -> Json:
    attempt = job.attempt()
    for name, content in FILES.items():
        attempt.path(name).write_bytes(content)
    return job.commit(attempt, {"rows": 4})


def write_late(job: Job) -> None:
    """Wrong: the record is put while the files that it names are elsewhere."""
    put, folder = job.store.backend.put_if_absent, job.attempt().folder

    def put_first(key: str, data: bytes) -> bool:
        folder.rename(folder.with_name(f"{folder.name}-moved"))
        won = put(key, data)
        folder.with_name(f"{folder.name}-moved").rename(folder)
        return won

    setattr(job.store.backend, "put_if_absent", put_first)  # noqa: B010


def never_sync() -> None:
    """Wrong: what a reader trusts may be gone after a power failure."""

    def nothing(_: Path) -> None: ...

    setattr(disk_store, "sync_path", nothing)  # noqa: B010


def save(chain: CheckpointChain, tokens: int) -> None:
    """The checkpoint at `tokens`; it carries the curve of all before it."""

    def write(attempt: Attempt, prefix: str) -> list[str]:
        attempt.path(f"{prefix}weights").write_bytes(f"weights {tokens}".encode())
        attempt.path(f"{prefix}curve-{tokens}").write_bytes(f"loss {tokens}".encode())
        return [f"{prefix}weights", f"{prefix}curve-{tokens}"]

    before = chain.tip.record["files"] if chain.tip else []
    chain.save(tokens, tokens, {"carry": [f for f in before if f["name"].startswith("curve")]}, write)


def mark(job: Job, name: str) -> None:
    try:
        os.chdir(MARK + name)
    except OSError:
        job.store.backend.get(f"mark-{name}")


def main() -> None:
    what, root, folder, attempt = sys.argv[1:]
    job = job_at(root, Path(folder), int(attempt))
    if what == "commit-record-first":
        write_late(job)
    if what == "commit-unsynced":
        never_sync()
    if what.startswith("commit"):
        mark(job, "begin")
        commit(job)
    else:
        chain = CheckpointChain(job)
        tip = chain.resume()
        assert tip is not None
        mark(job, "begin")
        save(chain, tip.tokens + 1)
    mark(job, "end")


if __name__ == "__main__":
    main()
