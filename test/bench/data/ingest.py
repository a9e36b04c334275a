"""ingest beside datatrove's JSONL reader and writer, and beside a loop of `json.loads` that reads and nothing else.

Ours is the job: digest of the source, JSON Lines in, Parquet shards and quarantine out, committed. datatrove writes
plain JSON Lines, its fastest form (by default it writes gzip). The loop keeps and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

home = Path(__file__).parents[3]
sys.path.insert(0, str(home / "ml" / "tests"))

from common.beside import in_turns, profile, row  # noqa: E402
from conftest import Workbench  # noqa: E402
from documents import source  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    corpus = args.work / "corpus.jsonl"
    megabytes = corpus.stat().st_size / 1e6
    folder = args.work / "ingest"
    workbench = Workbench(folder / "ours")
    made = source(workbench, "bench", corpus.read_bytes())

    def ours() -> None:
        result = workbench.run("ingest", {"sources": [made], "maxQuarantineRatio": 1.0})
        if result["counts"]["kept"] != args.docs:
            raise SystemExit(f"ingest: {result['counts']}, expected {args.docs} documents")

    def loop() -> None:
        with corpus.open(encoding="utf-8") as file:
            for line in file:
                json.loads(line)

    datatrove = pipeline(corpus, folder / "theirs", args.docs)
    seconds, datatrove_seconds, loop_seconds = in_turns(ours, datatrove, loop)
    rows = [
        row(
            "JSON Lines to corpus shards",
            amount=megabytes,
            unit="MB",
            ours=seconds,
            peer=peer_seconds,
            peer_name=peer_name,
            least=least,
        )
        for peer_name, peer_seconds, least in (
            ("datatrove 0.10.1, JsonlReader and JsonlWriter", datatrove_seconds, 3),
            ("json.loads, a line at a time, nothing written", loop_seconds, 2),
        )
    ]
    for line in rows:
        print(json.dumps(line if line["holds"] else {**line, "profile": profile(ours)}), flush=True)


def pipeline(corpus: Path, folder: Path, docs: int) -> Callable[[], None]:
    """datatrove's pipeline over the file; checks that all documents came through."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.writers import JsonlWriter  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    (folder / "in").mkdir(parents=True)
    shutil.copy(corpus, folder / "in" / "corpus.jsonl")

    def run() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        steps = [JsonlReader(str(folder / "in")), JsonlWriter(str(folder / "out"), compression=None)]
        logs = str(folder / "logs")
        LocalPipelineExecutor(pipeline=steps, tasks=1, workers=1, skip_completed=False, logging_dir=logs).run()
        with (folder / "out" / "00000.jsonl").open("rb") as file:
            written = sum(1 for _ in file)
        if written != docs:
            raise SystemExit(f"datatrove: {written} documents, expected {docs}")

    return run


if __name__ == "__main__":
    main()
