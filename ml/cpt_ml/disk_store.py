"""The store on a local or shared POSIX disk: a key is a path under its root, put-if-absent is link(2) after fsync."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cpt_ml.durable_files import TEMPORARY, files_under, put_if_absent, sha256_file, sync_path
from cpt_ml.errors import BadRequest
from cpt_ml.in_threads import Tell, tell_nobody


class DiskStore:
    """cpt_ml.store.Backend on a folder."""

    one_disk = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def where(self, key: str) -> str:
        return str(self.local(key))

    def local(self, key: str) -> Path:
        if ".." in PurePosixPath(key).parts or key.startswith("/"):
            raise BadRequest(f"store: the key {key!r} leaves the store")
        return self.root / key

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self.local(key)
        won = put_if_absent(path, data)
        # the loser's answer too rests on entries that the winner may not have synced yet
        self._sync_folders({path.parent.parent})
        return won

    def get(self, key: str) -> bytes | None:
        try:
            return self.local(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, key: str) -> bool:
        return self.local(key).is_file()

    def list(self, prefix: str) -> list[str]:
        return [k for k in self.leftovers(prefix) if not PurePosixPath(k).name.startswith(TEMPORARY)]

    def leftovers(self, prefix: str) -> list[str]:
        folder = self.local(prefix.rpartition("/")[0])
        keys = sorted(p.relative_to(self.root).as_posix() for p in files_under(folder))
        return [k for k in keys if k.startswith(prefix)]

    def remove(self, *keys: str) -> None:
        paths = [self.local(k) for k in keys]
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in {p.parent for p in paths}:
            if folder.is_dir() and not self._left_empty(folder):
                sync_path(folder)

    def publish(self, keys: list[str], tell: Tell = tell_nobody) -> None:
        paths = [self.local(k) for k in keys]
        for done, path in enumerate(paths, 1):
            sync_path(path)
            tell(done, len(paths))
        self._sync_folders({p.parent for p in paths})

    def fetch(self, key: str, sha256: str) -> tuple[Path, str]:
        path = self.local(key)
        return path, sha256_file(path) if path.is_file() else ""

    def fetch_folder(self, prefix: str, digest: str) -> Path:
        return self.local(prefix)

    def _sync_folders(self, folders: set[Path]) -> None:
        """Makes entries durable up to the root: a new folder is an entry too, whoever created it."""
        all_folders = folders | {p for f in folders for p in f.parents if p.is_relative_to(self.root)}
        for folder in sorted(all_folders, key=lambda f: len(f.parts), reverse=True):
            sync_path(folder)

    def _left_empty(self, folder: Path) -> bool:
        """Removes an attempt's empty folder; other folders stay, since somebody may be about to write there."""
        if not folder.is_relative_to(self.root / "data"):
            return False
        try:
            folder.rmdir()
        except OSError:
            return False  # other files are still in it
        return True
