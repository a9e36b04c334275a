"""ingest over 10,000 lines whose fate is known: each is kept, or quarantined with its place, digest and reason."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
from conftest import Workbench
from documents import PROSE, PROSE_ZH, doc, ingest, rows, source

from cpt_ml.json_columns import ColumnReader
from cpt_ml.json_lines import parse_line, vouched
from cpt_ml.lines import Block, Line
from cpt_ml.store import Json

HUGE = 200 << 20
PIECE = b"x" * (8 << 20)
NO_NUMBERS = [b"NaN", b"Infinity", b"-Infinity", b"01", b"+1"]


def nested(depth: int, inner: bytes = b"1") -> bytes:
    return b'{"a":' * depth + inner + b"}" * depth


def whole(rng: random.Random, number: int) -> tuple[bytes, str]:
    """A good line, in one of many spellings, and its text."""
    text = f"{rng.choice([PROSE, PROSE_ZH])} {number}: \U0001f600 “{rng.random()}”"
    value: Json = doc(f"d{number}", text, topic=rng.choice(["", "a:b", None]), note={"k:": [1.5, None, {"x": "y:z"}]})
    value |= rng.choice([{}, {"n": 10**17}, {"n": -1e-9}, {"lang": "code"}, {"license": "CC0-1.0"}])
    separators = rng.choice([(",", ":"), (", ", ": "), (" , ", " : ")])
    line = json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=separators).encode()
    return line.replace(b":", rng.choice([b":", b" :\t"]), 1), text


def good(rng: random.Random, number: int) -> bytes:
    return whole(rng, number)[0]


FAULTS: dict[str, list[Callable[[random.Random, int], bytes]]] = {
    "not-json": [
        lambda r, n: good(r, n)[: -r.randrange(1, 40)],
        lambda r, n: good(r, n) + r.choice([b"}", b",", b"{}", b"x"]),
        lambda r, n: good(r, n).replace(b'"id"', b"id"),
        lambda r, n: good(r, n).replace(
            b"}", b',"x":%s}' % r.choice([b"NaN", b"Infinity", b"-Infinity", b"01", b"+1"])
        ),
        lambda r, n: b'{"text":"a\x00b","lang":"en","kind":"web","n":%d}' % n,
        lambda r, n: b'{"text":"tab\tin it","lang":"en","kind":"web","n":%d}' % n,
        lambda r, n: b"\xef\xbb\xbf" + good(r, n),
        lambda _, n: b"\x00" * (1 + n % 7),
        lambda _, n: b'{"text":"a","n":1' + b"0" * (5000 + n % 10) + b"}",
    ],
    "not-utf8": [
        lambda r, n: good(r, n).replace(b"d%d" % n, b"d\xff%d" % n),
        lambda _, n: b'{"text":"\xed\xa0\x80 half a pair %d"}' % n,
        lambda _, n: b'{"text":"\xc0\xaf too long a form %d"}' % n,
    ],
    "nested-too-deep": [
        lambda _, n: nested(600 + n % 300),
        lambda _, n: nested(5000 + n % 10),
        lambda _, n: b"[" * (2000 + n % 10),
    ],
    "not-an-object": [
        lambda _, n: b"[%d]" % n,
        lambda _, n: b'"%d"' % n,
        lambda _, n: b"%d" % n,
        lambda _r, _n: b"null",
    ],
    "duplicate-key": [
        lambda r, n: good(r, n).replace(b'"lang"', b'"id":"again","lang"'),
        lambda r, n: good(r, n).replace(b'"lang"', b'"id" : "\\u003a","lang"'),
        lambda r, n: good(r, n).replace(b'"lang"', b'"m":[{"p":{"q":1,"q":2}}],"lang"'),
        lambda _, n: b'{"text":"%d","lang":"en","kind":"web","ki\\u006ed":"qa"}' % n,
    ],
    "text-missing": [lambda _, n: json.dumps({"lang": "en", "n": n}).encode(), lambda _r, _n: b'{"text":null}'],
    "text-not-a-string": [
        lambda _, n: b'{"text":%d}' % n,
        lambda _, n: b'{"text":["%d"]}' % n,
        lambda _r, _n: b'{"text":{}}',
    ],
    "text-empty": [
        lambda _r, _n: rb'{"text":" \u0000\n\u3000","lang":"en","kind":"web"}',
        lambda _r, _n: b'{"text":"","lang":"??"}',
    ],
    "language-missing": [lambda _, n: b'{"text":"%d","kind":"web"}' % n],
    "language-unknown": [lambda _, n: b'{"text":"%d","lang":%s,"kind":"web"}' % (n, [b'"xx"', b"[1]", b"7"][n % 3])],
    "kind-missing": [lambda _, n: b'{"text":"%d","lang":"en"}' % n],
    "kind-unknown": [lambda _, n: b'{"text":"%d","lang":"en","kind":%s}' % (n, [b'"blog"', b"{}", b"1"][n % 3])],
}


@dataclass
class Truth:
    """A file as it is unpacked, and what has to become of it."""

    name: str
    data: bytearray = field(default_factory=bytearray)
    line: int = 0
    shift: int = 0
    kept: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    bad: list[tuple[str, int, int, str, str]] = field(default_factory=list[tuple[str, int, int, str, str]])

    def quarantined(self, raw: bytes, reason: str) -> None:
        self.bad.append((self.name, self.line, self.shift + len(self.data), hashlib.sha256(raw).hexdigest(), reason))

    def add(self, rng: random.Random, end: bytes = b"\n") -> None:
        """One more line, good or bad; now and then a blank one before it, and the end of a line of Windows."""
        if rng.random() < 0.05:
            self.data += rng.choice([b"\n", b" \t\n", b"\r\n"])
            self.line += 1
        self.line += 1
        carriage = b"\r" if end and rng.random() < 0.2 else b""
        if rng.random() < 0.6:
            raw, text = whole(rng, self.line)
            self.kept.append((self.line, text))
        else:
            reason = rng.choice(list(FAULTS))
            raw = rng.choice(FAULTS[reason])(rng, self.line)
            self.quarantined(raw + carriage, reason)
        self.data += raw + carriage + end

    def cut(self, data: bytes) -> None:
        """Leaves what can still be unpacked; the line that is cut is the archive's damage."""
        end = data.rfind(b"\n") + 1
        self.line = data.count(b"\n") + 1
        self.kept = [k for k in self.kept if k[0] < self.line]
        self.bad = [b for b in self.bad if b[1] < self.line]
        self.data = bytearray(data[:end])
        self.quarantined(data[end:], "truncated-archive")


