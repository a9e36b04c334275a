"""Local benchmark items as tasks of lm-evaluation-harness: what is asked, and how an answer is scored.

Imports lm_eval, so only evaluate_benchmark.py imports this file, inside its job.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from lm_eval.api import task
from lm_eval.api.instance import Instance

from cpt_ml.store import Json

METRICS = {"mcq": "acc", "generate": "exact_match", "solution": "nats_per_byte"}
WORDS = {"zh": ("问题：", "答案：", ""), "en": ("Question: ", "Answer:", " ")}
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


Task: Any = task.Task  # typed as returning None throughout


class LocalTask(Task):
    """A task over items {id, question, options, answer, lang}; its few-shot examples are `examples`, in that order.

    `pieces` cuts a text into parts that fit the model's window, so that long solutions are scored whole.
    """

    def __init__(  # noqa: PLR0917
        self,
        name: str,
        kind: Literal["mcq", "generate", "solution"],
        items: list[Json],
        examples: list[Json],
        max_generated_tokens: int,
        pieces: Callable[[str], list[str]],
    ) -> None:
        self.kind, self.items, self.examples = kind, items, examples
        self.max_generated_tokens, self.pieces = max_generated_tokens, pieces
        self.per_item: dict[str, tuple[float, str | None]] = {}
        super().__init__()
        self.set_config("task", name)
        self.set_config("num_fewshot", len(examples))
        self.set_fewshot_seed(0)

    def download(self, data_dir: Any = None, cache_dir: Any = None, download_mode: Any = None) -> None:
        """Items are given; nothing is fetched."""

    def has_training_docs(self) -> bool:
        return True

    def has_validation_docs(self) -> bool:
        return False

    def has_test_docs(self) -> bool:
        return True

    def training_docs(self) -> list[Json]:
        return self.examples

    def test_docs(self) -> list[Json]:
        return self.items

    def fewshot_examples(self, k: int, rnd: Any) -> list[Json]:
        return self.examples[:k]

    def doc_to_text(self, doc: Json) -> str:
        if self.kind == "solution":
            return doc["question"].rstrip()
        ask, answer, _ = WORDS["zh" if doc.get("lang") == "zh" else "en"]
        options = "".join(f"\n{o}" for o in doc["options"] or [])
        return f"{ask}{doc['question']}{options}\n{answer}"

    def doc_to_target(self, doc: Json) -> str:
        return "\n" + doc["answer"] if self.kind == "solution" else _space(doc) + doc["answer"]

    def construct_requests(self, doc: Json, ctx: str, **kwargs: Any) -> list[Instance]:
        def ask(kind: Any, index: int, *arguments: Any) -> Instance:
            return Instance(request_type=kind, doc=doc, arguments=arguments, idx=index, metadata=kwargs["metadata"])

        if self.kind == "mcq":
            return [ask("loglikelihood", i, ctx, _space(doc) + c) for i, c in enumerate(letters(doc))]
        if self.kind == "generate":
            stops = ["\n\n", *(w[0].strip() for w in WORDS.values())]
            settings = {"until": stops, "max_gen_toks": self.max_generated_tokens, "do_sample": False}
            return [ask("generate_until", 0, ctx, settings)]
        requests: list[Instance] = []
        for i, piece in enumerate(spaces_first(self.pieces(self.doc_to_target(doc)))):
            requests.append(ask("loglikelihood", i, ctx, piece))
            ctx += piece
        return requests

    def process_results(self, doc: Json, results: list[Any]) -> dict[str, float]:
        if self.kind == "mcq":
            said = letters(doc)[int(np.argmax([r[0] for r in results]))]
            score = float(said == doc["answer"])
        elif self.kind == "generate":
            said = final_answer(str(results[0]))
            score = float(said != "" and said == final_answer(doc["answer"]))
        else:
            said = None
            score = -sum(float(r[0]) for r in results) / len(self.doc_to_target(doc).encode())
        self.per_item[doc["id"]] = (score, said)
        return {METRICS[self.kind]: score}

    def aggregation(self) -> dict[str, Any]:
        return {METRICS[self.kind]: _mean}

    def higher_is_better(self) -> dict[str, bool]:
        return {METRICS[self.kind]: self.kind != "solution"}


def spaces_first(pieces: list[str]) -> list[str]:
    """The same text with white space at the beginning of a piece, not the end of the one before: the harness counts
    white space that ends a context as part of what is scored, so it would be scored twice."""
    result: list[str] = []
    carried = ""
    for piece in pieces:
        text = carried + piece
        bare = text.rstrip()
        carried = text[len(bare) :]
        if bare:
            result.append(bare)
    return [*result[:-1], result[-1] + carried] if result else []


def letters(doc: Json) -> list[str]:
    """The letters to choose from; A to D where the options stand in the question."""
    return [chr(ord("A") + i) for i in range(len(doc["options"] or "ABCD"))]


def final_answer(text: str) -> str:
    """What counts of an answer: the text after the last `####` if there is one, its last number, else itself bare."""
    text = text.rsplit("####", 1)[-1]
    numbers = NUMBER.findall(text)
    if numbers:
        number = numbers[-1].replace(",", "")
        return number.rstrip("0").rstrip(".") if "." in number else number
    return re.sub(r"[\s$。.]", "", text)


def _space(doc: Json) -> str:
    return WORDS["zh" if doc.get("lang") == "zh" else "en"][2]


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
