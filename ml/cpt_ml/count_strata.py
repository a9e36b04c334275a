"""count-strata: what there is to mix, by language, kind and topic."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cpt_ml.contract import parse
from cpt_ml.corpus import read_table
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef

StratumKey = tuple[str, str, str | None]
Totals = defaultdict[StratumKey, list[int]]


@dataclass(frozen=True)
class CountStrataRequest:
    """The stage's request; without `topics` no document has one."""

    corpus: ArtifactRef
    topics: ArtifactRef | None
    index: ArtifactRef


def run(job: Job) -> None:
    """Documents, tokens and UTF-8 bytes of each stratum, sorted; dropped rows (no tokens) do not count.

    Nor do documents that are there to validate: where hold-out is off they have tokens. Holds the columns of one shard
    (some 30 bytes a document), and nothing of it once it is counted. Raises BadRequest if the manifests are not
    row-aligned.
    """
    request = parse(CountStrataRequest, job.request)
    corpus = list(job.store.shards(request.corpus))
    index = list(job.store.shards(request.index))
    topics = list(job.store.shards(request.topics)) if request.topics else [None] * len(corpus)
    if not len(corpus) == len(index) == len(topics):
        raise BadRequest(f"count-strata: {len(corpus)} corpus, {len(index)} index and {len(topics)} topic shards")
    totals: Totals = defaultdict(lambda: [0, 0, 0])
    for i, paths in enumerate(zip(corpus, index, topics, strict=True)):
        job.beat("count-strata", i, len(corpus), "shards")
        count_shard(totals, i, *paths)
    strata = [
        {"language": key[0], "kind": key[1], "topic": key[2], "docs": n, "tokens": tokens, "bytes": num_bytes}
        for key, (n, tokens, num_bytes) in sorted(totals.items(), key=lambda s: stratum_order(s[0]))
    ]
    job.commit(job.attempt(), {"strata": strata})


def count_shard(totals: Totals, shard: int, corpus: Path, index: Path, topics: Path | None) -> None:
    """Adds documents, tokens and bytes of a shard's strata to `totals`."""
    docs, sizes = read_table(corpus, ["language", "kind", "use"]), read_table(index, ["num_tokens", "num_bytes"])
    columns = [docs["language"], docs["kind"]]
    columns.append(read_table(topics, ["topic"])["topic"] if topics else pa.chunked_array([pa.nulls(len(docs))]))
    if not len(docs) == len(sizes) == len(columns[2]):
        raise BadRequest(f"count-strata: shard {shard} has {len(docs)}, {len(sizes)} and {len(columns[2])} rows")
    numbers, values = zip(*(_numbered(column) for column in columns), strict=True)
    shape = tuple(map(len, values))
    stratum = np.zeros(len(docs), dtype=np.int64)
    for number, size in zip(numbers, shape, strict=True):
        stratum = stratum * size + number
    tokens, num_bytes = sizes["num_tokens"].to_numpy(), sizes["num_bytes"].to_numpy()
    train: Any = pc.call_function("equal", [docs["use"], pa.scalar("train")])
    there = (tokens > 0) & train.to_numpy()
    for number in np.unique(stratum[there]).tolist():
        of = there & (stratum == number)
        rest, topic = divmod(number, shape[2])
        language, kind = divmod(rest, shape[1])
        total = totals[str(values[0][language]), str(values[1][kind]), values[2][topic]]
        total[0] += int(of.sum())
        total[1] += int(tokens[of].sum(dtype=np.int64))
        total[2] += int(num_bytes[of].sum(dtype=np.int64))


def _numbered(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], list[str | None]]:
    """The values of a column (null too), and which of them stands in each row."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def stratum_order(key: StratumKey) -> tuple[str, str, str]:
    """Sorts strata by language, kind and topic, those without a topic first."""
    return key[0], key[1], key[2] or ""
