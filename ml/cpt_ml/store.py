"""The artifact store as a job sees it: read through commit records, write under attempt names, commit last.

The protocol is that of activities/src/artifact-store: see docs/architecture.md, section Store. What it needs of a disk
or an object store is `Backend`; disk_store.py and s3_store.py have it. A record is there whole or not at all, and the
loser of a race reads the winner's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cpt_ml.disk_store import DiskStore
from cpt_ml.durable_files import files_under, sha256_file, tree_digest
from cpt_ml.errors import BadRequest, StoreCorrupt
from cpt_ml.in_threads import Tell, in_threads, tell_nobody

Json = dict[str, Any]


class Backend(Protocol):
    """Keys (`commits/ab/….json`) and their bytes. Data files are written locally and published under the same key."""

    one_disk: bool
    """Whether a file that one machine has published is a local file on every other."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Creates `key` with `data`, whole and durable, or returns False when it exists; never replaces."""
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes at `key`, or None."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> list[str]:
        """Keys that start with `prefix`, sorted."""
        ...

    def leftovers(self, prefix: str) -> list[str]:
        """Like list, with what a dead process of this machine left there: temporary and unpublished files."""
        ...

    def remove(self, *keys: str) -> None:
        """Removes keys, durably; missing ones are no error."""
        ...

    def local(self, key: str) -> Path:
        """Where on this machine a file of `key` is written, and lies once it was fetched."""
        ...

    def publish(self, keys: list[str], tell: Tell = tell_nobody) -> None:
        """Makes the local files of `keys` durable in the store; a failed call may have published some."""
        ...

    def fetch(self, key: str, sha256: str) -> tuple[Path, str]:
        """The local file of `key` and the digest found, "" where it is missing; good only if that is `sha256`."""
        ...

    def fetch_folder(self, prefix: str, digest: str) -> Path:
        """A local folder of all keys under `prefix`, kept under the folder's digest, which is not checked here."""
        ...

    def where(self, key: str) -> str:
        """Where a person finds `key`: a path, or a URL."""
        ...


def open_backend(root: str) -> Backend:
    """The backend of `roots["store"]`: a folder, or s3://bucket/prefix."""
    if "://" not in root:
        return DiskStore(Path(root))
    from cpt_ml.s3_store import S3Store  # noqa: PLC0415

    return S3Store(root)


def commit_key(fingerprint: str) -> str:
    return f"commits/{fingerprint[:2]}/{fingerprint}.json"


@dataclass(frozen=True)
class ArtifactRef:
    """A reference to immutable bytes; a uri that ends in `/` names a folder."""

    uri: str
    sha256: str
    bytes: int

    @staticmethod
    def of(value: Json) -> ArtifactRef:
        return ArtifactRef(value["uri"], value["sha256"], value["bytes"])

    def json(self) -> Json:
        return {"uri": self.uri, "sha256": self.sha256, "bytes": self.bytes}


