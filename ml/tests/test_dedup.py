"""dedup: which copies go, which document stays, and that similarity is what the name says."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, doc, ingest, json_lines, request, rows, source

from cpt_ml.corpus import CORPUS
from cpt_ml.dedup import BYTES_PER_DOC
from cpt_ml.errors import BadRequest
from cpt_ml.minhash import band_rows, permutations, signatures
from cpt_ml.store import Json
from cpt_ml.word_columns import Column, Texts, distinct, gram_column, word_column
from cpt_ml.words import words

SAMPLES = Path(__file__).parents[2] / "samples" / "corpus"

LONG = " ".join(f"{w}{letter}" for letter in "abcdefghijkl" for w in words(PROSE))
NEAR = LONG.replace("winterd stormsd", "summerd calmd")
FAR = " ".join(reversed(words(LONG)))


def signed(workbench: Workbench, corpus: Json, drops: list[Json]) -> Json:
    return workbench.run("dedup-signatures", request("dedup-signatures", corpus=corpus, drops=drops))["signatures"]


def run(workbench: Workbench, *sources: Json, drops: list[Json] | None = None) -> Json:
    corpus = ingest(workbench, *sources)["corpus"]
    made = signed(workbench, corpus, drops or [])
    return workbench.run("dedup", request("dedup", corpus=corpus, drops=drops or [], signatures=made))


def test_of_a_cluster_the_first_document_is_kept_and_named(workbench: Workbench) -> None:
    docs = [
        doc("a", FAR),
        doc("b", LONG),
        doc("c", NEAR),
        doc("d", LONG.upper().replace(" ", "  ")),
        doc("e", PROSE_ZH),
    ]
    result = run(workbench, source(workbench, "web", json_lines(docs)))
    assert rows(workbench, result["verdicts"]) == [
        {"keep": True, "reason": None, "evidence": None, "cluster": -1},
        {"keep": True, "reason": None, "evidence": None, "cluster": 0},
        {"keep": False, "reason": "near-duplicate", "evidence": "web:b", "cluster": 0},
        {"keep": False, "reason": "exact-duplicate", "evidence": "web:b", "cluster": 0},
        {"keep": True, "reason": None, "evidence": None, "cluster": -1},
    ]
    assert result["counts"] == {
        "docs": 5,
        "kept": 3,
        "byReason": {"exact-duplicate": 1, "near-duplicate": 1},
        "byLanguage": {"en": 3},
        "clusters": 1,
    }


def test_a_validation_document_is_kept_before_a_training_document_that_stands_before_it(workbench: Workbench) -> None:
    train = source(workbench, "train", json_lines([doc("a", LONG)]))
    validate = source(workbench, "validate", json_lines([doc("b", NEAR)]), use="validate")
    kept = [r["keep"] for r in rows(workbench, run(workbench, train, validate)["verdicts"])]
    assert kept == [False, True]


def test_a_document_that_was_dropped_before_is_not_what_a_copy_is_dropped_for(workbench: Workbench) -> None:
    short = [doc("a", "one two three"), doc("b", LONG), doc("c", LONG)]
    made = source(workbench, "web", json_lines(short))
    verdicts = workbench.run("filter", request("filter", corpus=ingest(workbench, made)["corpus"]))["verdicts"]
    result = run(workbench, made, drops=[verdicts])
    assert [r["evidence"] for r in rows(workbench, result["verdicts"])] == [None, None, "web:b"]
    assert result["counts"]["docs"] == 2


def test_the_same_corpus_gives_the_same_bytes(workbench: Workbench) -> None:
    docs = [doc(str(i), f"{LONG} {i // 3}") for i in range(30)]
    made = source(workbench, "web", json_lines(docs))
    assert bytes_of(workbench, run(workbench, made)["verdicts"]) == bytes_of(
        workbench, run(workbench, made)["verdicts"]
    )


def test_without_signatures_the_stage_makes_them_and_finds_the_same(workbench: Workbench) -> None:
    docs = [doc("a", FAR), doc("b", LONG), doc("c", NEAR), doc("d", "")]
    corpus = ingest(workbench, source(workbench, "web", json_lines(docs)))["corpus"]
    alone = workbench.run("dedup", request("dedup", corpus=corpus, drops=[]))
    made = signed(workbench, corpus, [])
    given = workbench.run("dedup", request("dedup", corpus=corpus, drops=[], signatures=made))
    assert bytes_of(workbench, alone["verdicts"]) == bytes_of(workbench, given["verdicts"])


def test_signatures_of_other_settings_other_drops_or_another_corpus_are_refused(workbench: Workbench) -> None:
    corpus, other = (
        ingest(workbench, source(workbench, name, json_lines([doc(str(i), f"{LONG} {i}") for i in range(n)])))["corpus"]
        for name, n in (("a", 3), ("b", 4))
    )
    rules = {**request("filter")["rules"], "minWords": 1_000_000}
    everything = workbench.run("filter", {"corpus": corpus, "rules": rules})["verdicts"]

    def refusal(signatures: Json, **fields: Any) -> str:
        with pytest.raises(BadRequest) as refused:
            workbench.run("dedup", request("dedup", corpus=corpus, drops=[], signatures=signatures, **fields))
        return str(refused.value)

    mine = signed(workbench, corpus, [])
    assert "of ngram 5, 128 permutations, seed 42, but dedup was asked for ngram 4" in refusal(mine, ngram=4)
    assert "4 rows, but the corpus shard has 3" in refusal(signed(workbench, other, []))
    assert "has no signature: other drops?" in refusal(signed(workbench, corpus, [everything]))


def test_one_more_shard_is_signed_alone_and_shards_do_not_depend_on_each_other(workbench: Workbench) -> None:
    sources = [source(workbench, n, json_lines([doc(n, f"{LONG} {n}"), doc("x", "")])) for n in ("a", "b")]
    one = signed(workbench, ingest(workbench, sources[0])["corpus"], [])
    both = signed(workbench, ingest(workbench, *sources)["corpus"], [])
    assert bytes_of(workbench, both)[0] == bytes_of(workbench, one)[0]


def test_a_row_that_was_dropped_before_has_no_signature_and_one_without_words_no_grams(workbench: Workbench) -> None:
    corpus = ingest(workbench, source(workbench, "web", json_lines([doc("a", "!?"), doc("b", LONG)])))["corpus"]
    drop_short = workbench.run("filter", request("filter", corpus=corpus))["verdicts"]
    counts = [
        workbench.run("dedup-signatures", request("dedup-signatures", corpus=corpus, drops=drops))["counts"]
        for drops in ([], [drop_short])
    ]
    assert counts == [{"docs": 2, "withoutWords": 1}, {"docs": 1, "withoutWords": 0}]
    found = rows(workbench, signed(workbench, corpus, [drop_short]))
    assert [r["digest_high"] is None for r in found] == [True, False]
    assert [r["num_grams"] for r in found] == [0, len(words(LONG)) - 4]


def test_texts_without_a_word_are_duplicates_only_of_their_equals(workbench: Workbench) -> None:
    docs = [doc("a", "!?"), doc("b", "?!"), doc("c", "?!  ")]
    kept = [r["keep"] for r in rows(workbench, run(workbench, source(workbench, "web", json_lines(docs)))["verdicts"])]
    assert kept == [True, True, False]


def test_clusters_are_those_of_all_pairs_compared_exactly(workbench: Workbench) -> None:
    """Recall and precision against the exact Jaccard index of every pair of the sample with its planted copies."""
    texts = noisy_copies(sample_texts()[:500], seed=7)
    corpus = ingest(workbench, source(workbench, "web", json_lines(doc(str(i), t) for i, t in enumerate(texts))))
    verdicts = rows(workbench, workbench.run("dedup", request("dedup", corpus=corpus["corpus"], drops=[]))["verdicts"])
    cluster_of = [v["cluster"] for v in verdicts]
    similar = exact_pairs(texts, 0.7)
    assert len(similar) > 500
    together = [cluster_of[a] == cluster_of[b] != -1 for a, b in similar]
    # bands promise .99 for a pair at the threshold; most are above it, and clusters join what one band has missed
    assert sum(together) >= 0.99 * len(similar)
    # precision 1: what is in a cluster is joined by pairs that are similar
    joined = {frozenset(pair) for pair in similar}
    for members in clusters_of(cluster_of):
        reached = {members[0]}
        for _ in members:
            reached |= {b for b in members if any(frozenset((a, b)) in joined for a in reached)}
        assert reached == set(members)


def sample_texts() -> list[str]:
    texts: list[str] = []
    for name in ("en", "zh", "code"):
        lines = pa.CompressedInputStream(pa.OSFile(str(SAMPLES / f"{name}.jsonl.zst")), "zstd").read().splitlines()
        texts += [json.loads(line)["text"][:3000] for line in lines]
    return texts[::3]


def noisy_copies(texts: list[str], seed: int) -> list[str]:
    """Each text and two copies with some words replaced: from none to a tenth."""
    rng = random.Random(seed)
    made: list[str] = []
    for text in texts:
        made.append(text)
        for share in rng.sample([0.0, 0.01, 0.03, 0.06, 0.1], 2):
            pieces = text.split(" ") if " " in text[:200] else list(text)
            for _ in range(int(share * len(pieces))):
                pieces[rng.randrange(len(pieces))] = f"x{rng.randrange(1000)}"
            made.append((" " if " " in text[:200] else "").join(pieces))
    rng.shuffle(made)
    return made


def exact_pairs(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    """All pairs with a Jaccard index of at least the threshold, found by an index of who has which n-gram."""
    grams = [{tuple(w[i : i + 5]) for i in range(max(1, len(w) - 4))} for w in map(words, texts)]
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    shared: defaultdict[tuple[int, int], int] = defaultdict(int)
    for i, own in enumerate(grams):
        for gram in own:
            for other in holders[gram]:
                shared[other, i] += 1
            holders[gram].append(i)
    return [(a, b) for (a, b), n in shared.items() if n >= threshold * (len(grams[a]) + len(grams[b]) - n)]


def clusters_of(numbers: list[int]) -> list[list[int]]:
    """Members of each cluster."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(numbers):
        if number >= 0:
            members[number].append(i)
    return list(members.values())


