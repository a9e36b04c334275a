"""What the planner reads: documents of all pools as arrays, and what earlier rounds of the stage have drawn of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from cpt_ml.corpus import read_table
from cpt_ml.errors import BadRequest
from cpt_ml.store import ArtifactRef, Json, Store
from cpt_ml.token_plan import Ints

pc: Any = compute  # its functions are made at run time

COLUMNS = {"corpus": ["id", "language", "kind", "use"], "index": ["num_tokens"], "topics": ["topic"], "scores": ["nll"]}


@dataclass(frozen=True)
class Pool:
    """A corpus as the planner sees it; scores order it, topics give web pages their stratum."""

    corpus: ArtifactRef
    tokens: ArtifactRef
    index: ArtifactRef
    topics: ArtifactRef | None
    scores: ArtifactRef | None


@dataclass(frozen=True)
class PoolDocs:
    """All documents that may be drawn, by (pool, shard, row); `rank` is by perplexity, ties by id, unscored last."""

    pool: Ints
    shard: Ints
    row: Ints
    tokens: Ints
    nll: npt.NDArray[np.float64]
    rank: Ints
    stratum: Ints


def read_pools(store: Store, pools: Sequence[Pool], keys: Sequence[tuple[str, str, str | None]]) -> PoolDocs:
    """Documents of the pools that have tokens and are for training; `stratum` is the index of their key, −1 for none.

    `tokens` are those of the token shards, without BOS and EOS; `nll` is NaN where a document is unscored. Raises
    BadRequest where the manifests of a pool are not row-aligned.
    """
    tables = [t for p, pool in enumerate(pools) for t in _read_pool(store, p, pool)]
    docs = pa.concat_tables(tables).combine_chunks()
    docs = docs.filter(pc.and_(pc.greater(docs["num_tokens"], 0), pc.equal(docs["use"], "train")))
    # NaN sorts after every number and before null: all unscored documents are the hardest of their stratum
    order = pc.sort_indices(docs, sort_keys=[("nll", "ascending"), ("id", "ascending"), ("pool", "ascending")])
    rank = np.empty(len(docs), dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(docs))
    ints = {name: docs[name].to_numpy().astype(np.int64) for name in ("pool", "shard", "row", "num_tokens")}
    return PoolDocs(
        ints["pool"], ints["shard"], ints["row"], ints["num_tokens"],
        docs["nll"].to_numpy().astype(np.float64), rank, _strata(docs, keys),
    )  # fmt: skip


def _read_pool(store: Store, number: int, pool: Pool) -> list[pa.Table]:
    entries = {name: store.manifest(ref)["shards"] for name in COLUMNS if (ref := getattr(pool, name)) is not None}
    if len({len(shards) for shards in entries.values()}) != 1:
        counts = {name: len(shards) for name, shards in entries.items()}
        raise BadRequest(f"sample-mixture: pools[{number}] is not row-aligned, its shards are {counts}")
    tables: list[pa.Table] = []
    for s in range(len(entries["corpus"])):
        columns: dict[str, Any] = {}
        for name, shards in entries.items():
            table = read_table(store.shard(shards[s]), columns=COLUMNS[name])
            if columns and len(table) != len(columns["id"]):
                found = f"{len(table)} rows, the corpus has {len(columns['id'])}"
                raise BadRequest(f"sample-mixture: pools[{number}].{name} shard {s} has {found}")
            columns.update({c: table[c].combine_chunks() for c in COLUMNS[name]})
        rows = len(columns["id"])
        columns.setdefault("topic", pa.nulls(rows, pa.string()))
        columns.setdefault("nll", pa.array(np.full(rows, np.nan, dtype=np.float32)))
        columns["nll"] = pc.fill_null(columns["nll"].cast(pa.float32()), float("nan"))
        columns["topic"] = pc.if_else(pc.equal(columns["kind"], "web"), columns["topic"], None)
        columns["pool"] = pa.array(np.full(rows, number, dtype=np.int64))
        columns["shard"] = pa.array(np.full(rows, s, dtype=np.int64))
        columns["row"] = pa.array(np.arange(rows, dtype=np.int64))
        names = ["id", "language", "kind", "use", "topic", "num_tokens", "nll", "pool", "shard", "row"]
        tables.append(pa.table([columns[n] for n in names], names=names))
    return tables


def _strata(docs: pa.Table, keys: Sequence[tuple[str, str, str | None]]) -> Ints:
    """Index into `keys` of each document. A key without topic that stands alone for its language and kind takes all
    topics: a mixture may ignore them (stage 2 of arXiv:2407.18743)."""
    alone = {k for k in keys if k[2] is None and sum(o[:2] == k[:2] for o in keys) == 1}
    text = pc.binary_join_element_wise(docs["language"], docs["kind"], pc.fill_null(docs["topic"], ""), "\x1f")
    encoded = pc.dictionary_encode(text).combine_chunks()
    index = {"\x1f".join((lang, kind, topic or "")): i for i, (lang, kind, topic) in enumerate(keys)}
    merged = {"\x1f".join(k[:2]): index["\x1f".join((k[0], k[1], ""))] for k in alone}
    of_value = [index.get(v, merged.get(v.rsplit("\x1f", 1)[0], -1)) for v in encoded.dictionary.to_pylist()]
    return np.array([*of_value, -1], dtype=np.int64)[encoded.indices.to_numpy()]


USED = pa.schema(
    [("pool", pa.uint8()), ("shard", pa.uint32()), ("row", pa.uint32()), ("used", pa.uint64()), ("epoch", pa.uint16())]
)


def read_used(docs: PoolDocs, pools: Sequence[Json], previous: Path | None, bos: bool, eos: bool) -> tuple[Ints, Ints]:
    """(epoch, used) of each document after the previous round of this stage: −1 and 0 where it was never drawn.

    Pools are matched by what they hold, so a later round may add some. Raises BadRequest if the previous plan has other
    BOS or EOS settings, or a pool that this round lacks.
    """
    epoch = np.full(len(docs.row), -1, dtype=np.int64)
    used = np.zeros(len(docs.row), dtype=np.int64)
    if previous is None:
        return epoch, used
    plan = json.loads((previous / "plan.json").read_bytes())
    if (plan["settings"]["bos"], plan["settings"]["eos"]) != (bos, eos):
        raise BadRequest(
            "sample-mixture: bos and eos must be those of the previous round, its cut documents count them"
        )
    here = {_identity(p): i for i, p in enumerate(pools)}
    missing = [i for i, p in enumerate(plan["pools"]) if _identity(p) not in here]
    if missing:
        raise BadRequest(f"sample-mixture: pools {missing} of the previous round are not among this round's pools")
    renumber = np.array([here[_identity(p)] for p in plan["pools"]], dtype=np.int64)
    table = read_table(previous / "used.parquet")
    old = {name: table[name].to_numpy().astype(np.int64) for name in USED.names}
    key = _row_key(renumber[old["pool"]], old["shard"], old["row"])
    mine = _row_key(docs.pool, docs.shard, docs.row)
    at = np.searchsorted(mine, key)
    if len(key) and not (len(mine) and np.array_equal(mine[np.minimum(at, len(mine) - 1)], key)):
        raise BadRequest("sample-mixture: the previous round drew documents that the pools no longer have")
    epoch[at], used[at] = old["epoch"], old["used"]
    return epoch, used


def _identity(pool: Json) -> tuple[str, str, str]:
    return pool["corpus"]["sha256"], pool["tokens"]["sha256"], pool["index"]["sha256"]


def _row_key(pool: Ints, shard: Ints, row: Ints) -> npt.NDArray[np.uint64]:
    """(pool, shard, row) as one sortable number: 8, 24 and 32 bits."""
    p, s, r = (x.astype(np.uint64) for x in (pool, shard, row))
    return (p << np.uint64(56)) | (s << np.uint64(32)) | r


def document_numbers(docs: PoolDocs) -> Ints:
    """A number of each document that no draw of another round changes."""
    return _row_key(docs.pool, docs.shard, docs.row).astype(np.int64)
