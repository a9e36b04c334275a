"""The files of a token plan: plan/pieces.parquet and plan/used.parquet of docs/data-formats.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.corpus import ROW_GROUP
from cpt_ml.plan_pools import USED, PoolDocs
from cpt_ml.store import Attempt
from cpt_ml.token_plan import Drawn, Ints, StratumDocs


@dataclass(frozen=True)
class StratumDraw:
    """One stratum's part of the round: `index` of its documents in PoolDocs, what was drawn, and its pieces."""

    index: Ints
    docs: StratumDocs
    drawn: Drawn
    reading: Ints
    start: Ints
    end: Ints


def pieces_table(docs: PoolDocs, draws: list[StratumDraw], stratum: Ints, bos: bool, eos: bool) -> pa.Table:
    """plan/pieces.parquet in training order (docs/data-formats.md)."""
    number = len(stratum)
    columns = {n: np.zeros(number, dtype=np.int64) for n in ("doc", "start", "end", "tokens", "epoch")}
    for i, d in enumerate(draws):
        at, doc = stratum == i, d.drawn.doc[d.reading]
        for name, values in (
            ("doc", d.index[doc]),
            ("start", d.start),
            ("end", d.end),
            ("tokens", d.docs.tokens[doc]),
            ("epoch", d.drawn.epoch[d.reading]),
        ):
            columns[name][at] = values
    doc, start, end = columns["doc"], columns["start"], columns["end"]
    lengths = end - start
    has_bos = (start == 0) & bos
    has_eos = (end == columns["tokens"]) & eos
    return pa.table(
        {
            "offset": pa.array(np.cumsum(lengths) - lengths, pa.uint64()),
            "pool": pa.array(docs.pool[doc], pa.uint8()),
            "shard": pa.array(docs.shard[doc], pa.uint32()),
            "row": pa.array(docs.row[doc], pa.uint32()),
            "start": pa.array(np.maximum(start - int(bos), 0), pa.uint64()),
            "length": pa.array(lengths, pa.uint32()),
            "bos": pa.array(has_bos),
            "eos": pa.array(has_eos),
            "epoch": pa.array(columns["epoch"], pa.uint16()),
            "stratum": pa.array(stratum, pa.uint16()),
        }
    )


def used_table(docs: PoolDocs, draws: list[StratumDraw], epoch: Ints, used: Ints) -> pa.Table:
    """plan/used.parquet: each document's last reading, earlier rounds included."""
    epoch, used = epoch.copy(), used.copy()
    for d in draws:
        for e in np.unique(d.drawn.epoch).tolist():  # a later reading of a document replaces an earlier one
            at = d.drawn.epoch == e
            epoch[d.index[d.drawn.doc[at]]], used[d.index[d.drawn.doc[at]]] = e, d.drawn.end[at]
    drawn = np.flatnonzero(epoch >= 0)
    values = (docs.pool, docs.shard, docs.row, used, epoch)
    return pa.table([pa.array(v[drawn], t) for v, t in zip(values, USED.types, strict=True)], schema=USED)


def write_table(attempt: Attempt, name: str, table: pa.Table) -> None:
    pq.write_table(table, attempt.path(name), compression="zstd", row_group_size=ROW_GROUP)
