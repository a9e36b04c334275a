"""hold-out: enough documents of each stratum, whole clusters, and retention apart from the corpus."""

from __future__ import annotations

import hashlib
import math
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from documents import PROSE, bytes_of, doc, ingest, json_lines, request, rows, source

from cpt_ml.classify_topics import TOPICS
from cpt_ml.corpus import CORPUS, VERDICTS, write_manifest, write_rows
from cpt_ml.errors import BadRequest
from cpt_ml.hold_out import BYTES_PER_DOC
from cpt_ml.store import Json


def text(i: int) -> str:
    """A text that is like no other."""
    return " ".join(hashlib.sha256(f"{i}:{k}".encode()).hexdigest()[:8] for k in range(30))


def held(workbench: Workbench, web: list[Json], validate: list[Json], **fields: object) -> Json:
    """The result of hold-out, with the verdicts' rows and the validation file's in it."""
    sources = [
        source(workbench, "web", json_lines(web)),
        source(workbench, "old", json_lines(validate), use="validate"),
    ]
    corpus = ingest(workbench, *sources)["corpus"]
    duplicates = workbench.run("dedup", request("dedup", corpus=corpus, drops=[]))["verdicts"]
    topics = no_topics(workbench, corpus)
    asked = {"corpus": corpus, "drops": [], "duplicates": duplicates, "topics": topics, **fields}
    result = workbench.run("hold-out", request("hold-out", **asked))
    result["rows"] = rows(workbench, result["verdicts"])
    result["validationRows"] = pq.read_table(workbench.path(result["validation"])).to_pylist()
    return result


def no_topics(workbench: Workbench, corpus: Json) -> Json:
    """Topics of a corpus: null but for documents that begin with `law`."""
    job = workbench.job("classify-topics", {"for": corpus["sha256"]})
    attempt = job.attempt()
    shards: list[Json] = []
    for i, path in enumerate(workbench.shards(corpus)):
        found = ["Law" if t.startswith("law") else None for t in pq.read_table(path).column("text").to_pylist()]
        topics = [{"topic": t, "probability": 0.5, "classifier": None} for t in found]
        shards.append(attempt.shard(f"{i}.parquet", write_rows(attempt.path(f"{i}.parquet"), TOPICS, topics)))
    ref = write_manifest(attempt, "topics", shards)
    job.commit(attempt, {})
    return ref


def test_each_stratum_gives_what_the_standard_error_needs(workbench: Workbench) -> None:
    web = [doc(f"w{i}", text(i)) for i in range(100)]
    web += [doc(f"l{i}", f"law {text(1000 + i)}") for i in range(20)]
    web += [doc(f"b{i}", text(2000 + i), kind="book") for i in range(5)]
    result = held(workbench, web, [doc("old", PROSE)])
    assert [(s["kind"], s["topic"], s["set"], s["docs"]) for s in result["strata"]] == [
        ("web", None, "corpus", 9),  # (.15 / .05)²
        ("web", "Law", "corpus", 3),  # 15 % of 20
        ("web", None, "retention", 1),
    ]
    assert result["strata"][1]["expectedSeNats"] == pytest.approx(0.15 / math.sqrt(3))
    assert result["counts"]["byReason"] == {"held-out": 13}
    assert result["counts"]["kept"] == 126 - 13


def test_validation_holds_exactly_the_documents_that_leave_the_corpus(workbench: Workbench) -> None:
    web = [doc(f"w{i}", text(i)) for i in range(40)]
    result = held(workbench, web, [doc("old", PROSE)], maxDocChars=100)
    out = [f"web:w{i}" for i in range(40) if not result["rows"][i]["keep"]]
    assert [r["id"] for r in result["validationRows"]] == [*out, "old:old"]
    assert [r["set"] for r in result["validationRows"]] == ["corpus"] * len(out) + ["retention"]
    assert result["validationRows"][0]["text"] == text(int(out[0].removeprefix("web:w")))[:100]
    assert {r["reason"] for r in result["rows"] if not r["keep"]} == {"held-out"}


