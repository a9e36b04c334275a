"""Texts of a shard, a bounded number of bytes at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cpt_ml.corpus import Mask
from cpt_ml.errors import BadRequest

BATCH_BYTES = 1 << 19


def text_batches(path: Path, wanted: Mask) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    """Row numbers and texts of the wanted rows, in order, about BATCH_BYTES at a time (no text is cut).

    Holds one row group, and reads those only that have a wanted row. Raises BadRequest if there is no column `text`.
    """
    with pq.ParquetFile(path) as file:
        if "text" not in file.schema_arrow.names:
            raise BadRequest(f"{path.name}: no column ['text']; it has {file.schema_arrow.names}")
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            rows = np.flatnonzero(wanted[begin:end])
            if len(rows):
                texts = file.read_row_group(group, columns=["text"], use_threads=False)["text"]
                chosen = texts if len(rows) == end - begin else texts.take(pa.array(rows))
                cuts = _cuts(pc.call_function("binary_length", [chosen]).to_numpy())
                for a, b in itertools.pairwise(cuts):
                    yield begin + rows[a:b], chosen.slice(a, b - a).to_pylist()
            begin = end


def _cuts(sizes: npt.NDArray[np.int32]) -> list[int]:
    """Borders of batches of texts of these sizes."""
    ends = np.cumsum(sizes, dtype=np.int64)
    number = (ends - sizes) // BATCH_BYTES
    return [0, *(np.flatnonzero(number[1:] != number[:-1]) + 1).tolist(), len(sizes)]
