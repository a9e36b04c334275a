"""Real processes, really killed at every commit of every data stage: the next attempt ends with the same bytes.

Dedup and its signatures have a file of their own, test_dedup_kills.py. The jobs are forked from one warm process.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, doc, json_lines, request, source
from job_processes import Processes
from test_find_personal_data import PLACEHOLDERS, tokenizer

from cpt_ml.job import Job
from cpt_ml.store import Json, commit_key

STAGES = ("ingest", "filter", "decontaminate", "find_personal_data", "classify_topics", "tokenize", "hold_out")
IMPORTS = ("pyarrow.parquet", "tokenizers", "fasttext", *(f"cpt_ml.{stage}" for stage in STAGES))
WORDS = PROSE.lower().replace(".", "").replace(",", "").split()
ITEMS = [{"id": "c-1", "question": PROSE, "options": None, "answer": "1", "kind": "generate"}]


class Prepared:
    """A store in which every stage's inputs are committed, and the undisturbed result of every stage."""

    def __init__(self, folder: Path) -> None:
        self.bench = Workbench(folder)
        bench = self.bench
        sources = [source(bench, f"s{shard}", json_lines(documents(shard))) for shard in range(3)]
        sources.append(source(bench, "old", json_lines([doc("o", PROSE_ZH * 3)]), use="validate"))
        benchmark = {"name": "c", "items": bench.put("c.jsonl", json_lines(ITEMS))}
        files = {"sources": sources, "maxQuarantineRatio": 1.0}
        corpus = bench.run("ingest", files)["corpus"]
        # several shards of each source
        asked: dict[str, Json] = {"ingest": {**files, "shardDocs": 10}}
        assert len(bench.shards(bench.run("ingest", asked["ingest"])["corpus"])) == 13
        asked["filter"] = request("filter", corpus=corpus)
        drops = [bench.run("filter", asked["filter"])["verdicts"]]
        duplicates = bench.run("dedup", request("dedup", corpus=corpus, drops=drops))["verdicts"]
        over = {"corpus": corpus, "drops": drops}
        asked["decontaminate"] = request("decontaminate", **over, benchmarks=[benchmark])
        asked["find-personal-data"] = request("find-personal-data", **over)
        spans = bench.run("find-personal-data", asked["find-personal-data"])["personalData"]
        topics = ["Law and Policy", "Medicine and Health", "Others"]
        small = {"epochs": 2, "dimension": 4, "buckets": 1000, "testShare": 0.3}
        asked["train-topic-classifier"] = request(
            "train-topic-classifier", **over, language="en", taxonomy="syne-en/1", topics=topics, **small
        )
        classifier = bench.run("train-topic-classifier", asked["train-topic-classifier"])["classifier"]
        asked["classify-topics"] = request("classify-topics", **over, classifiers={"en": classifier})
        found = bench.run("classify-topics", asked["classify-topics"])["topics"]
        redaction = {"personalData": spans, "placeholders": PLACEHOLDERS}
        asked["hold-out"] = request("hold-out", **over, **redaction, topics=found, duplicates=duplicates)
        asked["tokenize"] = {**over, **redaction, "tokenizer": tokenizer(bench)[0]}
        index = bench.run("tokenize", asked["tokenize"])["index"]
        asked["count-strata"] = {"corpus": corpus, "topics": found, "index": index}
        for stage in ("decontaminate", "hold-out", "count-strata"):
            bench.run(stage, asked[stage])
        self.asked = asked


def documents(shard: int) -> list[Json]:
    """Documents like no others, with labels, duplicates, personal data and a benchmark's question."""
    docs = [doc("same", PROSE_ZH, lang="zh"), doc("short", "too short"), doc("question", f"Solve this. {PROSE}")]
    for i in range(30):
        words = [f"{w}{(i * 7 + k * 3 + shard) % 11}" for k, w in enumerate(WORDS)]
        text = f"{' '.join(words)}. Write to ann{i}@example.org."
        docs.append(doc(f"d{i}", text, topic=("Law and Policy", "Medicine and Health", "Others")[i % 3]))
    return docs


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("prepared"))


class Warm:
    """One process that forks a job for each request, with the failpoints of a folder."""

    def __init__(self, folder: Path) -> None:
        self.failpoints = folder
        self.processes = Processes(imports=IMPORTS, CPT_FAILPOINTS=str(folder))

    def run(self, job: Job) -> int:
        """Runs a job to its end; its exit code, minus a signal."""
        return self.processes.wait(self.processes.start(job))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    warm = Warm(tmp_path_factory.mktemp("failpoints"))
    yield warm
    warm.processes.close()


