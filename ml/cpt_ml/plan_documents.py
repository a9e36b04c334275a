"""Which documents a range of a token plan comes from, by name: for people, never on the way of training."""

from __future__ import annotations

import json

import numpy as np

from cpt_ml.store import ArtifactRef, Store


def documents_between(store: Store, plan: ArtifactRef, from_token: int, to_token: int) -> list[str]:
    """Ids of the documents with tokens in [from_token, to_token) of the plan, in its order, each once."""
    from cpt_ml.corpus import read_table  # noqa: PLC0415 - pyarrow, and a step of training needs none

    folder = store.folder(plan)
    pools = json.loads((folder / "plan.json").read_bytes())["pools"]
    table = read_table(folder / "pieces.parquet", columns=["offset", "length", "pool", "shard", "row"])
    offset, length, *place = (table[n].to_numpy().astype(np.int64) for n in table.column_names)
    inside = (offset < to_token) & (offset + length > from_token)
    pieces: list[tuple[int, int, int]] = list(zip(*(p[inside].tolist() for p in place), strict=True))
    ids: dict[tuple[int, int], list[str]] = {}
    for pool, shard in {(p, s) for p, s, _ in pieces}:
        entry = store.manifest(pools[pool]["corpus"])["shards"][shard]
        ids[pool, shard] = read_table(store.shard(entry), columns=["id"])["id"].to_pylist()
    return list(dict.fromkeys(ids[p, s][row] for p, s, row in pieces))
