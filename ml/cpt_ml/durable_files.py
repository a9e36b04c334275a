"""Files on a local or shared POSIX disk: written whole, made durable, and known by digest."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

TEMPORARY = ".tmp-"


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
    tmp = unique_beside(path)
    try:
        with tmp.open("xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        won = _link(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    sync_path(path.parent)
    return won


def _link(tmp: Path, path: Path) -> bool:
    try:
        os.link(tmp, path)
    except FileExistsError:
        # a file server that repeats a request whose answer was lost meets its own link
        return tmp.samefile(path)
    return True


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a small status file atomically; not for anything that a result depends on."""
    tmp = unique_beside(path)
    tmp.write_bytes(data)
    os.replace(tmp, path)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that nobody changes any more; a copy where the disk cannot link."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def unique_beside(path: Path) -> Path:
    """A name in the same folder that no other process uses."""
    return path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"


def sync_path(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def files_under(folder: Path) -> list[Path]:
    """All files below a folder, sorted; none where it does not exist."""
    return sorted(p for p in folder.rglob("*") if p.is_file())
