"""The arithmetic of a token plan: what a round draws from a stratum, how it is cut, how strata alternate.

A document's *stream tokens* are its tokens with the BOS and EOS that the plan adds; every length and offset
counts them.
All choices come from a hash of (seed, document, epoch), so they depend on no library's random generator and on no other
stratum. Arrays hold one entry a document of one stratum (draw) or one entry a piece (cut, interleave).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cpt_ml.errors import BadRequest

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DRAW, ORDER = 1, 2  # salts: a document's place in the draw says nothing about its place in a random order


@dataclass(frozen=True)
class StratumDocs:
    """Documents of one stratum; `rank` orders by perplexity (ties by id, unscored last), `number` names a document.

    `epoch` and `used` are the state that earlier rounds left: `used` stream tokens of reading `epoch` are consumed
    (epoch −1, used 0: never drawn).
    """

    name: str
    number: Ints
    rank: Ints
    tokens: Ints
    epoch: Ints
    used: Ints

    @property
    def unfinished(self) -> Bools:
        return (self.used > 0) & (self.used < self.tokens)


@dataclass(frozen=True)
class Drawn:
    """Readings in training order: stream tokens [start, end) of document `doc` (an index into StratumDocs)."""

    doc: Ints
    start: Ints
    end: Ints
    epoch: Ints
    borrowed: Bools


def apportion(total: int, ratios: list[float]) -> list[int]:
    """Whole numbers that sum to `total`, each within 1 of its ratio's share (largest remainder, ties to the first)."""
    exact = [total * r / sum(ratios) for r in ratios]
    whole = [int(e) for e in exact]
    by_remainder = sorted(range(len(ratios)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole


def quantiles(docs: StratumDocs) -> Floats:
    """Where each document lies in its stratum by perplexity, 0 to 1: the middle of its tokens among all tokens.

    By tokens, not documents: the band of a round then holds the round's share of the stratum's text. Documents that are
    drawn already count too, so that a document's quantile never changes within a stage.
    """
    order = np.argsort(docs.rank, kind="stable")
    ends = np.cumsum(docs.tokens[order])
    result = np.empty(len(order), dtype=np.float64)
    result[order] = (ends - docs.tokens[order] / 2) / max(int(docs.tokens.sum()), 1)
    return result


def hash_order(seed: int, salt: int, numbers: Ints) -> npt.NDArray[np.uint64]:
    """A pseudo-random sort key for each document: splitmix64 of its number under a seed and a salt."""
    base = (seed * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) % 2**64
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) * np.uint64(0xA0761D6478BD642F) + np.uint64(base)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def draw(
    docs: StratumDocs,
    need: int,
    band: tuple[float, float] | None,
    max_epochs: int,
    seed: int,
) -> Drawn:
    """Draws exactly `need` stream tokens from a stratum and puts them into training order.

    First what an earlier round cut off; then, epoch by epoch, documents not yet read that often: a seeded draw from the
    quantile `band` ([from, to); None: the whole stratum, and a random order), then the nearest harder documents, then
    the nearest easier ones. In perplexity order an epoch ascends and the next begins when it ends, so that no document
    is read twice in a row. The last document in order is cut; what that leaves unread is not drawn. Raises BadRequest
    when `max_epochs` readings of all documents do not suffice.
    """
    quantile = quantiles(docs)
    outside = np.zeros(len(quantile), dtype=np.int64)
    if band is not None:
        outside = np.where(quantile >= band[1], 1, np.where(quantile < band[0], 2, 0))
    rest = np.flatnonzero(docs.unfinished)
    rest = rest[np.argsort(docs.rank[rest], kind="stable")]
    parts = [Drawn(rest, docs.used[rest], docs.tokens[rest], docs.epoch[rest], np.zeros(len(rest), dtype=np.bool_))]
    missing = need - int((parts[0].end - parts[0].start).sum())
    following = docs.epoch + 1
    for epoch in range(int(following.min(initial=0)), max_epochs):
        if missing <= 0:
            break
        left = np.flatnonzero(following == epoch)
        key = hash_order(seed, DRAW + 8 * epoch, docs.number[left]) / 2.0**64
        key = np.select([outside[left] == 1, outside[left] == 2], [quantile[left], -quantile[left]], key)
        left = left[np.lexsort((docs.number[left], key, outside[left]))]
        enough = int(np.searchsorted(np.cumsum(docs.tokens[left]), missing)) + 1
        chosen = left[:enough]
        parts.append(
            Drawn(
                chosen,
                np.zeros(len(chosen), dtype=np.int64),
                docs.tokens[chosen],
                np.full(len(chosen), epoch, dtype=np.int64),
                (outside[chosen] > 0) & (epoch == 0),
            )
        )
        following[chosen] = epoch + 1
        missing -= int(docs.tokens[chosen].sum())
    if missing > 0:
        raise BadRequest(
            f"stratum {docs.name}: {need} tokens are asked for, {missing} are missing after {max_epochs} epoch(s) "
            f"of its {len(docs.number)} documents ({int(docs.tokens.sum())} tokens); lower its ratio, "
            f"add documents, or raise maxEpochs with exhaustion: repeat"
        )
    return _cut_to(_in_order(docs, parts, by_rank=band is not None, seed=seed), need)


def _cut_to(drawn: Drawn, need: int) -> Drawn:
    """The first `need` tokens of the readings."""
    ends = np.cumsum(drawn.end - drawn.start)
    count = int(np.searchsorted(ends, need)) + 1 if need > 0 else 0
    end = drawn.end[:count].copy()
    if count:
        end[-1] -= int(ends[count - 1]) - need
    return Drawn(drawn.doc[:count], drawn.start[:count], end, drawn.epoch[:count], drawn.borrowed[:count])


def _in_order(docs: StratumDocs, parts: list[Drawn], by_rank: bool, seed: int) -> Drawn:
    first, *fresh = parts
    ordered = [first]
    for p in fresh:
        epoch = int(p.epoch[0]) if len(p.epoch) else 0
        key = docs.rank[p.doc] if by_rank else hash_order(seed, ORDER + 8 * epoch, docs.number[p.doc])
        o = np.lexsort((docs.number[p.doc], key))
        ordered.append(Drawn(p.doc[o], p.start[o], p.end[o], p.epoch[o], p.borrowed[o]))
    return Drawn(
        *(np.concatenate([getattr(p, f) for p in ordered]) for f in ("doc", "start", "end", "epoch", "borrowed"))
    )


def cut_pieces(start: Ints, end: Ints, length: int) -> tuple[Ints, Ints, Ints]:
    """Cuts readings into pieces of at most `length` tokens: (index of the reading, start, end) of each, in order."""
    counts = -(-(end - start) // length)
    reading = np.repeat(np.arange(len(start)), counts)
    within = np.arange(len(reading)) - np.repeat(np.cumsum(counts) - counts, counts)
    piece_start = start[reading] + within * length
    return reading, piece_start, np.minimum(piece_start + length, end[reading])


def interleave(lengths: list[Ints]) -> Ints:
    """The stratum of each piece of the round, such that every prefix is near the strata's shares.

    Packet fair queueing (WF2Q, Bennett and Zhang 1996): of the strata that are not ahead of their share, the one whose
    next piece would be finished first in a perfectly mixed stream. A stratum is then never more than its longest piece
    ahead, nor more than anyone's longest piece behind; choosing the largest deficit instead has no such constant bound.
    """
    totals = [int(x.sum()) for x in lengths]
    total = sum(totals)
    queues = [x.tolist() for x in lengths]
    heads, emitted = [0] * len(lengths), [0] * len(lengths)
    waiting = [(0.0, i) for i, t in enumerate(totals) if t]
    ready: list[tuple[float, int]] = []
    order: list[int] = []
    position = 0
    while waiting or ready:
        while waiting and waiting[0][0] <= position:
            _, i = heapq.heappop(waiting)
            finish = (emitted[i] + queues[i][heads[i]]) * total / totals[i]
            heapq.heappush(ready, (finish, i))
        _, i = heapq.heappop(ready)
        order.append(i)
        piece = queues[i][heads[i]]
        position, emitted[i], heads[i] = position + piece, emitted[i] + piece, heads[i] + 1
        if heads[i] < len(queues[i]):
            heapq.heappush(waiting, (emitted[i] * total / totals[i], i))
    return np.array(order, dtype=np.int64)


def max_off_share(stratum: Ints, lengths: Ints, count: int) -> float:
    """The most tokens by which any stratum is ahead of or behind its share of a prefix, over all prefixes.

    A stratum's lead grows only within its own pieces, so their two ends are where it is largest either way.
    """
    ends = np.cumsum(lengths)
    worst = 0.0
    for i in range(count):
        mine = np.flatnonzero(stratum == i)
        if not len(mine):
            continue
        done = np.cumsum(lengths[mine])
        share = done[-1] / ends[-1]
        ahead = done - share * ends[mine]
        behind = share * (ends[mine] - lengths[mine]) - (done - lengths[mine])
        worst = max(worst, float(ahead.max()), float(behind.max()))
    return worst
