"""Corpus shards and their row-aligned sidecars: docs/data-formats.md in code.

The same rows give the same bytes: zstd, one row group per 4,096 rows, nothing that depends on time or machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.errors import BadRequest
from cpt_ml.store import Attempt, Json

ROW_GROUP = 4096
ROW_GROUP_BYTES = 256 << 20  # documents of up to 16 MiB: a group is closed early rather than outgrow memory

Mask = npt.NDArray[np.bool_]

CORPUS = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("kind", pa.string()),
        ("label", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("license", pa.string()),
        ("use", pa.string()),
        ("line", pa.int64()),
    ]
)
VERDICTS = pa.schema([("keep", pa.bool_()), ("reason", pa.string()), ("evidence", pa.string())])


class RowWriter:
    """Writes rows (mappings by column) to one parquet file; `rows` counts them. A context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._pending: list[Mapping[str, Any]] = []
        self._pending_bytes = 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def append(self, row: Mapping[str, Any], num_bytes: int = 0) -> None:
        """Adds a row; `num_bytes` is the size of its text, where it has one."""
        self._pending.append(row)
        self._pending_bytes += num_bytes
        self.rows += 1
        if len(self._pending) == ROW_GROUP or self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            columns = {name: [row[name] for row in self._pending] for name in self.schema.names}
            self._writer.write_table(pa.table(columns, schema=self.schema), row_group_size=ROW_GROUP)
        self._pending, self._pending_bytes = [], 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes all rows and returns their number."""
    with RowWriter(path, schema) as writer:
        for row in rows:
            writer.append(row)
    return writer.rows


def write_columns(path: Path, schema: pa.Schema, columns: Sequence[pa.Array]) -> None:
    """Writes whole columns, in the order of the schema, as RowWriter writes the same rows."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        table = pa.table(list(columns), schema=schema)
        for begin in range(0, table.num_rows, ROW_GROUP):
            writer.write_table(table.slice(begin, ROW_GROUP), row_group_size=ROW_GROUP)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Json]:
    """Rows of a shard as dictionaries, a row group in memory at a time. Raises BadRequest if a column is missing."""
    with pq.ParquetFile(path) as file:
        missing = [c for c in columns if c not in file.schema_arrow.names]
        if missing:
            raise BadRequest(f"{path.name}: no column {missing}; it has {file.schema_arrow.names}")
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=list(columns), use_threads=False).to_pylist()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole shard. Unlike pyarrow's read_table it does not import pandas, which costs a job half a second."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def read_column(path: Path, column: str) -> list[Any]:
    """One whole column of a shard."""
    return [row[column] for row in read_rows(path, [column])]


def _column(path: Path, column: str) -> pa.ChunkedArray:
    table = read_table(path, [column])
    if column not in table.column_names:
        raise BadRequest(f"{path.name}: no column {[column]}; it has {table.column_names}")
    return table[column]


def num_rows(path: Path) -> int:
    """Rows of a shard, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def keep_mask(corpus: Path, drops: Iterable[Path]) -> Mask:
    """Which rows of a corpus shard no earlier stage has dropped. Raises BadRequest if a sidecar is not row-aligned."""
    keep = np.ones(num_rows(corpus), dtype=np.bool_)
    for path in drops:
        column = _column(path, "keep").to_numpy()
        if len(column) != len(keep):
            raise BadRequest(f"{path.name}: {len(column)} rows, but the corpus shard has {len(keep)}")
        keep &= column
    return keep


def count_values(column: pa.ChunkedArray | pa.Array) -> Counter[str]:
    """How often each value occurs in a column of strings."""
    return Counter({c["values"]: c["counts"] for c in column.value_counts().to_pylist()})


def kept() -> Json:
    """The verdict on a row that the stage keeps, and on one that an earlier stage dropped: not judged again."""
    return {"keep": True, "reason": None, "evidence": None}


def dropped(reason: str, evidence: str) -> Json:
    """The verdict on a row that the stage drops."""
    return {"keep": False, "reason": reason, "evidence": evidence}


def write_manifest(attempt: Attempt, kind: str, shards: list[Json]) -> Json:
    """Writes `<kind>.json`, a manifest of the attempt's shards, and returns its reference."""
    manifest = {"format": "cpt-manifest/1", "kind": kind, "shards": shards}
    attempt.path(f"{kind}.json").write_bytes(json.dumps(manifest, separators=(",", ":")).encode())
    return attempt.ref(f"{kind}.json")
