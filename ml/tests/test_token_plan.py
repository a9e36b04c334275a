"""The arithmetic of the plan: apportioning, drawing, cutting, interleaving."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_ml.errors import BadRequest
from cpt_ml.token_plan import (
    Ints,
    StratumDocs,
    apportion,
    cut_pieces,
    draw,
    interleave,
    max_off_share,
    quantiles,
)


def docs_of(tokens: list[int], rank: list[int] | None = None) -> StratumDocs:
    n = len(tokens)
    return StratumDocs(
        name="en/web",
        number=np.arange(n),
        rank=np.array(range(n) if rank is None else rank, dtype=np.int64),
        tokens=np.array(tokens, dtype=np.int64),
        epoch=np.full(n, -1),
        used=np.zeros(n, dtype=np.int64),
    )


def after(docs: StratumDocs, **drawn: Ints) -> StratumDocs:
    epoch, used = docs.epoch.copy(), docs.used.copy()
    epoch[drawn["doc"]], used[drawn["doc"]] = drawn["epoch"], drawn["end"]
    return StratumDocs(docs.name, docs.number, docs.rank, docs.tokens, epoch, used)


def test_largest_remainders_make_whole_tokens_that_add_up() -> None:
    assert apportion(10, [1 / 3, 1 / 3, 1 / 3]) == [4, 3, 3]
    assert apportion(7, [0.5, 0.25, 0.25]) == [3, 2, 2]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12), st.integers(0, 10**12))
def test_every_apportionment_is_exact_and_within_one_token_of_its_ratio(ratios: list[float], total: int) -> None:
    parts = apportion(total, ratios)
    assert sum(parts) == total
    slack = 1 + total * 1e-12
    assert all(abs(p - total * r / sum(ratios)) <= slack for p, r in zip(parts, ratios, strict=True))


def test_a_quantile_is_the_middle_of_a_documents_tokens_in_perplexity_order() -> None:
    docs = docs_of([10, 30, 60], rank=[2, 0, 1])
    assert quantiles(docs).tolist() == pytest.approx([0.95, 0.15, 0.6])


def test_a_round_draws_from_its_band_and_orders_by_perplexity() -> None:
    drawn = draw(docs_of([10] * 100), need=200, band=(0.5, 1.0), max_epochs=1, seed=1)
    assert drawn.doc.min() >= 50
    assert (np.diff(drawn.doc) > 0).all()
    assert len(drawn.doc) == 20
    assert not drawn.borrowed.any()
    other_seed = draw(docs_of([10] * 100), need=200, band=(0.5, 1.0), max_epochs=1, seed=2)
    assert other_seed.doc.tolist() != drawn.doc.tolist()


def test_a_random_order_is_seeded_and_not_the_perplexity_order() -> None:
    docs = docs_of([10] * 100)
    drawn = draw(docs, need=1000, band=None, max_epochs=1, seed=1)
    assert sorted(drawn.doc) == list(range(100))
    assert abs(np.corrcoef(drawn.doc, np.arange(100))[0, 1]) < 0.3
    assert draw(docs, need=1000, band=None, max_epochs=1, seed=1).doc.tolist() == drawn.doc.tolist()


def test_a_short_band_borrows_the_nearest_harder_documents_then_the_nearest_easier_ones() -> None:
    drawn = draw(docs_of([10] * 10), need=80, band=(0.4, 0.6), max_epochs=1, seed=1)
    assert drawn.doc.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert drawn.doc[drawn.borrowed].tolist() == [2, 3, 6, 7, 8, 9]


def test_repeats_begin_after_every_document_was_read_and_no_document_follows_itself() -> None:
    drawn = draw(docs_of([10] * 10), need=130, band=(0.0, 1.0), max_epochs=2, seed=1)
    assert drawn.epoch.tolist() == [0] * 10 + [1] * 3
    assert sorted(drawn.doc[:10]) == list(range(10))
    assert drawn.doc[10:].tolist() == sorted(drawn.doc[10:])


def test_too_few_documents_are_refused_by_name_with_what_is_missing() -> None:
    with pytest.raises(BadRequest, match=r"en/web: 250 tokens are asked for, 50 are missing after 2 epoch"):
        draw(docs_of([10] * 10), need=250, band=(0.0, 1.0), max_epochs=2, seed=1)


def test_what_a_round_cuts_off_comes_first_in_the_next() -> None:
    docs = docs_of([100] * 4)
    first = draw(docs, need=150, band=(0.0, 0.5), max_epochs=1, seed=1)
    assert int((first.end - first.start).sum()) == 150
    (cut,) = first.doc[first.end < 100].tolist()
    later = after(docs, doc=first.doc, epoch=first.epoch, end=first.end)
    second = draw(later, need=150, band=(0.5, 1.0), max_epochs=1, seed=1)
    assert (second.doc[0], second.start[0], second.end[0], second.epoch[0]) == (cut, 50, 100, 0)
    assert set(second.doc[1:].tolist()).isdisjoint(first.doc.tolist())


def test_readings_are_cut_into_pieces_without_gap_or_overlap() -> None:
    reading, start, end = cut_pieces(np.array([0, 5]), np.array([10, 6]), 4)
    assert list(zip(reading.tolist(), start.tolist(), end.tolist(), strict=True)) == [
        (0, 0, 4),
        (0, 4, 8),
        (0, 8, 10),
        (1, 5, 6),
    ]


piece_lengths = st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=60), min_size=1, max_size=24)


@settings(max_examples=300)
@given(piece_lengths)
def test_no_stratum_is_ever_more_than_one_sequence_off_its_share(lengths: list[list[int]]) -> None:
    arrays = [np.array(x, dtype=np.int64) for x in lengths]
    order = interleave(arrays)
    assert np.bincount(order, minlength=len(arrays)).tolist() == [len(x) for x in arrays]
    in_order = np.zeros(len(order), dtype=np.int64)
    for i, x in enumerate(arrays):
        in_order[order == i] = x
    longest = max(max(x) for x in lengths)
    assert max_off_share(order, in_order, len(arrays)) <= longest + 1e-6


def test_many_small_strata_beside_a_large_one_stay_within_the_bound() -> None:
    arrays = [np.full(1000, 16), *(np.full(k, 16) for k in range(1, 60))]
    order = interleave(arrays)
    assert max_off_share(order, np.full(len(order), 16), len(arrays)) <= 16


def test_concatenated_sources_are_far_off_their_share() -> None:
    lengths = np.full(200, 16)
    assert max_off_share(np.repeat([0, 1], 100), lengths, 2) == 800
