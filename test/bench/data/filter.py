"""filter beside datatrove's Gopher quality, Gopher repetition and C4 filters, with the published thresholds.

Each language by itself: datatrove splits English into words with spaCy and Chinese with jieba. Ours is the job, Parquet
in and verdicts out, and runs its own rules besides; theirs is a pipeline from JSON Lines to JSON Lines. Seconds are of
the processor. The verdicts that differ are counted, by the rules that gave them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

home = Path(__file__).parents[3]
sys.path.insert(0, str(home / "ml" / "tests"))

from cpt_ml.contract import parse  # noqa: E402
from cpt_ml.filter import FilterRequest, batches, verdicts_of  # noqa: E402
from cpt_ml.store import Json  # noqa: E402

from conftest import Workbench  # noqa: E402
from documents import request, source  # noqa: E402

KINDS = ["web", "encyclopedia", "book", "qa", "paper", "math", "code"]
PUBLISHED: Json = {
    "gopher": {
        "kinds": KINDS,
        "minWords": 50,
        "maxWords": 100_000,
        "minMeanWordChars": 3,
        "maxMeanWordChars": 10,
        "maxHashRatio": 0.1,
        "maxEllipsisRatio": 0.1,
        "maxBulletLineRatio": 0.9,
        "maxEllipsisLineRatio": 0.3,
        "minAlphabeticWordRatio": 0.8,
        "minStopWords": 2,
        "maxDuplicateParagraphRatio": 0.3,
        "maxDuplicateParagraphCharRatio": 0.2,
        "maxDuplicateLineRatio": 0.3,
        "maxDuplicateLineCharRatio": 0.2,
        "maxTopGramRatios": [0.2, 0.18, 0.16],
        "maxDuplicateGramRatios": [0.15, 0.14, 0.13, 0.12, 0.11, 0.1],
    },
    "c4": {
        "kinds": KINDS,
        "loremIpsum": True,
        "curlyBracket": True,
        "minSentences": 5,
        "minLineWords": 3,
        "maxWordChars": 1000,
    },
}
# our rules without a counterpart there, set so that they drop nothing
OURS_OFF: Json = {
    "minCharsHan": 0,
    "minWords": 0,
    "maxSymbolRatio": 1,
    "minAlphabeticRatio": 0,
    "maxDuplicateLineRatio": 1,
    "maxTopNgramRatio": 1,
    "minDistinctWordRatio": 0,
    "maxBoilerplateLineRatio": 1,
    "maxGarbledRatio": 1,
    "minCodeAlphabeticRatio": 0,
    "maxCodeLineChars": 10**9,
}
# Gopher's rules on words know no Chinese, C4's know no Chinese marks: ours leave Chinese out, and so the peer does
CHINESE_QUALITY = {
    "min_doc_words": None,
    "max_doc_words": None,
    "min_avg_word_length": None,
    "max_avg_word_length": None,
    "max_non_alpha_words_ratio": None,
    "min_stop_words": None,
}
SAME = {
    "gopher_short_doc": "gopher-few-words",
    "gopher_long_doc": "gopher-many-words",
    "gopher_below_avg_threshold": "gopher-short-words",
    "gopher_above_avg_threshold": "gopher-long-words",
    "gopher_too_many_hashes": "gopher-hashes",
    "gopher_too_many_ellipsis": "gopher-ellipses",
    "gopher_too_many_bullets": "gopher-bullet-lines",
    "gopher_too_many_end_ellipsis": "gopher-ellipsis-lines",
    "gopher_below_alpha_threshold": "gopher-not-alphabetic",
    "gopher_enough_stop_words": "gopher-stop-words",
    "dup_para_frac": "gopher-duplicate-paragraphs",
    "dup_para_char_frac": "gopher-duplicate-paragraph-chars",
    "dup_line_frac": "gopher-duplicate-lines",
    "dup_line_char_frac": "gopher-duplicate-line-chars",
    **{f"top_{n}_gram": f"gopher-top-{n}-gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"gopher-duplicate-{n}-grams" for n in range(5, 11)},
    "lorem_ipsum": "c4-lorem-ipsum",
    "curly_bracket": "c4-curly-bracket",
    "too_few_sentences": "c4-few-sentences",
}
KEPT = "kept"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    with (args.work / "corpus.jsonl").open() as corpus:
        docs = [json.loads(line) for line in corpus]
    for language, title, datatrove_language in (("en", "English", "eng_Latn"), ("zh", "Chinese", "zho_Hani")):
        chosen = [d for d in docs if d["lang"] == language]
        for row in compare(args.work / f"filter-{language}", chosen, title, datatrove_language):
            print(json.dumps(row), flush=True)


def compare(work: Path, docs: list[Json], title: str, language: str) -> Iterator[Json]:
    """The rows of one language. Ours runs before and after the peer."""
    ours, shard = job(work, docs)
    ours()
    peer = pipeline(work, docs, language)
    peer(20)
    before = [timed(ours) for _ in range(ROUNDS)]
    peer_seconds = timed(lambda: peer(len(docs)))
    after = [timed(ours) for _ in range(ROUNDS)]
    seconds = sorted(before + after)[ROUNDS]
    ratio = peer_seconds / seconds
    yield {
        "measure": f"Gopher quality, Gopher repetition and C4 rules, {title}",
        "ours": len(docs) / seconds,
        "peer": len(docs) / peer_seconds,
        "peerName": "datatrove 0.10.1",
        "unit": "documents/s",
        "ratio": ratio,
        "goal": ">= 20",
        "holds": ratio >= 20,
        "profile": None,
    }
    # n-grams of Chinese are of two characters for each word that jieba finds, so their values are others by design
    most = None if language.startswith("zho") else 0.02
    yield verdict_row(title, [d["id"] for d in docs], our_verdicts(shard), their_verdicts(work), most)


def timed(act: Callable[[], None]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def job(work: Path, docs: list[Json]) -> tuple[Callable[[], None], Path]:
    """Runs the stage over a corpus made by ingest; and the corpus shard."""
    workbench = Workbench(work / "ours")
    data = b"".join(json.dumps(d, ensure_ascii=False).encode() + b"\n" for d in docs)
    ingested = workbench.run(
        "ingest", request("ingest", sources=[source(workbench, "bench", data)], maxQuarantineRatio=1.0)
    )
    asked = request("filter", corpus=ingested["corpus"])
    asked["rules"] = {**asked["rules"], **PUBLISHED}
    return lambda: void(workbench.run("filter", asked)), workbench.shards(ingested["corpus"])[0]


def void(_: object) -> None:
    """So that an expression is an act."""


def pipeline(work: Path, docs: list[Json], language: str) -> Callable[[int], None]:
    """Runs datatrove's pipeline over the first so many documents; what it drops it writes with the reason."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.writers import JsonlWriter  # noqa: PLC0415

    theirs = work / "theirs"
    (theirs / "in").mkdir(parents=True)
    with (theirs / "in" / "corpus.jsonl").open("w") as file:
        for d in docs:
            file.write(json.dumps({"id": d["id"], "text": d["text"]}, ensure_ascii=False) + "\n")

    def writer(folder: Path, name: str) -> JsonlWriter:
        return JsonlWriter(str(folder / "dropped" / name), compression=None)

    def run(limit: int) -> None:
        quality = CHINESE_QUALITY if language.startswith("zho") else {}
        filters = [
            GopherQualityFilter(language=language, exclusion_writer=writer(theirs, "quality"), **quality),
            GopherRepetitionFilter(language=language, exclusion_writer=writer(theirs, "repetition")),
        ]
        if not language.startswith("zho"):
            filters.append(C4QualityFilter(language=language, exclusion_writer=writer(theirs, "c4")))
        executor = LocalPipelineExecutor(
            pipeline=[
                JsonlReader(str(theirs / "in"), limit=limit),
                *filters,
                JsonlWriter(str(theirs / "kept"), compression=None),
            ],
            tasks=1,
            workers=1,
            logging_dir=str(theirs / f"logs-{limit}"),
        )
        # its log and its table of statistics
        with (theirs / "log").open("w") as log, contextlib.redirect_stderr(log):
            executor.run()

    return run


