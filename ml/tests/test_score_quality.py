"""score-quality: a scorer trained as topics are, and what it keeps."""

from __future__ import annotations

import random

import pytest
from conftest import Workbench
from documents import bytes_of, corpus_of, doc, request, rows

from cpt_ml.errors import BadRequest
from cpt_ml.store import Json

WORDS = {
    "0": "click buy cheap casino winner subscribe deal viagra",
    "2": "thing stuff maybe whatever kinda dunno lol nice",
    "4": "theorem therefore experiment evidence because measured chapter explains",
}


def graded() -> list[Json]:
    rng = random.Random(0)
    return [
        doc(f"{score}-{i}", " ".join(rng.choices([*words.split(), "the", "of"], k=40)), topic=score)
        for i in range(80)
        for score, words in WORDS.items()
    ]


def scorer(workbench: Workbench) -> Json:
    asked = request("train-topic-classifier", corpus=corpus_of(workbench, graded(), "graded"), drops=[])
    small = {"topics": list("012345"), "taxonomy": "quality/1", "dimension": 8, "buckets": 1000, "epochs": 25}
    return workbench.run("train-topic-classifier", {**asked, **small})["classifier"]


def test_documents_below_the_least_score_are_dropped_with_their_score_as_evidence(workbench: Workbench) -> None:
    docs = [doc(score, words) for score, words in WORDS.items()]
    docs += [doc("book", WORDS["0"], kind="book"), doc("zh", WORDS["0"], lang="zh")]
    of = scorer(workbench)
    asked = request("score-quality", corpus=corpus_of(workbench, docs), drops=[], scorers={"en": of})
    result = workbench.run("score-quality", asked)
    quality, verdicts = rows(workbench, result["quality"]), rows(workbench, result["verdicts"])
    assert [q["score"] for q in quality] == [0, 2, 4, None, None]
    assert {q["scorer"] for q in quality} == {of["sha256"], None}
    assert [v["keep"] for v in verdicts] == [False, False, True, True, True]
    assert [v["reason"] for v in verdicts[:3]] == ["quality", "quality", None]
    assert verdicts[0]["evidence"] == f"score 0 ({quality[0]['probability']:.2f})"
    assert result["counts"] == {
        "docs": 5,
        "kept": 3,
        "byReason": {"quality": 2},
        "byLanguage": {"en": 2, "zh": 1},
        "byScore": {"en/0": 1, "en/2": 1, "en/4": 1},
    }
    low = workbench.run("score-quality", {**asked, "minScore": 2})
    assert low["counts"]["byReason"] == {"quality": 1}
    assert bytes_of(workbench, low["quality"]) == bytes_of(workbench, result["quality"])


def test_what_was_dropped_before_is_not_scored(workbench: Workbench) -> None:
    docs = [doc(score, words) for score, words in WORDS.items()]
    of = scorer(workbench)
    corpus = corpus_of(workbench, docs)
    first = workbench.run("score-quality", request("score-quality", corpus=corpus, drops=[], scorers={"en": of}))
    after = request("score-quality", corpus=corpus, drops=[first["verdicts"]], scorers={"en": of})
    again = workbench.run("score-quality", after)
    assert [q["score"] for q in rows(workbench, again["quality"])] == [None, None, 4]
    assert again["counts"]["docs"] == again["counts"]["kept"] == 1
    assert all(v["keep"] for v in rows(workbench, again["verdicts"]))


def test_a_classifier_of_topics_is_no_scorer(workbench: Workbench) -> None:
    named = [{**d, "topic": {"0": "Law", "2": "Others", "4": "Law"}[d["topic"]]} for d in graded()]
    asked = request("train-topic-classifier", corpus=corpus_of(workbench, named), drops=[], topics=["Law", "Others"])
    topics = workbench.run("train-topic-classifier", {**asked, "buckets": 1000})["classifier"]
    wrong = request("score-quality", corpus=corpus_of(workbench, graded()), drops=[], scorers={"en": topics})
    with pytest.raises(BadRequest, match="expected a classifier whose topics are 0 to 5"):
        workbench.run("score-quality", wrong)
