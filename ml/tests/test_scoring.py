"""tokenize, score-ppl and count-strata over one small corpus: row-aligned, hand-checked, the same bytes every time."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, corpus_of, doc, ingest, json_lines, request, rows, source
from tiny import make_model, make_tokenizer
from transformers import LlamaForCausalLM

from cpt_ml import score_ppl
from cpt_ml.errors import BadData, BadRequest, JobFailure
from cpt_ml.score_ppl import ppl_buckets
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
    found = ppl_buckets(np.log([1.0, 1.99, 2.01, 1000, 2.0**30]))
    assert found.tolist() == [1, 1, 2, 512, 2**20]


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


def untied(workbench: Workbench) -> Json:
    """A scorer whose embedding of one token is NaN: documents with it have no finite loss, all others do."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    make_model(workbench, 7, tie_word_embeddings=False)
    path = workbench.files / "model-7" / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][NAN_TOKEN] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    return workbench.ref("model-7/")


NAN_TOKEN = 77


def with_token(workbench: Workbench, lengths: list[int], marked: set[int]) -> Json:
    """A committed shard of random documents of these lengths; NAN_TOKEN is in the middle of the marked ones alone."""
    rng = np.random.default_rng(5)
    docs = [rng.integers(100, 300, size=n, dtype=np.uint32) for n in lengths]
    for i in marked:
        docs[i][lengths[i] // 2] = NAN_TOKEN
    return token_shards(workbench, [docs])


def token_shards(workbench: Workbench, shards: list[list[np.ndarray]]) -> Json:
    """References to tokens and index as tokenize commits them."""
    job = workbench.job("tokens-for-tests", {"docs": [[d.tolist() for d in docs] for docs in shards]})
    attempt = job.attempt()
    entries: dict[str, list[Json]] = {"tokens": [], "index": []}
    for s, docs in enumerate(shards):
        lengths = np.array([len(d) for d in docs], dtype=np.uint32)
        columns = {
            "offset": pa.array(np.cumsum(lengths, dtype=np.uint64) - lengths, pa.uint64()),
            "num_tokens": lengths,
            "num_bytes": lengths,
        }
        pq.write_table(pa.table(columns), attempt.path(f"index-{s}.parquet"))
        attempt.path(f"tokens-{s}.u32").write_bytes(np.concatenate(docs).astype("<u4").tobytes())
        for kind, name in (("tokens", f"tokens-{s}.u32"), ("index", f"index-{s}.parquet")):
            entries[kind].append(attempt.shard(name, len(docs)))
    refs: Json = {}
    for kind, shard_list in entries.items():
        manifest = {"format": "cpt-manifest/1", "kind": kind, "shards": shard_list}
        attempt.path(f"{kind}.json").write_text(json.dumps(manifest))
        refs[kind] = attempt.ref(f"{kind}.json")
    job.commit(attempt, {})
    return refs


def unit_results(workbench: Workbench, asked: Json) -> list[Json]:
    store = workbench.job("score-ppl", asked).store
    return [store.record(u["fingerprint"])["result"] for u in workbench.units("score-ppl", asked) or []]


def test_a_document_without_a_finite_loss_is_unscored_named_and_counted_and_its_batch_unharmed(
    workbench: Workbench,
) -> None:
    lengths = [30, 31, 30, 32, 10, 30]
    tokenized = with_token(workbench, lengths, {1, 4, 5})
    asked = request(
        "score-ppl", **tokenized, scorer=untied(workbench), windowTokens=64, strideTokens=64, maxNonFiniteRatio=0.5
    )
    counts = workbench.run("score-ppl", asked)["counts"]
    found = [r for s in unit_results(workbench, asked) for r in rows_of(workbench, s)]
    assert [not math.isnan(r["nll"]) for r in found] == [True, False, True, True, False, False]
    assert [r["num_tokens"] for r in found] == [29, 0, 29, 31, 0, 0]
    assert (counts["docs"], counts["scored"], counts["nonFinite"]) == (6, 3, 2)
    assert unit_results(workbench, asked)[0]["extremes"]["nonFinite"] == [
        {"shard": 0, "row": 1},
        {"shard": 0, "row": 5},
    ]
    sound = workbench.run("score-ppl", {**asked, **with_token(workbench, lengths, set())})
    clean = rows(workbench, sound["scores"])
    for i in (0, 2, 3):
        assert found[i]["nll"] == pytest.approx(clean[i]["nll"], rel=1e-6)


def rows_of(workbench: Workbench, result: Json) -> list[Json]:
    job = workbench.job("read", result)
    return [r for e in result["outputs"]["scores"] for r in pq.read_table(job.store.shard(e)).to_pylist()]


def test_too_many_of_them_end_the_stage_with_the_first_ten_and_a_higher_limit_takes_what_is_committed(
    workbench: Workbench,
) -> None:
    tokenized = with_token(workbench, [30] * 40, set(range(5, 25)))
    asked = request("score-ppl", **tokenized, scorer=untied(workbench), windowTokens=64, strideTokens=64)
    names = " · ".join(f"shard 0 row {i}" for i in range(5, 15))
    message = (
        rf"20 of 40 documents have no finite loss, allowed are 0\.1 % \(maxNonFiniteRatio\)\. The first: {names}\."
    )
    with pytest.raises(BadData, match=message):
        workbench.run("score-ppl", asked)
    assert unit_results(workbench, asked)[0]["counts"]["nonFinite"] == 20


def test_padding_stays_under_five_percent_whatever_the_lengths(workbench: Workbench) -> None:
    rng = np.random.default_rng(1)
    lengths = [int(n) for n in rng.integers(20, 128, size=300)]
    tokenized = with_token(workbench, lengths, set())
    asked = request("score-ppl", **tokenized, scorer=make_model(workbench), windowTokens=128, strideTokens=128)
    counts = workbench.run("score-ppl", asked)["counts"]
    assert counts["inputTokens"] == sum(lengths) - len(lengths)
    assert 1 <= counts["paddedTokens"] / counts["inputTokens"] < 1 / 0.95
    assert counts["scored"] == sum(counts["nllHistogram"].values()) == len(lengths)


def test_bins_and_extremes_tell_where_the_documents_lie(workbench: Workbench) -> None:
    tokenized = with_token(workbench, [25] * 50, set())
    asked = request("score-ppl", **tokenized, scorer=make_model(workbench), windowTokens=64, strideTokens=64)
    result = workbench.run("score-ppl", asked)
    nll = np.array([r["nll"] for r in rows(workbench, result["scores"])])
    values, docs = np.unique(np.floor(nll / 0.02).astype(int), return_counts=True)
    assert result["counts"]["nllHistogram"] == {str(v): int(n) for v, n in zip(values, docs, strict=True)}
    named = unit_results(workbench, asked)[0]["extremes"]
    assert [e["row"] for e in named["highest"]] == np.argsort(-nll, kind="stable")[:10].tolist()
    assert [e["row"] for e in named["lowest"]] == np.argsort(nll, kind="stable")[:10].tolist()
    assert named["highest"][0] == {"shard": 0, "row": int(nll.argmax()), "nll": float(nll.max()), "tokens": 24}


def test_the_cost_is_said_before_the_first_score_is_committed(
    workbench: Workbench, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenized = with_token(workbench, [30, 19, 200, 64], set())
    asked = request(
        "score-ppl", **tokenized, scorer=make_model(workbench), windowTokens=64, strideTokens=64, maxTokensPerDoc=100
    )
    units = workbench.units("score-ppl", asked)
    job = workbench.job("score-ppl", asked, units=units)
    capfd.readouterr()
    score_ppl.run(job)
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["event"] for line in said] == ["estimate", "committed"]
    # 19 tokens are under the minimum, 200 over the cap
    assert said[0]["tokens"] == 30 + 100 + 64
    assert said[0]["flop"] == 2 * said[0]["parameters"] * said[0]["tokens"]
    assert (said[0]["device"], said[0]["gpuHours"]) == ("cpu", 0)
    beat = json.loads((job.folder / "beat.json").read_bytes())
    assert beat["estimate"] == {k: said[0][k] for k in ("tokens", "flop", "seconds", "gpuHours")}


def test_a_scorer_of_a_smaller_vocabulary_is_refused(workbench: Workbench) -> None:
    tokenized = with_token(workbench, [30] * 3, set())
    small = make_model(workbench, 3, vocab_size=100)
    with pytest.raises(BadRequest, match="but the model's vocabulary is 100"):
        workbench.run("score-ppl", request("score-ppl", **tokenized, scorer=small, windowTokens=64, strideTokens=64))


def test_kenlm_that_is_not_installed_says_how_to_install_it(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    tokenized = with_token(workbench, [30], set())
    asked = request("score-ppl", **tokenized, engine="kenlm", scorer=workbench.put("m.arpa", b"\\data\\"))
    with pytest.raises(BadRequest, match="engine kenlm needs `tokenizer`"):
        workbench.run("score-ppl", asked)
    with pytest.raises(JobFailure, match="uv sync --frozen --extra kenlm") as refused:
        workbench.run("score-ppl", {**asked, "tokenizer": make_tokenizer(workbench)})
    assert refused.value.type == "EnvironmentBroken"
