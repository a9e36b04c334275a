"""`samples/corpus/dirty.jsonl` among the clean sample corpus, run through the real stages: what is found, by kind.

`python tests/dirt.py` prints a line of JSON a kind: how many there are, how many are found, by what, and how much clean
text goes with them.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Workbench, fixture_request
from documents import FIELDS, request, rows

from cpt_ml.store import Json

SAMPLES = Path(__file__).parents[2] / "samples"
CLEAN = ("zh", "en", "code", "replay", "retention")
CLEAN_DOCUMENTS = "clean documents"


@dataclass(frozen=True)
class Dropped:
    """What dropped a row; `kept` is the id that dedup kept in its place."""

    stage: str
    reason: str
    kept: str = ""


@dataclass
class Found:
    """Of one kind of dirt: lines there are and lines found, and by which stage and reason."""

    dirt: str
    lines: int
    found: int = 0
    by: Counter[str] = field(default_factory=Counter[str])
    missed: list[str] = field(default_factory=list[str])

    @property
    def recall(self) -> float:
        return self.found / self.lines


def judge(workbench: Workbench) -> dict[str, Found]:
    """By kind of dirt what ingest, filter, dedup and decontaminate find of it; clean documents dropped come last.

    A duplicate is found where it or its original is dropped for the other; that original is no false drop then.
    """
    expected: list[Json] = json.loads((SAMPLES / "corpus" / "dirty.expected.json").read_bytes())
    corpus, quarantined, told = _verdicts(workbench)
    dirty = {row["line"]: i for i, row in enumerate(corpus) if row["source"] == "dirty"}
    gone_for = {said.kept: row["id"] for row, said in zip(corpus, told, strict=True) if said and said.kept}
    found = {kind: Found(kind, n) for kind, n in sorted(Counter(e["dirt"] for e in expected).items())}
    originals: set[str] = set()
    for entry in expected:
        kind, at = found[entry["dirt"]], dirty.get(entry["line"])
        why = Dropped("ingest", quarantined[entry["line"]]) if at is None else told[at]
        original = gone_for.get(corpus[at]["id"], "") if at is not None and "of" in entry else ""
        if not why and original.endswith(f":{entry.get('of')}"):
            why = Dropped("dedup", "its original went instead")
            originals.add(original)
        if why:
            kind.found += 1
            kind.by[f"{why.stage}: {why.reason}"] += 1
        else:
            kind.missed.append(f"line {entry['line']}: {entry.get('how', '')}".rstrip(": "))
    clean = [(row, said) for row, said in zip(corpus, told, strict=True) if row["source"] != "dirty"]
    lost = Counter(f"{said.stage}: {said.reason}" for row, said in clean if said and row["id"] not in originals)
    found[CLEAN_DOCUMENTS] = Found(CLEAN_DOCUMENTS, len(clean), lost.total(), lost)
    return found


def _verdicts(workbench: Workbench) -> tuple[list[Json], dict[int, str], list[Dropped | None]]:
    """Rows of the corpus, reasons of the quarantine by line of dirty.jsonl, and what dropped each row."""
    files = [(n, f"corpus/{n}.jsonl.zst") for n in CLEAN] + [("dirty", "corpus/dirty.jsonl")]
    sources = [
        {"name": name, "file": workbench.put(path, (SAMPLES / path).read_bytes()), "format": "jsonl", "fields": FIELDS}
        | {"use": "validate" if name == "retention" else "train"}
        for name, path in files
    ]
    ingested = workbench.run("ingest", {"sources": sources, "maxQuarantineRatio": 1.0})
    corpus = ingested["corpus"]
    filtered = workbench.run("filter", request("filter", corpus=corpus))["verdicts"]
    duplicates = workbench.run("dedup", request("dedup", corpus=corpus, drops=[filtered]))["verdicts"]
    benchmarks = [
        {"name": path.name.removesuffix(".jsonl.zst"), "items": workbench.put(f"bench/{path.name}", path.read_bytes())}
        for path in sorted((SAMPLES / "bench").glob("*.jsonl.zst"))
    ]
    asked = {**fixture_request("decontaminate"), "corpus": corpus, "drops": [filtered, duplicates]}
    clean = workbench.run("decontaminate", {**asked, "benchmarks": benchmarks})["verdicts"]
    told: list[Dropped | None] = [None] * len(rows(workbench, corpus))
    for stage, verdicts in (("filter", filtered), ("dedup", duplicates), ("decontaminate", clean)):
        for i, verdict in enumerate(rows(workbench, verdicts)):
            if not verdict["keep"]:
                kept = verdict["evidence"] if stage == "dedup" else ""
                told[i] = Dropped(stage, verdict["reason"].split(":")[0], kept)
    quarantine = {r["line"]: r["reason"] for r in rows(workbench, ingested["quarantine"]) if r["source"] == "dirty"}
    return rows(workbench, corpus), quarantine, told


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for found in judge(Workbench(Path(folder))).values():
            print(json.dumps({**vars(found), "recall": found.recall}))


if __name__ == "__main__":
    main()
