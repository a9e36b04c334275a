"""What was decided about documents of a corpus, read from its sidecars: `cpt corpus inspect`.

`python -m cpt_ml.inspect_corpus` reads one JSON object (InspectRequest) from its input and writes one JSON object to
its output: {documents: [...], quarantined: [...], looked: documents of the pools, sources: [...]}. It changes nothing.
Of a shard it reads the columns that a question needs; texts only of the documents shown, whose shards are verified.
"""

from __future__ import annotations

import heapq
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cpt_ml.contract import parse
from cpt_ml.corpus import Mask, read_table
from cpt_ml.errors import JobFailure, StoreCorrupt
from cpt_ml.store import ArtifactRef, Json, Store

CLUSTER_EXAMPLES = 20
PIECES_EXAMPLES = 20
PLACE = re.compile(r"@(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Step:
    """A stage that judged the documents, and its verdicts."""

    stage: str
    verdicts: ArtifactRef


@dataclass(frozen=True)
class Pool:
    """A corpus and what is row-aligned to it, as far as it was made."""

    corpus: ArtifactRef
    quarantine: ArtifactRef | None
    steps: list[Step]
    topics: ArtifactRef | None
    quality: ArtifactRef | None
    index: ArtifactRef | None
    scores: ArtifactRef | None


@dataclass(frozen=True)
class Find:
    """A document by `id`, or else a sample of `count` of those that fit; `step` and `reason` say what dropped them."""

    id: str | None
    count: int
    seed: int
    step: str | None
    reason: str | None
    kept: bool
    source: str | None
    language: str | None


@dataclass(frozen=True)
class InspectRequest:
    """`plans`: folders of token plans, in the order of training; `validation`: files of validation sets."""

    roots: dict[str, str]
    pools: list[Pool]
    plans: list[ArtifactRef]
    validation: list[ArtifactRef]
    find: Find


@dataclass(frozen=True, order=True)
class Place:
    """Where a document lies."""

    pool: int
    shard: int
    row: int


class Shards:
    """The shards of a manifest, found without reading them whole."""

    def __init__(self, store: Store, ref: ArtifactRef) -> None:
        self._store = store
        self.entries: list[Json] = store.manifest(ref)["shards"]

    def path(self, shard: int) -> Path:
        """Where a shard lies on this machine; fetched, where the store is remote."""
        return self._store.glimpse(self.entries[shard])

    def verified(self, shard: int) -> Path:
        """The same, its digest compared."""
        return self._store.shard(self.entries[shard])

    def row(self, place: Place) -> Json:
        """A row of a sidecar, verified."""
        first = 0
        with pq.ParquetFile(self.verified(place.shard)) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if place.row < first + rows:
                    table = file.read_row_group(group, use_threads=False)
                    return table.slice(place.row - first, 1).to_pylist()[0]
                first += rows
        raise StoreCorrupt(f"{self.entries[place.shard]['name']}: no row {place.row}, expected one of {first}")


class Reader:
    """The pools of a request."""

    def __init__(self, request: InspectRequest) -> None:
        self.store = Store(request.roots)
        self.request = request
        self.corpora = [Shards(self.store, pool.corpus) for pool in request.pools]

    def by_id(self, id: str) -> list[Place]:
        """The documents of this id."""
        places: list[Place] = []
        for pool, shards in enumerate(self.corpora):
            for shard, path in _paths(shards):
                if _may_hold(path, id):
                    rows = np.flatnonzero(_equal(read_table(path, ["id"])["id"], id))
                    places += [Place(pool, shard, int(row)) for row in rows]
        return places

    def by_line(self, name: str) -> list[Place]:
        """The documents of `<source>:<line>`, where they have other ids."""
        file, _, line = name.rpartition(":")
        if not line.isdecimal():
            return []
        places: list[Place] = []
        for pool, shards in enumerate(self.corpora):
            for shard, path in _paths(shards):
                if _may_hold(path, name):
                    table = read_table(path, ["id", "line"])
                    rows = np.flatnonzero(_equal(table["line"], int(line))).tolist()
                    places += [Place(pool, shard, r) for r in rows if table["id"][r].as_py().startswith(f"{file}:")]
        return places

    def by_place(self, name: str) -> list[Place]:
        """The document of the first pool that `@<shard>/<row>` names."""
        match = PLACE.fullmatch(name)
        shard, row = (int(match[1]), int(match[2])) if match else (0, -1)
        entries = self.corpora[0].entries
        return [Place(0, shard, row)] if 0 <= shard < len(entries) and 0 <= row < entries[shard]["rows"] else []

    def sample(self, find: Find) -> tuple[list[Place], int]:
        """`count` documents drawn from those that fit, by seed, in corpus order; and how many fit."""
        drawn: list[tuple[float, Place]] = []
        fitting = 0
        for pool, shards in enumerate(self.corpora):
            for shard, path in _paths(shards):
                rows = np.flatnonzero(self._fits(pool, shard, path, find))
                fitting += len(rows)
                lots = np.random.default_rng([find.seed, pool, shard]).random(len(rows))
                near = np.argsort(lots, kind="stable")[: find.count]
                pairs = [(float(lots[i]), Place(pool, shard, int(rows[i]))) for i in near]
                drawn = heapq.nsmallest(find.count, [*drawn, *pairs])
        return sorted(place for _, place in drawn), fitting

    def _fits(self, pool: int, shard: int, path: Path, find: Find) -> Mask:
        fits = np.ones(self.corpora[pool].entries[shard]["rows"], dtype=np.bool_)
        for column, value in (("source", find.source), ("language", find.language)):
            if value is not None:
                fits &= _equal(read_table(path, [column])[column], value)
        steps = self.request.pools[pool].steps
        if find.step is not None and find.step not in [s.stage for s in steps]:
            return np.zeros_like(fits)
        for step in steps:
            if not find.kept and step.stage != find.step:
                continue
            verdicts = read_table(Shards(self.store, step.verdicts).path(shard), ["keep", "reason"])
            keep = verdicts["keep"].to_numpy()
            fits &= keep if find.kept else ~keep
            if find.step is not None and find.reason is not None:
                fits &= _equal(verdicts["reason"], find.reason)
        return fits

    def document(self, place: Place) -> Json:
        """A document with all that was decided about it."""
        pool = self.request.pools[place.pool]
        doc = self.corpora[place.pool].row(place)
        return {
            **doc,
            "place": {"pool": place.pool, "shard": place.shard, "row": place.row},
            "verdicts": [self._verdict(place, step) for step in pool.steps],
            **self._topic(place, pool),
            "quality": self._quality(place, pool),
            **self._tokens(place, pool),
            **self._score(place, pool),
            "validationSets": self._validation(doc["id"]),
            "drawn": self._drawn(place, pool),
        }

    def _verdict(self, place: Place, step: Step) -> Json:
        row = Shards(self.store, step.verdicts).row(place)
        cluster = row.pop("cluster", -1)
        members = {"cluster": self._cluster(place, step, cluster)} if cluster >= 0 else {}
        return {"stage": step.stage, **row, **members}

    def _cluster(self, place: Place, step: Step, cluster: int) -> Json:
        """How many documents are in a cluster of near duplicates, and some of them."""
        size, ids = 0, list[str]()
        verdicts = Shards(self.store, step.verdicts)
        for shard, path in _paths(verdicts):
            rows = np.flatnonzero(_equal(read_table(path, ["cluster"])["cluster"], cluster))
            size += len(rows)
            if len(rows) and len(ids) < CLUSTER_EXAMPLES:
                names = read_table(self.corpora[place.pool].path(shard), ["id"])["id"]
                ids += [names[int(row)].as_py() for row in rows[: CLUSTER_EXAMPLES - len(ids)]]
        return {"number": cluster, "size": size, "ids": ids}

    def _topic(self, place: Place, pool: Pool) -> Json:
        if pool.topics is None:
            return {"topic": None, "topicProbability": None}
        row = Shards(self.store, pool.topics).row(place)
        return {"topic": row["topic"], "topicProbability": _number(row["probability"])}

    def _quality(self, place: Place, pool: Pool) -> Json | None:
        row = Shards(self.store, pool.quality).row(place) if pool.quality else {"score": None}
        return None if row["score"] is None else {"score": row["score"], "probability": row["probability"]}

    def _tokens(self, place: Place, pool: Pool) -> Json:
        if pool.index is None:
            return {"tokens": None}
        row = Shards(self.store, pool.index).row(place)
        return {"tokens": {"offset": row["offset"], "count": row["num_tokens"], "bytes": row["num_bytes"]}}

    def _score(self, place: Place, pool: Pool) -> Json:
        if pool.scores is None:
            return {"nll": None, "scoredTokens": None}
        row = Shards(self.store, pool.scores).row(place)
        return {"nll": _number(row["nll"]), "scoredTokens": row["num_tokens"]}

    def _validation(self, id: str) -> list[str]:
        """The validation sets that measure by this document."""
        sets: list[str] = []
        for ref in self.request.validation:
            table = read_table(self.store.file(ref), ["id", "set"])
            sets += [table["set"][int(row)].as_py() for row in np.flatnonzero(_equal(table["id"], id))]
        return sets

    def _drawn(self, place: Place, pool: Pool) -> list[Json]:
        """What each token plan drew of the document, in training order."""
        found: list[Json] = []
        for number, ref in enumerate(self.request.plans, 1):
            folder = self.store.folder(ref)
            plan = json.loads((folder / "plan.json").read_bytes())
            at = next((i for i, p in enumerate(plan["pools"]) if p["corpus"]["sha256"] == pool.corpus.sha256), None)
            if at is None:
                continue
            pieces = _pieces(folder / "pieces.parquet", {"pool": at, "shard": place.shard, "row": place.row})
            if pieces:
                tokens = sum(p["length"] for p in pieces)
                some = pieces[:PIECES_EXAMPLES]
                found.append({"plan": number, "band": plan["settings"]["band"], "tokens": tokens, "pieces": some})
        return found

    def quarantined(self, id: str) -> list[Json]:
        """Lines of this name (`<source>:<line>`) that could not be read."""
        source, _, line = id.rpartition(":")
        found: list[Json] = []
        if not line.isdecimal():
            return found
        for pool in self.request.pools:
            for _, path in _paths(Shards(self.store, pool.quarantine)) if pool.quarantine else ():
                rows = read_table(path).to_pylist()
                found += [row for row in rows if row["source"] == source and row["line"] == int(line)]
        return found

    def sources(self) -> list[str]:
        """Names of the sources, from the statistics of the shards."""
        names: set[str] = set()
        for shards in self.corpora:
            for _, path in _paths(shards):
                names.update(name for edges in _source_edges(path) for name in edges)
        return sorted(names)


def inspect(request: InspectRequest) -> Json:
    """The documents that a request asks for."""
    reader = Reader(request)
    looked = sum(entry["rows"] for shards in reader.corpora for entry in shards.entries)
    find = request.find
    if find.id is None:
        places, fitting = reader.sample(find)
        return {"documents": [reader.document(p) for p in places], "fitting": fitting, "looked": looked}
    places = reader.by_place(find.id) or reader.by_id(find.id) or reader.by_line(find.id)
    quarantined = [] if places else reader.quarantined(find.id)
    return {
        "documents": [reader.document(p) for p in places],
        "quarantined": quarantined,
        "sources": [] if places or quarantined else reader.sources(),
        "looked": looked,
    }


def _paths(shards: Shards) -> Iterator[tuple[int, Path]]:
    return ((shard, shards.path(shard)) for shard in range(len(shards.entries)))


def _source_edges(path: Path) -> list[tuple[str, str]]:
    """First and last source of each row group."""
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.names.index("source")
        groups = [file.metadata.row_group(i).column(column).statistics for i in range(file.num_row_groups)]
        return [(s.min, s.max) for s in groups if s is not None and s.has_min_max]


def _may_hold(path: Path, id: str) -> bool:
    """Whether a document of this id may be in a shard: an id begins with its source's name."""
    edges = _source_edges(path)
    return not edges or any(first != last or id.startswith(first) for first, last in edges)


def _equal(column: pa.ChunkedArray, value: str | int) -> Mask:
    """Where a column has a value; nowhere that it is null."""
    equal: Any = pc.call_function("equal", [column, pa.scalar(value)])
    return np.asarray(equal.fill_null(fill_value=False).to_numpy(), dtype=np.bool_)


def _pieces(path: Path, where: dict[str, int]) -> list[Json]:
    """The pieces of a plan with these values, a row group in memory at a time."""
    shown = ["offset", "start", "length", "epoch"]
    found: list[Json] = []
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[*shown, *where], use_threads=False)
            fits = np.logical_and.reduce([table[name].to_numpy() == value for name, value in where.items()])
            found += [{k: table[k][int(i)].as_py() for k in shown} for i in np.flatnonzero(fits)]
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> int:
    try:
        found = inspect(parse(InspectRequest, json.load(sys.stdin)))
    except JobFailure as e:
        print(json.dumps({"error": str(e)}))
        return 1
    print(json.dumps(found, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
