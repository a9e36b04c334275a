"""The artifact store as a job sees it: read through commit records, write under attempt names, commit last.

The protocol is that of activities/src/artifact-store: see docs/architecture.md, section Store. A commit record is
created with link(2) after fsync, so it is there whole or not at all, and the loser of a race reads the winner's.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt_ml.errors import BadRequest, StoreCorrupt

Json = dict[str, Any]


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes, lower-case hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def tree_digest(files: list[tuple[str, str]]) -> str:
    """Digest of a folder: sha256 of the canonical JSON list [[name, sha256], ...] sorted by name (UTF-16 order)."""
    ordered = sorted(files, key=lambda f: f[0].encode("utf-16-be"))
    return hashlib.sha256(json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def put_if_absent(path: Path, data: bytes) -> bool:
    """Creates `path` with `data` durably, or returns False when it exists already; never replaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with tmp.open("xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        try:
            os.link(tmp, path)
        except FileExistsError:
            return False
    finally:
        tmp.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a small status file atomically; not for anything that a result depends on."""
    tmp = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(6)}"
    tmp.write_bytes(data)
    os.replace(tmp, path)


def sync_folder(path: Path) -> None:
    """Makes the folder's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
    """Resolves references under named roots; `store` is the root that holds commits and data."""

    def __init__(self, roots: dict[str, str]) -> None:
        self.roots = {name: Path(p) for name, p in roots.items()}
        self.root = self.roots["store"]

    # --- reading ---

    def record(self, fingerprint: str) -> Json:
        """The commit record of a fingerprint. Raises BadRequest if the work was never committed."""
        path = self.root / "commits" / fingerprint[:2] / f"{fingerprint}.json"
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            raise BadRequest(f"store: no commit record of {fingerprint}; expected it at {path}") from None

    def file(self, ref: ArtifactRef | Json) -> Path:
        """Path of the referenced file, its digest verified. Raises StoreCorrupt when it does not match."""
        ref = ref if isinstance(ref, ArtifactRef) else ArtifactRef.of(ref)
        root, _, rest = ref.uri.partition(":")
        if root == "store":
            fingerprint, _, name = rest.partition("/")
            path = self._committed(fingerprint, name)
        else:
            path = self._under(root, rest)
        if not path.is_file():
            raise StoreCorrupt(f"store: {ref.uri} is missing; expected it at {path}")
        found = sha256_file(path)
        if found != ref.sha256:
            raise StoreCorrupt(f"store: {ref.uri} at {path} has sha256 {found}, expected {ref.sha256}")
        return path

    def folder(self, ref: ArtifactRef | Json) -> Path:
        """Path of the referenced folder (a model, a plan, a checkpoint), all its files verified."""
        ref = ref if isinstance(ref, ArtifactRef) else ArtifactRef.of(ref)
        root, _, rest = ref.uri.partition(":")
        if not ref.uri.endswith("/"):
            raise BadRequest(f"store: {ref.uri} is not a folder; a folder's uri ends with /")
        files: list[tuple[str, str]] = []
        if root == "store":
            fingerprint, _, prefix = rest.partition("/")
            entries = [f for f in self.record(fingerprint)["files"] if f["name"].startswith(prefix)]
            if not entries:
                raise StoreCorrupt(f"store: commit {fingerprint} has no files under {prefix}")
            for f in entries:
                path = self.root / f["path"]
                if not path.is_file() or sha256_file(path) != f["sha256"]:
                    raise StoreCorrupt(f"store: {ref.uri}{f['name'][len(prefix) :]} at {path} is missing or damaged")
                files.append((f["name"][len(prefix) :], f["sha256"]))
            first = entries[0]
            base = self.root / first["path"][: len(first["path"]) - len(first["name"]) + len(prefix)]
        else:
            base = self._under(root, rest)
            files = [(p.relative_to(base).as_posix(), sha256_file(p)) for p in sorted(base.rglob("*")) if p.is_file()]
        found = tree_digest(files)
        if found != ref.sha256:
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

    def _committed(self, fingerprint: str, name: str) -> Path:
        for f in self.record(fingerprint)["files"]:
            if f["name"] == name:
                return self.root / f["path"]
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
    """The files that one attempt at one fingerprint writes, and their commit."""

    def __init__(self, store: Store, fingerprint: str, token: str) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.token = token
        self.folder = store.root / "data" / fingerprint[:2] / fingerprint / token
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where to write the file `name`; its parent exists."""
        p = self.folder / name
        p.parent.mkdir(parents=True, exist_ok=True)
        return p

    def committed_file(self, name: str) -> Json:
        """Digest and size of a written file, made durable: an entry of a record's `files`."""
        p = self.folder / name
        fd = os.open(p, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return {
            "name": name,
            "path": p.relative_to(self.store.root).as_posix(),
            "sha256": sha256_file(p),
            "bytes": p.stat().st_size,
        }

    def ref(self, name: str) -> Json:
        """Reference to a written file as it will be once committed."""
        p = self.folder / name
        return ArtifactRef(f"store:{self.fingerprint}/{name}", sha256_file(p), p.stat().st_size).json()

    def folder_ref(self, name: str) -> Json:
        """Reference to a written folder; `name` ends with `/`."""
        base = self.folder / name
        files = [p for p in sorted(base.rglob("*")) if p.is_file()]
        digest = tree_digest([(p.relative_to(base).as_posix(), sha256_file(p)) for p in files])
        return ArtifactRef(f"store:{self.fingerprint}/{name}", digest, sum(p.stat().st_size for p in files)).json()

    def shard(self, name: str, rows: int) -> Json:
        """A manifest entry for a written shard."""
        p = self.folder / name
        return {
            "commit": self.fingerprint,
            "name": name,
            "sha256": sha256_file(p),
            "bytes": p.stat().st_size,
            "rows": rows,
        }

    def files(self) -> list[Json]:
        """Entries for everything written, sorted by name, durable down to the folders."""
        names = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        entries = [self.committed_file(n) for n in names]
        for folder in [*(p for p in self.folder.rglob("*") if p.is_dir()), self.folder, self.folder.parent]:
            sync_folder(folder)
        return entries
