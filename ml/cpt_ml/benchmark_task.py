"""Local benchmark items as a task of lm-evaluation-harness.

An item is {id, question, options, answer, kind}. Few-shot examples come from items set apart by a hash of their id, so
that no evaluated item is ever an example, whatever `limit` says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from cpt_ml.errors import BadData

Item = dict[str, Any]
LETTERS = "ABCDEFGHIJ"
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Split:
    """Items to evaluate and items to show as examples, both in an order that only the seed decides."""

    evaluated: list[Item]
    examples: list[Item]


def read_items(path: Path) -> list[Item]:
    """All items of a JSON Lines file (plain, gz, zst). Raises BadData naming the line that is no item."""
    items: list[Item] = []
    with pa.input_stream(str(path)) as f:  # the name says how it is compressed
        for number, line in enumerate(f.read().splitlines(), 1):
            try:
                item = json.loads(line)
                if not all(isinstance(item[k], str) for k in ("id", "question", "answer")):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise BadData(f"{path.name} line {number}: expected an item with id, question and answer") from None
            items.append(item)
    if not items:
        raise BadData(f"{path.name}: no items")
    return items


def split_items(items: list[Item], shots: int, limit: int | None, seed: int) -> Split:
    """Sets `shots` items apart as examples and cuts the rest to `limit`. Raises BadData when nothing is left."""
    ordered = sorted(items, key=lambda i: hashlib.sha256(f"{seed}/{i['id']}".encode()).digest())
    evaluated = ordered[shots:][:limit]
    if not evaluated:
        raise BadData(f"{len(items)} items are too few for {shots} shots")
    return Split(evaluated, ordered[:shots])


def usable(items: list[Item], kind: Literal["mcq", "generate", "solution"]) -> list[Item]:
    """Items that can be scored: of multiple choice those whose answer is one of the letters."""
    return [i for i in items if i["answer"].strip() in letters_of(i)] if kind == "mcq" else items


def letters_of(item: Item) -> list[str]:
    """The letters an answer may be; items without an option list carry A to D in the question."""
    return list(LETTERS[: len(item["options"])] if item.get("options") else LETTERS[:4])


def question_text(item: Item, kind: Literal["mcq", "generate", "solution"]) -> str:
    """The prompt of one item, up to where the answer begins."""
    if kind == "solution":
        return item["question"]
    chinese = item.get("lang") == "zh"
    lines = [item["question"].strip(), *(item.get("options") or [])]
    return "\n".join(lines) + ("\n答案：" if chinese else "\nAnswer:")


def final_answer(text: str) -> str:
    """What counts of a free answer: what stands after ####, else the last number, else the first line, normalised."""
    marked = text.rsplit("####", 1)[-1] if "####" in text else text
    numbers = NUMBER.findall(marked)
    if numbers:
        return numbers[-1].replace(",", "").removesuffix(".0").rstrip(".")
    lines = marked.strip().splitlines()
    return re.sub(r"\s+", "", lines[0]).strip("。.$").lower() if lines else ""


def task_config(
    name: str, kind: Literal["mcq", "generate", "solution"], split: Split, max_tokens: int
) -> dict[str, Any]:
    """The harness's configuration of a task on these items."""

    def dataset(**_: Any) -> dict[str, Any]:
        return {"test": _dataset(split.evaluated), "examples": _dataset(split.examples or split.evaluated[:1])}

    def text(item: Item) -> str:
        return question_text(item, kind)

    common: dict[str, Any] = {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "fewshot_split": "examples",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": len(split.examples),
        "doc_to_text": text,
        "metadata": {},
    }
    return {**common, **_SCORING[kind](max_tokens)}


def _dataset(items: list[Item]) -> Any:
    from datasets import Dataset  # noqa: PLC0415

    return Dataset.from_list(
        [
            {
                **{k: i[k] for k in ("id", "question", "answer")},
                "lang": i.get("lang"),
                "options": i.get("options") or [],
            }
            for i in items
        ]
    )


def _mcq(_max_tokens: int) -> dict[str, Any]:
    def choices(item: Item) -> list[str]:
        return letters_of(item)

    def target(item: Item) -> int:
        return letters_of(item).index(item["answer"].strip())

    return {
        "output_type": "multiple_choice",
        "doc_to_choice": choices,
        "doc_to_target": target,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _generate(max_tokens: int) -> dict[str, Any]:
    def target(item: Item) -> str:
        return item["answer"].strip()

    def score(item: Item, results: list[str]) -> dict[str, float]:
        return {"exact_match": float(final_answer(results[0]) == final_answer(item["answer"]))}

    return {
        "output_type": "generate_until",
        "doc_to_target": target,
        "process_results": score,
        "generation_kwargs": {"until": ["\n\n", "Question:"], "do_sample": False, "max_gen_toks": max_tokens},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _solution(_max_tokens: int) -> dict[str, Any]:
    def target(item: Item) -> str:
        return item["answer"]

    def score(item: Item, results: list[tuple[float, bool]]) -> dict[str, float]:
        return {"nats_per_byte": -results[0][0] / max(1, len(item["answer"].encode()))}

    return {
        "output_type": "loglikelihood",
        "doc_to_target": target,
        "target_delimiter": "\n",
        "process_results": score,
        "metric_list": [{"metric": "nats_per_byte", "aggregation": "mean", "higher_is_better": False}],
    }


_SCORING: dict[str, Callable[[int], dict[str, Any]]] = {"mcq": _mcq, "generate": _generate, "solution": _solution}
