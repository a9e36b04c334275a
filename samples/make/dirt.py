"""Choose dirty lines for the filters to find, strip the labels from them, and write the labels down apart."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from documents import Document, grams, json_line
from retention import PROTECTED_ELSEWHERE

# how many lines of each kind of dirt are shipped; of malformed lines, one a kind
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


class Candidate(NamedTuple):
    """A dirty line that may be shipped: its number in the source file, its bytes, what is wrong with it."""

    number: int
    line: bytes
    label: dict[str, Any]
    lang: str


def choose_dirt(
    dirty_path: Path, malformed_path: Path, sample_ids: set[str], bench_files: tuple[str, ...], seed: int
) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the chosen lines, in the order of the file, each with what is wrong with it.

    A duplicate is taken only if its original is in the sample, a contaminated page only if its benchmark is
    shipped. One malformed line of each way of being malformed is kept byte for byte.
    """
    malformed = {entry["line"]: entry["how"] for entry in json.loads(malformed_path.read_bytes())["lines"]}
    by_dirt: dict[str, list[Candidate]] = defaultdict(list)
    for number, raw in enumerate(dirty_path.read_bytes().split(b"\n"), start=1):
        if any(source.encode() in raw for source in PROTECTED_ELSEWHERE):
            continue
        if number in malformed:
            how = malformed[number]
            by_dirt[f"malformed, {how}"].append(Candidate(number, raw + b"\n", {"dirt": "malformed", "how": how}, ""))
        elif raw:
            document: Document = json.loads(raw)
            label = {key: document[key] for key in LABELS if key in document}
            if label["dirt"].endswith("duplicate") and label["of"] not in sample_ids:
                continue
            if label["dirt"] == "contaminated" and label["bench"] not in bench_files:
                continue
            line = json_line(without_labels(document, number))
            by_dirt[label["dirt"]].append(Candidate(number, line, label, document.get("lang", "")))

    rng = random.Random(seed)
    chosen: list[Candidate] = []
    for dirt, candidates in sorted(by_dirt.items()):
        if dirt == "contaminated":  # few Chinese ones for six sets: they come first, or a set has none
            candidates.sort(key=lambda c: (c.lang != "zh", rng.random()))
        else:
            rng.shuffle(candidates)
        chosen += candidates[: QUOTAS.get(dirt, 1)]
    return [(c.line, c.label) for c in sorted(chosen, key=lambda c: c.number)]


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
