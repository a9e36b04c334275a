"""What the benchmarks of dedup and decontaminate share: a corpus in shards, a process for each side, rows."""

# ruff: noqa: PLC0415, each side imports its own in a process of its own
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

HOME = Path(__file__).parents[4]
sys.path += [str(HOME / "ml"), str(HOME / "ml" / "tests")]
DOCS_A_SHARD = 5_000
# both sides run with what jobs run with, activities/src/config.ts
ALLOCATOR = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=67108864"
)
WARM_UP_DOCS = 200  # each side does these before its time counts: imports, tables, models


def hold_to_one_core() -> None:
    """This process and its children run on one core, where the system can pin a process, with one thread each."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def prepare(work: Path, docs: int) -> Any:
    """Ingests the first `docs` lines of `<work>/corpus.jsonl` once; returns the corpus' reference."""
    from conftest import Workbench
    from documents import ingest, source

    folder = work / f"dedup-{docs}"
    told = folder / "corpus.json"
    if told.exists():
        return json.loads(told.read_bytes())
    bench = Workbench(folder)
    with (work / "corpus.jsonl").open("rb") as lines:
        parts: list[list[bytes]] = []
        for i, line in enumerate(lines):
            if i == docs:
                break
            if i % DOCS_A_SHARD == 0:
                parts.append([])
            parts[-1].append(line)
    sources = [source(bench, f"part-{i}", b"".join(part)) for i, part in enumerate(parts)]
    corpus = ingest(bench, *sources)["corpus"]
    told.write_text(json.dumps(corpus))
    return corpus


def workbench(work: Path, docs: int) -> Any:
    """A store over the prepared corpus; its jobs have numbers that no other process gives."""
    from conftest import Workbench

    bench = Workbench(work / f"dedup-{docs}")
    bench.jobs = time.time_ns()
    return bench


def measured(arguments: list[str]) -> dict[str, Any]:
    """Runs a script as a process of its own: what it prints as JSON last, and `peakMegabytes` of it."""
    env = {"GLIBC_TUNABLES": ALLOCATOR, **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return {**json.loads(said.splitlines()[-1]), "peakMegabytes": usage.ru_maxrss / 1024}


def core_seconds() -> float:
    """Seconds that this process and its ended children have computed: others on the machine count for neither side."""
    return sum(os.times()[:4])


def row(measure: str, sides: tuple[float, float], unit: str, goal: str, **more: Any) -> None:
    """Prints one row of the table; `sides` are our figure and the peer's."""
    ours, peer = sides
    ratio = None if not peer else round(ours / peer, 3)
    facts = {"measure": measure, "ours": round(ours, 4), "peer": round(peer, 4), "unit": unit, "ratio": ratio}
    print(json.dumps({**facts, "goal": goal, "profile": None, **more}), flush=True)


def hash_of(text: str) -> int:
    """What datatrove 0.10.1 hashes n-grams by; it hands over strings, which xxhash 4 refuses."""
    return xxhash.xxh64_intdigest(text.encode())


def quiet(work: Callable[[], Any]) -> Any:
    """Runs it with what jobs log thrown away."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            return work()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
