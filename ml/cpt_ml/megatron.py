"""Megatron-LM's indexed data sets: `x.bin` holds token ids back to back, `x.idx` where sequences and documents lie.

x.idx (little-endian): 9 bytes `MMIDIDX\\0\\0`; u64 version, 1; u8 code of the type of an id; u64 number of sequences;
u64 number of document marks; i32 length of each sequence in ids; i64 place of each sequence in x.bin in bytes; i64
document marks: for each document the number of its first sequence, and last the number of sequences.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpt_ml.errors import BadData

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
FLOATS = {6: "float64", 7: "float32"}
CHECKED_AT_ONCE = 1 << 20

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Documents:
    """The ids of a file, and the number of documents; both files are mapped, not read."""

    name: str
    ids: Array
    _pointers: Array
    _marks: Array

    @property
    def count(self) -> int:
        return len(self._marks) - 1

    def bounds(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """Where documents `first`, …, `last` − 1 begin in `ids`, and last where the last of them ends."""
        marks = np.asarray(self._marks[first : last + 1], dtype=np.int64)
        ends = np.full(len(marks), len(self.ids), dtype=np.int64)
        inside = marks < len(self._pointers)
        ends[inside] = np.asarray(self._pointers[marks[inside]], dtype=np.int64) // self.ids.itemsize
        return ends


def open_documents(index: Path, data: Path, name: str) -> Documents:
    """The documents of a pair of files; `name` stands in messages.

    Raises BadData where the index is not whole, does not agree with itself, or not with the size of the data.
    """
    size = index.stat().st_size
    if size < HEADER.size:
        raise _bad(name, "x.idx", f"at least {HEADER.size} bytes of header", f"{size}")
    with index.open("rb") as f:
        magic, version, code, sequences, marks = HEADER.unpack(f.read(HEADER.size))
    if magic != MAGIC:
        raise _bad(name, "x.idx byte 0", f"{MAGIC!r}", repr(magic))
    if version != VERSION:
        raise _bad(name, "x.idx byte 9 (version)", str(VERSION), str(version))
    if code not in DTYPES:
        known = ", ".join(f"{c} {np.dtype(d).name}" for c, d in DTYPES.items())
        raise _bad(name, "x.idx byte 17 (type of an id)", f"one of {known}", FLOATS.get(code, str(code)))
    if marks < 1:
        raise _bad(name, "x.idx byte 26 (document marks)", "at least 1", str(marks))
    whole = HEADER.size + 12 * sequences + 8 * marks
    if size != whole:
        counts = f"{sequences} sequences and {marks} document marks"
        raise _bad(name, "x.idx", f"{whole} bytes for {counts}", f"{size}")
    itemsize = np.dtype(DTYPES[code]).itemsize
    at = HEADER.size
    lengths = _mapped(index, "<i4", at, sequences)
    pointers = _mapped(index, "<i8", at + 4 * sequences, sequences)
    num_bytes = _check_sequences(name, lengths, pointers, itemsize)
    if (found := data.stat().st_size) != num_bytes:
        raise _bad(name, "x.bin", f"{num_bytes} bytes, as x.idx says", f"{found}")
    first_mark = at + 12 * sequences
    document_marks = _mapped(index, "<i8", first_mark, marks)
    _check_marks(name, document_marks, sequences, first_mark)
    return Documents(name, _mapped(data, DTYPES[code], 0, num_bytes // itemsize), pointers, document_marks)


def check_ids(documents: Documents, start: int, ids: Array, vocabulary: int) -> None:
    """Raises BadData at the first of `ids`, which begin at place `start`, that no token of the vocabulary has."""
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= vocabulary):
        wrong = int(np.flatnonzero((ids < 0) | (ids >= vocabulary))[0])
        expected = f"an id from 0 to {vocabulary - 1}, those of the tokenizer"
        raise _bad(documents.name, f"x.bin token {start + wrong}", expected, str(int(ids[wrong])))


def _check_sequences(name: str, lengths: Array, pointers: Array, itemsize: int) -> int:
    """Bytes of all sequences; each has to lie where the one before it ends."""
    end = 0
    for first, last in _chunks(len(lengths)):
        ids = np.asarray(lengths[first:last], dtype=np.int64)
        if (ids < 0).any():
            wrong = int(np.flatnonzero(ids < 0)[0])
            raise _bad(name, f"x.idx length of sequence {first + wrong}", "0 or more", str(int(ids[wrong])))
        ends = end + np.cumsum(ids * itemsize)
        begins = ends - ids * itemsize
        other = np.flatnonzero(np.asarray(pointers[first:last]) != begins)
        if len(other):
            i = int(other[0])
            expected = f"{int(begins[i])}, where the one before it ends"
            raise _bad(name, f"x.idx pointer of sequence {first + i}", expected, str(int(pointers[first + i])))
        end = int(ends[-1])
    return end


def _check_marks(name: str, marks: Array, sequences: int, at: int) -> None:
    before = 0
    for first, last in _chunks(len(marks)):
        found = np.asarray(marks[first:last], dtype=np.int64)
        falls = np.flatnonzero(np.diff(found, prepend=before) < 0)
        if len(falls):
            i = int(falls[0])
            expected = f"{before if i == 0 else int(found[i - 1])} or more, the mark before it"
            raise _bad(name, f"x.idx document mark {first + i} (byte {at + 8 * (first + i)})", expected, str(found[i]))
        before = int(found[-1])
    if int(marks[0]) != 0:
        raise _bad(name, f"x.idx document mark 0 (byte {at})", "0", str(int(marks[0])))
    if before != sequences:
        place = f"x.idx document mark {len(marks) - 1} (byte {at + 8 * (len(marks) - 1)})"
        raise _bad(name, place, f"{sequences}, the number of sequences", str(before))


def _chunks(total: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, CHECKED_AT_ONCE):
        yield first, min(first + CHECKED_AT_ONCE, total)


def _mapped(path: Path, dtype: str, offset: int, count: int) -> Array:
    # nothing cannot be mapped
    return np.memmap(path, dtype, "r", offset, (count,)) if count else np.zeros(0, dtype=dtype)


def _bad(name: str, place: str, expected: str, got: str) -> BadData:
    return BadData(f"import-tokens: {name}, {place}: expected {expected}, got {got}")
