"""count-funnel: the way of the documents by source and language, each at the first step that took it."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, corpus_of, doc, ingest, json_lines, request, rows, source
from tiny import make_tokenizer

from cpt_ml.errors import BadRequest
from cpt_ml.store import Json

NEWS = [doc("1", PROSE), doc("2", PROSE), doc("3", PROSE_ZH, lang="zh"), doc("4", "too short"), doc("5", "too short")]
WIKI = [doc("1", PROSE, kind="encyclopedia"), doc("2", f"{PROSE} {PROSE_ZH}"), doc("3", PROSE_ZH, lang="zh")]


def funnel(workbench: Workbench, corpus: Json, *steps: str) -> tuple[Json, Json]:
    """The counts after these stages, and what tokenize made of what they left."""
    drops: list[Json] = []
    for step in steps:
        asked = {"corpus": corpus, "drops": [*drops]} if step == "dedup" else {"corpus": corpus}
        drops.append(workbench.run(step, request(step, **asked))["verdicts"])
    asked = request("tokenize", corpus=corpus, drops=drops, tokenizer=make_tokenizer(workbench))
    tokenized = workbench.run("tokenize", asked)
    asked = {"corpus": corpus, "steps": list(steps), "drops": drops, "index": tokenized["index"]}
    return workbench.run("count-funnel", asked)["counts"], tokenized


def test_each_source_and_language_has_what_every_step_left(workbench: Workbench) -> None:
    news, wiki = (source(workbench, name, json_lines(docs)) for name, docs in (("news", NEWS), ("wiki", WIKI)))
    corpus = ingest(workbench, news, wiki)["corpus"]
    counts, tokenized = funnel(workbench, corpus, "filter", "dedup")
    left = {
        s: {lang: (line["docs"], line["left"]) for lang, line in of.items()} for s, of in counts["bySource"].items()
    }
    assert left == {
        "news": {"en": (4, {"filter": 2, "dedup": 1}), "zh": (1, {"filter": 1, "dedup": 1})},
        "wiki": {"en": (2, {"filter": 2, "dedup": 1}), "zh": (1, {"filter": 1, "dedup": 0})},
    }
    # a document that the filter took is not taken by dedup again, though both are copies
    assert counts["taken"] == {
        "news": {"filter": {"too-short": 2}, "dedup": {"exact-duplicate": 1}},
        "wiki": {"dedup": {"exact-duplicate": 2}},
    }
    assert counts["docs"] == 8
    by_group: Counter[tuple[str, str]] = Counter()
    for row, size in zip(rows(workbench, corpus), rows(workbench, tokenized["index"]), strict=True):
        by_group[row["source"], row["language"]] += size["num_tokens"]
    lines = {(s, lang): line for s, of in counts["bySource"].items() for lang, line in of.items()}
    assert {group: line["tokens"] for group, line in lines.items()} == dict(by_group)
    assert lines["news", "zh"]["bytes"] == len(PROSE_ZH.encode())
    assert lines["wiki", "zh"]["bytes"] == 0


def test_without_a_step_all_documents_are_left(workbench: Workbench) -> None:
    counts, tokenized = funnel(workbench, corpus_of(workbench, NEWS))
    assert {lang: (line["docs"], line["left"]) for lang, line in counts["bySource"]["web"].items()} == {
        "en": (4, {}),
        "zh": (1, {}),
    }
    assert counts["taken"] == {}
    assert sum(line["tokens"] for line in counts["bySource"]["web"].values()) == tokenized["counts"]["tokens"]


def test_what_does_not_fit_is_refused(workbench: Workbench) -> None:
    corpus = corpus_of(workbench, NEWS)
    other = corpus_of(workbench, NEWS[:3], "other")
    verdicts = workbench.run("filter", request("filter", corpus=other))["verdicts"]
    asked = request("tokenize", corpus=corpus, drops=[], tokenizer=make_tokenizer(workbench))
    index = workbench.run("tokenize", asked)["index"]
    with pytest.raises(BadRequest, match="3 rows, but the corpus shard has 5"):
        workbench.run("count-funnel", {"corpus": corpus, "steps": ["filter"], "drops": [verdicts], "index": index})
    with pytest.raises(BadRequest, match="0 steps, but 1 verdicts"):
        workbench.run("count-funnel", {"corpus": corpus, "steps": [], "drops": [verdicts], "index": index})
    with pytest.raises(BadRequest, match=r"index.*5 rows, but the corpus shard has 3"):
        workbench.run("count-funnel", {"corpus": other, "steps": [], "drops": [], "index": index})
