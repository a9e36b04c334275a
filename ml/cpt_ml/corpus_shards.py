"""Corpus shards written column by column: the rows alone decide where a shard or a row group ends.

What a batch is does not show in the bytes: the same rows give the same files however they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.corpus import ROW_GROUP
from cpt_ml.store import Attempt, Json

ROW_GROUP_BYTES = 64 << 20  # of text: what writing or reading a group costs in memory is a few times that

Lengths = npt.NDArray[np.int64]


def string_array(values: Sequence[str | None]) -> pa.Array:
    """A column of strings. Unlike pyarrow's own it does not import pandas, which costs a job a second."""
    if None in values:
        present = np.array([v is not None for v in values], dtype=np.bool_)
        valid = pa.py_buffer(np.packbits(present, bitorder="little").tobytes())
        return _strings([b"" if v is None else v.encode() for v in values], valid)
    return _strings(list(map(str.encode, cast("Sequence[str]", values))), None)


def same_strings(value: str, count: int) -> pa.Array:
    """A column that says one thing."""
    return _strings([value.encode()] * count, None)


def _strings(encoded: list[bytes], valid: pa.Buffer | None) -> pa.Array:
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, encoded), dtype=np.int32, count=len(encoded)), out=offsets[1:])
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def int_array(values: Sequence[int]) -> pa.Array:
    """A column of int64."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.array(values, dtype=np.int64))])


def text_lengths(texts: pa.Array) -> Lengths:
    """UTF-8 bytes of each string of a column without nulls."""
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.diff(offsets).astype(np.int64)


class BatchWriter:
    """Writes record batches to one parquet file, in groups of 4,096 rows or 64 MiB of text. A context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._size = _Size(ROW_GROUP, ROW_GROUP_BYTES)
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def add(self, batch: pa.RecordBatch, lengths: Lengths | None = None) -> None:
        """Adds rows; `lengths` are the bytes of their texts, where they have any."""
        lengths = np.zeros(batch.num_rows, dtype=np.int64) if lengths is None else lengths
        self.rows += batch.num_rows
        at = 0
        while at < batch.num_rows:
            count = self._size.take(lengths[at:])
            if count == 0:
                self._flush()
                continue
            self._pending.append(batch.slice(at, count))
            at += count

    def _flush(self) -> None:
        if self._pending:
            # in one piece, or the borders of batches would show in the pages
            table = pa.Table.from_batches(self._pending, schema=self.schema).combine_chunks()
            self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._pending = []
        self._size = _Size(ROW_GROUP, ROW_GROUP_BYTES)

    def close(self) -> None:
        """Writes what is left."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Closes a file that nobody will read."""
        self._pending = []
        self._writer.close()

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class ShardWriter:
    """Writes record batches as shards `<kind>-00000.parquet`, … of at most so many rows and bytes of text.

    There is one shard at least; a document over the limit has one to itself. A context manager.
    """

    def __init__(self, attempt: Attempt, kind: str, schema: pa.Schema, max_rows: int, max_bytes: int) -> None:
        self.rows = 0
        self._attempt, self._kind, self._schema = attempt, kind, schema
        self._limits = (max_rows, max_bytes)
        self._names: list[tuple[str, int]] = []
        self._begin()

    def add(self, batch: pa.RecordBatch, lengths: Lengths) -> None:
        """Adds rows; `lengths` are the bytes of their texts."""
        self.rows += batch.num_rows
        at = 0
        while at < batch.num_rows:
            count = self._size.take(lengths[at:])
            if count == 0:
                self._end()
                self._begin()
                continue
            self._writer.add(batch.slice(at, count), lengths[at : at + count])
            at += count

    def shards(self) -> list[Json]:
        """Manifest entries of the shards, once all is written."""
        return [self._attempt.shard(name, rows) for name, rows in self._names]

    def _begin(self) -> None:
        self._size = _Size(*self._limits)
        self._name = f"{self._kind}-{len(self._names):05d}.parquet"
        self._writer = BatchWriter(self._attempt.path(self._name), self._schema)

    def _end(self) -> None:
        self._writer.close()
        self._names.append((self._name, self._writer.rows))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end()
        else:
            self._writer.abandon()


class _Size:
    """What is in a shard or group, and how much more fits; a first row always does."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._rows = self._bytes = 0

    def take(self, lengths: Lengths) -> int:
        """Adds as many of the rows as fit and returns their number."""
        room = lengths[: self._max_rows - self._rows]
        ends = np.cumsum(room)
        count = int(np.searchsorted(ends, self._max_bytes - self._bytes, side="right"))
        if self._rows == 0 and len(room):
            count = max(count, 1)
        self._rows += count
        self._bytes += int(ends[count - 1]) if count else 0
        return count


def record_batch(schema: pa.Schema, columns: Iterable[pa.Array]) -> pa.RecordBatch:
    """Rows from columns in the schema's order."""
    return pa.RecordBatch.from_arrays(list(columns), schema=schema)
