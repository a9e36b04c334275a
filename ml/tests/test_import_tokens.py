"""import-tokens: Megatron-LM's files, written here from their layout, come in token by token, and damage is named."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, rows
from tiny import make_tokenizer
from tokenizers import Tokenizer

from cpt_ml.errors import BadData
from cpt_ml.megatron import open_documents
from cpt_ml.store import Json

CODES = {"<u1": 1, "<i1": 2, "<i2": 3, "<i4": 4, "<i8": 5, "<u2": 8}
EOS = 1  # </s> of the tiny tokenizer


def pair(documents: Sequence[Sequence[Sequence[int]]], dtype: str = "<u2") -> tuple[bytes, bytes]:
    """The bytes of .idx and .bin of documents, each a list of sequences of ids."""
    sequences = [s for d in documents for s in d]
    lengths = [len(s) for s in sequences]
    size = np.dtype(dtype).itemsize
    pointers = [size * sum(lengths[:i]) for i in range(len(lengths))]
    marks = [0]
    for d in documents:
        marks.append(marks[-1] + len(d))
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, CODES[dtype], len(sequences), len(marks))
    index += struct.pack(f"<{len(lengths)}i", *lengths) + struct.pack(f"<{len(pointers)}q", *pointers)
    index += struct.pack(f"<{len(marks)}q", *marks)
    return index, b"".join(np.array(s, dtype=dtype).tobytes() for s in sequences)


def imported(workbench: Workbench, index: bytes, data: bytes, **fields: Any) -> Json:
    """The result of import-tokens over one pair."""
    given = {"file": workbench.put("t/x.bin", data), "index": workbench.put("t/x.idx", index)}
    limits = {k: fields.pop(k) for k in ("shardDocs", "shardBytes") if k in fields}
    file = {"name": "pile", **given, "language": "en", "kind": "web", **fields}
    return workbench.run("import-tokens", {"files": [file], "tokenizer": make_tokenizer(workbench), **limits})


def encoded(workbench: Workbench, *texts: str) -> list[list[int]]:
    tokenizer: Any = Tokenizer.from_file(str(workbench.path(make_tokenizer(workbench))))
    return [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]


def documents_of(workbench: Workbench, result: Json) -> list[list[int]]:
    """The ids of every document, by index and tokens."""
    found: list[list[int]] = []
    for index, tokens in zip(workbench.shards(result["index"]), workbench.shards(result["tokens"]), strict=True):
        ids = np.fromfile(tokens, dtype="<u4").tolist()
        table = pq.read_table(index).to_pylist()
        found += [ids[r["offset"] : r["offset"] + r["num_tokens"]] for r in table]
        assert sum(r["num_tokens"] for r in table) == len(ids)
    return found


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<i8", "<u2"])
def test_the_ids_of_every_document_come_in_as_they_are_without_what_ends_it(workbench: Workbench, dtype: str) -> None:
    a, b, c = encoded(workbench, PROSE, PROSE_ZH, "a cold sea")
    # one of two sentences, one with an end amid it and two at its end, one of nothing but ends, one that is empty
    documents = [[a[:7], [*a[7:], EOS]], [[*b, EOS, *b, EOS, EOS]], [[EOS, EOS]], [[]], [c]]
    result = imported(workbench, *pair(documents, dtype), license="CC0-1.0")
    assert documents_of(workbench, result) == [a, [*b, EOS, *b], c]
    counts = result["counts"]
    assert (counts["documents"], counts["docs"], counts["empty"]) == (5, 3, 2)
    assert (counts["eodStripped"], counts["eodInside"]) == (5, 1)
    assert counts["tokens"] == len(a) + 2 * len(b) + 1 + len(c) == counts["byLanguage"]["en"]
    found = rows(workbench, result["corpus"])
    assert [r["id"] for r in found] == ["pile:1", "pile:2", "pile:5"]
    assert [r["text"] for r in found] == [PROSE, f"{PROSE_ZH}</s>{PROSE_ZH}", "a cold sea"]
    assert {(r["language"], r["kind"], r["license"], r["use"]) for r in found} == {("en", "web", "CC0-1.0", "train")}
    assert [r["num_bytes"] for r in rows(workbench, result["index"])] == [len(r["text"].encode()) for r in found]


def test_ids_that_the_text_would_not_give_again_are_kept(workbench: Workbench) -> None:
    letters = [i for (i,) in encoded(workbench, *PROSE[:30].replace(" ", ""))]
    word = PROSE[:30].replace(" ", "")
    assert len(encoded(workbench, word)[0]) < len(letters)
    result = imported(workbench, *pair([[letters]]))
    assert documents_of(workbench, result) == [letters]
    assert rows(workbench, result["corpus"])[0]["text"] == word


def test_another_end_of_document_may_be_named(workbench: Workbench) -> None:
    (a,) = encoded(workbench, PROSE)
    assert documents_of(workbench, imported(workbench, *pair([[[*a, 7, 7]]]), eod=7)) == [a]


def test_shards_hold_so_many_documents_and_the_same_files_give_the_same_bytes(workbench: Workbench) -> None:
    ids = encoded(workbench, *(f"{PROSE} {n}" for n in range(25)))
    files = pair([[i] for i in ids])
    result = imported(workbench, *files, shardDocs=10)
    kinds = ("corpus", "tokens", "index")
    assert [[len(pq.read_table(p)) for p in workbench.shards(result[k])] for k in ("corpus", "index")] == [
        [10, 10, 5]
    ] * 2
    assert documents_of(workbench, result) == ids
    again = imported(workbench, *files, shardDocs=10)
    assert [bytes_of(workbench, again[k]) for k in kinds] == [bytes_of(workbench, result[k]) for k in kinds]
    small = imported(workbench, *files, shardBytes=3 * len(PROSE.encode()))
    assert len(workbench.shards(small["tokens"])) == 13  # two documents each
    assert documents_of(workbench, small) == ids


def test_a_file_without_documents_is_an_empty_pool(workbench: Workbench) -> None:
    result = imported(workbench, *pair([]))
    assert result["counts"]["documents"] == result["counts"]["tokens"] == 0
    assert documents_of(workbench, result) == []


def test_an_id_that_is_none_of_the_tokenizers_ends_the_import_with_its_place(workbench: Workbench) -> None:
    (a,) = encoded(workbench, PROSE)
    with pytest.raises(BadData, match=rf"pile, x\.bin token {len(a) + 2}: expected an id from 0 to \d+, .* got 40000"):
        imported(workbench, *pair([[a], [[5, 6, 40_000]]]))
    with pytest.raises(BadData, match=r"x\.bin token 1: .* got -4"):
        imported(workbench, *pair([[[5, -4]]], "<i4"))


def test_every_truncation_of_either_file_is_named(workbench: Workbench) -> None:
    index, data = pair([[[5, 6], [7]], [[8, 9, 10]]])
    (workbench.files / "cut").mkdir()
    idx, binary = workbench.files / "cut" / "x.idx", workbench.files / "cut" / "x.bin"
    for cut in range(len(index)):
        idx.write_bytes(index[:cut])
        binary.write_bytes(data)
        with pytest.raises(BadData, match=r"pile, x\.idx: expected (at least )?\d+ bytes .*, got \d+"):
            open_documents(idx, binary, "pile")
    idx.write_bytes(index)
    for cut in range(len(data)):
        binary.write_bytes(data[:cut])
        with pytest.raises(BadData, match=rf"pile, x\.bin: expected {len(data)} bytes, as x\.idx says, got {cut}"):
            open_documents(idx, binary, "pile")


@pytest.mark.parametrize(
    ("at", "format", "value", "said"),
    [
        (0, "<B", 0x54, r"x\.idx byte 0: expected b'MMIDIDX"),
        (9, "<Q", 2, r"x\.idx byte 9 \(version\): expected 1, got 2"),
        (17, "<B", 7, r"x\.idx byte 17 \(type of an id\): expected one of 1 uint8, .*, got float32"),
        (17, "<B", 9, r"got 9"),
        (17, "<B", 4, r"x\.idx pointer of sequence 1: expected 8, where the one before it ends, got 4"),
        (18, "<Q", 2**63, r"x\.idx: expected \d+ bytes for 9223372036854775808 sequences"),
        (26, "<Q", 0, r"document marks\): expected at least 1, got 0"),
        (34, "<i", -2, r"x\.idx length of sequence 0: expected 0 or more, got -2"),
        (46 + 8, "<q", 2**40, r"x\.idx pointer of sequence 1: expected 4, .* got 1099511627776"),
        (46 + 8, "<q", -4, r"x\.idx pointer of sequence 1: expected 4, .* got -4"),
        (70, "<q", 1, r"x\.idx document mark 0 \(byte 70\): expected 0, got 1"),
        (78, "<q", 4, r"x\.idx document mark 2 \(byte 86\): expected 4 or more, the mark before it, got 3"),
        (86, "<q", 2, r"x\.idx document mark 2 \(byte 86\): expected 3, the number of sequences, got 2"),
    ],
)
def test_an_index_that_does_not_agree_with_itself_is_named(
    workbench: Workbench, at: int, format: str, value: int, said: str
) -> None:
    index, data = pair([[[5, 6], [7]], [[8, 9, 10]]])
    wrong = bytearray(index)
    struct.pack_into(format, wrong, at, value)
    with pytest.raises(BadData, match=said):
        imported(workbench, bytes(wrong), data)


def test_changed_bytes_are_named_or_make_another_whole_file(workbench: Workbench) -> None:
    index, data = pair([[[5, 6], [7]], [[8, 9, 10]], [[11]]], "<i4")
    rng = random.Random(5)
    named: list[str] = []
    for _ in range(600):
        wrong = bytearray(index)
        for _ in range(rng.randint(1, 3)):
            wrong[rng.randrange(len(wrong))] = rng.randrange(256)
        try:
            result = imported(workbench, bytes(wrong), data)
        except BadData as e:
            named.append(str(e))
        else:
            assert sum(map(len, documents_of(workbench, result))) == result["counts"]["tokens"]
    assert len(named) > 500
    assert all(m.startswith("import-tokens: pile, x.") and ": expected " in m for m in named)