class Store:
    """Resolves references under named roots; `store` is the root that holds commits and data. Files of a folder are
    read and verified by `threads` at a time."""

    def __init__(self, roots: dict[str, str], threads: int = 1) -> None:
        self.threads = threads
        self._store_root = roots["store"]
        self._buckets = {name: p for name, p in roots.items() if name != "store" and "://" in p}
        self.roots = {name: Path(p) for name, p in roots.items() if name != "store" and name not in self._buckets}

    @cached_property
    def backend(self) -> Backend:
        """Opened at first use, so that a store that cannot be opened ends the job with a reason."""
        return open_backend(self._store_root)

    # --- reading ---

    def record(self, fingerprint: str) -> Json:
        """The commit record of a fingerprint. Raises BadRequest if the work was never committed."""
        key = commit_key(fingerprint)
        data = self.backend.get(key)
        if data is None:
            raise BadRequest(f"store: no commit record of {fingerprint}; expected it at {self.backend.where(key)}")
        try:
            return json.loads(data)
        except ValueError as e:
            raise StoreCorrupt(f"store: {self.backend.where(key)} is not a commit record: {e}") from None

    def file(self, ref: ArtifactRef | Json) -> Path:
        """Path of the referenced file, its digest verified. Raises StoreCorrupt when it does not match."""
        ref = ref if isinstance(ref, ArtifactRef) else ArtifactRef.of(ref)
        root, _, rest = ref.uri.partition(":")
        if root == "store":
            fingerprint, _, name = rest.partition("/")
            key = self._committed(fingerprint, name)
            path, found = self.backend.fetch(key, ref.sha256)
            where = self.backend.where(key)
        elif root in self._buckets:
            bucket = open_backend(self._buckets[root])
            path, found = bucket.fetch(rest, ref.sha256)
            where = bucket.where(rest)
        else:
            path = self._under(root, rest)
            where, found = str(path), sha256_file(path) if path.is_file() else ""
        if not found:
            raise StoreCorrupt(f"store: {ref.uri} is missing; expected it at {where}")
        if found != ref.sha256:
            since = "" if root == "store" else ": it changed since the run began, start a new one"
            raise StoreCorrupt(f"store: {ref.uri} at {where} has sha256 {found}, expected {ref.sha256}{since}")
        return path

    def folder(self, ref: ArtifactRef | Json, tell: Tell = tell_nobody) -> Path:
        """Path of the referenced folder (a model, a plan, a checkpoint), all its files verified."""
        ref = ref if isinstance(ref, ArtifactRef) else ArtifactRef.of(ref)
        root, _, rest = ref.uri.partition(":")
        if not ref.uri.endswith("/"):
            raise BadRequest(f"store: {ref.uri} is not a folder; a folder's uri ends with /")
        if root == "store":
            fingerprint, _, prefix = rest.partition("/")
            entries = [f for f in self.record(fingerprint)["files"] if f["name"].startswith(prefix)]
            if not entries:
                raise StoreCorrupt(f"store: commit {fingerprint} has no files under {prefix}")

            def fetch(f: Json) -> tuple[str, str]:
                name = f["name"][len(prefix) :]
                if self.backend.fetch(f["path"], f["sha256"])[1] != f["sha256"]:
                    where = self.backend.where(f["path"])
                    raise StoreCorrupt(f"store: {ref.uri}{name} at {where} is missing or damaged")
                return name, f["sha256"]

            files = in_threads(fetch, entries, self.threads, tell)
            first = entries[0]
            base = self.backend.local(first["path"][: len(first["path"]) - len(first["name"]) + len(prefix)])
        elif root in self._buckets:
            base = open_backend(self._buckets[root]).fetch_folder(rest, ref.sha256)
            files = self._digests_under(base, tell)
        else:
            base = self._under(root, rest)
            files = self._digests_under(base, tell)
        found = tree_digest(files)
        if found != ref.sha256:
            if root in self._buckets:
                shutil.rmtree(base, ignore_errors=True)  # the copy would stay wrong
            raise StoreCorrupt(f"store: folder {ref.uri} at {base} has digest {found}, expected {ref.sha256}")
        return base

    def manifest(self, ref: ArtifactRef | Json) -> Json:
        """A manifest: {kind, shards: [{commit, name, sha256, bytes, rows}]}."""
        return json.loads(self.file(ref).read_bytes())

    def shards(self, ref: ArtifactRef | Json) -> Iterator[Path]:
        """Paths of a manifest's shards, in order, each verified as it is reached."""
        for entry in self.manifest(ref)["shards"]:
            yield self.shard(entry)

    def shard(self, entry: Json) -> Path:
        """Path of one manifest entry (also the form of a unit's inputs), verified."""
        return self.file(ArtifactRef(f"store:{entry['commit']}/{entry['name']}", entry["sha256"], entry["bytes"]))

    def glimpse(self, entry: Json) -> Path:
        """Path of one manifest entry that is only looked through: there and of its size, its digest not compared."""
        path = self.backend.local(self._committed(entry["commit"], entry["name"]))
        return path if path.is_file() and path.stat().st_size == entry["bytes"] else self.shard(entry)

    def entry(self, file: Json) -> Path:
        """Path of an entry of a record's `files` ({name, path, sha256, bytes}), verified."""
        path, found = self.backend.fetch(file["path"], file["sha256"])
        if found != file["sha256"]:
            where = self.backend.where(file["path"])
            raise StoreCorrupt(
                f"store: {where} has sha256 {found or 'of nothing: it is missing'}, not {file['sha256']}"
            )
        return path

    def _digests_under(self, base: Path, tell: Tell) -> list[tuple[str, str]]:
        paths = files_under(base)
        digests = in_threads(sha256_file, paths, self.threads, tell)
        return [(p.relative_to(base).as_posix(), d) for p, d in zip(paths, digests, strict=True)]

    def _committed(self, fingerprint: str, name: str) -> str:
        for f in self.record(fingerprint)["files"]:
            if f["name"] == name:
                return f["path"]
        raise StoreCorrupt(f"store: commit {fingerprint} has no file {name}")

    def _under(self, root: str, rest: str) -> Path:
        if root not in self.roots:
            raise BadRequest(f"store: unknown root {root!r}; this worker knows {sorted(self.roots)}")
        base = self.roots[root].resolve()
        path = (base / rest).resolve()
        if not path.is_relative_to(base):
            raise BadRequest(f"store: {root}:{rest} leaves its root")
        return path


