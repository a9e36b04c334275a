"""The plan as files: every token of a round in its place once, over rounds too."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from tiny import make_docs, make_pool, plan_folder, plan_request, read_pieces, stratum

from cpt_ml.errors import BadRequest
from cpt_ml.store import Json
from cpt_ml.token_stream import TokenStream

STRATA = [stratum("en", "web", 0.5, "Others"), stratum("zh", "web", 0.3, "Others"), stratum("en", "book", 0.2)]


def docs_of_three_strata() -> list[Any]:
    # written to the corpus in an order that has nothing to do with the strata
    docs = [*make_docs("en", "web", 80, "Others"), *make_docs("zh", "web", 80, "Others"), *make_docs("en", "book", 40)]
    order = np.random.default_rng(0).permutation(len(docs))
    return [docs[i] for i in order.tolist()]


def tokens_of(bench: Workbench, plan: Json) -> Any:
    stream = TokenStream(bench.job("read", plan).store, plan_folder(bench, plan))
    return stream.read(0, stream.num_tokens)


def pieces(bench: Workbench, plan: Json) -> list[Json]:
    return read_pieces(bench, plan).to_pylist()


def test_a_plan_holds_the_budget_and_one_token_exactly_and_each_token_once(workbench: Workbench) -> None:
    docs = docs_of_three_strata()
    request = plan_request(workbench, [make_pool(workbench, docs, shards=3)], STRATA, 2048)
    result = workbench.run("sample-mixture", request)
    assert result["numTokens"] == 2049 == sum(s["tokens"] for s in result["strata"])
    assert [s["tokens"] for s in result["strata"]] == [1024, 615, 410]
    rows = pieces(workbench, result["plan"])
    assert len(rows) == result["numPieces"]
    assert max(r["length"] for r in rows) <= 16
    ends = np.cumsum([r["length"] for r in rows])
    assert [r["offset"] for r in rows] == [0, *ends[:-1].tolist()]
    seen = Counter(
        (r["pool"], r["shard"], r["row"], t)
        for r in rows
        for t in range(r["start"], r["start"] + r["length"] - r["bos"] - r["eos"])
    )
    assert set(seen.values()) == {1}


def test_the_stream_is_the_documents_text_with_an_end_mark_after_each(workbench: Workbench) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    docs = make_docs("en", "web", 12, "Others")
    request = plan_request(workbench, [make_pool(workbench, docs)], [stratum("en", "web", 1.0, "Others")], 400)
    result = workbench.run("sample-mixture", {**request, "bos": True})
    tokens = tokens_of(workbench, result["plan"]).tolist()
    tokenizer: Any = Tokenizer.from_file(str(workbench.path(request["tokenizer"])))
    assert tokens[0] == 0
    bodies = bytes_between(tokens)
    by_text = {d.text for d in docs}
    assert all(tokenizer.decode(b) in by_text for b in bodies[:-1])
    assert len(bodies) > 3


def bytes_between(tokens: list[int]) -> list[list[int]]:
    """Token lists between <s> (0) and </s> (1)."""
    bodies: list[list[int]] = []
    for t in tokens:
        if t == 0:
            bodies.append([])
        elif t != 1:
            bodies[-1].append(t)
    return bodies


def test_perplexity_ascends_within_each_stratum_and_shares_hold_at_every_prefix(workbench: Workbench) -> None:
    docs = docs_of_three_strata()
    request = plan_request(workbench, [make_pool(workbench, docs, shards=2)], STRATA, 2048)
    result = workbench.run("sample-mixture", request)
    assert result["maxOffShareTokens"] <= 16 < 2 * request["sequenceTokens"]
    half = len(docs) // 2
    nll: dict[int, list[float]] = {}
    emitted = np.zeros(3)
    for r in pieces(workbench, result["plan"]):
        nll.setdefault(r["stratum"], []).append(docs[r["shard"] * half + r["row"]].nll)
        emitted[r["stratum"]] += r["length"]
        off = emitted - emitted.sum() * np.array([1024, 615, 410]) / 2049
        assert np.abs(off).max() <= result["maxOffShareTokens"] + 1e-9
    assert all(v == sorted(v) for v in nll.values())
    assert len(nll) == 3


def test_only_curriculum_languages_follow_the_order(workbench: Workbench) -> None:
    docs = docs_of_three_strata()
    request = plan_request(workbench, [make_pool(workbench, docs, shards=1)], STRATA, 2048, curriculumLanguages=["zh"])
    result = workbench.run("sample-mixture", request)
    nll: dict[int, list[float]] = {}
    for r in pieces(workbench, result["plan"]):
        nll.setdefault(r["stratum"], []).append(docs[r["row"]].nll)
    assert nll[1] == sorted(nll[1])
    assert nll[0] != sorted(nll[0])


def rounds(bench: Workbench, docs: list[Any], count: int, budget: int, **more: Any) -> list[Json]:
    """Plans of consecutive rounds of one stage."""
    pool, previous = make_pool(bench, docs, shards=1), None
    results: list[Json] = []
    for n in range(count):
        band = {"fromTokens": n * budget, "toTokens": (n + 1) * budget, "totalTokens": count * budget}
        request = plan_request(bench, [pool], STRATA, budget, band=band, previous=previous, **more)
        results.append(bench.run("sample-mixture", request))
        previous = results[-1]["plan"]
    return results


def test_later_rounds_draw_nothing_twice_and_finish_what_was_cut(workbench: Workbench) -> None:
    docs = docs_of_three_strata()
    results = rounds(workbench, docs, 3, 512)
    seen: Counter[tuple[int, int]] = Counter()
    last: dict[int, float] = {}
    for result in results:
        read_in_round: dict[int, list[Json]] = {}
        for r in pieces(workbench, result["plan"]):
            read_in_round.setdefault(r["stratum"], []).append(r)
            for t in range(r["start"], r["start"] + r["length"] - r["eos"]):
                seen[r["row"], t] += 1
        for s, rows in read_in_round.items():
            fresh = [docs[r["row"]].nll for r in rows if (r["row"], 0) in seen and r["start"] == 0]
            # a round's band lies above that of the round before, borrowing aside
            assert s not in last or results[-1]["strata"][s]["borrowedTokens"] or min(fresh) >= last[s] - 1e-6
            last[s] = float(np.median(fresh))
    assert set(seen.values()) == {1}
    used = pq.read_table(plan_folder(workbench, results[-1]["plan"]) / "used.parquet").to_pylist()
    consumed = Counter[int]()
    for row, _ in seen:
        consumed[row] += 1
    with_eos = sum(r["length"] for result in results for r in pieces(workbench, result["plan"]))
    assert sum(u["used"] for u in used) == with_eos == 3 * 513
    assert {u["row"] for u in used} == set(consumed)


def test_a_second_round_starts_with_the_rest_of_the_document_that_the_first_one_cut(workbench: Workbench) -> None:
    docs = docs_of_three_strata()
    first, second = rounds(workbench, docs, 2, 512)
    end = {r["row"]: r["start"] + r["length"] - r["eos"] for r in pieces(workbench, first["plan"])}
    closed = {r["row"] for r in pieces(workbench, first["plan"]) if r["eos"]}
    rests = {row: at for row, at in end.items() if row not in closed}
    assert rests
    firsts: dict[int, Json] = {}
    for r in pieces(workbench, second["plan"]):
        firsts.setdefault(r["stratum"], r)
    begun = {r["row"]: r["start"] for r in firsts.values()}
    assert all(begun.get(row) == at for row, at in rests.items())


def test_an_exhausted_stratum_borrows_then_repeats_on_record(workbench: Workbench) -> None:
    docs = [*make_docs("en", "web", 60, "Others"), *make_docs("zh", "web", 6, "Others"), *make_docs("en", "book", 30)]
    first, second = rounds(workbench, docs, 2, 1024)
    zh = [r["strata"][1] for r in (first, second)]
    assert zh[0]["borrowedTokens"] > 0
    assert zh[0]["repeatedTokens"] == 0
    assert zh[1]["repeatedTokens"] > 0
    assert zh[1]["availableTokens"] < zh[0]["availableTokens"]
    epochs = [r["epoch"] for r in pieces(workbench, second["plan"]) if r["stratum"] == 1]
    assert max(epochs) >= 1
    with pytest.raises(BadRequest, match=r"stratum zh/web/Others: .* missing"):
        rounds(workbench, docs, 2, 1024, exhaustion="fail")


def test_unscored_documents_are_the_hardest_of_their_stratum(workbench: Workbench) -> None:
    docs = make_docs("en", "web", 30, "Others")
    docs = [d if i % 3 else replace(d, nll=float("nan")) for i, d in enumerate(docs)]
    pool = make_pool(workbench, docs, shards=1)
    request = plan_request(workbench, [pool], [stratum("en", "web", 1.0, "Others")], 64 * 16)
    rows = pieces(workbench, workbench.run("sample-mixture", request)["plan"])
    unscored = [r["row"] % 3 == 0 for r in rows]
    assert unscored == sorted(unscored)


def test_a_second_pool_joins_with_strata_of_its_own(workbench: Workbench) -> None:
    corpus = make_pool(workbench, docs_of_three_strata(), shards=2)
    synthetic = {**make_pool(workbench, make_docs("zh", "synthetic", 30), shards=1, scored=False), "topics": None}
    strata = [stratum("en", "web", 0.7, "Others"), stratum("zh", "web", 0.1), stratum("zh", "synthetic", 0.2)]
    request = plan_request(workbench, [corpus, synthetic], strata, 1024, order="random")
    rows = pieces(workbench, workbench.run("sample-mixture", request)["plan"])
    assert {r["pool"] for r in rows if r["stratum"] == 2} == {1}
    assert {r["pool"] for r in rows if r["stratum"] != 2} == {0}
    with pytest.raises(BadRequest, match=r"pools\[1\] has no scores for \['zh/synthetic'\]"):
        workbench.run("sample-mixture", {**request, "order": "perplexity"})


def test_shards_are_read_in_the_order_of_the_manifest_not_of_their_names(workbench: Workbench) -> None:
    docs = make_docs("en", "web", 48, "Others", words=(8, 9))
    pool = make_pool(workbench, docs, shards=12)  # corpus-10 sorts before corpus-2
    request = plan_request(workbench, [pool], [stratum("en", "web", 1.0, "Others")], 100)
    available = workbench.run("sample-mixture", request)["strata"][0]["availableTokens"]
    rows = pieces(workbench, workbench.run("sample-mixture", {**request, "tokenBudget": available - 1})["plan"])
    ids = list(dict.fromkeys(docs[r["shard"] * 4 + r["row"]].id for r in rows))
    assert ids == [d.id for d in sorted(docs, key=lambda d: d.nll)]


def test_a_stratum_at_ratio_zero_is_planned_with_nothing(workbench: Workbench) -> None:
    pool = make_pool(workbench, make_docs("en", "web", 30, "Others"), shards=1)
    strata = [
        stratum("en", "web", 1.0, "Others"),
        stratum("en", "web", 0.0, "Law and Policy"),
        stratum("zh", "qa", 0.0),
    ]
    result = workbench.run("sample-mixture", plan_request(workbench, [pool], strata, 256))
    assert [(s["tokens"], s["docs"]) for s in result["strata"][1:]] == [(0, 0), (0, 0)]
    assert {r["stratum"] for r in pieces(workbench, result["plan"])} == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strata": [stratum("en", "web", 0.7, "Others")]}, r"sum to 0\.7"),
        ({"strata": [stratum("en", "web", 0.5, "Others")] * 2}, "named twice"),
        ({"band": {"fromTokens": 5, "toTokens": 5, "totalTokens": 10}}, r"band \[5, 5\)"),
        ({"strata": [stratum("de", "web", 1.0)]}, "stratum de/web: 257 tokens are asked for"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(workbench: Workbench, change: Json, message: str) -> None:
    pool = make_pool(workbench, docs_of_three_strata(), shards=1)
    with pytest.raises(BadRequest, match=message):
        workbench.run("sample-mixture", {**plan_request(workbench, [pool], STRATA, 256), **change})


def test_a_plan_is_the_same_bytes_each_time(workbench: Workbench) -> None:
    pool = make_pool(workbench, docs_of_three_strata(), shards=2)
    request = plan_request(workbench, [pool], STRATA, 512)
    first = workbench.run("sample-mixture", request)
    job = workbench.job("sample-mixture", {**request, "seed": 42})
    job.fingerprint = "0" * 64
    import cpt_ml.sample_mixture as stage  # noqa: PLC0415

    stage.run(job)
    again = job.store.record(job.fingerprint)["result"]
    assert again["plan"]["sha256"] == first["plan"]["sha256"]
    settings = json.loads((plan_folder(workbench, first["plan"]) / "plan.json").read_bytes())["settings"]
    assert (settings["bosId"], settings["eosId"]) == (None, 1)
