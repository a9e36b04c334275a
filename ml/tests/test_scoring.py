"""tokenize, score-ppl and count-strata over one small corpus: row-aligned, hand-checked, the same bytes every time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, corpus_of, doc, ingest, json_lines, request, rows, source
from tiny import make_model, make_tokenizer
from transformers import LlamaForCausalLM

from cpt_ml.errors import BadRequest
from cpt_ml.score_ppl import ppl_bucket
from cpt_ml.store import Json

DOCS = [
    doc("a", PROSE),
    doc("b", "too short"),
    doc("c", PROSE_ZH, lang="zh", kind="book"),
    doc("d", f"{PROSE} {PROSE_ZH}", kind="book"),
    doc("e", "twenty words are not needed here as the filter is not asked to look at this document at all, is it"),
]


def prepared(workbench: Workbench) -> tuple[Json, Json]:
    """A corpus without its second document, and the result of tokenize."""
    corpus = corpus_of(workbench, DOCS)
    drops = [workbench.run("filter", request("filter", corpus=corpus))["verdicts"]]
    asked = request("tokenize", corpus=corpus, drops=drops, tokenizer=make_tokenizer(workbench))
    return corpus, workbench.run("tokenize", asked)


def tokens_of(workbench: Workbench, tokenized: Json) -> np.ndarray:
    return np.fromfile(workbench.shards(tokenized["tokens"])[0], dtype="<u4")


def scored(workbench: Workbench, tokenized: Json, **fields: object) -> Json:
    asked = {"tokens": tokenized["tokens"], "index": tokenized["index"], "scorer": make_model(workbench)}
    return workbench.run(
        "score-ppl", request("score-ppl", **{**asked, "windowTokens": 64, "strideTokens": 64, **fields})
    )


def test_the_index_says_where_each_document_lies_and_dropped_rows_are_empty(workbench: Workbench) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    _, tokenized = prepared(workbench)
    index, tokens = rows(workbench, tokenized["index"]), tokens_of(workbench, tokenized)
    tokenizer: Any = Tokenizer.from_file(str(workbench.path(make_tokenizer(workbench))))
    for row, line in zip(index, DOCS, strict=True):
        piece = tokens[row["offset"] : row["offset"] + row["num_tokens"]]
        assert tokenizer.decode(piece.tolist()) == ("" if line["id"] == "b" else line["text"])
        assert row["num_bytes"] == (0 if line["id"] == "b" else len(line["text"].encode()))
    assert index[1] == {"offset": 0, "num_tokens": 0, "num_bytes": 0}
    assert sum(r["num_tokens"] for r in index) == len(tokens) == tokenized["counts"]["tokens"]
    assert tokenized["counts"]["docs"] == 4
    assert sum(tokenized["counts"]["byLanguage"].values()) == len(tokens)


def test_tokenize_gives_the_same_bytes_twice(workbench: Workbench) -> None:
    a, b = prepared(workbench)[1], prepared(workbench)[1]
    assert bytes_of(workbench, a["tokens"]) == bytes_of(workbench, b["tokens"])
    assert bytes_of(workbench, a["index"]) == bytes_of(workbench, b["index"])


def test_a_file_that_is_no_tokenizer_is_refused(workbench: Workbench) -> None:
    corpus = corpus_of(workbench, DOCS)
    asked = request("tokenize", corpus=corpus, drops=[], tokenizer=workbench.put("t.json", b"{}"))
    with pytest.raises(BadRequest, match=r"files:t\.json is not a tokenizer\.json"):
        workbench.run("tokenize", asked)


def test_scores_are_the_models_mean_loss_and_nan_where_there_is_none(workbench: Workbench) -> None:
    _, tokenized = prepared(workbench)
    result = scored(workbench, tokenized, windowTokens=4096, strideTokens=4096, maxTokensPerDoc=100)
    found = rows(workbench, result["scores"])
    index, tokens = rows(workbench, tokenized["index"]), tokens_of(workbench, tokenized).astype(np.int64)
    model = LlamaForCausalLM.from_pretrained(workbench.files / "model-0", dtype=torch.float32)
    for score, row in zip(found, index, strict=True):
        if row["num_tokens"] == 0:
            assert math.isnan(score["nll"])
            assert score["num_tokens"] == 0
            continue
        ids = torch.tensor(tokens[row["offset"] : row["offset"] + min(100, row["num_tokens"])])[None]
        with torch.inference_mode():
            loss = float(model(ids, labels=ids).loss)
        assert score["nll"] == pytest.approx(loss, abs=1e-5)
        assert score["num_tokens"] == ids.shape[1] - 1
    counts = result["counts"]
    assert (counts["docs"], counts["scored"]) == (4, 4)
    assert counts["scoredTokens"] == sum(r["num_tokens"] for r in found)
    assert counts["sumNllNats"] == pytest.approx(
        sum(r["nll"] * r["num_tokens"] for r in found if r["num_tokens"]), rel=1e-6
    )
    assert sum(counts["pplHistogram"].values()) == 4


def test_documents_under_the_minimum_have_no_score(workbench: Workbench) -> None:
    _, tokenized = prepared(workbench)
    lengths = [r["num_tokens"] for r in rows(workbench, tokenized["index"])]
    result = scored(workbench, tokenized, minTokens=max(lengths))
    found = rows(workbench, result["scores"])
    assert [not math.isnan(r["nll"]) for r in found] == [n == max(lengths) for n in lengths]
    assert result["counts"]["scored"] == 1


def test_score_ppl_gives_the_same_bytes_twice(workbench: Workbench) -> None:
    _, tokenized = prepared(workbench)
    first = bytes_of(workbench, scored(workbench, tokenized)["scores"])
    assert bytes_of(workbench, scored(workbench, tokenized)["scores"]) == first


def test_a_model_of_an_unknown_type_is_refused(workbench: Workbench) -> None:
    _, tokenized = prepared(workbench)
    workbench.put("gpt/config.json", b'{"model_type": "gpt2"}')
    with pytest.raises(BadRequest, match="model type 'gpt2'"):
        scored(workbench, tokenized, scorer=workbench.ref("gpt/"))


def test_buckets_of_the_histogram_are_powers_of_two() -> None:
    found = [ppl_bucket(math.log(p)) for p in (1.0, 1.99, 2.01, 1000, 2.0**30)]
    assert found == ["1", "1", "2", "512", str(2**20)]


def test_strata_count_what_is_left_by_language_kind_and_topic(workbench: Workbench) -> None:
    corpus, tokenized = prepared(workbench)
    asked = request("count-strata", corpus=corpus, index=tokenized["index"], topics=None)
    strata = workbench.run("count-strata", asked)["strata"]
    index = rows(workbench, tokenized["index"])
    assert [(s["language"], s["kind"], s["topic"], s["docs"]) for s in strata] == [
        ("en", "book", None, 1),
        ("en", "web", None, 2),
        ("zh", "book", None, 1),
    ]
    assert [s["tokens"] for s in strata] == [
        index[3]["num_tokens"],
        index[0]["num_tokens"] + index[4]["num_tokens"],
        index[2]["num_tokens"],
    ]
    assert strata[2]["bytes"] == len(PROSE_ZH.encode())


def test_strata_of_manifests_that_do_not_fit_are_refused(workbench: Workbench) -> None:
    _, tokenized = prepared(workbench)
    other = corpus_of(workbench, DOCS[:3], "other")
    with pytest.raises(BadRequest, match="shard 0 has 3, 5 and 3 rows"):
        workbench.run("count-strata", request("count-strata", corpus=other, index=tokenized["index"], topics=None))
    assert pq.read_metadata(workbench.shards(tokenized["index"])[0]).num_rows == 5


def test_documents_that_are_there_to_validate_are_no_part_of_what_is_mixed(workbench: Workbench) -> None:
    train = source(workbench, "train", json_lines([doc("t", PROSE)]))
    validate = source(workbench, "old", json_lines([doc("v", PROSE)]), use="validate")
    corpus = ingest(workbench, train, validate)["corpus"]
    asked = request("tokenize", corpus=corpus, drops=[], tokenizer=make_tokenizer(workbench))
    index = workbench.run("tokenize", asked)["index"]
    strata = workbench.run("count-strata", request("count-strata", corpus=corpus, index=index, topics=None))["strata"]
    assert [s["docs"] for s in strata] == [1]
