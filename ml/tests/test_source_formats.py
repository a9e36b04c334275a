"""ingest of Parquet and plain text, of folders, and into shards of bounded size."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from documents import FIELDS, PROSE, PROSE_ZH, bytes_of, doc, ingest, json_lines, request, rows, source

from cpt_ml import ingest as ingest_module
from cpt_ml.lines import MAX_LINE_BYTES
from cpt_ml.store import Json


def parquet(workbench: Workbench, name: str, table: pa.Table, **more: Any) -> Json:
    """A source that is one Parquet file."""
    path = workbench.files / f"{name}.parquet"
    pq.write_table(table, path, row_group_size=more.pop("row_group_size", 100))
    return {
        "name": name,
        "file": workbench.ref(path.name),
        "format": "parquet",
        "fields": FIELDS,
        "use": "train",
        **more,
    }


def test_rows_of_parquet_become_the_documents_that_lines_of_json_do(workbench: Workbench) -> None:
    docs = [doc(str(i), f"{PROSE}\r\n{i}", topic="Law and Policy", source="site", license="MIT") for i in range(250)]
    columns = {name: [d[name] for d in docs] for name in docs[0]}
    table = pa.table({**columns, "kind": pa.array(columns["kind"]).dictionary_encode(), "unused": [[1]] * 250})
    by_line = rows(workbench, ingest(workbench, source(workbench, "s", json_lines(docs)))["corpus"])
    result = ingest(workbench, parquet(workbench, "s", table))
    assert rows(workbench, result["corpus"]) == by_line
    assert result["counts"]["lines"] == 250


def test_rows_of_parquet_that_are_no_documents_are_quarantined_by_number(workbench: Workbench) -> None:
    texts = [PROSE.encode(), None, b"\xff half a word", b" \n", b"x" * (MAX_LINE_BYTES + 1), PROSE_ZH.encode()]
    table = pa.table({"text": pa.array(texts, pa.binary()), "id": [1, 2, 3, 4, 5, 6], "lang": ["en"] * 5 + ["??"]})
    result = ingest(workbench, parquet(workbench, "s", table, kind="web", row_group_size=2))
    found = [(r["line"], r["reason"]) for r in rows(workbench, result["quarantine"])]
    assert found == [
        (2, "text-missing"),
        (3, "not-utf8"),
        (4, "text-empty"),
        (5, "line-too-long"),
        (6, "language-unknown"),
    ]
    assert [(r["id"], r["line"]) for r in rows(workbench, result["corpus"])] == [("s:1", 1)]
    numbers = pa.table({"text": [1.5, 2.5], "lang": ["en", "en"]})
    assert ingest(workbench, parquet(workbench, "n", numbers))["counts"]["byReason"] == {"text-not-a-string": 2}
    without = pa.table({"body": ["a", "b", "c"]})
    assert ingest(workbench, parquet(workbench, "w", without))["counts"]["byReason"] == {"text-missing": 3}


def test_of_a_damaged_row_group_every_row_is_quarantined_and_the_next_group_is_read(workbench: Workbench) -> None:
    noise = [hashlib.shake_128(bytes([i])).hexdigest(2000) for i in range(90)]
    made = parquet(workbench, "s", pa.table({"text": noise}), language="en", kind="web", row_group_size=30)
    path = workbench.files / "s.parquet"
    second = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[second.dictionary_page_offset : second.dictionary_page_offset + 1000] = bytes(1000)
    path.write_bytes(data)
    result = ingest(workbench, {**made, "file": workbench.ref("s.parquet")})
    assert result["counts"]["byReason"] == {"damaged-row-group": 30}
    assert [r["line"] for r in rows(workbench, result["quarantine"])] == list(range(31, 61))
    assert [r["line"] for r in rows(workbench, result["corpus"])] == [*range(1, 31), *range(61, 91)]
    path.write_bytes(data[: len(data) // 2])
    cut = ingest(workbench, {**made, "file": workbench.ref("s.parquet")})
    assert cut["counts"]["byReason"] == {"damaged-parquet": 1}


def test_every_file_of_a_folder_of_text_is_a_document_by_its_path(workbench: Workbench) -> None:
    files = {
        "b.txt": PROSE.encode(),
        "a/2.txt": PROSE_ZH.encode(),
        "a/1.txt": b"\xef\xbb\xbfone\r\ntwo\n",
        "bad": b"\xff",
    }
    files |= {"empty": b"", "long": b"x" * (MAX_LINE_BYTES + 1)}
    for name, data in files.items():
        workbench.put(f"texts/{name}", data)
    folder = {"name": "t", "file": workbench.ref("texts/"), "format": "text", "fields": FIELDS, "use": "train"}
    result = ingest(workbench, {**folder, "language": "en", "kind": "book"})
    kept = [(r["id"], r["text"], r["line"]) for r in rows(workbench, result["corpus"])]
    assert kept == [("t:a/1.txt", "one\ntwo", 1), ("t:a/2.txt", PROSE_ZH, 2), ("t:b.txt", PROSE, 3)]
    bad = [(r["line"], r["reason"], r["sha256"]) for r in rows(workbench, result["quarantine"])]
    reasons = {"bad": "not-utf8", "empty": "text-empty", "long": "file-too-long"}
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in reasons}
    assert bad == [(n, reasons[name], digests[name]) for n, name in enumerate(reasons, 4)]
    one = ingest(workbench, {**folder, "file": workbench.ref("texts/b.txt"), "language": "en", "kind": "book"})
    assert [r["id"] for r in rows(workbench, one["corpus"])] == ["t:b.txt"]


def test_files_of_one_source_have_ids_of_their_own_and_count_together(workbench: Workbench) -> None:
    parts = [
        source(workbench, "web", json_lines([doc("7", f"{PROSE} {p}")]) + b"broken\n", p)
        for p in ("a.jsonl", "b.jsonl")
    ]
    named = [{**s, "part": f"2026/{part}"} for s, part in zip(parts, ("a.jsonl", "b.jsonl"), strict=True)]
    result = ingest(workbench, *named)
    assert [r["id"] for r in rows(workbench, result["corpus"])] == ["web/2026/a.jsonl:7", "web/2026/b.jsonl:7"]
    assert [r["source"] for r in rows(workbench, result["corpus"])] == ["web", "web"]
    assert [r["source"] for r in rows(workbench, result["quarantine"])] == ["web/2026/a.jsonl", "web/2026/b.jsonl"]
    assert result["counts"]["bySource"] == {"web": 2}


def sharded(workbench: Workbench, made: Json, **limits: int) -> Json:
    return workbench.run("ingest", {"sources": [made], "maxQuarantineRatio": 1.0, **limits})


def test_a_source_becomes_as_many_shards_as_it_needs_and_its_rows_stay_the_same(workbench: Workbench) -> None:
    docs = [doc(str(i), f"{PROSE} {i} " + "long " * (i % 7)) for i in range(300)]
    docs[150]["text"] = "a document over the limit " * 500
    made = source(workbench, "s", json_lines(docs))
    whole = rows(workbench, ingest(workbench, made)["corpus"])
    by_docs = sharded(workbench, made, shardDocs=70)
    assert [pq.read_metadata(p).num_rows for p in workbench.shards(by_docs["corpus"])] == [70, 70, 70, 70, 20]
    assert rows(workbench, by_docs["corpus"]) == whole
    by_bytes = sharded(workbench, made, shardBytes=8000)
    sizes = [
        sum(len(r["text"].encode()) for r in pq.read_table(p).to_pylist()) for p in workbench.shards(by_bytes["corpus"])
    ]
    assert rows(workbench, by_bytes["corpus"]) == whole
    assert [s for s in sizes if s > 8000] == [len(whole[150]["text"])]
    # no shard ends before it must: what is next would not have fitted
    assert all(a + b > 8000 for a, b in itertools.pairwise(sizes))
    names = [s["name"] for s in workbench.job("read", {}).store.manifest(by_bytes["corpus"])["shards"]]
    assert names == [f"corpus-{i:05d}.parquet" for i in range(len(names))]


def test_steps_of_reading_do_not_show_in_the_shards(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(workbench, "s", json_lines(doc(str(i), f"{PROSE} {i}") for i in range(6000)))
    whole = bytes_of(workbench, sharded(workbench, made, shardDocs=5000)["corpus"])
    monkeypatch.setattr("cpt_ml.lines.READ_BYTES", 1000)
    monkeypatch.setattr("cpt_ml.lines.CAREFUL_READ_BYTES", (1000,))
    assert bytes_of(workbench, sharded(workbench, made, shardDocs=5000)["corpus"]) == whole


def test_ids_stay_unique_when_most_of_them_are_remembered_by_digest_alone(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source(workbench, "s", json_lines(doc(str(i % 900), f"{PROSE} {i}") for i in range(2000)))
    by_name = rows(workbench, ingest(workbench, made)["corpus"])
    monkeypatch.setattr(ingest_module, "RECENT_IDS", 50)
    monkeypatch.setattr("cpt_ml.lines.READ_BYTES", 5000)
    monkeypatch.setattr("cpt_ml.lines.CAREFUL_READ_BYTES", (5000,))
    assert rows(workbench, ingest(workbench, made)["corpus"]) == by_name
    assert len({r["id"] for r in by_name}) == 2000


def data_path(workbench: Workbench, corpus: Json, tokenizer: Json) -> dict[str, Json]:
    """The results of the data stages over a corpus, with what is left of it by stratum."""
    done: dict[str, Json] = {}
    drops: list[Json] = []

    def stage(name: str, **fields: Any) -> Json:
        done[name] = workbench.run(name, request(name, corpus=corpus, **fields))
        if "verdicts" in done[name]:
            drops.append(done[name]["verdicts"])
        return done[name]

    stage("filter")
    duplicates = stage("dedup", drops=list(drops))["verdicts"]
    stage("decontaminate", drops=list(drops), benchmarks=[])
    topics = stage("classify-topics", drops=list(drops), classifiers={})["topics"]
    stage("hold-out", drops=list(drops), topics=topics, duplicates=duplicates, minDocs=2)
    index = stage("tokenize", drops=list(drops), tokenizer=tokenizer)["index"]
    stage("count-strata", topics=topics, index=index)
    return done


def test_the_data_path_comes_to_the_same_however_small_the_shards(workbench: Workbench) -> None:
    samples = Path(__file__).parents[2] / "samples"
    lines = (samples / "corpus" / "dirty.jsonl").read_bytes()
    tokenizer = workbench.put("tokenizer.json", (samples / "base" / "tokenizer.json").read_bytes())
    made = source(workbench, "dirty", lines)
    ends: list[tuple[Any, ...]] = []
    for limit in (1_000_000, 7):
        corpus = sharded(workbench, made, shardDocs=limit)["corpus"]
        done = data_path(workbench, corpus, tokenizer)
        assert len(workbench.shards(corpus)) == (1 if limit > 7 else 21)
        verdicts = [rows(workbench, done[s]["verdicts"]) for s in ("filter", "dedup", "decontaminate", "hold-out")]
        tokens = np.concatenate([np.fromfile(p, dtype="<u4") for p in workbench.shards(done["tokenize"]["tokens"])])
        sizes = [(r["num_tokens"], r["num_bytes"]) for r in rows(workbench, done["tokenize"]["index"])]
        counts = {stage: r["counts"] for stage, r in done.items() if "counts" in r}
        ends.append((verdicts, tokens.tolist(), sizes, counts, done["count-strata"]["strata"]))
    assert ends[0] == ends[1]
