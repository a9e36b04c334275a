"""Choose dirty lines for the filters to find, strip the labels from them, and write the labels down apart."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from documents import Document, grams, json_line

# how many lines of each kind of dirt are shipped
QUOTAS = {
    "near_duplicate": 40,
    "exact_duplicate": 24,
    "contaminated": 30,
    "boilerplate": 16,
    "garbled": 16,
    "too_short": 16,
    "bad_field": 12,
}
LABELS = ("dirt", "of", "how", "bench", "bench_id")
OVERLAP_GRAM = 13  # words or CJK characters, the shortest overlap that a decontamination stage looks for


def choose_dirt(
    dirty_path: Path, malformed_path: Path, sample_ids: set[str], bench_files: tuple[str, ...], seed: int
) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the chosen lines, in the order of the file, each with what is wrong with it.

    A duplicate is taken only if its original is in the sample, a contaminated page only if its benchmark is
    shipped. One malformed line of each way of being malformed is kept byte for byte.
    """
    malformed = {entry["line"]: entry["how"] for entry in json.loads(malformed_path.read_bytes())["lines"]}
    by_dirt: dict[str, list[tuple[int, bytes, Document | None]]] = defaultdict(list)
    for number, raw in enumerate(dirty_path.read_bytes().split(b"\n"), start=1):
        if not raw:
            continue
        if number in malformed:
            by_dirt[f"malformed: {malformed[number]}"].append((number, raw + b"\n", None))
            continue
        document: Document = json.loads(raw)
        dirt = document["dirt"]
        if dirt.endswith("duplicate") and document["of"] not in sample_ids:
            continue
        if dirt == "contaminated" and document["bench"] not in bench_files:
            continue
        by_dirt[dirt].append((number, raw, document))

    rng = random.Random(seed)
    chosen: list[tuple[int, bytes, dict[str, Any]]] = []
    for dirt, candidates in sorted(by_dirt.items()):
        quota = QUOTAS.get(dirt, 1)
        if dirt == "contaminated":  # the Chinese ones are spread over six sets: they come first, or some are lost
            candidates.sort(key=lambda c: (c[2]["lang"] != "zh", rng.random()) if c[2] else (True, 0.0))
        else:
            rng.shuffle(candidates)
        for number, raw, document in candidates[:quota]:
            if document is None:
                kind, how = dirt.split(": ")
                chosen.append((number, raw, {"dirt": kind, "how": how}))
            else:
                label = {key: document[key] for key in LABELS if key in document}
                chosen.append((number, json_line(without_labels(document, number)), label))
    return [(line, label) for _, line, label in sorted(chosen, key=lambda c: c[0])]


def without_labels(document: Document, number: int) -> Document:
    """Return the page as a crawl would hold it: no label, and no `dirty-` in its id."""
    page = {key: value for key, value in document.items() if key not in LABELS}
    if isinstance(page.get("id"), str):
        page["id"] = f"page-{number:04d}"
    if page.get("license") == "CC-BY-SA-4.0":
        page["share_alike"] = True
    return page


def check_overlap(lines: list[tuple[bytes, dict[str, Any]]], questions: dict[str, Document]) -> None:
    """Raise ValueError unless each contaminated page shares a gram with the shipped question it contains."""
    for raw, label in lines:
        if label["dirt"] != "contaminated":
            continue
        page = json.loads(raw)
        question = questions.get(label["bench_id"])
        if question is None:
            raise ValueError(f"{page['id']}: question {label['bench_id']} is not shipped")
        shared = grams(page["text"], OVERLAP_GRAM) & grams(question["question"], OVERLAP_GRAM)
        if not shared:
            raise ValueError(f"{page['id']}: shares no {OVERLAP_GRAM}-gram with {label['bench_id']}")
