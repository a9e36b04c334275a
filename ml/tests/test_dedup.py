"""dedup: which copies go, which document stays, and that similarity is what the name says."""

from __future__ import annotations

import numpy as np
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, doc, ingest, json_lines, request, rows, source

from cpt_ml.dedup import band_rows, jaccard, permutations, signature
from cpt_ml.store import Json
from cpt_ml.words import WordHashes, gram_hashes, words

LONG = " ".join(f"{w}{letter}" for letter in "abcdefghijkl" for w in words(PROSE))
NEAR = LONG.replace("winterd stormsd", "summerd calmd")
FAR = " ".join(reversed(words(LONG)))


def run(workbench: Workbench, *sources: Json, drops: list[Json] | None = None) -> Json:
    corpus = ingest(workbench, *sources)["corpus"]
    return workbench.run("dedup", request("dedup", corpus=corpus, drops=drops or []))


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


def test_signatures_agree_in_the_share_of_places_that_the_jaccard_index_says() -> None:
    a = np.unique(gram_hashes([str(i) for i in range(1000)], 1, WordHashes()))
    b = np.unique(gram_hashes([str(i) for i in range(250, 1250)], 1, WordHashes()))
    multiply, add = permutations(4096, 42)
    agree = float((signature(a, multiply, add) == signature(b, multiply, add)).mean())
    assert jaccard(a, b) == 0.6
    # four standard errors of 4,096 draws
    assert abs(agree - 0.6) < 0.031


def test_bands_find_pairs_at_the_threshold_with_the_promised_probability() -> None:
    assert band_rows(128, 0.7) == 4
    assert 1 - (1 - 0.7**4) ** (128 // 4) > 0.99 > 1 - (1 - 0.7**5) ** (128 // 5)


def test_grams_are_the_same_in_every_process_and_short_texts_have_one() -> None:
    cache = WordHashes()
    assert gram_hashes(["a", "b", "c"], 2, cache).tolist() == [8489408240201123685, 3290166799109759028]
    assert len(gram_hashes(["a"], 5, cache)) == 1
    assert len(gram_hashes([], 5, cache)) == 0
    assert words("Don't 静夜 x_1²") == ["don", "t", "静", "夜", "x", "1²"]
