"""decontaminate: questions are found in short and in long documents, idioms and answers' letters are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Workbench
from documents import PROSE, bytes_of, corpus_of, doc, json_lines, request, rows

from cpt_ml.benchmark_grams import BenchmarkGrams, read_benchmark
from cpt_ml.errors import BadData
from cpt_ml.store import Json

QUESTION = (
    "A candle melts by 2 centimetres every hour that it burns. How many centimetres shorter will a candle be after "
    "burning from one in the afternoon until five, if somebody blows it out for exactly half an hour in between?"
)
SHORT_ZH = "下列关于真核细胞中转录的叙述"
OPTIONS = ["(A)同一细胞", "(B)不会发生"]
BENCHMARK = [
    {
        "id": "c-1",
        "question": QUESTION,
        "options": None,
        "answer": "It burns <<4-.5=3.5>>3.5 hours.",
        "kind": "generate",
    },
    {"id": "c-2", "question": SHORT_ZH, "options": OPTIONS, "answer": "A", "kind": "mcq"},
    {"id": "c-3", "question": "What is seven times eight?", "options": None, "answer": "56", "kind": "generate"},
]
FILLER = " ".join(f"{w}{i}" for i in range(40) for w in PROSE.split())


def run(workbench: Workbench, docs: list[Json], benchmark: list[Json] = BENCHMARK, **fields: object) -> Json:
    items = workbench.put("bench/candles.jsonl", json_lines(benchmark))
    asked = request("decontaminate", corpus=corpus_of(workbench, docs), drops=[], **fields)
    return workbench.run("decontaminate", {**asked, "benchmarks": [{"name": "candles", "items": items}]})


def test_a_whole_question_is_found_however_long_the_document(workbench: Workbench) -> None:
    docs = [
        doc("clean", FILLER),
        doc("short", f"Solve this. {QUESTION}"),
        doc("long", f"{FILLER} {QUESTION.upper().replace('.', ';')} {FILLER}"),
        doc("half", f"{FILLER} {' '.join(QUESTION.split()[:22])} {FILLER}"),
        doc("short item", f"{FILLER} {SHORT_ZH}：{' '.join(OPTIONS)} {FILLER}"),
        doc("few words", f"{FILLER} What is seven times eight? {FILLER}"),
        doc("other words", f"{FILLER} What is seven times nine? {FILLER}"),
    ]
    result = run(workbench, docs)
    verdicts = rows(workbench, result["verdicts"])
    assert [v["keep"] for v in verdicts] == [True, False, False, True, False, False, True]
    assert verdicts[2]["reason"] == "contaminated:candles"
    assert verdicts[2]["evidence"].startswith("c-1: 0.0")
    assert verdicts[4]["evidence"].startswith("c-2: ")
    assert verdicts[5]["evidence"].startswith("c-3: ")
    assert result["counts"]["byBenchmark"] == {"candles": 4}


def test_what_is_not_looked_for_is_counted_and_a_benchmark_without_hits_too(workbench: Workbench) -> None:
    sums = [{"id": f"s-{i}", "question": q, "options": None, "answer": "4", "kind": "generate"} for i, q in
            enumerate(["2+2?", "二加二等于几？", "What is two plus two, in words?"])]  # fmt: skip
    same = [{**sums[2], "id": f"t-{i}", "question": "Which of these is certainly true?"} for i in range(5)]
    candles, more = workbench.put("bench/c.jsonl", json_lines(BENCHMARK)), workbench.put("b.jsonl", json_lines(sums))
    idioms = workbench.put("bench/i.jsonl", json_lines(same))
    names = [{"name": n, "items": i} for n, i in (("candles", candles), ("sums", more), ("idioms", idioms))]
    docs = [doc("a", f"2+2? 二加二等于几 {FILLER}"), doc("b", f"Which of these is certainly true? {FILLER}"),
            doc("c", f"{FILLER} what is TWO plus two in words {FILLER}")]  # fmt: skip
    asked = request("decontaminate", corpus=corpus_of(workbench, docs), drops=[], benchmarks=names)
    result = workbench.run("decontaminate", asked)
    assert [v["keep"] for v in rows(workbench, result["verdicts"])] == [True, True, False]
    assert result["counts"]["byBenchmark"] == {"candles": 0, "sums": 1, "idioms": 0}
    assert result["benchmarks"] == {
        "candles": {"items": 3, "tooShort": 0, "idioms": 0},
        "sums": {"items": 3, "tooShort": 2, "idioms": 0},
        "idioms": {"items": 5, "tooShort": 0, "idioms": 5},
    }


def test_the_papers_rule_drops_a_document_made_of_pieces_of_questions(workbench: Workbench) -> None:
    half = doc("half", " ".join(QUESTION.split()[:24]) + " and then something else")
    assert [v["keep"] for v in rows(workbench, run(workbench, [half])["verdicts"])] == [False]
    kept = run(workbench, [half], maxHitRatio=1.0)
    assert [v["keep"] for v in rows(workbench, kept["verdicts"])] == [True]


def test_grams_of_more_than_four_items_are_idioms(workbench: Workbench) -> None:
    same = [{**BENCHMARK[0], "id": f"c-{i}", "answer": ""} for i in range(5)]
    docs = [doc("a", f"Solve this. {QUESTION}")]
    assert [v["keep"] for v in rows(workbench, run(workbench, docs, same)["verdicts"])] == [True]
    assert [v["keep"] for v in rows(workbench, run(workbench, docs, same[:4])["verdicts"])] == [False]


def test_a_text_overlaps_the_same_alone_and_among_others(tmp_path: Path) -> None:
    (tmp_path / "candles.jsonl").write_bytes(json_lines(BENCHMARK))
    grams = BenchmarkGrams(read_benchmark("candles", tmp_path / "candles.jsonl", 20).parts, 20, 4)
    texts = [FILLER, QUESTION, "", f"{SHORT_ZH}{OPTIONS[0]}{OPTIONS[1]}", "What is", f"{QUESTION} {QUESTION}", PROSE]
    together = grams.overlaps(texts)
    assert together == [grams.overlaps([text])[0] for text in texts]
    assert [o.item.id if o else None for o in together] == [None, "c-1", None, "c-2", None, "c-1", None]
    assert [o.text_ratio for o in together if o] == [1.0, 1.0, 42 / 61]


def test_the_same_request_gives_the_same_bytes(workbench: Workbench) -> None:
    docs = [doc("a", FILLER), doc("b", QUESTION)]
    first = bytes_of(workbench, run(workbench, docs)["verdicts"])
    assert bytes_of(workbench, run(workbench, docs)["verdicts"]) == first


def test_a_benchmark_that_is_malformed_is_an_error_that_names_the_line(workbench: Workbench) -> None:
    items = workbench.put("bench/bad.jsonl", json.dumps(BENCHMARK[0]).encode() + b'\n{"id": 1}\n')
    asked = request("decontaminate", corpus=corpus_of(workbench, [doc("a", PROSE)]), drops=[])
    with pytest.raises(BadData, match=r"bad: line 2 of bad\.jsonl is not a question"):
        workbench.run("decontaminate", {**asked, "benchmarks": [{"name": "bad", "items": items}]})
