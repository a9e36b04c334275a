"""A real store, on disk or on a real S3 server, and stages run in this process as the activity would run them."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, S3Server

from cpt_ml.durable_files import sha256_file, tree_digest
from cpt_ml.job import Job
from cpt_ml.store import Backend, Json, open_backend

FIXTURES = Path(__file__).parents[2] / "contracts" / "fixtures" / "jobs"

# contracts/src: which map stages there are, what their units are cut over, and their kinds of output
ITEMS = {"ingest": "sources", "import-tokens": "files"}
MANIFESTS = {
    "filter": ["corpus"],
    "dedup-signatures": ["corpus", "drops"],
    "decontaminate": ["corpus", "drops"],
    "find-personal-data": ["corpus", "drops"],
    "classify-topics": ["corpus", "drops"],
    "score-quality": ["corpus", "drops"],
    "tokenize": ["corpus", "drops"],
    "score-ppl": ["tokens", "index"],
    "count-funnel": ["corpus", "drops", "index"],
}
# and further ones, where a request has them
OPTIONAL = {"tokenize": ["personalData"]}


class Workbench:
    """A store under `folder`, a root `files` for test data, and the stages."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.roots = {"store": store or str(folder / "store"), "files": str(self.files)}
        self.files.mkdir(parents=True, exist_ok=True)
        self.jobs = 0

    def put(self, name: str, data: bytes) -> Json:
        """Writes a file under the root `files` and returns its reference."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return self.ref(name)

    def ref(self, name: str) -> Json:
        """Reference to a file, or with a trailing slash a folder, under the root `files`."""
        path = self.files / name
        if name.endswith("/"):
            files = [p for p in sorted(path.rglob("*")) if p.is_file()]
            digest = tree_digest([(p.relative_to(path).as_posix(), sha256_file(p)) for p in files])
            return {"uri": f"files:{name}", "sha256": digest, "bytes": sum(p.stat().st_size for p in files)}
        return {"uri": f"files:{name}", "sha256": sha256_file(path), "bytes": path.stat().st_size}

    def job(self, stage: str, request: Json, *, units: list[Json] | None = None, **placement: Any) -> Job:
        """A job in a folder of its own; every call is another attempt, also at a fingerprint that is committed."""
        self.jobs += 1
        folder = self.folder / "jobs" / f"{self.jobs:04d}-{stage}"
        folder.mkdir(parents=True)
        spec = {
            "format": "cpt-job/1",
            "stage": stage,
            "version": 1,
            "fingerprint": fingerprint(stage, request),
            "range": 0,
            "attempt": 1,
            "token": f"attempt-{self.jobs:04d}",
            "roots": self.roots,
            "request": request,
            "units": units,
            "parents": [],
            "placement": {"runner": "local", "threads": 1, "batchTokens": 16_384, **placement},
            "leaseSeconds": 600,
        }
        return Job(folder, spec)

    def run(self, stage: str, request: Json, **placement: Any) -> Json:
        """Runs a stage to its committed result; a map stage's units are merged as the activity merges them."""
        units = self.units(stage, request)
        job = self.job(stage, request, units=units, **placement)
        module = importlib.import_module(f"cpt_ml.{stage.replace('-', '_')}")
        module.run(job)
        if units is None:
            return job.store.record(job.fingerprint)["result"]
        return self.merge(job, [job.store.record(u["fingerprint"])["result"] for u in units])

    def units(self, stage: str, request: Json) -> list[Json] | None:
        """The units of a map stage, or None for a whole one."""
        if stage in ITEMS:
            inputs: list[Json] = [{ITEMS[stage]: element} for element in request[ITEMS[stage]]]
        elif stage in MANIFESTS:
            store = self.job(stage, request).store
            columns: dict[str, Any] = {}
            for key in [*MANIFESTS[stage], *(k for k in OPTIONAL.get(stage, []) if k in request)]:
                value = request[key]
                many = isinstance(value, list)
                shards = [store.manifest(ref)["shards"] for ref in (value if many else [value])]
                columns[key] = [list(row) for row in zip(*shards, strict=True)] if many else shards[0]
            count = len(columns[MANIFESTS[stage][0]])
            inputs = [{k: (v[i] if v else []) for k, v in columns.items()} for i in range(count)]
        else:
            return None
        return [
            {"index": i, "fingerprint": fingerprint(stage, {"unit": u, "of": request}), "inputs": u}
            for i, u in enumerate(inputs)
        ]

    def merge(self, job: Job, results: list[Json]) -> Json:
        """One manifest a kind of output, and counts added up by key."""
        attempt = job.attempt()
        result: Json = {**results[0].get("alike", {}), "counts": add_up([r["counts"] for r in results])}
        for kind in results[0]["outputs"]:
            shards = [s for r in results for s in r["outputs"][kind]]
            manifest = {"format": "cpt-manifest/1", "kind": kind, "shards": shards}
            attempt.path(f"{kind}.json").write_bytes(json.dumps(manifest, separators=(",", ":")).encode())
            result[kind] = attempt.ref(f"{kind}.json")
        return job.commit(attempt, result)["result"]

    def path(self, ref: Json) -> Path:
        """Where a referenced file lies."""
        return self.job("read", ref).store.file(ref)

    def shards(self, ref: Json) -> list[Path]:
        """Where the shards of a manifest lie."""
        return list(self.job("read", ref).store.shards(ref))