def their_verdicts(work: Path) -> dict[str, str]:
    """Reason by id of what was dropped, in the names of our rules."""
    found: dict[str, str] = {}
    for path in (work / "theirs" / "dropped").rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            doc = json.loads(line)
            found[doc["id"]] = SAME[doc["metadata"]["filter_reason"]]
    return found


def our_verdicts(shard: Path) -> list[str]:
    """Of each document the first rule broken among those that datatrove has too."""
    asked = request("filter")
    asked["rules"] = {**asked["rules"], **PUBLISHED, **OURS_OFF}
    rules = parse(FilterRequest, asked).rules
    return [v["reason"] or KEPT for rows in batches(shard) for v in verdicts_of(rows, rules)]


def verdict_row(title: str, ids: list[str], ours: list[str], theirs: dict[str, str], most: float | None) -> Json:
    pairs = Counter((theirs.get(id, KEPT), mine) for id, mine in zip(ids, ours, strict=True))
    other = sum(n for (a, b), n in pairs.items() if (a == KEPT) != (b == KEPT))
    agreed = ", ".join(f"{a} {n}" for (a, b), n in pairs.most_common() if a == b)
    differing = ", ".join(f"{a} → {b} {n}" for (a, b), n in pairs.most_common() if a != b)
    share = other / len(ids)
    return {
        "measure": f"documents kept by one and dropped by the other, {title}",
        "ours": share,
        "peer": None,
        "peerName": "datatrove 0.10.1",
        "unit": f"of {len(ids)}",
        "ratio": None,
        "goal": "printed" if most is None else f"<= {most}",
        "holds": most is None or share <= most,
        "profile": f"same: {agreed}; datatrove → ours: {differing}",
    }


if __name__ == "__main__":
    main()
