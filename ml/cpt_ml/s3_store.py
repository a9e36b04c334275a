"""The store on S3 or a server that speaks it: put-if-absent is `If-None-Match: *`, and local files are a cache.

Settings come from the environment, never from a request: CPT_S3_ENDPOINT (absent: AWS), AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (optional; without keys the machine's role is used), and
CPT_CACHE, the folder in which attempts write and downloads lie. The cache has the store's layout and may be removed
whenever no job runs.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from cpt_ml.durable_files import files_under, sha256_file, unique_beside
from cpt_ml.errors import BadRequest, TryAgain
from cpt_ml.in_threads import Tell, tell_nobody

NONCE = "cpt-put"
# an answer that stays out is asked about again; together well within the lease of a cluster
PAUSES_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 20.0)
RETRIES = 8
REQUEST_SECONDS = 120
PART_BYTES = 16 << 20
MOST_PARTS = 9_000  # S3 allows 10,000
PARTS_AT_ONCE = 4


class S3Store:
    """cpt_ml.store.Backend on `s3://bucket/prefix`."""

    one_disk = False

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise BadRequest(f"store: {url!r} is no store; expected a folder or s3://bucket/prefix")
        self.url = url.rstrip("/")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._endpoint = os.environ.get("CPT_S3_ENDPOINT")
        self._cache = _cache_folder() / hashlib.sha256(f"{self._endpoint} {self.url}".encode()).hexdigest()[:16]
        self._client = self._connect(RETRIES)
        # the library must not retry a conditional put: it would take our own object for another's
        self._once = self._connect(retries=0)

    def where(self, key: str) -> str:
        return f"{self.url}/{key}"

    def local(self, key: str) -> Path:
        if ".." in PurePosixPath(key).parts or key.startswith("/"):
            raise BadRequest(f"store: the key {key!r} leaves the store")
        return self._cache / key

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """As Backend. Raises TryAgain while it cannot be known whether the object is ours."""
        import obstore  # noqa: PLC0415

        nonce, trouble = secrets.token_hex(16), ""
        for pause in (*PAUSES_SECONDS, None):
            try:
                obstore.put(self._once, key, data, mode="create", attributes={NONCE: nonce}, use_multipart=False)
                return True
            except Exception as e:  # also "already exists": a proxy on the way may have sent our put twice
                trouble = self._explain(e, key)
            # the same nonce again: whichever of our puts arrives, even late, is ours
            holder = self._nonce_of(key)
            if holder is not None:
                return holder == nonce
            if pause is not None:
                time.sleep(pause)
        raise TryAgain(f"store: {self.where(key)} could not be put: {trouble}")

    def get(self, key: str) -> bytes | None:
        import obstore  # noqa: PLC0415

        with self._outside(key):
            return self._or_none(key, lambda: bytes(obstore.get(self._client, key).bytes()))

    def exists(self, key: str) -> bool:
        import obstore  # noqa: PLC0415

        with self._outside(key):
            return self._or_none(key, lambda: obstore.head(self._client, key)) is not None

    def list(self, prefix: str) -> list[str]:
        import obstore  # noqa: PLC0415

        folder = prefix.rpartition("/")[0]
        with self._outside(prefix):
            found = [m["path"] for page in obstore.list(self._client, folder or None) for m in page]
        return sorted(k for k in found if k.startswith(prefix))

    def leftovers(self, prefix: str) -> list[str]:
        here = (p.relative_to(self._cache).as_posix() for p in files_under(self.local(prefix.rpartition("/")[0])))
        return sorted({*self.list(prefix), *(k for k in here if k.startswith(prefix))})

    def remove(self, *keys: str) -> None:
        import obstore  # noqa: PLC0415

        for key in keys:
            with self._outside(key):
                self._or_none(key, lambda key=key: obstore.delete(self._client, key))
            self.local(key).unlink(missing_ok=True)

    def publish(self, keys: list[str], tell: Tell = tell_nobody) -> None:
        import obstore  # noqa: PLC0415

        for done, key in enumerate(keys, 1):
            path = self.local(key)
            part = max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS))
            with self._outside(key):
                obstore.put(self._client, key, path, chunk_size=part, max_concurrency=PARTS_AT_ONCE)
            tell(done, len(keys))

    def fetch(self, key: str, sha256: str) -> tuple[Path, str]:
        path = self.local(key)
        if path.is_file() and sha256_file(path) == sha256:
            return path, sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = unique_beside(path)
        try:
            found = self._download(key, tmp)
            if found == sha256:
                os.replace(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
        return path, found

    def fetch_folder(self, prefix: str, digest: str) -> Path:
        base = self._cache / "folders" / digest
        for key in self.list(prefix):
            if key.endswith("/"):
                continue  # what stands for an empty folder
            path = base / key[len(prefix) :]
            if path.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            tmp = unique_beside(path)
            try:
                self._download(key, tmp)
                os.replace(tmp, path)
            finally:
                tmp.unlink(missing_ok=True)
        return base

    # --- inside ---

    def _download(self, key: str, to: Path) -> str:
        """Writes the object to a file and returns its digest, "" where there is none."""
        import obstore  # noqa: PLC0415

        with self._outside(key):
            got = self._or_none(key, lambda: obstore.get(self._client, key))
            if got is None:
                return ""
            digest = hashlib.sha256()
            with to.open("xb") as f:
                for chunk in got.stream(min_chunk_size=PART_BYTES):
                    digest.update(chunk)
                    f.write(chunk)
        return digest.hexdigest()

    def _nonce_of(self, key: str) -> str | None:
        """The nonce of the put that made the object, "" for one made by other means, None where there is no object."""
        import obstore  # noqa: PLC0415

        with self._outside(key):
            got = self._or_none(key, lambda: obstore.get(self._client, key, options={"head": True}))
        return None if got is None else str(got.attributes.get(NONCE, ""))

    def _or_none(self, key: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except FileNotFoundError as e:
            self._explain(e, key)
            return None

    @contextmanager
    def _outside(self, key: str) -> Generator[None]:
        """What the server or the network did becomes TryAgain; trouble of this machine's disk stays what it is."""
        from obstore.exceptions import BaseError  # noqa: PLC0415

        try:
            yield
        except FileNotFoundError as e:
            self._explain(e, key)
            raise
        except BaseError as e:
            raise TryAgain(f"store: {self.where(key)}: {self._explain(e, key)}") from e

    def _explain(self, error: Exception, key: str) -> str:
        """The library's message without its debug print. Raises BadRequest where trying again cannot help."""
        text = " ".join(str(error).split("Debug source:")[0].split())[:600]
        if "NoSuchBucket" in text:
            raise BadRequest(f"store: {self.url}: the bucket {self._bucket} does not exist; create it") from error
        return text

    def _connect(self, retries: int) -> Any:
        try:
            from obstore.store import S3Store as Client  # noqa: PLC0415
        except ImportError:
            raise BadRequest(
                f"store: {self.url} needs the Python package obstore; install it or use a folder"
            ) from None
        env = os.environ
        given: dict[str, Any] = {
            "endpoint": self._endpoint,
            "region": env.get("AWS_REGION", "us-east-1"),
            "access_key_id": env.get("AWS_ACCESS_KEY_ID"),
            "secret_access_key": env.get("AWS_SECRET_ACCESS_KEY"),
            "session_token": env.get("AWS_SESSION_TOKEN"),
        }
        return Client(
            self._bucket,
            prefix=self._prefix or None,
            **{k: v for k, v in given.items() if v},
            virtual_hosted_style_request=self._endpoint is None,
            checksum_algorithm="sha256",  # the server refuses what was damaged on the way
            client_options={
                "allow_http": (self._endpoint or "").startswith("http://"),
                "timeout": f"{REQUEST_SECONDS}s",
            },
            retry_config={"max_retries": retries},
        )


def _cache_folder() -> Path:
    given = os.environ.get("CPT_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "cpt" / "store"