def test_memory_grows_by_the_stated_bytes_a_document(workbench: Workbench) -> None:
    peaks: dict[int, int] = {}
    for count in (10_000, 40_000):
        folder = f"corpus-{count}"
        corpus = corpus_of_many(workbench, folder, count)
        asked = request("dedup", corpus=corpus, drops=[], numPermutations=16)
        made = workbench.run("dedup-signatures", {k: v for k, v in asked.items() if k != "jaccard"})["signatures"]
        tracemalloc.start()
        result = workbench.run("dedup", {**asked, "signatures": made})
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result["counts"]["docs"] == count
        assert result["counts"]["clusters"] == count // 2
    assert (peaks[40_000] - peaks[10_000]) / 30_000 <= BYTES_PER_DOC


def corpus_of_many(workbench: Workbench, name: str, count: int) -> Json:
    """A committed corpus of pairs of near duplicates, in shards of 10,000."""
    job = workbench.job("ingest", {"corpus": name})
    attempt = job.attempt()
    shards: list[Json] = []
    for begin in range(0, count, 10_000):
        texts = [
            " ".join(map(str, range(i // 2 * 30, i // 2 * 30 + 30))) + f" {i}" for i in range(begin, begin + 10_000)
        ]
        same = {c: [c] * len(texts) for c in ("language", "kind", "label", "source", "origin", "license")}
        columns = {**same, "id": list(map(str, range(begin, begin + 10_000))), "text": texts, "use": ["train"] * 10_000}
        columns["line"] = list(range(10_000))  # type: ignore[assignment]
        file = f"{begin:07d}.parquet"
        pq.write_table(pa.table(columns, schema=CORPUS), attempt.path(file), row_group_size=4096)
        shards.append(attempt.shard(file, 10_000))
    manifest = {"format": "cpt-manifest/1", "kind": "corpus", "shards": shards}
    attempt.path("corpus.json").write_text(json.dumps(manifest))
    return job.commit(attempt, {"corpus": attempt.ref("corpus.json")})["result"]["corpus"]


def test_many_documents_of_one_template_are_compared_with_the_first_leaders_alone(workbench: Workbench) -> None:
    """40 texts that share half of their words, and a copy of each: those of the first 16 are found in any bucket."""
    frame = [f"frame{i}" for i in range(60)]
    texts = [" ".join([*frame, *(f"own{i}of{k}" for i in range(30))]) for k in range(40)]
    docs = [doc(f"{copy}{k}", text + copy * 3) for copy in ("", " x") for k, text in enumerate(texts)]
    result = run(workbench, source(workbench, "web", json_lines(docs)))
    verdicts = rows(workbench, result["verdicts"])
    assert all(v["keep"] for v in verdicts[:40])
    assert [v["evidence"] for v in verdicts[40:56]] == [f"web:{k}" for k in range(16)]


def grams_of(numbers: range) -> Column:
    return distinct(gram_column(word_column(Texts.of([" ".join(map(str, numbers))])), 1))


def test_signatures_agree_in_the_share_of_places_that_the_jaccard_index_says() -> None:
    a, b = grams_of(range(1000)), grams_of(range(250, 1250))
    multiply, add = permutations(4096, 42)
    agree = float((signatures(a, multiply, add) == signatures(b, multiply, add)).mean())
    assert len(np.intersect1d(a.hashes, b.hashes)) / len(np.union1d(a.hashes, b.hashes)) == 0.6
    # four standard errors of 4,096 draws
    assert abs(agree - 0.6) < 0.031


def test_bands_find_pairs_at_the_threshold_with_the_promised_probability() -> None:
    assert band_rows(128, 0.7) == 4
    assert 1 - (1 - 0.7**4) ** (128 // 4) > 0.99 > 1 - (1 - 0.7**5) ** (128 // 5)
