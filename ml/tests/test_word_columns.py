"""Words, n-grams and digests in columns are those of one document at a time, whatever stands beside it."""

from __future__ import annotations

import hashlib
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt_ml import word_columns
from cpt_ml.text_digests import text_digests
from cpt_ml.word_columns import Column, Texts, distinct, gram_column, word_column
from cpt_ml.words import words

EVERY_CHARACTER = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
HARD = [
    "",
    "a",
    "İstanbul ΣΑΣ ΟΔΟΣ.",
    "Don't 静夜 x_1²",
    "ﬁn Ａ①ｶﾞ",
    "e\u0301 각 각",
    "\u2028 \x1c\xa0",
    "𠀀𠀁 😀a",
    "…",
]
texts = st.lists(st.one_of(st.text(), st.text(st.sampled_from("aAbΣİ 静\n_1é\u0301ｶﾞ")), st.sampled_from(HARD)))


def pieces(column: Column) -> list[list[int]]:
    return [column.hashes[a:b].tolist() for a, b in pairwise(column.offsets.tolist())]


def assert_same_words(many: list[str]) -> None:
    """One hash for each word of words(), the same for the same word, another for another."""
    hash_of: dict[str, int] = {}
    for text, hashes in zip(many, pieces(word_column(Texts.of(many))), strict=True):
        expected = words(text)
        assert len(hashes) == len(expected), text
        for word, value in zip(expected, hashes, strict=True):
            assert hash_of.setdefault(word, value) == value, word
    assert len(set(hash_of.values())) == len(hash_of)


def assert_same_digests(many: list[str]) -> None:
    for text, digest in zip(many, text_digests(Texts.of(many)).T.tolist(), strict=True):
        same = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        expected = hashlib.sha256(same.encode()).digest()[:16]
        assert digest == [int.from_bytes(expected[:8]), int.from_bytes(expected[8:])], text


def test_every_character_is_read_as_words_and_folds_read_it() -> None:
    assert_same_words(EVERY_CHARACTER)
    assert_same_digests(EVERY_CHARACTER)
    assert_same_words(["".join(EVERY_CHARACTER)])


@given(texts)
def test_texts_are_read_as_one_at_a_time(many: list[str]) -> None:
    assert_same_words(many)
    assert_same_digests(many)


@given(texts, st.integers(1, 22))
def test_grams_are_equal_where_their_words_are(many: list[str], n: int) -> None:
    hash_of: dict[tuple[str, ...], int] = {}
    for text, hashes in zip(many, pieces(gram_column(word_column(Texts.of(many)), n)), strict=True):
        tokens = words(text)
        grams = [tuple(tokens[i : i + n]) for i in range(max(len(tokens) - n + 1, min(1, len(tokens))))]
        assert len(hashes) == len(grams)
        for gram, value in zip(grams, hashes, strict=True):
            assert hash_of.setdefault(gram, value) == value
    assert len(set(hash_of.values())) == len(hash_of)


def test_a_window_ends_in_no_word_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    many = ["short " * 50, "x" * 1000, "静" * 300, "", "y" * 100 + " z"]
    whole = word_column(Texts.of(many))
    for window in (1, 7, 64, 1 << 17):
        monkeypatch.setattr(word_columns, "WINDOW", window)
        cut = word_column(Texts.of(many))
        assert np.array_equal(cut.hashes, whole.hashes)
        assert np.array_equal(cut.offsets, whole.offsets)


def test_distinct_sorts_within_each_document() -> None:
    column = Column(np.array([3, 1, 3, 1, 2, 2], dtype=np.uint64), np.array([0, 3, 3, 4, 6]))
    assert pieces(distinct(column)) == [[1, 3], [], [1], [2]]


def test_hashes_are_the_same_in_every_process() -> None:
    grams = gram_column(word_column(Texts.of(["a b c", "静夜"])), 2)
    assert grams.hashes.tolist() == [769103878422375154, 16099619216616492271, 17141308517253403986]
