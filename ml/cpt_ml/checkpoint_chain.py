"""The chain of a phase's checkpoints: records that name files and their parent, each created only if absent.

A record is `checkpoints/<fp[0:2]>/<fp>/<branch>-<seq>.json` (contracts/src/artifact.ts, CheckpointRecord); its files
lie under `data/…/<attempt>-checkpoints/`, so that they are never part of the phase's own commit. A checkpoint that a
reader can see is complete: files are durable before the record exists. When the tip is damaged its parent is taken, and
what follows goes on under the next branch number.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cpt_ml.errors import Superseded
from cpt_ml.failpoint import failpoint
from cpt_ml.job import Job
from cpt_ml.store import Attempt, Json, put_if_absent, sha256_file, sync_folder

KEEP = 2


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
        self.folder = job.store.root / "checkpoints" / job.fingerprint[:2] / job.fingerprint
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
        names = write(self.attempt, f"{name}/")
        files = [self.attempt.committed_file(n) for n in names]
        for folder in (self.attempt.folder / name, self.attempt.folder, self.attempt.folder.parent):
            sync_folder(folder)
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
        if not put_if_absent(self.folder / f"{name}.json", data):
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
        for path in sorted(self.folder.glob("[0-9]*-[0-9]*.json")):
            data = path.read_bytes()
            try:
                record = json.loads(data)
                whole = record["state"].pop("recordSha256") == _self_digest(record)
                whole = whole and record["fingerprint"] == self.job.fingerprint
            except (ValueError, KeyError, TypeError, AttributeError):
                record, whole = {}, False
            found[path.stem] = self._checkpoint(record, data) if whole else None
            if not whole:
                self.job.log("checkpoint-damaged", checkpoint=path.stem, file=path.name, found="not the record written")
        return found

    def _checkpoint(self, record: Json, data: bytes) -> Checkpoint:
        paths = {f["name"]: self.job.store.root / f["path"] for f in record["files"]}
        return Checkpoint(record, hashlib.sha256(data).hexdigest(), paths)

    def _damage(self, checkpoint: Checkpoint) -> Json | None:
        """The first file that is not what the record says, or None."""
        for f in checkpoint.record["files"]:
            path = self.job.store.root / f["path"]
            found = sha256_file(path) if path.is_file() else "missing"
            if found != f["sha256"]:
                return {"file": f["path"], "found": found, "expected": f["sha256"]}
        return None

    def _prune(self, keep: list[str]) -> None:
        """Removes all checkpoints but the kept ones: records first, then the files that only they named."""
        records = self._records()
        kept = {n: c for n, c in records.items() if c and c.sha256 in keep}
        for name in records.keys() - kept.keys():
            (self.folder / f"{name}.json").unlink(missing_ok=True)
        if len(kept) < len(records):
            sync_folder(self.folder)
            self._remove_debris(dict(kept))

    def _remove_debris(self, records: dict[str, Checkpoint | None]) -> None:
        """Removes what no record names, of removed checkpoints and of earlier attempts' unfinished saves."""
        needed = {p for c in records.values() if c for p in c.paths.values()}
        for folder in self.attempt.folder.parent.glob("*-checkpoints"):
            for path in [p for p in folder.rglob("*") if p.is_file() and p not in needed]:
                _remove(path)


def _self_digest(record: Json) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:
        pass  # other files are still in it
