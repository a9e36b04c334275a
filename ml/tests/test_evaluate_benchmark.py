"""Benchmarks: what is asked, how answers are read, and the harness's numbers against sums by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Workbench
from tiny import make_model

from cpt_ml.benchmark_tasks import final_answer, spaces_first
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.evaluate_benchmark import choose, cut_text, read_items, usable
from cpt_ml.llama import load_llama
from cpt_ml.store import Json

LETTERS = "ABCD"


def choice_items(count: int) -> list[Json]:
    return [
        {"id": f"q{i:02d}", "question": f"which water is {i}?", "options": [f"({c}) sea {c}" for c in LETTERS],
         "answer": LETTERS[i % 4], "kind": "mcq", "lang": "en"}
        for i in range(count)
    ]  # fmt: skip


def request_of(bench: Workbench, items: list[Json], **task: Any) -> Json:
    lines = "".join(json.dumps(i, ensure_ascii=False) + "\n" for i in items).encode()
    fields = {"name": "t", "kind": "mcq", "shots": 0, "limit": None, "maxGeneratedTokens": 8, **task}
    return {"model": make_model(bench), "task": {**fields, "items": bench.put("items.jsonl", lines)},
            "harness": "lm-eval/0.4.13", "dtype": "float32", "seed": 42}  # fmt: skip


def per_item(bench: Workbench, result: Json) -> list[Json]:
    return pq.read_table(bench.path(result["perItem"])).to_pylist()


def log_probability(bench: Workbench, context: str, continuation: str) -> float:
    """By one forward pass over at most the model's 128 positions, the beginning cut."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    folder = bench.files / "model-0"
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    before = tokenizer.encode(context, add_special_tokens=False).ids
    ids = tokenizer.encode(context + continuation, add_special_tokens=False).ids
    scored = len(ids) - len(before)
    tokens = torch.tensor([ids[-129:]])
    with torch.inference_mode():
        log_p = load_llama(folder)(tokens[:, :-1])[0].log_softmax(-1)
    targets = tokens[0, 1:]
    return float(log_p[range(len(targets)), targets][-scored:].sum())


def test_a_choice_is_the_letter_of_highest_likelihood(workbench: Workbench) -> None:
    items = choice_items(12)
    result = workbench.run("evaluate-benchmark", request_of(workbench, items))
    rows = {r["id"]: r for r in per_item(workbench, result)}
    for item in items:
        context = "Question: " + item["question"] + "".join(f"\n{o}" for o in item["options"]) + "\nAnswer:"
        scores = [log_probability(workbench, context, f" {c}") for c in LETTERS]
        assert rows[item["id"]]["prediction"] == LETTERS[scores.index(max(scores))]
        assert rows[item["id"]]["score"] == float(rows[item["id"]]["prediction"] == item["answer"])
    score = result["score"]
    accuracy = sum(r["score"] for r in rows.values()) / 12
    assert (score["metric"], score["value"], score["items"], score["chance"]) == ("acc", accuracy, 12, 0.25)
    assert score["standardError"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 11))


def solution(answer: str) -> list[Json]:
    return [{"id": "s", "question": "def rivers():", "options": None, "answer": answer, "kind": "code", "lang": "code"}]


def test_a_solution_is_scored_in_nats_per_byte(workbench: Workbench) -> None:
    result = workbench.run("evaluate-benchmark", request_of(workbench, solution("    the sea\n"), kind="solution"))
    expected = -log_probability(workbench, "def rivers():", "\n    the sea\n") / len("\n    the sea\n")
    assert result["score"]["value"] == pytest.approx(expected, rel=1e-4)
    assert (result["score"]["metric"], result["score"]["higherIsBetter"]) == ("nats_per_byte", False)


def test_a_solution_longer_than_the_window_is_scored_whole_and_nothing_twice(workbench: Workbench) -> None:
    lines = [f"    sea{i} = the_water({i})" for i in range(30)]
    request = request_of(workbench, solution("\n".join(lines) + "\n"), kind="solution")
    value = workbench.run("evaluate-benchmark", request)["score"]["value"]
    assert 2 < value < 6
    pieces = spaces_first(["\n  a\n", "\n", "  b\n", "c\n"])
    assert pieces == ["\n  a", "\n\n  b", "\nc\n"]


