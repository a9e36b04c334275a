"""A token plan as one long stream that can be read at any offset (docs/data-formats.md, sample-mixture).

Sequence i of length S reads tokens [i*S, (i+1)*S + 1): the last token of one sequence is the first of the next, so each
token of the stream but the first is a target once, and the position in the data is one integer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpt_ml.errors import BadRequest, StoreCorrupt
from cpt_ml.store import Json, Store

Ids = npt.NDArray[np.int64]


def numpy_column(column: Any) -> npt.NDArray[Any]:
    """A pyarrow column without nulls, of numbers or truths. Its own to_numpy imports pandas, a second of a start."""
    truths = str(column.type) == "bool"
    chunks = [np.from_dlpack(c) for c in (column.cast("uint8") if truths else column).chunks]
    values = np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int64)
    return values.astype(np.bool_) if truths else values


class TokenStream:
    """Reads a plan folder. Token shards are memory-mapped, so memory grows with pieces (44 bytes each), not tokens."""

    def __init__(
        self, store: Store, plan_folder: Path, verified: Callable[[Sequence[Json]], Sequence[Path]] | None = None
    ) -> None:
        """`verified` gives the files of manifest entries, their digests checked; by default each is checked here."""
        from cpt_ml.corpus import read_table  # noqa: PLC0415 - pyarrow, and a step of training needs none

        self.plan: Json = json.loads((plan_folder / "plan.json").read_bytes())
        self.num_tokens = int(self.plan["numTokens"])
        self._bos, self._eos = self.plan["settings"]["bosId"], self.plan["settings"]["eosId"]
        self._shards: dict[tuple[int, int], npt.NDArray[np.uint32]] = {}
        names = ["offset", "pool", "shard", "row", "start", "length", "bos", "eos"]
        table = read_table(plan_folder / "pieces.parquet", columns=names)
        columns = {n: numpy_column(table[n]) for n in names}
        self._bos_of, self._eos_of = columns["bos"], columns["eos"]
        self._offset, self._length, self._pool, self._shard, row, start = (
            columns[n].astype(np.int64) for n in ("offset", "length", "pool", "shard", "row", "start")
        )
        self._document = _documents(self._pool, self._shard, row, start, self._length, self._bos_of, self._eos_of)
        self._source = start.copy()  # first token of each piece in its token shard
        pools: list[Json] = self.plan["pools"]
        used = [(p, s) for p in range(len(pools)) for s in np.unique(self._shard[self._pool == p]).tolist()]
        shards = [store.manifest(pool[kind])["shards"] for kind in ("tokens", "index") for pool in pools]
        entries = [shards[k * len(pools) + p][s] for k in (0, 1) for p, s in used]
        paths = [store.shard(e) for e in entries] if verified is None else verified(entries)
        for (p, s), tokens, index in zip(used, paths, paths[len(used) :], strict=False):
            self._shards[p, s] = np.memmap(tokens, dtype="<u4", mode="r")
            table = read_table(index, columns=["offset"])
            here = (self._pool == p) & (self._shard == s)
            self._source[here] += numpy_column(table["offset"]).astype(np.int64)[row[here]]
        ends = self._offset + self._length
        if not len(ends) or int(ends[-1]) != self.num_tokens or not np.array_equal(self._offset[1:], ends[:-1]):
            raise BadRequest("train: the plan's pieces do not add up to its numTokens")

    def read(self, offset: int, count: int) -> Ids:
        """Tokens [offset, offset + count) of the stream. Raises ValueError outside of it, StoreCorrupt if a shard ends
        before its piece does."""
        if offset < 0 or offset + count > self.num_tokens:
            raise ValueError(f"tokens [{offset}, {offset + count}) of a stream of {self.num_tokens}")
        out = np.empty(count, dtype=np.int64)
        piece = int(np.searchsorted(self._offset, offset, side="right")) - 1
        done = 0
        while done < count:
            skip = offset + done - int(self._offset[piece])
            take = min(int(self._length[piece]) - skip, count - done)
            tokens = self._piece(piece)
            if len(tokens) != self._length[piece]:
                raise StoreCorrupt(
                    f"train: piece {piece} of the plan has {len(tokens)} token{'s' * (len(tokens) != 1)}, "
                    f"expected {self._length[piece]}: its token shard ends before it"
                )
            out[done : done + take] = tokens[skip : skip + take]
            done, piece = done + take, piece + 1
        return out

    def sequences(self, first: int, count: int, length: int) -> Ids:
        """Sequences first … first+count-1 of `length` targets: (count, length + 1)."""
        tokens = self.read(first * length, count * length + 1)
        return np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])

    def documents(self, first: int, count: int, length: int) -> Ids:
        """Number of the document of each token of `sequences` (count, length + 1), from 0 in each sequence.

        Pieces of a document that follow each other in the stream are one; where others stand between them, each is for
        itself, as attention cannot reach over them.
        """
        at_BT = (first + np.arange(count))[:, None] * length + np.arange(length + 1)[None]
        numbers_BT = self._document[np.searchsorted(self._offset, at_BT, side="right") - 1]
        return numbers_BT - numbers_BT[:, :1]

    def _piece(self, i: int) -> Ids:
        bos, eos = bool(self._bos_of[i]), bool(self._eos_of[i])
        start = int(self._source[i])
        shard = self._shards[int(self._pool[i]), int(self._shard[i])]
        tokens = shard[start : start + int(self._length[i]) - bos - eos].astype(np.int64)
        if not bos and not eos:
            return tokens
        return np.concatenate(([self._bos] * bos, tokens, [self._eos] * eos)).astype(np.int64)


def targets_within(tokens_BT: Ids, documents_BT: Ids) -> Ids:
    """The next token of each but the last, -1 where it is the first of another document: nothing of its own stands
    before it. (B, T + 1) twice gives (B, T)."""
    return np.where(documents_BT[:, 1:] == documents_BT[:, :-1], tokens_BT[:, 1:], -1)


def _documents(  # noqa: PLR0917
    pool: Ids, shard: Ids, row: Ids, start: Ids, length: Ids, bos: npt.NDArray[np.bool_], eos: npt.NDArray[np.bool_]
) -> Ids:
    """A number for the document of each piece, counted up at each that does not go on where the last one ended."""
    end = start + length - bos - eos
    goes_on = (end[:-1] == start[1:]) & ~eos[:-1].astype(np.bool_) & ~bos[1:].astype(np.bool_)
    for column in (pool, shard, row):
        goes_on &= column[1:] == column[:-1]
    return np.concatenate(([0], np.cumsum(~goes_on))).astype(np.int64)
