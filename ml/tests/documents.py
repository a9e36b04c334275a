"""Source files of the data stages' tests, and readers of what the stages write."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import Workbench, fixture_request

from cpt_ml.corpus import write_manifest
from cpt_ml.store import Json

FIELDS = fixture_request("ingest")["sources"][0]["fields"]

# different in every sentence, so that no rule about repetition fires
PROSE = (
    "The lighthouse keeper wrote down the weather every evening before supper, because ships depended on it. "
    "Fishermen from neighbouring villages came to compare his notes with their own memories of the winter storms."
)
PROSE_ZH = (
    "灯塔看守人每天晚饭前都要记录天气，因为往来的船只依赖这些数据。"
    "邻村的渔民常来把他的笔记同自己对冬季风暴的记忆相比较。"
)


def doc(id: str, text: str, **fields: Any) -> Json:
    """A line of a source file."""
    return {"id": id, "text": text, "lang": "en", "kind": "web", **fields}


def json_lines(docs: Iterable[Json]) -> bytes:
    return b"".join(json.dumps(d, ensure_ascii=False).encode() + b"\n" for d in docs)


def source(workbench: Workbench, name: str, data: bytes, suffix: str = ".jsonl", **more: Any) -> Json:
    """An element of ingest's `sources`."""
    ref = workbench.put(name + suffix, data)
    return {"name": name, "file": ref, "format": "jsonl", "fields": FIELDS, "use": "train", **more}


def ingest(workbench: Workbench, *sources: Json) -> Json:
    """The result of ingest over sources."""
    return workbench.run("ingest", {"sources": list(sources), "maxQuarantineRatio": 1.0})


def corpus_of(workbench: Workbench, docs: Iterable[Json], name: str = "web") -> Json:
    """Reference to the corpus manifest of one source."""
    return ingest(workbench, source(workbench, name, json_lines(docs)))["corpus"]


def sidecar(workbench: Workbench, kind: str, columns: Json) -> Json:
    """A committed manifest of one row-aligned shard with these columns."""
    attempt = workbench.job(kind, {"columns": columns}).attempt()
    table = pa.table(columns)
    pq.write_table(table, attempt.path(f"{kind}.parquet"))
    manifest = write_manifest(attempt, kind, [attempt.shard(f"{kind}.parquet", table.num_rows)])
    return workbench.job(kind, {"columns": columns}).commit(attempt, {kind: manifest})["result"][kind]


def rows(workbench: Workbench, manifest: Json) -> list[Json]:
    """All rows of a manifest's shards."""
    return [row for path in workbench.shards(manifest) for row in pq.read_table(path).to_pylist()]


def bytes_of(workbench: Workbench, manifest: Json) -> list[bytes]:
    """The bytes of a manifest's shards."""
    return [path.read_bytes() for path in workbench.shards(manifest)]


def request(stage: str, **fields: Any) -> Json:
    """The stage's golden request with some fields replaced."""
    return {**fixture_request(stage), **fields}
