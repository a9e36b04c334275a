"""Documents from columns: what ingest makes of a block whose lines are all documents, without a look at each one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cpt_ml.corpus_shards import int_array, string_array, text_lengths
from cpt_ml.normalise import normalise, not_normal


@dataclass(frozen=True)
class Rows:
    """Columns of the corpus, and how many of the documents are in which language."""

    columns: dict[str, pa.Array]
    by_language: Counter[str]


def normal_texts(texts: pa.Array) -> pa.Array | None:
    """The texts made normal, or None if there is a null among them or nothing is left of one."""
    if texts.null_count:
        return None
    left = not_normal(texts)
    if not left:
        return texts
    chosen = np.zeros(len(texts), dtype=np.bool_)
    chosen[left] = True
    made = [normalise(texts[i].as_py()) for i in left]
    if not all(made):
        return None
    return pc.call_function("replace_with_mask", [texts, _mask(chosen), string_array(made)])


def mapped(column: pa.Array, of: Callable[[object], str | None]) -> pa.Array:
    """What `of` makes of each value of a column of strings; it is asked once for equal ones."""
    values, codes = _coded(column)
    return string_array([of(value) for value in values]).take(_places(codes))


def mapped_pairs(
    first: pa.Array, second: pa.Array, of: Callable[[object, object], tuple[str, str]]
) -> tuple[pa.Array, pa.Array, Counter[str]]:
    """The two columns that `of` makes of each pair of values, and how often the first one says what."""
    first_values, first_codes = _coded(first)
    second_values, second_codes = _coded(second)
    width = len(second_values)
    pairs, codes, counts = np.unique(first_codes * width + second_codes, return_inverse=True, return_counts=True)
    made = [of(first_values[pair // width], second_values[pair % width]) for pair in pairs.tolist()]
    counter = Counter[str]()
    for (value, _), count in zip(made, counts.tolist(), strict=True):
        counter[value] += count
    at = _places(codes)
    return string_array([a for a, _ in made]).take(at), string_array([b for _, b in made]).take(at), counter


def own_ids(column: pa.Array, numbers: Sequence[int], one: Callable[[object, int], str], most_bytes: int) -> list[str]:
    """The documents' ids; `one` makes those that are not normal strings of at most so many bytes."""
    values = column.to_pylist()
    plain = column.null_count == 0
    if plain and column.type == pa.string():
        plain = not not_normal(column) and int(text_lengths(column).max()) <= most_bytes
    if plain:
        return [str(value) for value in values]
    return [one(value, number) for value, number in zip(values, numbers, strict=True)]


def _coded(column: pa.Array) -> tuple[list[str | None], npt.NDArray[np.int32]]:
    """The different values, null behind them if it is there, and of each row which it has."""
    encoded = column.dictionary_encode()
    values: list[str | None] = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(len(values)).to_numpy()
    return values + [None] * (column.null_count > 0), codes


def _places(codes: npt.NDArray[np.integer[Any]]) -> pa.Array:
    return int_array(cast("Sequence[int]", codes))


def _mask(chosen: npt.NDArray[np.bool_]) -> pa.Array:
    packed = np.packbits(chosen, bitorder="little").tobytes()
    return pa.Array.from_buffers(pa.bool_(), len(chosen), [None, pa.py_buffer(packed)])