def test_a_cluster_leaves_whole_and_is_measured_once(workbench: Workbench) -> None:
    web = [doc(f"w{i}", text(i // 2)) for i in range(60)]
    result = held(workbench, web, [doc("old", text(0))])
    keep = [r["keep"] for r in result["rows"]][:60]
    assert all(keep[i] == keep[i + 1] for i in range(0, 60, 2))
    assert not keep[0]
    assert len(result["validationRows"]) == len({r["text"] for r in result["validationRows"]})
    assert len(result["validationRows"]) == (60 - sum(keep)) // 2


def test_the_choice_depends_on_ids_and_not_on_the_order(workbench: Workbench) -> None:
    web = [doc(f"w{i}", text(i)) for i in range(40)]
    there = {r["id"] for r in held(workbench, web, [])["validationRows"]}
    back = {r["id"] for r in held(workbench, web[::-1], [])["validationRows"]}
    other = {r["id"] for r in held(workbench, web, [], seed=7)["validationRows"]}
    assert there == back != other


def test_the_same_request_gives_the_same_bytes(workbench: Workbench) -> None:
    web = [doc(f"w{i}", text(i)) for i in range(40)]
    a, b = (held(workbench, web, [doc("old", PROSE)]) for _ in range(2))
    assert a["validation"]["sha256"] == b["validation"]["sha256"]
    assert bytes_of(workbench, a["verdicts"]) == bytes_of(workbench, b["verdicts"])


def test_manifests_of_another_corpus_are_refused(workbench: Workbench) -> None:
    one = ingest(workbench, source(workbench, "one", json_lines([doc("a", PROSE)])))["corpus"]
    two = ingest(workbench, source(workbench, "two", json_lines([doc("a", PROSE), doc("b", text(1))])))["corpus"]
    duplicates = workbench.run("dedup", request("dedup", corpus=one, drops=[]))["verdicts"]
    asked = request("hold-out", corpus=one, drops=[], duplicates=duplicates, topics=no_topics(workbench, two))
    with pytest.raises(BadRequest, match="shard 0 has 1 rows, 2 topics, 1 clusters"):
        workbench.run("hold-out", asked)


SHARD = 5_000


def test_memory_grows_by_the_stated_bytes_a_document(workbench: Workbench) -> None:
    peaks: dict[int, int] = {}
    for shards in (2, 10):
        asked = many(workbench, shards)
        tracemalloc.start()
        result = workbench.run("hold-out", asked)
        peaks[shards] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result["counts"]["docs"] == shards * SHARD
    assert (peaks[10] - peaks[2]) / (8 * SHARD) <= BYTES_PER_DOC


def row_of(kind: str, shard: int, i: int) -> Json:
    """Row i of a shard of the corpus or a sidecar."""
    if kind == "topics":
        return {"topic": "Law" if i % 3 else None, "probability": 0.5, "classifier": None}
    if kind == "duplicates":
        cluster = (shard * SHARD + i) // 2 if i % 10 < 2 else -1
        return {"keep": True, "reason": None, "evidence": None, "cluster": cluster}
    same = {
        "language": "en",
        "kind": "web",
        "label": None,
        "source": "web",
        "origin": "",
        "license": "",
        "use": "train",
    }
    return {**same, "id": f"web:{shard}-{i}", "text": "x", "line": i}


def many(workbench: Workbench, shards: int) -> Json:
    """A request over many short documents, a fifth of them in pairs of near duplicates."""
    clusters = pa.schema([*VERDICTS, ("cluster", pa.int64())])
    refs: Json = {}
    for kind, schema in (("corpus", CORPUS), ("topics", TOPICS), ("duplicates", clusters)):
        job = workbench.job(kind, {"shards": shards})
        attempt = job.attempt()
        entries: list[Json] = []
        for shard in range(shards):
            path = attempt.path(f"{shard}.parquet")
            entries.append(
                attempt.shard(path.name, write_rows(path, schema, (row_of(kind, shard, i) for i in range(SHARD))))
            )
        refs[kind] = write_manifest(attempt, kind, entries)
        job.commit(attempt, {})
    return request("hold-out", drops=[], **refs)


def test_without_topics_and_duplicates_strata_are_by_kind_and_every_document_stands_alone(workbench: Workbench) -> None:
    web = [doc(f"w{i}", text(i)) for i in range(30)] + [doc(f"copy{i}", text(i)) for i in range(30)]
    web += [doc(f"l{i}", f"law {text(1000 + i)}") for i in range(20)]
    sources = [
        source(workbench, "web", json_lines(web)),
        source(workbench, "old", json_lines([doc("a", PROSE), doc("b", PROSE)]), use="validate"),
    ]
    corpus = ingest(workbench, *sources)["corpus"]
    asked = request("hold-out", corpus=corpus, drops=[])
    for absent in ("topics", "duplicates"):
        asked.pop(absent, None)
    result = workbench.run("hold-out", asked)
    assert [(s["kind"], s["topic"], s["set"], s["docs"]) for s in result["strata"]] == [
        ("web", None, "corpus", 9),
        ("web", None, "retention", 2),  # the two are one cluster to dedup
    ]
    assert sum(not row["keep"] for row in rows(workbench, result["verdicts"])) == 9 + 2