def made(name: str, seed: int, lines: int, start: bytes = b"") -> Truth:
    rng = random.Random(seed)
    truth = Truth(name, bytearray(start))
    for _ in range(lines):
        truth.add(rng)
    return truth


def test_of_ten_thousand_lines_each_is_kept_or_quarantined_as_it_should(workbench: Workbench) -> None:
    plain = made("plain", 1, 6998, b"\xef\xbb\xbf")
    plain.line += 1
    plain.quarantined(b'{"text": "cut in the mid', "not-json")
    plain.data += b'{"text": "cut in the mid'

    cut_gz = made("cut-gz", 2, 2000)
    packed_gz = gzip.compress(bytes(cut_gz.data))
    packed_gz = packed_gz[: len(packed_gz) * 3 // 4]
    cut_gz.cut(zlib.decompressobj(31).decompress(packed_gz))
    assert len(cut_gz.kept) > 700

    # of a frame of one block nothing can be unpacked before it is whole
    cut_zst = made("cut-zst", 3, 500)
    zstd = pa.Codec("zstd")
    last = zstd.compress(json.dumps(doc("x", "never read")).encode(), asbytes=True)
    packed_zst = zstd.compress(bytes(cut_zst.data), asbytes=True) + last[:8]
    cut_zst.cut(bytes(cut_zst.data))

    huge = made("huge", 4, 250)
    head = gzip.compress(bytes(huge.data))
    huge.line += 1
    huge.bad.append(("huge", huge.line, len(huge.data), digest_of_huge(), "line-too-long"))
    # what follows it lies as many bytes further on
    huge.shift = HUGE
    huge.data += b"\n"
    start, rng = len(huge.data) - 1, random.Random(5)
    for _ in range(250):
        huge.add(rng)
    tail = gzip.compress(bytes(huge.data[start:]))

    result = ingest(
        workbench,
        source(workbench, "plain", bytes(plain.data)),
        source(workbench, "cut-gz", packed_gz, ".jsonl.gz"),
        source(workbench, "cut-zst", packed_zst, ".jsonl.zst"),
        source(workbench, "huge", head + gzip.compress(PIECE) * (HUGE // len(PIECE)) + tail, ".jsonl.gz"),
    )
    truths = [plain, cut_gz, cut_zst, huge]
    quarantine = [tuple(r.values()) for r in rows(workbench, result["quarantine"])]
    assert quarantine == [b for t in truths for b in t.bad]
    corpus = [(r["source"], r["line"], r["text"]) for r in rows(workbench, result["corpus"])]
    assert corpus == [(t.name, *k) for t in truths for k in t.kept]
    counts = result["counts"]
    assert counts["lines"] == counts["kept"] + counts["quarantined"] == len(quarantine) + len(corpus)
    assert set(counts["byReason"]) == {*FAULTS, "line-too-long", "truncated-archive"}
    assert len(plain.kept) + len(plain.bad) + 2000 + 500 + 501 == 10_000


SPLICED = [
    *(b'"', b'":', b'","text":"x"', b"{", b"}", b"[", b"]", b"\\u003a", b"\\u003A", b"\\ud800", b"\\ud83d\\ude00"),
    *(
        b"\xff",
        b"\r",
        b"\x00",
        b'"id":1e400,',
        b'"id":-0,',
        b'"id":123456789012345678901,',
        b'"id":1.0,',
        b'"m":{"a":1,"a":2},',
    ),
    *(b'"m":{"a:b":[1.5,"x:y"],"c":{}},', b'"m":[[[{"":":"}]]],', b'"lang" : "en",', b" ", b":", b'"a\\u003ab":1,'),
]


def test_what_the_fast_parser_vouches_for_is_what_the_strict_one_reads() -> None:
    rng = random.Random(7)
    vouched_for = 0
    for n in range(5000):
        raw = bytearray(good(rng, n) if rng.random() < 0.7 else rng.choice(FAULTS[rng.choice(list(FAULTS))])(rng, n))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(raw) + 1)
            # behind the first brace or a comma it is most often JSON still
            at = rng.choice([1, raw.find(b",", at) + 1, at])
            raw[at : at + rng.choice([0, 0, 1])] = rng.choice(SPLICED)
        found = vouched(bytes(raw))
        if found is not None:
            vouched_for += 1
            assert repr(found) == repr(parse_line(Line(1, 0, bytes(raw), "")))
    assert vouched_for > 1000


STRINGS = ["text", "lang", "kind", "topic"]


def flat(rng: random.Random, number: int) -> bytes:
    """A good line without nested values."""
    value = {k: v for k, v in json.loads(good(rng, number)).items() if k != "note"}
    value |= rng.choice([{}, {"n": number / 3}, {"share": True}]) | ({"id": number} if number % 4 == 0 else {})
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()


def test_what_is_read_as_columns_is_what_the_strict_reader_reads_line_by_line() -> None:
    rng = random.Random(11)
    in_columns = by_line = 0
    for n in range(4000):
        lines = [bytearray(flat(rng, n)) for _ in range(rng.randrange(1, 5))]
        reader = ColumnReader(STRINGS, "id")
        reader.learn(json.loads(line) for line in lines)
        for _ in range(rng.choice([0, 0, 1, 2])):
            raw = rng.choice(lines)
            at = rng.randrange(len(raw) + 1)
            at = rng.choice([1, raw.find(b",", at) + 1, at, len(raw) - 1])
            raw[at : at + rng.choice([0, 0, 1])] = rng.choice(
                [*SPLICED, b"\n", b"}{", b"}\n{", b'"id":7,', b'"text":null,']
            )
        data = b"\n".join(lines)
        found = reader.read(Block(1, 0, data))
        if found is None:
            by_line += 1
            continue
        in_columns += 1
        strict = [parse_line(Line(1, 0, raw.removesuffix(b"\r"), "")) for raw in data.split(b"\n")]
        for name in [*STRINGS, "id"]:
            assert repr(found[name].to_pylist()) == repr([value.get(name) for value in strict])
    assert in_columns > 1300
    assert by_line > 1000


NOT_AN_OBJECT_A_LINE = [
    b'{"text":"a"}{"text":"b"}\n',
    b'{"text":"a"}{"text":\n"b"}',
    b'{"text":"a"}\x00 {}',
    b'{"text":"a"}\n\n{"text":"b"}',
    b' {"text":"a"}',
    b'{"text":"a","text":null}',
    b'{"text":"a","\\u0074ext":"b"}',
    b'{"text":"\\ud800"}',
    b'{"text":"\xed\xa0\x80"}',
    b'{"text":"a","id":1.0}',
    b'{"text":"a","meta":{"a":1,"a":2}}',
]


def test_a_block_that_could_be_read_in_two_ways_is_not_read_as_columns() -> None:
    for data in NOT_AN_OBJECT_A_LINE:
        reader = ColumnReader(["text"], "id")
        assert reader.read(Block(1, 0, b'{"text":"before"}\n' + data)) is None
    assert ColumnReader(["text"], "id").read(Block(1, 0, b'{"text":"a\\u0000"}\r\n{"text":"b"}')) is not None


def test_lines_give_the_same_rows_whether_they_are_read_as_columns_or_one_by_one(workbench: Workbench) -> None:
    rng = random.Random(13)
    texts = ["a  \r\nb", "e\u0301 caf\u00e9", PROSE_ZH + "\u3000", "\u2002x", "x" * 5000, PROSE, "\x07bell"]
    docs: list[Json] = []
    for n in range(3000):
        value = doc(f"d{n % 2500}" if rng.random() < 0.7 else rng.choice([f"  {n} ", "y" * 300, ""]), rng.choice(texts))
        value |= rng.choice(
            [{}, {"topic": ""}, {"topic": "e\u0301"}, {"topic": None}, {"lang": "code"}, {"lang": "zh"}]
        )
        value |= rng.choice([{}, {"license": "CC0-1.0"}, {"source": "a web\tpage "}, {"source": f"page {n}"}])
        docs.append(value)
    flat_lines = b"".join(json.dumps(d).encode() + b"\n" for d in docs)
    assert ColumnReader(["text", "lang", "kind", "topic", "license", "source"], "id").read(Block(1, 0, flat_lines[:-1]))
    nested_lines = b"".join(json.dumps({**d, "note": [{}]}).encode() + b"\n" for d in docs)
    results = [ingest(workbench, source(workbench, "web", data)) for data in (flat_lines, nested_lines)]
    first, second = (workbench.shards(result["corpus"]) for result in results)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert results[0]["counts"] == results[1]["counts"]
    assert results[0]["counts"]["kept"] == 3000


def digest_of_huge() -> str:
    digest = hashlib.sha256()
    for _ in range(HUGE // len(PIECE)):
        digest.update(PIECE)
    return digest.hexdigest()
