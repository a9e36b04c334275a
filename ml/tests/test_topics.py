"""train-topic-classifier and classify-topics: the same bytes every time, and metrics of the stored model."""

from __future__ import annotations

import random

import pytest
from conftest import Workbench
from documents import bytes_of, corpus_of, doc, request, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_ml.errors import BadData
from cpt_ml.store import Json
from cpt_ml.topic_text import MAX_TOKENS, topic_text
from cpt_ml.train_topic_classifier import per_class, share_of
from cpt_ml.words import words

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


def test_only_labelled_documents_of_the_language_and_kinds_are_trained_on(workbench: Workbench) -> None:
    others = [doc("a", "x", kind="book", topic="Others"), doc("b", "x", lang="zh", topic="Others")]
    others += [doc("c", "x"), doc("d", "x", topic="Gardening")]
    result = train(workbench, corpus_of(workbench, documents() + others))
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


def test_precision_and_recall_are_counted_by_hand() -> None:
    found = per_class(["a", "b", "c"], ["a", "a", "b", "b"], ["a", "b", "b", "b"])
    assert [(c["precision"], c["recall"], c["support"]) for c in found] == [(1, 0.5, 2), (2 / 3, 1, 2), (0, 0, 0)]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aZé’中ΣİſK_-1½\u0301\n\u3000Ⅳ²ﬁ😀. "), max_size=30), st.integers(1, 400))
def test_its_words_are_the_first_words_of_the_text_however_long_and_foreign_it_is(text: str, times: int) -> None:
    assert topic_text(text * times) == " ".join(words(text * times)[:MAX_TOKENS])


def test_the_classifier_sees_one_line_of_words_in_which_no_label_can_hide() -> None:
    assert topic_text("Ab, c!\n静夜 __label__x") == "ab c 静 夜 label x"
