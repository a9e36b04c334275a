"""The chain of a phase's checkpoints: records that name files and their parent, each created only if absent.

A record is `checkpoints/<fp[0:2]>/<fp>/<branch>-<seq>.json` (contracts/src/artifact.ts, CheckpointRecord); its files
lie under `data/…/<attempt>-checkpoints/`, so that they are never part of the phase's own commit. A checkpoint that a
reader can see is complete: files are durable before the record exists. When the tip is damaged its parent is taken, and
what follows goes on under the next branch number.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cpt_ml.durable_files import TEMPORARY
from cpt_ml.errors import JobFailure, Superseded
from cpt_ml.failpoint import failpoint
from cpt_ml.job import Job
from cpt_ml.store import Attempt, Json

RECORD_NAME = re.compile(r"\d{3}-\d{6}")


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint; `sha256` is that of the record's bytes, `paths` are its files by name."""

    record: Json
    sha256: str
    paths: dict[str, Path]

    @property
    def tokens(self) -> int:
        return self.record["tokens"]

    @property
    def state(self) -> Json:
        return self.record["state"]


class CheckpointChain:
    """The checkpoints of the job's fingerprint, and where the next one goes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.backend = job.store.backend
        self.prefix = f"checkpoints/{job.fingerprint[:2]}/{job.fingerprint}/"
        self.attempt = Attempt(job.store, job.fingerprint, f"{job.token}-checkpoints")
        self.tip: Checkpoint | None = None
        self._branch, self._seq = 0, 0

    def resume(self) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None to begin at the start. Logs each one that it passes over."""
        records = self._records()
        if not records:
            return None
        newest = max(records)
        by_digest = {c.sha256: n for n, c in records.items() if c}
        name: str | None = max((n for n, c in records.items() if c), default=None)
        while name is not None and (found := records[name]) is not None:
            damage = self._damage(found)
            if damage is None:
                self.tip, self._seq = found, found.record["seq"]
                break
            self.job.log("checkpoint-damaged", checkpoint=name, **damage)
            name = by_digest.get(found.record["parent"] or "")
        # what was passed over keeps its name: the chain goes on under the next branch
        self._branch = int(newest[:3]) + (0 if name == newest else 1)
        self._remove_debris(records)
        return self.tip

    def save(self, step: int, tokens: int, state: Json, write: Callable[[Attempt, str], list[str]]) -> Checkpoint:
        """Commits a checkpoint. `write` puts files under the attempt's prefix and returns their names.

        Files of the parent that still belong to the state (curve segments) are carried by `state["carry"]`, a list of
        file entries. Raises Superseded, with nothing published, if a newer attempt exists.
        """
        seq = self._seq + 1
        name = f"{self._branch:03d}-{seq:06d}"
        try:
            files = self.attempt.publish(write(self.attempt, f"{name}/"))
        except Exception:
            # a full disk: what this save wrote makes room again, the checkpoints before it stay
            with contextlib.suppress(OSError, JobFailure):
                self.attempt.discard(f"{name}/")
            raise
        record = {
            "format": "cpt-checkpoint/1",
            "fingerprint": self.job.fingerprint,
            "branch": self._branch,
            "seq": seq,
            "parent": self.tip.sha256 if self.tip else None,
            "step": step,
            "tokens": tokens,
            "files": [*state.pop("carry"), *({**f, "name": Path(f["name"]).name} for f in files)],
            "state": state,
            "attempt": self.job.token,
            "committedAt": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        state["recordSha256"] = _self_digest(record)
        data = json.dumps(record, allow_nan=False).encode()
        self.job.fence()
        failpoint("checkpoint-written")
        if not self.backend.put_if_absent(f"{self.prefix}{name}.json", data):
            raise Superseded(f"train: checkpoint {name} exists already, another attempt is at work")
        failpoint("checkpoint-recorded")
        before, self.tip, self._seq = self.tip, self._checkpoint(record, data), seq
        self.job.progress_tokens = tokens
        self._prune(keep=[c.sha256 for c in (before, self.tip) if c])
        return self.tip

    # --- inside ---

    def _records(self) -> dict[str, Checkpoint | None]:
        """All records by name, None for one that is damaged: no child vouches for the tip's bytes but itself."""
        found: dict[str, Checkpoint | None] = {}
        for key in self.backend.list(self.prefix):
            name, data = PurePosixPath(key).stem, self.backend.get(key)
            if data is None or not RECORD_NAME.fullmatch(name):
                continue
            try:
                record = json.loads(data)
                whole = record["state"].pop("recordSha256") == _self_digest(record)
                whole = whole and record["fingerprint"] == self.job.fingerprint
            except (ValueError, KeyError, TypeError, AttributeError):
                record, whole = {}, False
            found[name] = self._checkpoint(record, data) if whole else None
            if not whole:
                self.job.log("checkpoint-damaged", checkpoint=name, file=f"{name}.json", found="not the record written")
        return found

    def _checkpoint(self, record: Json, data: bytes) -> Checkpoint:
        paths = {f["name"]: self.backend.local(f["path"]) for f in record["files"]}
        return Checkpoint(record, hashlib.sha256(data).hexdigest(), paths)

    def _damage(self, checkpoint: Checkpoint) -> Json | None:
        """The first file that is not what the record says, or None."""
        for f in checkpoint.record["files"]:
            found = self.backend.fetch(f["path"], f["sha256"])[1] if self.backend.exists(f["path"]) else "missing"
            if found != f["sha256"]:
                return {"file": f["path"], "found": found, "expected": f["sha256"]}
        return None

    def _prune(self, keep: list[str]) -> None:
        """Removes all checkpoints but the kept ones: records first, then the files that only they named."""
        records = self._records()
        kept = {n: c for n, c in records.items() if c and c.sha256 in keep}
        if len(kept) < len(records):
            self.backend.remove(*(f"{self.prefix}{name}.json" for name in records.keys() - kept.keys()))
            self._remove_debris(dict(kept))

    def _remove_debris(self, records: dict[str, Checkpoint | None]) -> None:
        """Removes what no record names, of removed checkpoints and of earlier attempts' unfinished saves.

        It is ours: only attempts at this fingerprint write there, and each was over before the next was claimed.
        """
        needed = {f["path"] for c in records.values() if c for f in c.record["files"]}
        data = self.backend.leftovers(f"data/{self.job.fingerprint[:2]}/{self.job.fingerprint}/")
        debris = [k for k in data if "-checkpoints/" in k and k not in needed]
        temporary = [k for k in self.backend.leftovers(self.prefix) if PurePosixPath(k).name.startswith(TEMPORARY)]
        self.backend.remove(*debris, *temporary)


def _self_digest(record: Json) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()