class Attempts:
    """Attempts at one stage's request in a copy of the store where that stage never ran, a process each."""

    def __init__(self, prepared: Prepared, warm: Warm, stage: str, folder: Path) -> None:
        self.warm, self.stage, self.asked = warm, stage, prepared.asked[stage]
        self.bench = Workbench(folder)
        shutil.copytree(prepared.bench.folder / "store", folder / "store", symlinks=True)
        shutil.copytree(prepared.bench.files, self.bench.files, dirs_exist_ok=True)
        self.units = self.bench.units(stage, self.asked)
        whole = self.bench.job(stage, self.asked).fingerprint
        self.fingerprints = [whole] if self.units is None else [u["fingerprint"] for u in self.units]
        self.undisturbed = [self.written(f) for f in self.fingerprints]
        for fingerprint in {whole, *self.fingerprints}:
            (folder / "store" / commit_key(fingerprint)).unlink(missing_ok=True)
            shutil.rmtree(folder / "store" / "data" / fingerprint[:2] / fingerprint, ignore_errors=True)
        self.tokens: list[str] = []

    def written(self, fingerprint: str) -> tuple[list[tuple[str, bytes]], Json]:
        """Names and bytes of a commit's files, and its result, whoever committed it."""
        store = self.bench.job("read", {"of": fingerprint}).store
        record = store.record(fingerprint)
        root = self.bench.folder / "store"
        files = [(f["name"], (root / f["path"]).read_bytes()) for f in record["files"]]
        return files, record["result"]

    def committed(self) -> list[str]:
        return [f for f in self.fingerprints if (self.bench.folder / "store" / commit_key(f)).exists()]

    def run(self, point: str | None = None, passes: int = 1) -> int:
        """The next attempt, over what is not committed yet; killed where it passes a failpoint for the n-th time."""
        done = self.committed()
        pending = None if self.units is None else [u for u in self.units if u["fingerprint"] not in done]
        job = self.bench.job(self.stage, self.asked, units=pending)
        job.spec["attempt"] = len(self.tokens) + 1
        self.tokens.append(job.token)
        if point is not None:
            (self.warm.failpoints / point).write_text(str(passes))
        return self.warm.run(job)

    def by(self) -> list[int]:
        """Which attempt committed each unit."""
        store = self.bench.job("read", {"of": self.stage}).store
        return [self.tokens.index(store.record(f)["attempt"]) for f in self.fingerprints]


MAPPED = ["ingest", "filter", "decontaminate", "find-personal-data", "classify-topics", "tokenize"]
WHOLE = ["train-topic-classifier", "hold-out", "count-strata"]
Start = Callable[[str], Attempts]


@pytest.fixture
def attempts(prepared: Prepared, warm: Warm, tmp_path: Path) -> Start:
    return lambda stage: Attempts(prepared, warm, stage, tmp_path / "again")


@pytest.mark.parametrize("stage", MAPPED)
def test_a_shard_is_done_once_however_often_the_job_is_killed(attempts: Start, stage: str) -> None:
    tried = attempts(stage)
    assert len(tried.fingerprints) == 4
    kills = [("job-started", 1, 0), ("commit-written", 1, 0), ("committed", 1, 1), ("commit-written", 2, 2),
             ("committed", 1, 3)]  # fmt: skip
    for point, passes, left in kills:
        assert tried.run(point, passes) == -signal.SIGKILL
        assert len(tried.committed()) == left
    assert tried.run("end-written") == -signal.SIGKILL
    assert tried.by() == [2, 3, 4, 5]
    assert [tried.written(f) for f in tried.fingerprints] == tried.undisturbed


@pytest.mark.parametrize("stage", WHOLE)
def test_a_whole_stage_leaves_nothing_before_its_commit_and_the_same_bytes_after(attempts: Start, stage: str) -> None:
    tried = attempts(stage)
    for point in ("job-started", "commit-written"):
        assert tried.run(point) == -signal.SIGKILL
        assert tried.committed() == []
    assert tried.run("committed") == -signal.SIGKILL
    assert tried.by() == [2]
    assert [tried.written(f) for f in tried.fingerprints] == tried.undisturbed
