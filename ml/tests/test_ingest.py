"""ingest: what is kept, what is quarantined, and that every line is one or the other."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import tempfile
import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import Workbench
from documents import PROSE, bytes_of, doc, ingest, json_lines, rows, source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt_ml.corpus_shards import string_array
from cpt_ml.json_lines import Unreadable, parse_line
from cpt_ml.lines import MAX_LINE_BYTES, Line, read_lines
from cpt_ml.normalise import BLANKS, PLAIN, normalise, not_normal

GOOD = json.dumps(doc("a", PROSE)).encode()

HOSTILE = {
    b"{": "not-json",
    b"plain text": "not-json",
    GOOD + GOOD: "not-json",
    GOOD[:-20]: "not-json",
    b'{"text": NaN, "lang": "en", "kind": "web"}': "not-json",
    b'{"n": 1' + b"0" * 5000 + b"}": "not-json",
    b"\xff\xfe" + GOOD: "not-utf8",
    b"[" * 100_000: "nested-too-deep",
    b'{"a":' * 50_000: "nested-too-deep",
    b'["a list"]': "not-an-object",
    b"null": "not-an-object",
    b'{"text": "a", "text": "b"}': "duplicate-key",
    b'{"lang": "en", "kind": "web"}': "text-missing",
    b'{"text": null, "lang": "en", "kind": "web"}': "text-missing",
    b'{"text": 42, "lang": "en", "kind": "web"}': "text-not-a-string",
    b'{"text": ["a"], "lang": "en", "kind": "web"}': "text-not-a-string",
    b'{"text": " \\u0000\\n\\t", "lang": "en", "kind": "web"}': "text-empty",
    b'{"text": "a", "kind": "web"}': "language-missing",
    b'{"text": "a", "lang": "xx", "kind": "web"}': "language-unknown",
    b'{"text": "a", "lang": ["en"], "kind": "web"}': "language-unknown",
    b'{"text": "a", "lang": "en"}': "kind-missing",
    b'{"text": "a", "lang": "en", "kind": "blog"}': "kind-unknown",
    b'{"text": "a", "lang": "en", "kind": {}}': "kind-unknown",
}


def test_each_hostile_line_is_quarantined_with_its_reason_and_the_rest_is_read(workbench: Workbench) -> None:
    lines = [line for hostile in HOSTILE for line in (hostile, GOOD)]
    result = ingest(workbench, source(workbench, "web", b"\n".join(lines)))
    found = rows(workbench, result["quarantine"])
    assert [r["reason"] for r in found] == list(HOSTILE.values())
    assert [r["line"] for r in found] == list(range(1, len(lines), 2))
    data = b"\n".join(lines)
    for row, line in zip(found, HOSTILE, strict=True):
        assert data[row["offset"] : row["offset"] + len(line)] == line
    assert result["counts"]["kept"] == len(HOSTILE)


def test_a_document_becomes_the_row_that_the_format_describes(workbench: Workbench) -> None:
    line = doc("7", "a\r\nb", topic="Law and Policy", source="site", license="CC0-1.0", extra=[1])
    result = ingest(workbench, source(workbench, "web", json_lines([line]), use="validate"))
    assert rows(workbench, result["corpus"]) == [
        {
            "id": "web:7",
            "text": "a\nb",
            "language": "en",
            "kind": "web",
            "label": "Law and Policy",
            "source": "web",
            "origin": "site",
            "license": "CC0-1.0",
            "use": "validate",
            "line": 1,
        }
    ]
    assert result["counts"] == {
        "lines": 1,
        "kept": 1,
        "quarantined": 0,
        "keptBytes": 3,
        "byReason": {},
        "bySource": {"web": 1},
        "byLanguage": {"en": 1},
    }


def test_a_sources_constants_hold_where_a_document_is_silent(workbench: Workbench) -> None:
    lines = [{"text": "one"}, {"text": "two", "lang": "zh", "kind": "book", "license": "MIT"}]
    made = source(workbench, "s", json_lines(lines), language="en", kind="qa", license="CC0-1.0")
    found = rows(workbench, ingest(workbench, made)["corpus"])
    assert [(r["language"], r["kind"], r["license"]) for r in found] == [("en", "qa", "CC0-1.0"), ("zh", "book", "MIT")]


def test_code_is_english_of_kind_code(workbench: Workbench) -> None:
    found = rows(
        workbench, ingest(workbench, source(workbench, "s", json_lines([doc("a", "x = 1", lang="code")])))["corpus"]
    )
    assert (found[0]["language"], found[0]["kind"]) == ("en", "code")


def test_ids_are_numbers_or_strings_and_never_the_same_twice(workbench: Workbench) -> None:
    ids = ["a", "a", 9, None, True, ""]
    lines = [{**doc("", "text"), "id": i} for i in ids]
    found = [r["id"] for r in rows(workbench, ingest(workbench, source(workbench, "s", json_lines(lines)))["corpus"])]
    assert found == ["s:a", "s:a#2", "s:9", "s:4", "s:5", "s:6"]


def test_byte_order_mark_line_ends_and_blank_lines_are_not_text(workbench: Workbench) -> None:
    data = b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n  \n" + GOOD + b"\n\n"
    result = ingest(workbench, source(workbench, "s", data))
    assert (result["counts"]["lines"], result["counts"]["kept"]) == (2, 2)
    assert [r["line"] for r in rows(workbench, result["corpus"])] == [1, 4]


def test_a_line_over_the_cap_is_quarantined_and_the_next_one_is_read(workbench: Workbench) -> None:
    huge = b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}'
    result = ingest(workbench, source(workbench, "s", huge + b"\n" + GOOD + b"\n"))
    assert result["counts"]["byReason"] == {"line-too-long": 1}
    assert rows(workbench, result["corpus"])[0]["line"] == 2


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_what_can_be_read_of_a_truncated_archive_is_kept(workbench: Workbench, suffix: str) -> None:
    # digits that hardly compress, so that two thirds of the archive are two thirds of the lines
    docs = [doc(str(i), hashlib.shake_128(bytes([i % 256, i // 256])).hexdigest(400)) for i in range(2000)]
    data = json_lines(docs)
    packed = gzip.compress(data) if suffix.endswith("gz") else pa.Codec("zstd").compress(data, asbytes=True)
    whole = ingest(workbench, source(workbench, "whole", packed, suffix))
    assert whole["counts"]["kept"] == 2000
    cut = ingest(workbench, source(workbench, "cut", packed[: len(packed) * 2 // 3], suffix))
    assert cut["counts"]["byReason"] == {"truncated-archive": 1}
    assert 1000 < cut["counts"]["kept"] < 1500
    assert cut["counts"]["lines"] == cut["counts"]["kept"] + 1


def test_a_file_that_is_no_archive_is_one_quarantined_entry(workbench: Workbench) -> None:
    result = ingest(workbench, source(workbench, "s", b"not a gzip file at all", ".jsonl.gz"))
    assert result["counts"]["byReason"] == {"damaged-archive": 1}


def test_a_bomb_is_read_in_bounded_memory(workbench: Workbench) -> None:
    packed = gzip.compress(b"0" * (64 << 20))
    result = ingest(workbench, source(workbench, "s", packed + gzip.compress(b"\n" + GOOD), ".jsonl.gz"))
    assert result["counts"]["byReason"] == {"line-too-long": 1}
    assert result["counts"]["kept"] == 1


def test_the_first_ten_quarantined_lines_are_examples_without_text(workbench: Workbench) -> None:
    made = source(workbench, "s", b"secret words\n" * 12)
    result = ingest(workbench, made)
    units = workbench.units("ingest", {"sources": [made], "maxQuarantineRatio": 1.0})
    assert units is not None
    record = workbench.job("read", {}).store.record(units[0]["fingerprint"])
    assert record["result"]["examples"] == [{"line": i + 1, "offset": 13 * i, "reason": "not-json"} for i in range(10)]
    assert result["counts"]["quarantined"] == 12


def test_the_same_source_gives_the_same_bytes(workbench: Workbench, tmp_path: Path) -> None:
    data = json_lines(doc(str(i), f"{PROSE} {i}") for i in range(5000)) + b"broken\n"
    other = Workbench(tmp_path / "other")
    a, b = (ingest(w, source(w, "s", data)) for w in (workbench, other))
    assert bytes_of(workbench, a["corpus"]) == bytes_of(other, b["corpus"])
    assert bytes_of(workbench, a["quarantine"]) == bytes_of(other, b["quarantine"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([GOOD, b"", b" ", b"\r", *list(HOSTILE)[:5]]))))
def test_lines_that_are_not_blank_are_kept_or_quarantined(pieces: list[bytes]) -> None:
    data = b"\n".join(pieces)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(data)
        file.flush()
        found = list(read_lines(Path(file.name)))
    expected = [(i, line) for i, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if line.strip()]
    assert [(x.number, x.data) for x in found] == [(i, line.removesuffix(b"\r")) for i, line in expected]
    for line in found:
        assert data[line.offset :].startswith(line.data)
        with contextlib.suppress(Unreadable):
            parse_line(line)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_normal_text_fits_in_utf8_and_stays_as_it_is(text: str) -> None:
    once = normalise(text)
    once.encode()
    assert normalise(once) == once
    assert not any(c in once for c in "\r\0\x85\u2028")


PLAIN_TEXT = "".join(chr(c) for first, last in (*BLANKS, *PLAIN) for c in (first, last)) + "\n"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(st.sampled_from(PLAIN_TEXT)), st.text(st.characters(exclude_categories=["Cs"])))))
def test_a_text_that_the_quick_check_passes_is_normal(texts: list[str]) -> None:
    flagged = not_normal(string_array(texts))
    for i, text in enumerate(texts):
        assert i in flagged or normalise(text) == text != ""


def test_no_character_that_the_quick_check_passes_changes_by_itself_or_by_its_neighbour() -> None:
    parts = (unicodedata.decomposition(chr(c)).split() for c in range(0x110000))
    joins_the_one_before = {int(p[1], 16) for p in parts if len(p) == 2 and not p[0].startswith("<")}
    joins_the_one_before |= {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and tails of Hangul
    for first, last in (*BLANKS, *PLAIN):
        for c in range(first, last + 1):
            assert normalise(f"x{chr(c)}x") == f"x{chr(c)}x"
            assert not unicodedata.combining(chr(c))
            assert c not in joins_the_one_before
    assert not not_normal(string_array([f"x{PLAIN_TEXT.strip()}x"]))


def test_a_long_run_of_combining_marks_is_cut_to_thirty() -> None:
    assert len(normalise("x" + "\u0301\u0323" * 100_000)) <= 31


def test_a_line_with_a_problem_of_its_own_keeps_that_reason() -> None:
    with pytest.raises(Unreadable, match="line-too-long"):
        parse_line(Line(1, 0, b"", "", "line-too-long"))