def fingerprint(stage: str, request: Any) -> str:
    return hashlib.sha256(json.dumps([stage, request], sort_keys=True).encode()).hexdigest()


def add_up(counts: list[Json]) -> Json:
    """Sums counts by key, nested records too, as the activity does."""
    total: Json = {}
    for key in dict.fromkeys(key for c in counts for key in c):
        values = [c[key] for c in counts if key in c]
        total[key] = add_up(values) if isinstance(values[0], dict) else sum(values)
    return total


def fixture_request(stage: str) -> Json:
    """The golden request of a stage, the file that the TypeScript contract parses too."""
    return json.loads((FIXTURES / f"{stage}.json").read_bytes())


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


class Place:
    """An empty store on disk or S3; `files` is where its data lie as files, whatever the store says."""

    def __init__(self, root: str, files: Path, cache: Path) -> None:
        self.root = root
        self.files = files
        self.cache = cache

    @property
    def backend(self) -> Backend:
        return open_backend(self.root)

    def damage(self, key: str, data: bytes | None) -> None:
        """Changes what is stored at a key, or removes it, as a failing disk would; nothing is cached afterwards."""
        path = self.files / key
        path.unlink()
        if data is not None and self.root.startswith("s3://"):
            self.backend.put_if_absent(key, data)
        elif data is not None:
            path.write_bytes(data)
        self.forget_cache()

    def forget_cache(self) -> None:
        """As on another machine."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def everything(self) -> list[str]:
        """Names of all that is stored, debris included."""
        return sorted(p.relative_to(self.files).as_posix() for p in self.files.rglob("*") if p.is_file())


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; jobs find it in their environment."""
    folder = tmp_path_factory.mktemp("s3")
    server = S3Server(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server.env, "CPT_CACHE": str(folder / "cache")}.items():
            patch.setenv(name, value)
        yield server
    server.kill()


numbers = itertools.count()


def s3_place(server: S3Server) -> Place:
    """An empty store of its own on the server."""
    prefix = f"store-{next(numbers)}"
    return Place(f"s3://{BUCKET}/{prefix}", server.folder / prefix, Path(os.environ["CPT_CACHE"]))


def disk_place(folder: Path) -> Place:
    """An empty store of its own on disk."""
    return Place(str(folder / "store"), folder / "store", folder / "cache")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """What holds for the store holds for both of its kinds."""
    return disk_place(tmp_path) if request.param == "disk" else s3_place(request.getfixturevalue("s3"))
