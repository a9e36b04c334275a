"""train-topic-classifier and classify-topics: the same bytes every time, and metrics of the stored model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import Workbench
from documents import bytes_of, corpus_of, doc, ingest, json_lines, request, rows, sidecar, source
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_ml.errors import BadData, BadRequest
from cpt_ml.hash_share import share_of
from cpt_ml.store import Json
from cpt_ml.topic_metrics import Judged
from cpt_ml.topic_text import MAX_TOKENS, topic_text
from cpt_ml.words import words

SAMPLES = Path(__file__).parents[2] / "samples"

VOCABULARY = {
    "Law and Policy": "court judge appeal statute verdict clause lawyer contract ruling tribunal",
    "Medicine and Health": "patient doctor fever clinic dose surgery nurse symptom therapy vaccine",
}


def documents() -> list[Json]:
    rng = random.Random(0)
    found: list[Json] = []
    for i in range(200):
        topic, vocabulary = list(VOCABULARY.items())[i % 2]
        text = " ".join(rng.choices([*vocabulary.split(), "the", "of", "and", "with"], k=40))
        found.append(doc(f"d{i}", text, topic=topic))
    return found


def train(workbench: Workbench, corpus: Json, **fields: object) -> Json:
    small = {"epochs": 25, "dimension": 8, "buckets": 1000, "drops": [], **fields}
    return workbench.run("train-topic-classifier", request("train-topic-classifier", corpus=corpus, **small))


def test_the_same_documents_train_the_same_bytes_and_another_seed_does_not(workbench: Workbench) -> None:
    corpus = corpus_of(workbench, documents())
    first = train(workbench, corpus)
    # freed memory that is not zero must not leak into the next model
    garbage = [bytes([255]) * (1 << 16) for _ in range(200)]
    del garbage
    again = train(workbench, corpus, epochs=26)
    assert again["classifier"]["sha256"] != first["classifier"]["sha256"]
    assert train(workbench, corpus, epochs=25)["classifier"]["sha256"] == first["classifier"]["sha256"]
    assert train(workbench, corpus, seed=7)["classifier"]["sha256"] != first["classifier"]["sha256"]


def test_metrics_are_of_the_part_that_was_not_trained_on(workbench: Workbench) -> None:
    result = train(workbench, corpus_of(workbench, documents()))
    test = [f"web:d{i}" for i in range(200) if share_of(42, f"web:d{i}") < 0.15]
    assert (result["numTrain"], result["numTest"]) == (200 - len(test), len(test))
    assert result["accuracy"] == 1.0
    assert sum(c["support"] for c in result["perClass"]) == len(test)
    assert len(result["perClass"]) == 11
    assert result["macroF1"] == 1.0
    assert [sum(row) for row in result["confusion"]] == [c["support"] for c in result["perClass"]]
    assert sum(b["right"] for b in result["confidence"]) == len(test)
    assert result["othersRatio"] == 0


def test_a_topic_that_was_labelled_later_goes_before_the_one_that_the_source_gave(workbench: Workbench) -> None:
    docs = documents()
    corpus = corpus_of(workbench, docs)
    swapped = ["Medicine and Health" if d["topic"] == "Law and Policy" else None for d in docs]
    labels = sidecar(workbench, "labels", {"label": swapped})
    result = train(workbench, corpus, labels=labels)
    assert [c["topic"] for c in result["perClass"] if c["support"]] == ["Medicine and Health"]
    short = sidecar(workbench, "labels-short", {"label": swapped[1:]})
    with pytest.raises(BadRequest, match="200 rows and 199 labels"):
        train(workbench, corpus, labels=short)


def test_documents_of_a_language_without_a_classifier_are_told_apart_by_source_where_that_is_asked_for(
    workbench: Workbench,
) -> None:
    classifier = train(workbench, corpus_of(workbench, documents()))["classifier"]
    french = [doc("1", "un deux", lang="fr"), doc("2", "trois", lang="fr", kind="book")]
    german = [doc("1", "eins", lang="de"), doc("2", VOCABULARY["Law and Policy"])]
    corpus = ingest(
        workbench, source(workbench, "gazette", json_lines(french)), source(workbench, "crawl", json_lines(german))
    )["corpus"]
    asked = request("classify-topics", corpus=corpus, drops=[], classifiers={"en": classifier}, fallback="source")
    result = workbench.run("classify-topics", asked)
    found = rows(workbench, result["topics"])
    assert [r["topic"] for r in found] == ["source:gazette", None, "source:crawl", "Law and Policy"]
    assert [r["classifier"] for r in found] == [None, None, None, classifier["sha256"]]
    assert result["counts"]["bySource"] == {"fr/gazette": 1, "de/crawl": 1}
    assert result["counts"]["byTopic"] == {"en/Law and Policy": 1}


def test_only_labelled_documents_of_the_language_and_kinds_are_trained_on(workbench: Workbench) -> None:
    others = [doc("a", "x", kind="book", topic="Others"), doc("b", "x", lang="zh", topic="Others")]
    others += [doc("c", "x"), doc("d", "x", topic="Gardening")]
    result = train(workbench, corpus_of(workbench, documents() + others))
    assert result["numTrain"] + result["numTest"] == 200
    spelled = [{**d, "topic": str(d["topic"]).replace(" and", ", AND")} for d in documents()]
    result = train(workbench, corpus_of(workbench, spelled, "spelled"))
    assert result["numTrain"] + result["numTest"] == 200
    with pytest.raises(BadData, match="0 labelled documents to train on"):
        train(workbench, corpus_of(workbench, others, "others"))


def test_documents_get_the_topic_of_their_words_and_doubtful_ones_are_others(workbench: Workbench) -> None:
    classifier = train(workbench, corpus_of(workbench, documents()))["classifier"]
    docs = [
        doc("law", VOCABULARY["Law and Policy"]),
        doc("unknown words", "zyx wvu tsr"),
        doc("book", VOCABULARY["Law and Policy"], kind="book"),
        doc("no classifier", "法院", lang="zh"),
    ]
    asked = request(
        "classify-topics", corpus=corpus_of(workbench, docs, "new"), drops=[], classifiers={"en": classifier}
    )
    result = workbench.run("classify-topics", {**asked, "minProbability": 0.9})
    assert [r["topic"] for r in rows(workbench, result["topics"])] == ["Law and Policy", "Others", None, None]
    assert result["counts"] == {
        "docs": 4,
        "classified": 2,
        "lowConfidence": 1,
        "byTopic": {"en/Law and Policy": 1, "en/Others": 1},
    }
    first = bytes_of(workbench, result["topics"])
    assert bytes_of(workbench, workbench.run("classify-topics", {**asked, "minProbability": 0.9})["topics"]) == first


def test_sources_that_stand_for_topics_are_strata_from_hold_out_to_the_token_plan(workbench: Workbench) -> None:
    def pages(name: str, n: int) -> Json:
        rng = random.Random(name)
        texts = [" ".join(str(rng.randrange(10**6)) for _ in range(40)) for _ in range(n)]
        return source(workbench, name, json_lines(doc(str(i), text, lang="fr") for i, text in enumerate(texts)))

    corpus = ingest(workbench, pages("gazette", 40), pages("crawl", 40))["corpus"]
    asked = request("classify-topics", corpus=corpus, drops=[], classifiers={}, fallback="source")
    topics = workbench.run("classify-topics", asked)["topics"]
    signed = request("dedup-signatures", corpus=corpus, drops=[])
    signatures = workbench.run("dedup-signatures", signed)["signatures"]
    clusters = workbench.run("dedup", request("dedup", corpus=corpus, drops=[], signatures=signatures))["verdicts"]
    apart = request("hold-out", corpus=corpus, drops=[], topics=topics, duplicates=clusters, maxShare=0.1)
    held = workbench.run("hold-out", apart)
    strata = ["source:crawl", "source:gazette"]
    assert [s["topic"] for s in held["strata"]] == strata
    tokenizer = workbench.put("tokenizer.json", (SAMPLES / "base" / "tokenizer.json").read_bytes())
    cut = workbench.run("tokenize", {"corpus": corpus, "drops": [held["verdicts"]], "tokenizer": tokenizer})
    counted = workbench.run("count-strata", {"corpus": corpus, "topics": topics, "index": cut["index"]})["strata"]
    assert [(s["topic"], s["docs"] + h["docs"]) for s, h in zip(counted, held["strata"], strict=True)] == [
        (topic, 40) for topic in strata
    ]
    pool = {"corpus": corpus, "tokens": cut["tokens"], "index": cut["index"], "topics": topics, "scores": None}
    ratios = [
        {"language": "fr", "kind": "web", "topic": topic, "ratio": r}
        for topic, r in zip(strata, (0.25, 0.75), strict=True)
    ]
    mixed = request(
        "sample-mixture", pools=[pool], tokenizer=tokenizer, strata=ratios, tokenBudget=2048, order="random"
    )
    band = {"fromTokens": 0, "toTokens": 2048, "totalTokens": 2048}
    plan = workbench.run("sample-mixture", {**mixed, "band": band})
    assert [(s["topic"], round(s["tokens"] / 2049, 2)) for s in plan["strata"]] == [
        ("source:crawl", 0.25),
        ("source:gazette", 0.75),
    ]


def test_metrics_are_counted_by_hand() -> None:
    judged = Judged(["a", "b", "c", "Others"])
    for truth, predicted, probability in [("a", "a", 0.97), ("a", "b", 0.3), ("b", "b", 1.0), ("b", "", 0.0)]:
        judged.add(truth, predicted, probability)
    judged.add("b", "Others", 0.31)
    m = judged.metrics()
    assert m["accuracy"] == 2 / 5
    assert [(c["precision"], c["recall"], c["support"]) for c in m["perClass"]] == [
        (1, 1 / 2, 2),
        (1 / 2, 1 / 3, 3),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert m["macroF1"] == pytest.approx((2 / 3 + 2 / 5) / 2)
    assert m["confusion"] == [[1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert m["othersRatio"] == 2 / 5
    below = [b for b in m["confidence"] if b["from"] < 0.3]
    assert (sum(b["docs"] for b in below), sum(b["right"] for b in below)) == (1, 0)
    assert sum(b["docs"] for b in m["confidence"]) == 5


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aZé’中ΣİſK_-1½\u0301\n\u3000Ⅳ²ﬁ😀. "), max_size=30), st.integers(1, 400))
def test_its_words_are_the_first_words_of_the_text_however_long_and_foreign_it_is(text: str, times: int) -> None:
    assert topic_text(text * times) == " ".join(words(text * times)[:MAX_TOKENS])


def test_the_classifier_sees_one_line_of_words_in_which_no_label_can_hide() -> None:
    assert topic_text("Ab, c!\n静夜 __label__x") == "ab c 静 夜 label x"