def test_generated_answers_are_compared_by_their_last_number(workbench: Workbench) -> None:
    items = [
        {
            "id": f"g{i}",
            "question": f"{i}+1?",
            "options": None,
            "answer": f"#### {i + 1}",
            "kind": "generate",
            "lang": "zh",
        }
        for i in range(6)
    ]
    result = workbench.run("evaluate-benchmark", request_of(workbench, items, kind="generate", shots=2, limit=3))
    assert (result["score"]["items"], result["score"]["shots"], result["score"]["chance"]) == (3, 2, None)
    assert {r["id"] for r in per_item(workbench, result)} <= {i["id"] for i in items}


def test_final_answers_are_read_as_people_write_them() -> None:
    read = {"so 1,234.50 dollars": "1234.5", "2 + 2 = <<2+2=4>>4\n#### 4": "4", "答案是 $-\\frac{1}{2}$": "2",
            "$a > b$。": "a>b", "": ""}  # fmt: skip
    assert {k: final_answer(k) for k in read} == read


def test_examples_are_never_asked_and_the_choice_depends_on_the_seed_alone() -> None:
    items = choice_items(30)
    examples, asked = choose(items, 5, 10, seed=1)
    assert (len(examples), len(asked)) == (5, 10)
    assert {e["id"] for e in examples}.isdisjoint(a["id"] for a in asked)
    assert choose(items[::-1], 5, 10, seed=1) == (examples, asked)
    assert choose(items, 5, 10, seed=2) != (examples, asked)


def test_items_without_one_right_letter_are_not_asked() -> None:
    items = [{**i, "answer": a} for i, a in zip(choice_items(4), ["A", "BD", "E", "D"], strict=True)]
    assert [i["answer"] for i in usable(items, "mcq")] == ["A", "D"]


def test_items_are_read_compressed_too_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl.zst"
    with pa.output_stream(path, compression="zstd") as f:
        f.write(b"".join(json.dumps(i).encode() + b"\n" for i in choice_items(3)))
    assert [i["id"] for i in read_items(path)] == ["q00", "q01", "q02"]
    (tmp_path / "bad.jsonl").write_text(json.dumps(choice_items(1)[0]) + '\n{"id": 3}\n')
    with pytest.raises(BadData, match="line 2 is not an item"):
        read_items(tmp_path / "bad.jsonl")


def test_a_text_is_cut_at_lines_and_nothing_is_lost() -> None:
    text = "a b c\n" * 5 + "x" * 50 + "\nend"
    parts = cut_text(text, 12, len)
    assert "".join(parts) == text
    assert max(len(p) for p in parts) <= 12


def test_more_shots_than_items_are_refused(workbench: Workbench) -> None:
    with pytest.raises(BadRequest, match="5 shots leave none of the 5 usable items of t to ask"):
        workbench.run("evaluate-benchmark", request_of(workbench, choice_items(5), shots=5))
    long = request_of(workbench, choice_items(5), kind="generate", maxGeneratedTokens=128)
    with pytest.raises(BadRequest, match="leaves no room"):
        workbench.run("evaluate-benchmark", long)


def item_scores(bench: Workbench, name: str, scores: dict[str, float]) -> Json:
    pq.write_table(pa.table({"id": list(scores), "score": list(scores.values())}), bench.files / name)
    return bench.ref(name)


def test_two_evaluations_are_compared_item_by_item(workbench: Workbench) -> None:
    before = item_scores(workbench, "b", {"1": 0.0, "2": 1.0, "3": 0.0, "4": 1.0})
    after = item_scores(workbench, "a", {"4": 1.0, "3": 1.0, "2": 1.0, "1": 1.0})
    result = workbench.run("compare-benchmark", {"before": before, "after": after})
    assert result == {"items": 4, "before": 0.5, "after": 1.0, "difference": 0.5,
                      "standardError": pytest.approx(math.sqrt(1 / 3) / 2)}  # fmt: skip
    other = item_scores(workbench, "c", {"1": 0.0, "2": 1.0, "3": 0.0})
    with pytest.raises(BadRequest, match=r"different items, 1 on one side only: \['4'\]"):
        workbench.run("compare-benchmark", {"before": before, "after": other})
