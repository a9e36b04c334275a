"""Lines of a file that may be compressed, cut short, damaged or one endless line, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

READ_BYTES = 16 << 10  # what a truncated archive can cost of its readable part
MAX_LINE_BYTES = 16 << 20
UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A line without its end, at a byte of the unpacked file; `data` is empty where `problem` says what is wrong."""

    number: int
    offset: int
    data: bytes
    sha256: str
    problem: str | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """Every line that is not blank, with its 1-based number (blank lines are numbered, too).

    Only a line feed ends a line; a carriage return before it and a byte order mark at the start of the file are not
    part of one. A line over 16 MiB comes with problem `line-too-long`; what is left of an archive that breaks off or is
    damaged comes as one line with problem `truncated-archive` or `damaged-archive`.
    """
    line = _OpenLine(1, 0)
    offset = 0
    broken: str | None = None
    chunks = _chunks(path)
    while True:
        try:
            chunk = next(chunks, b"")
        except OSError as e:
            broken = "truncated-archive" if "Truncated" in str(e) else "damaged-archive"
            break
        if not chunk:
            break
        if offset == 0 and chunk.startswith(UTF8_BOM):
            chunk, offset = chunk[len(UTF8_BOM) :], len(UTF8_BOM)
            line = _OpenLine(1, offset)
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line.add(chunk[start:end])
            if not line.blank:
                yield line.close()
            start = end + 1
            line = _OpenLine(line.number + 1, offset + start)
        line.add(chunk[start:])
        offset += len(chunk)
    if broken is not None:
        yield line.close(broken)
    elif not line.blank:
        yield line.close()


class _OpenLine:
    """A line that is still being read; beyond the cap its bytes are only hashed."""

    def __init__(self, number: int, offset: int) -> None:
        self.number, self.offset = number, offset
        self._parts: list[bytes] = []
        self._size = 0
        self._hash = hashlib.sha256()
        self.blank = True

    def add(self, data: bytes) -> None:
        self._size += len(data)
        self._hash.update(data)
        self.blank = self.blank and not data.strip()
        if self._size > MAX_LINE_BYTES:
            self._parts = []
        else:
            self._parts.append(data)

    def close(self, problem: str | None = None) -> Line:
        if problem is None and self._size > MAX_LINE_BYTES:
            problem = "line-too-long"
        data = b"" if problem else b"".join(self._parts).removesuffix(b"\r")
        return Line(self.number, self.offset, data, self._hash.hexdigest(), problem)


def _chunks(path: Path) -> Iterator[bytes]:
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.input_stream(str(path), compression=compression) as stream:
        while chunk := stream.read(READ_BYTES):
            yield chunk
