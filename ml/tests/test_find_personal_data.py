"""find-personal-data: the corpus stays as it was, and what models read of it has placeholders."""

from __future__ import annotations

import importlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import tokenizers
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, doc, ingest, json_lines, request, rows, source
from test_hold_out import no_topics

from cpt_ml.errors import BadRequest
from cpt_ml.store import Json

PLACEHOLDERS = {"email": "<email>", "phone": "<phone>", "id-number": "<id-number>"}
MAIL, CALL = "Write to ann@example.org. ", "致电 13812345678。"


@pytest.fixture
def corpus(workbench: Workbench) -> Json:
    """Two shards; personal data in web pages and in code."""
    first = [doc("mail", MAIL + PROSE), doc("none", PROSE), doc("code", MAIL + PROSE, kind="code")]
    second = [doc("both", PROSE_ZH + CALL + MAIL + CALL, lang="zh"), doc("dropped", MAIL)]
    sources = [source(workbench, name, json_lines(docs)) for name, docs in (("a", first), ("b", second))]
    return ingest(workbench, *sources)["corpus"]


def found(workbench: Workbench, corpus: Json, **fields: object) -> Json:
    return workbench.run("find-personal-data", request("find-personal-data", corpus=corpus, drops=[], **fields))


def tokenizer(workbench: Workbench) -> tuple[Json, tokenizers.Tokenizer]:
    """One token a byte: what was tokenized can be read again."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE(dict.fromkeys("", 0), []))
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    model = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(sorted(alphabet))}, []))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    return workbench.put("tokenizer.json", model.to_str().encode()), model


def read_again(workbench: Workbench, corpus: Json, **fields: object) -> list[str]:
    ref, model = tokenizer(workbench)
    result = workbench.run("tokenize", {"corpus": corpus, "drops": [], "tokenizer": ref, **fields})
    texts: list[str] = []
    for tokens, index in zip(workbench.shards(result["tokens"]), workbench.shards(result["index"]), strict=True):
        ids = np.fromfile(tokens, dtype="<u4")
        for row in pq.read_table(index).to_pylist():
            texts.append(model.decode(ids[row["offset"] : row["offset"] + row["num_tokens"]].tolist()))
            assert len(texts[-1].encode()) == row["num_bytes"]
    return texts


def test_spans_are_row_aligned_in_characters_and_counted_by_kind_and_language(
    workbench: Workbench, corpus: Json
) -> None:
    result = found(workbench, corpus)
    spans = [
        [(s["start"], s["end"], s["kind"]) for s in row["spans"]] for row in rows(workbench, result["personalData"])
    ]
    at = len(PROSE_ZH)
    assert spans == [
        [(9, 24, "email")],
        [],
        [],
        [(at + 3, at + 14, "phone"), (at + 24, at + 39, "email"), (at + 44, at + 55, "phone")],
        [(9, 24, "email")],
    ]
    assert result["counts"] == {
        "docs": 4,
        "withAny": 3,
        "found": {"email": 3, "phone": 2},
        "byLanguage": {"en": {"email": 2}, "zh": {"email": 1, "phone": 2}},
    }


def test_only_what_is_asked_for_is_looked_for(workbench: Workbench, corpus: Json) -> None:
    assert found(workbench, corpus, find=["phone"])["counts"]["found"] == {"phone": 2}
    assert found(workbench, corpus, kinds=["code"])["counts"]["found"] == {"email": 1}


def test_a_row_that_was_dropped_before_is_not_looked_at(workbench: Workbench, corpus: Json) -> None:
    verdicts = workbench.run("filter", request("filter", corpus=corpus))["verdicts"]
    assert [row["keep"] for row in rows(workbench, verdicts)] == [True, True, True, True, False]
    result = workbench.run("find-personal-data", request("find-personal-data", corpus=corpus, drops=[verdicts]))
    assert result["counts"]["docs"] == 3
    assert rows(workbench, result["personalData"])[4]["spans"] == []


def test_tokens_have_placeholders_and_all_else_as_it_stands(workbench: Workbench, corpus: Json) -> None:
    before = bytes_of(workbench, corpus)
    spans = found(workbench, corpus)["personalData"]
    texts = [row["text"] for row in rows(workbench, corpus)]
    assert read_again(workbench, corpus) == texts
    told = read_again(workbench, corpus, personalData=spans, placeholders={**PLACEHOLDERS, "phone": "[电话]"})
    hidden = [t.replace("ann@example.org", "<email>").replace("13812345678", "[电话]") for t in texts]
    assert told == [hidden[0], texts[1], texts[2], hidden[3], hidden[4]]
    assert bytes_of(workbench, corpus) == before


def test_without_spans_found_the_tokens_are_those_of_a_request_without_the_field(
    workbench: Workbench, corpus: Json
) -> None:
    spans = found(workbench, corpus, kinds=["book"])["personalData"]
    ref, _ = tokenizer(workbench)
    asked: Json = {"corpus": corpus, "drops": [], "tokenizer": ref}
    plain = workbench.run("tokenize", asked)
    told = workbench.run("tokenize", {**asked, "personalData": spans, "placeholders": PLACEHOLDERS})
    for output in ("tokens", "index"):
        assert bytes_of(workbench, plain[output]) == bytes_of(workbench, told[output])


def test_validation_sets_have_placeholders_before_they_are_cut(workbench: Workbench) -> None:
    old = source(workbench, "old", json_lines([doc("a", "x" * 90 + " " + MAIL), doc("b", PROSE)]), use="validate")
    corpus = ingest(workbench, source(workbench, "web", json_lines([doc("w", PROSE_ZH)])), old)["corpus"]
    duplicates = workbench.run("dedup", request("dedup", corpus=corpus, drops=[]))["verdicts"]
    asked = {"corpus": corpus, "drops": [], "duplicates": duplicates, "topics": no_topics(workbench, corpus)}
    asked |= {"personalData": found(workbench, corpus)["personalData"], "placeholders": PLACEHOLDERS}
    result = workbench.run("hold-out", request("hold-out", **asked, maxDocChars=107))
    texts = [row["text"] for row in pq.read_table(workbench.path(result["validation"])).to_pylist()]
    assert texts == ["x" * 90 + " Write to <email>", PROSE[:107]]


@pytest.mark.parametrize("stage", ["tokenize", "hold-out"])
def test_spans_without_placeholders_are_refused(workbench: Workbench, stage: str) -> None:
    job = workbench.job(stage, request(stage, placeholders=PLACEHOLDERS), units=[])
    with pytest.raises(BadRequest, match="together or not at all"):
        importlib.import_module(f"cpt_ml.{stage.replace('-', '_')}").run(job)


def test_spans_of_another_corpus_are_refused(workbench: Workbench, corpus: Json) -> None:
    other = ingest(workbench, *(source(workbench, n, json_lines([doc("1", PROSE)])) for n in "cd"))["corpus"]
    spans = found(workbench, other)["personalData"]
    with pytest.raises(BadRequest, match="1 rows, but the corpus shard has 3"):
        read_again(workbench, corpus, personalData=spans, placeholders=PLACEHOLDERS)
