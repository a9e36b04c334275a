"""Lines of a file that may be compressed, cut short, damaged or one endless line, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

READ_BYTES = 1 << 20
# what an archive has before the place where it breaks off is read in ever smaller steps
CAREFUL_READ_BYTES = (READ_BYTES, 16 << 10, 1)
MAX_LINE_BYTES = 16 << 20
UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A line without its end, at a byte of the unpacked file; `data` is empty where `problem` says what is wrong.

    `sha256` is of the line as it was read, with the carriage return that `data` lacks.
    """

    number: int
    offset: int
    data: bytes
    sha256: str
    problem: str | None = None


@dataclass(frozen=True)
class Block:
    """Lines in a row, blank ones too, without the last line feed: the first is line `number`, at byte `offset`."""

    number: int
    offset: int
    data: bytes

    @cached_property
    def raw(self) -> list[bytes]:
        """The lines without their line feeds."""
        return self.data.split(b"\n")

    @property
    def end(self) -> int:
        """Byte behind the last line."""
        return self.offset + len(self.data) + 1

    def lines(self, indices: list[int]) -> Iterator[Line]:
        """Those lines, in order; indices ascend."""
        starts = list(accumulate((len(r) + 1 for r in self.raw), initial=self.offset)) if indices else []
        for i in indices:
            raw = self.raw[i]
            yield Line(self.number + i, starts[i], raw.removesuffix(b"\r"), hashlib.sha256(raw).hexdigest())


def read_lines(path: Path) -> Iterator[Line]:
    """Every line that is not blank, with its 1-based number (blank lines are numbered, too).

    Only a line feed ends a line; a carriage return before it and a byte order mark at the start of the file are not
    part of one. A line over 16 MiB comes with problem `line-too-long`; what is left of an archive that breaks off or is
    damaged comes as one line with problem `truncated-archive` or `damaged-archive`.
    """
    for part in read_blocks(path):
        if isinstance(part, Line):
            yield part
        else:
            yield from part.lines([i for i, raw in enumerate(part.raw) if raw.strip()])


def read_blocks(path: Path) -> Iterator[Block | Line]:
    """The lines that read_lines gives, some MiB together; those with a problem by themselves."""
    number, offset = 1, 0
    rest: bytes | _LongLine = b""
    broken: str | None = None
    chunks = _chunks(path)
    first = True
    while True:
        try:
            chunk = next(chunks)
        except StopIteration:
            break
        except OSError as e:
            broken = "truncated-archive" if "Truncated" in str(e) else "damaged-archive"
            break
        if first and chunk.startswith(UTF8_BOM):
            chunk, offset = chunk[len(UTF8_BOM) :], len(UTF8_BOM)
        first = False
        if isinstance(rest, bytes):
            chunk = rest + chunk
            end = chunk.find(b"\n")
            if end > MAX_LINE_BYTES or (end < 0 and len(chunk) > MAX_LINE_BYTES):
                rest = _LongLine(number, offset)
        if isinstance(rest, _LongLine):
            end = chunk.find(b"\n")
            rest.add(chunk if end < 0 else chunk[:end])
            if end < 0:
                continue
            if not rest.blank:
                yield rest.close("line-too-long")
            number, offset, chunk = number + 1, rest.end + 1, chunk[end + 1 :]
        end = chunk.rfind(b"\n")
        rest = chunk[end + 1 :]
        if end >= 0:
            block = Block(number, offset, chunk[:end])
            yield block
            number, offset = number + block.data.count(b"\n") + 1, offset + end + 1
    if broken is not None or isinstance(rest, _LongLine):
        last = rest if isinstance(rest, _LongLine) else _LongLine.of(number, offset, rest)
        if broken is not None or not last.blank:
            yield last.close(broken or "line-too-long")
    elif rest.strip():
        yield Block(number, offset, rest)


class _LongLine:
    """A line of which nothing is kept but where it is and its digest."""

    def __init__(self, number: int, offset: int) -> None:
        self.number, self.offset = number, offset
        self.end = offset
        self.blank = True
        self._hash = hashlib.sha256()

    @staticmethod
    def of(number: int, offset: int, data: bytes) -> _LongLine:
        line = _LongLine(number, offset)
        line.add(data)
        return line

    def add(self, data: bytes) -> None:
        self.end += len(data)
        self._hash.update(data)
        self.blank = self.blank and not data.strip()

    def close(self, problem: str) -> Line:
        return Line(self.number, self.offset, b"", self._hash.hexdigest(), problem)


def _chunks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes. Raises OSError where an archive breaks off, after all that it has before."""
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    done = 0
    failure: OSError | None = None
    # a read that fails loses what it has read so far
    for size in CAREFUL_READ_BYTES if compression else CAREFUL_READ_BYTES[:1]:
        with pa.input_stream(str(path), compression=compression) as stream:
            _skip(stream, done)
            got = bytearray()
            failure = None
            try:
                while piece := stream.read(size):
                    got += piece
                    if len(got) >= READ_BYTES:
                        done += len(got)
                        yield bytes(got)
                        got.clear()
            except OSError as e:
                failure = e
            if got:
                done += len(got)
                yield bytes(got)
        if failure is None:
            return
    if failure is not None:
        raise failure


def _skip(stream: pa.NativeFile, count: int) -> None:
    while count:
        count -= len(stream.read(min(count, READ_BYTES)))
