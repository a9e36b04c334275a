"""What a source holds, whatever its format: objects with their numbers, and what could not be read, with the reason.

Every reader reads to the end of its file and keeps a bounded part of it in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.durable_files import files_under, sha256_file
from cpt_ml.json_columns import ColumnReader
from cpt_ml.json_lines import Unreadable, parse_line, vouched
from cpt_ml.lines import MAX_LINE_BYTES, Block, Line, read_blocks
from cpt_ml.store import Json

BATCH_BYTES = 16 << 20
BATCH_ROWS = 1024


@dataclass(frozen=True)
class Bad:
    """What was read and is no document: where it lies, the digest of its bytes, and why."""

    line: int
    offset: int
    sha256: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Objects in a row, each with its number (from 1); `locate` says of those at ascending indices where they lie."""

    numbers: list[int]
    values: list[Json]
    locate: Callable[[list[int]], list[Line]]
    bad: list[Bad] = field(default_factory=list[Bad])
    offset: int = 0  # byte of the source that reading has come to


@dataclass(frozen=True)
class Columns:
    """Objects in a row by columns, the first with this number; `objects` gives the same ones as a batch."""

    number: int
    columns: dict[str, pa.Array]
    objects: Callable[[], Batch]
    offset: int


def batch_of_bad(*bad: Bad) -> Batch:
    """A batch of which nothing can be read."""
    return Batch([], [], lambda _: [], list(bad), bad[-1].offset)


# --- JSON Lines ---


def jsonl_batches(path: Path, strings: Sequence[str], id: str) -> Iterator[Batch | Columns]:
    """Objects of a file of JSON Lines; a line's number counts blank ones, its offset is of the unpacked file.

    Where the keys `strings` have strings, and `id` strings or whole numbers, and no line is bad, they come as columns.
    """
    reader = ColumnReader(strings, id)

    def objects(block: Block) -> Batch:
        batch = _of_block(block)
        reader.learn(batch.values)
        return batch

    for part in read_blocks(path):
        if not isinstance(part, Block):
            yield batch_of_bad(_bad(part, part.problem or ""))
        elif (columns := reader.read(part)) is not None:
            yield Columns(part.number, columns, lambda block=part: objects(block), part.end)
        else:
            yield objects(part)


def _of_block(block: Block) -> Batch:
    read = [vouched(raw) for raw in block.raw]
    bad: list[Bad] = []
    for line in block.lines([i for i, value in enumerate(read) if value is None and block.raw[i].strip()]):
        try:
            read[line.number - block.number] = parse_line(line)
        except Unreadable as e:
            bad.append(_bad(line, str(e)))
    found = [(i, value) for i, value in enumerate(read) if value is not None]
    at = [i for i, _ in found]
    return Batch(
        [block.number + i for i in at],
        [value for _, value in found],
        lambda indices: list(block.lines([at[i] for i in indices])),
        bad,
        block.end,
    )


def _bad(line: Line, reason: str) -> Bad:
    return Bad(line.number, line.offset, line.sha256, reason)


# --- Parquet ---


def parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[Batch]:
    """Rows of a Parquet file as objects of those columns that it has; a row has a number and no offset (0).

    The digest of a row is that of its columns' JSON. A file that is none is one `damaged-parquet`; of a row group that
    cannot be read, each row that is left is a `damaged-row-group`.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError):
        yield batch_of_bad(Bad(1, 0, sha256_file(path), "damaged-parquet"))
        return
    with file:
        there = [c for c in dict.fromkeys(columns) if file.schema_arrow.get_field_index(c) >= 0]
        first = 1
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            yield from _row_group(file, group, there, first)
            first += rows


def _row_group(file: pq.ParquetFile, group: int, columns: list[str], first: int) -> Iterator[Batch]:
    about = file.metadata.row_group(group)
    end = first + about.num_rows
    size = max(1, min(BATCH_ROWS, BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
    if not columns:
        yield from _rows([{}] * about.num_rows, first)
        return
    try:
        for batch in file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
            values = {name: _python(batch.column(name)) for name in columns}
            yield from _rows(
                [dict(zip(columns, row, strict=True)) for row in zip(*values.values(), strict=True)], first
            )
            first += batch.num_rows
    except (pa.ArrowException, OSError):
        nothing = hashlib.sha256().hexdigest()
        for start in range(first, end, BATCH_ROWS):
            lost = range(start, min(start + BATCH_ROWS, end))
            yield batch_of_bad(*(Bad(n, 0, nothing, "damaged-row-group") for n in lost))


def _rows(values: list[Json], first: int) -> Iterator[Batch]:
    def locate(indices: list[int]) -> list[Line]:
        return [Line(first + i, 0, b"", _digest(values[i])) for i in indices]

    def too_long(value: Json) -> bool:
        return any(type(v) is str and len(v) > MAX_LINE_BYTES for v in value.values())

    long = [i for i, value in enumerate(values) if too_long(value)]
    bad = [_bad(line, "line-too-long") for line in locate(long)]
    left = [i for i in range(len(values)) if i not in set(long)]
    yield Batch([first + i for i in left], [values[i] for i in left], lambda of: locate([left[i] for i in of]), bad)


def _digest(row: Json) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=lambda v: v.hex()).encode()).hexdigest()


def _python(column: pa.Array) -> list[Any]:
    """Strings, whole numbers and nulls as they are; bytes that are no UTF-8 stay bytes, any other type is `()`."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.to_pylist()
    if not (_is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return [None if not v.is_valid else () for v in column]
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return [_text(v) for v in plain.cast(pa.large_binary()).to_pylist()]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


# --- plain text ---


def text_batches(path: Path, text: str, id: str) -> Iterator[Batch]:
    """Files of a folder (or the one file) as objects {text, id: path in the folder}, numbered in order of their paths.

    One over 16 MiB is a `file-too-long`, one that is no UTF-8 a `not-utf8`.
    """
    files = files_under(path) if path.is_dir() else [path]
    for number, file in enumerate(files, 1):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        if file.stat().st_size > MAX_LINE_BYTES:
            yield batch_of_bad(Bad(number, 0, sha256_file(file), "file-too-long"))
            continue
        data = file.read_bytes()
        line = Line(number, 0, b"", hashlib.sha256(data).hexdigest())
        try:
            value = {id: name, text: data.decode()}
        except UnicodeDecodeError:
            yield batch_of_bad(_bad(line, "not-utf8"))
            continue
        yield Batch([number], [value], lambda indices, line=line: [line] * len(indices))