class Attempt:
    """The files that one attempt at one fingerprint writes on this machine, and their way into the store.

    A file is written once: it is read for its digest once, by however many names and however often it is asked for.
    `tell` hears of files that are hashed or published.
    """

    def __init__(self, store: Store, fingerprint: str, token: str) -> None:
        self.store = store
        self.tell: Tell = tell_nobody
        self._known: dict[tuple[int, ...], str] = {}
        self.fingerprint = fingerprint
        self.token = token
        self.prefix = f"data/{fingerprint[:2]}/{fingerprint}/{token}/"
        self.folder = store.backend.local(self.prefix)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where to write the file `name`; its parent exists."""
        p = self.folder / name
        p.parent.mkdir(parents=True, exist_ok=True)
        return p

    def where(self, name: str) -> str:
        """Where a person finds the file or folder once it is committed."""
        return self.store.backend.where(self.prefix + name)

    def ref(self, name: str) -> Json:
        """Reference to a written file as it will be once committed."""
        p = self.folder / name
        return ArtifactRef(f"store:{self.fingerprint}/{name}", self._digest(p), p.stat().st_size).json()

    def folder_ref(self, name: str) -> Json:
        """Reference to a written folder; `name` ends with `/`."""
        base = self.folder / name
        files = files_under(base)
        names = [p.relative_to(base).as_posix() for p in files]
        digest = tree_digest(list(zip(names, self._digests(files), strict=True)))
        return ArtifactRef(f"store:{self.fingerprint}/{name}", digest, sum(p.stat().st_size for p in files)).json()

    def shard(self, name: str, rows: int) -> Json:
        """A manifest entry for a written shard."""
        p = self.folder / name
        return {
            "commit": self.fingerprint,
            "name": name,
            "sha256": self._digest(p),
            "bytes": p.stat().st_size,
            "rows": rows,
        }

    def publish(self, names: list[str] | None = None) -> list[Json]:
        """Makes written files (None: all of them) durable in the store; returns entries of a record's `files`."""
        if names is None:
            names = sorted(p.relative_to(self.folder).as_posix() for p in files_under(self.folder))
        paths = [self.folder / n for n in names]
        digests = self._digests(paths)
        self.store.backend.publish([self.prefix + n for n in names], self.tell)
        return [
            {"name": n, "path": self.prefix + n, "sha256": digest, "bytes": p.stat().st_size}
            for n, p, digest in zip(names, paths, digests, strict=True)
        ]

    def discard(self, prefix: str) -> None:
        """Removes what was written under `prefix`, after a failure and before any record could name it."""
        files = [f"{self.prefix}{p.relative_to(self.folder).as_posix()}" for p in files_under(self.folder / prefix)]
        self.store.backend.remove(*files)

    def know(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Takes the word of whoever wrote files of a folder for their digests."""
        self._known |= {_identity(folder / name): digest for name, digest in digests.items()}

    def _digest(self, path: Path) -> str:
        return self._digests([path])[0]

    def _digests(self, paths: Sequence[Path]) -> list[str]:
        files = [_identity(p) for p in paths]
        new = {file: p for file, p in zip(files, paths, strict=True) if file not in self._known}
        digests = in_threads(sha256_file, list(new.values()), self.store.threads, self.tell)
        self._known |= zip(new, digests, strict=True)
        return [self._known[file] for file in files]


def _identity(path: Path) -> tuple[int, ...]:
    """The same for all names of a file, and another once it was written anew."""
    s = path.stat()
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns
