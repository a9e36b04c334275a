"""The chain of a phase's checkpoints: records that name files and their parent, each created only if absent.

A record is `checkpoints/<fp[0:2]>/<fp>/<branch>-<seq>.json` (contracts/src/artifact.ts, CheckpointRecord); its files
lie under `data/…/<attempt>-checkpoints/`, so that they are never part of the phase's own commit. A checkpoint that a
reader can see is complete: files are durable before the record exists. When the tip is damaged its parent is taken, and
what follows goes on under the next branch number.

Of several processes each writes its own files; the first one alone looks at records, commits and removes, and tells the
others.

A record's state says for which request it was made (`identity`), so that a chain that was copied to another fingerprint
by hand is refused, naming the field.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cpt_ml.durable_files import TEMPORARY
from cpt_ml.errors import BadRequest, JobFailure, Superseded, TryAgain
from cpt_ml.failpoint import failpoint
from cpt_ml.in_threads import in_threads
from cpt_ml.job import Job
from cpt_ml.part_names import part_of
from cpt_ml.store import Attempt, Json
from cpt_ml.world import ALONE, World

RECORD_NAME = re.compile(r"\d{3}-\d{6}")
NLL = "nllPerToken"  # of a checkpoint's state, where the frozen sets were measured at its step


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

    def __init__(self, job: Job, world: World = ALONE, keep_last: int = 2, keep_every: int | None = None) -> None:
        self.job = job
        self.world = world
        self.keep_last, self.keep_every = keep_last, keep_every
        self.identity: Any = identity_of(job.request)
        self.backend = job.store.backend
        self.prefix = f"checkpoints/{job.fingerprint[:2]}/{job.fingerprint}/"
        self.tip: Checkpoint | None = None
        # how far before the tip a phase may have to roll back to, and to which checkpoints it may
        self.horizon_tokens = 0
        self.fits: Callable[[Checkpoint], bool] = lambda _: True
        self._branch, self._seq = 0, 0

    @cached_property
    def attempt(self) -> Attempt:
        """Where files are written; made at the first save, so that a job that is refused leaves nothing."""
        return Attempt(self.job.store, self.job.fingerprint, f"{self.job.token}-checkpoints")

    def resume(self) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None to begin at the start. Logs each one that it passes over.

        Raises BadRequest, with nothing touched, if a checkpoint was made for another request, naming the field.
        """
        records = self.world.share(self._records() if self.world.rank == 0 else None)
        for of, checkpoint in sorted(records.items()):
            if checkpoint is not None:
                self._check_identity(of, checkpoint)
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
            if self.world.rank == 0:
                self.job.log("checkpoint-damaged", checkpoint=name, **damage)
            older = max((n for n, c in records.items() if c and n < name), default=None)
            name = by_digest.get(found.record["parent"] or "") or older
        # what was passed over keeps its name: the chain goes on under the next branch
        self._branch = int(newest[:3]) + (0 if name == newest else 1)
        if self.world.rank == 0:
            self._remove_debris(records)
        self.world.share(None)  # nobody writes what might be taken for debris
        return self.tip

    def roll_back(self, tokens: int) -> Checkpoint:
        """The newest undamaged checkpoint at or before a position; the next save is its child, on a new branch.

        Raises TryAgain if there is none: the phase then begins anew.
        """
        records = self.world.share(self._records() if self.world.rank == 0 else None)
        earlier = [(c.tokens, n, c) for n, c in records.items() if c and c.tokens <= tokens and self.fits(c)]
        for _, name, found in sorted(earlier, key=lambda e: e[:2], reverse=True):
            damage = self._damage(found)
            if damage is None:
                self.tip, self._seq = found, found.record["seq"]
                self._branch = int(max(records)[:3]) + 1
                return found
            if self.world.rank == 0:
                self.job.log("checkpoint-damaged", checkpoint=name, **damage)
        if self.world.rank == 0:
            self.backend.remove(*(f"{self.prefix}{name}.json" for name in records))
        raise TryAgain(f"train: no whole checkpoint at or before token {tokens} to roll back to; the phase begins anew")

    def validated(self, step: int) -> Checkpoint:
        """The whole checkpoint that was saved when the frozen sets were measured after a step.

        Raises TryAgain if it is gone or damaged, with it and all after it removed: the next attempt trains them again.
        """
        records = self.world.share(self._records() if self.world.rank == 0 else None)
        alive = _not_left_behind({n: c for n, c in records.items() if c})
        found = [c for _, c in sorted(alive.items()) if c.record["step"] == step and NLL in c.state]
        damage: list[Json] = []
        for checkpoint in found:
            if (bad := self._damage(checkpoint)) is None:
                return checkpoint
            damage.append(bad)
        if self.world.rank == 0:
            for bad in damage:
                self.job.log("checkpoint-damaged", **bad)
            late = [n for n, c in records.items() if c is None or c.record["step"] >= step]
            self.backend.remove(*(f"{self.prefix}{name}.json" for name in late))
        what = "damaged" if damage else "gone"
        raise TryAgain(f"train: the checkpoint of the best step, {step}, is {what}; the phase goes on from one before")

    @property
    def next_name(self) -> str:
        """Name of the next checkpoint; its files lie under it in the attempt's folder."""
        return f"{self._branch:03d}-{self._seq + 1:06d}"

    def discard(self, name: str) -> None:
        """Removes what a failed save has written: a full disk has room again, the checkpoints before it stay."""
        with contextlib.suppress(OSError, JobFailure):
            self.attempt.discard(f"{name}/")

    def save(self, step: int, tokens: int, state: Json, write: Callable[[Attempt, str], list[str]]) -> Checkpoint:
        """Writes and commits a checkpoint of one process; `write` puts files and returns their names."""
        name = self.next_name
        try:
            files = self.attempt.publish(write(self.attempt, f"{name}/"))
        except Exception:
            self.discard(name)
            raise
        return self.commit(step, tokens, state, files)

    def commit(self, step: int, tokens: int, state: Json, files: Sequence[Json]) -> Checkpoint:
        """Commits a checkpoint of durable files, given as entries of a record.

        Files of the parent that still belong to the state (curve segments) are carried by `state["carry"]`, a list of
        file entries. Raises Superseded, with nothing published, if a newer attempt exists.
        """
        committed = self.world.share(self._commit(step, tokens, state, files) if self.world.rank == 0 else None)
        self.tip, self._seq = committed, committed.record["seq"]
        self.job.progress_tokens = tokens
        return committed

    def _commit(self, step: int, tokens: int, state: Json, files: Sequence[Json]) -> Checkpoint:
        name, seq = self.next_name, self._seq + 1
        record: Json = {
            "format": "cpt-checkpoint/1",
            "fingerprint": self.job.fingerprint,
            "branch": self._branch,
            "seq": seq,
            "parent": self.tip.sha256 if self.tip else None,
            "step": step,
            "tokens": tokens,
            "files": [*state.pop("carry"), *({**f, "name": Path(f["name"]).name} for f in files)],
            "state": {**state, "identity": self.identity},
            "attempt": self.job.token,
            "committedAt": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        record["state"]["recordSha256"] = _self_digest(record)
        data = json.dumps(record, allow_nan=False).encode()
        self.job.fence()
        failpoint("checkpoint-written")
        if not self.backend.put_if_absent(f"{self.prefix}{name}.json", data):
            raise Superseded(f"train: checkpoint {name} exists already, another attempt is at work")
        failpoint("checkpoint-recorded")
        committed = self._checkpoint(record, data)
        self._prune(committed)
        return committed

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
                whole = whole and name == f"{record['branch']:03d}-{record['seq']:06d}"
            except (ValueError, KeyError, TypeError, AttributeError):
                record, whole = {}, False
            found[name] = self._checkpoint(record, data) if whole else None
            if not whole:
                self.job.log("checkpoint-damaged", checkpoint=name, file=f"{name}.json", found="not the record written")
        return found

    def _check_identity(self, name: str, checkpoint: Checkpoint) -> None:
        """Of a record without an identity, from before there was one, the fingerprint alone says whose it is."""
        made_for = checkpoint.state.get("identity")
        found = None if made_for is None else first_difference(made_for, self.identity)
        if found is not None:
            field, before, now = found
            raise BadRequest(
                f"{self.job.stage}: checkpoint {name} was made for another request: {field} was {before}, is {now}. "
                f"It lies at {self.backend.where(self.prefix)}; remove what does not belong there, or ask for what it "
                "was made for"
            )

    def _checkpoint(self, record: Json, data: bytes) -> Checkpoint:
        paths = {f["name"]: self.backend.local(f["path"]) for f in record["files"]}
        return Checkpoint(record, hashlib.sha256(data).hexdigest(), paths)

    def _damage(self, checkpoint: Checkpoint) -> Json | None:
        """The first file that is not what the record says, or None; each process verifies its share."""
        mine = files_to_verify(checkpoint.record["files"], self.world, self.backend.one_disk)
        found = in_threads(self._damage_of, mine, self.job.threads)
        return next((d for of_one in self.world.gather(found) for d in of_one if d), None)

    def _damage_of(self, file: Json) -> Json | None:
        there = self.backend.exists(file["path"])
        found = self.backend.fetch(file["path"], file["sha256"])[1] if there else "missing"
        return None if found == file["sha256"] else {"file": file["path"], "found": found, "expected": file["sha256"]}

    def _prune(self, tip: Checkpoint) -> None:
        """Removes what retention does not keep: records first, then the files that only they named.

        Kept are the last `keep_last` of the line of the tip, what a rollback may need, each `keep_every`-th, and of
        those with a loss on the frozen sets the best, also as it will be after a rollback or a fall-back; nothing that
        a branch has left behind, whose files may be the damaged ones.
        """
        records = self._records()
        by_digest = {c.sha256: (n, c) for n, c in records.items() if c}
        line: list[str] = []
        digest: str | None = tip.sha256
        while digest in by_digest and len(line) < self.keep_last:
            name, checkpoint = by_digest[digest]
            line.append(name)
            digest = checkpoint.record["parent"]
        every = self.keep_every
        alive = _not_left_behind({n: c for n, c in records.items() if c})
        oldest = min(c.tokens for n, c in alive.items() if n in line)
        line += self._within_reach(tip, alive)
        line += best_before_and_after(min(oldest, tip.tokens - self.horizon_tokens), alive)
        kept = {n: c for n, c in alive.items() if n in line or (every and c.record["seq"] % every == 0)}
        if len(kept) < len(records):
            self.backend.remove(*(f"{self.prefix}{name}.json" for name in records.keys() - kept.keys()))
            failpoint("checkpoint-pruned")
            self._remove_debris(dict(kept))

    def _within_reach(self, tip: Checkpoint, records: dict[str, Checkpoint]) -> list[str]:
        """What a rollback may need: the newest checkpoint before the horizon, and the oldest after it, which is the
        next to be that."""
        if not self.horizon_tokens:
            return []
        horizon = tip.tokens - self.horizon_tokens
        fitting = sorted((c.tokens, n) for n, c in records.items() if self.fits(c))
        before, after = ([n for tokens, n in fitting if (tokens <= horizon) == side] for side in (True, False))
        return [*before[-1:], *after[:1]]

    def _remove_debris(self, records: dict[str, Checkpoint | None]) -> None:
        """Removes what no record names, of removed checkpoints and of earlier attempts' unfinished saves.

        It is ours: only attempts at this fingerprint write there, and each was over before the next was claimed.
        """
        needed = {f["path"] for c in records.values() if c for f in c.record["files"]}
        data = self.backend.leftovers(f"data/{self.job.fingerprint[:2]}/{self.job.fingerprint}/")
        debris = [k for k in data if "-checkpoints/" in k and k not in needed]
        temporary = [k for k in self.backend.leftovers(self.prefix) if PurePosixPath(k).name.startswith(TEMPORARY)]
        self.backend.remove(*debris, *temporary)


def files_to_verify(files: Sequence[Json], world: World, one_disk: bool) -> list[Json]:
    """Which of a checkpoint's files a process verifies.

    Where as many processes wrote it as read it now, and one disk has all files, each verifies the parts that it loads,
    and the first of each machine what all read. Else the processes of a machine share all files, which each machine
    needs.
    """
    parts = [part_of(f["name"]) for f in files]
    if one_disk and {part[1] for part in parts if part is not None} == {world.shards}:
        return [
            f
            for f, part in zip(files, parts, strict=True)
            if (world.local_rank == 0 if part is None else part[0] == world.shard)
        ]
    return list(files[world.local_rank :: world.local_size])


def _not_left_behind(records: dict[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The checkpoints on the way to the newest branch: a branch goes on in the place of all that has its numbers."""
    begins: dict[int, int] = {}
    for c in records.values():
        branch, seq = c.record["branch"], c.record["seq"]
        begins[branch] = min(seq, begins.get(branch, seq))
    return {
        n: c
        for n, c in records.items()
        if all(c.record["seq"] < seq for branch, seq in begins.items() if branch > c.record["branch"])
    }


def best_before_and_after(horizon_tokens: int, records: dict[str, Checkpoint]) -> list[str]:
    """Names of the checkpoint of the lowest loss at or before a position, and of each after it that was the best
    yet."""
    kept: list[str] = []
    best: float | None = None
    for tokens, name in sorted((c.tokens, n) for n, c in records.items() if NLL in c.state):
        loss: float = records[name].state[NLL]
        if best is None or loss < best:
            kept, best = [name] if tokens <= horizon_tokens else [*kept, name], loss
    return kept


def identity_of(value: Any) -> Any:
    """A request as its fingerprint sees it: references by what they name, not by where it lies; null is absent."""
    if isinstance(value, list):
        return [identity_of(v) for v in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"uri", "sha256", "bytes"}:
        return {"sha256": value["sha256"]}
    return {k: identity_of(v) for k, v in value.items() if v is not None}


def first_difference(before: Any, now: Any, path: str = "") -> tuple[str, str, str] | None:
    """The first field in which two identities differ (`schedule.peakLr`), and what it is in each, or None."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            at = f"{path}.{key}" if path else str(key)
            if key not in before or key not in now:
                return at, _said(before.get(key)), _said(now.get(key))
            if (found := first_difference(before[key], now[key], at)) is not None:
                return found
        return None
    return None if before == now else (path or "request", _said(before), _said(now))


def _said(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, sort_keys=True)[:200]


def _self_digest(record: Json) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()
