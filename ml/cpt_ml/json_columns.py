"""Blocks of JSON Lines as columns: Arrow reads the plain ones at once, all others are left to json_lines.

What it reads is what Python's strict reader would read, because of what is checked and what Arrow refuses:
- no line is blank, each begins with `{` and ends with `}`, and there are as many rows as lines. Inside an object no `{`
  follows a `}`, and no string goes over a line's end; so every line's end is one between two objects, each line is one;
- there is no NUL, at which Arrow would end without a word;
- every key is one that is expected, with a value of the expected type; a key that stands twice, escaped or null or not,
  is an error of Arrow's, and so are NaN, control characters, halves of surrogate pairs and all that is no JSON;
- all strings are UTF-8, and outside of strings nothing else than ASCII is JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from cpt_ml.json_lines import vouched
from cpt_ml.lines import Block
from cpt_ml.store import Json

MAX_KEYS = 100
SAMPLED_LINES = 64
# a source whose blocks are seldom plain is not read twice: after so many in a row only every 16th is tried
PATIENCE = 4
TRIED = 16
_LINE_END, _RETURN, _OPEN, _CLOSE = b"\n\r{}"


class ColumnReader:
    """Reads the blocks of one file; learns which keys its objects have, and of which types their values are."""

    def __init__(self, strings: Iterable[str], id: str) -> None:
        """`strings`: keys whose values have to be strings; of `id` they may be whole numbers instead."""
        self._types: dict[str, pa.DataType] = {name: pa.string() for name in strings}
        self._of_documents = [*self._types, id]
        self._id = id
        self._learned = False
        self._blocks = self._failures = 0

    def read(self, block: Block) -> dict[str, pa.Array] | None:
        """The columns of the keys that were asked for, or None: the lines have to be looked at one by one."""
        self._blocks += 1
        if self._failures >= PATIENCE and self._blocks % TRIED:
            return None
        found = self._read(block.data)
        self._failures = 0 if found else self._failures + 1
        return found

    def learn(self, values: Iterable[Json]) -> None:
        """Takes the keys and types of these objects for those of the next ones."""
        for value in values:
            for key, of in value.items():
                if len(self._types) < MAX_KEYS and self._types.get(key, pa.null()) == pa.null():
                    self._types[key] = _type(of, key == self._id)

    def _read(self, data: bytes) -> dict[str, pa.Array] | None:
        count = _lines(data)
        if count == 0 or b"\0" in data:
            return None
        if not self._learned:
            self._learned = True
            lines = data.split(b"\n")
            self.learn(value for line in lines[:: -(-count // SAMPLED_LINES)] if (value := vouched(line)) is not None)
        self._types.setdefault(self._id, pa.string())
        try:
            table = pj.read_json(
                pa.BufferReader(data),
                pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                pj.ParseOptions(pa.schema(list(self._types.items())), unexpected_field_behavior="error"),
            )
            if table.num_rows != count:
                return None
            table.validate(full=True)
        except (pa.ArrowException, UnicodeEncodeError):  # keys of Python's may be halves of surrogate pairs
            return None
        return {name: _whole(table[name]) for name in self._of_documents}


def _lines(data: bytes) -> int:
    """How many lines there are, if each begins and ends as an object does, else 0."""
    points = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(points == _LINE_END)
    if not data.startswith(b"{") or not data.removesuffix(b"\r").endswith(b"}"):
        return 0
    last = points[ends - 1]
    last = np.where(last == _RETURN, points[ends - 2], last)
    return len(ends) + 1 if (last == _CLOSE).all() and (points[ends + 1] == _OPEN).all() else 0


def _type(value: object, id: bool) -> pa.DataType:
    """What Arrow has to expect after this one; nested values are not read, so their type fits nothing."""
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int | float):
        return pa.int64() if id else pa.float64()
    return pa.string() if isinstance(value, str) else pa.null()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    chunks: Sequence[pa.Array] = column.chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
