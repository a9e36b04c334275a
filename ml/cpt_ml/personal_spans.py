"""The sidecar of spans that find-personal-data writes, and the texts that models read in place of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.corpus import num_rows, read_table, write_columns
from cpt_ml.corpus_shards import string_array
from cpt_ml.errors import BadRequest
from cpt_ml.personal_data import KINDS, Span, replaced
from cpt_ml.store import ArtifactRef, Json

_SPAN = pa.struct([("start", pa.uint32()), ("end", pa.uint32()), ("kind", pa.string())])
SPANS = pa.schema([("spans", pa.list_(pa.field("item", _SPAN, nullable=False)))])


def write_spans(path: Path, spans: Mapping[int, Sequence[Span]], rows: int) -> None:
    """Writes the spans of each row, an empty list where it has none; `spans` names rows in order."""
    offsets = np.zeros(rows + 1, dtype=np.int32)
    for row, found in spans.items():
        offsets[row + 1] = len(found)
    flat = [{"start": s.start, "end": s.end, "kind": s.kind} for found in spans.values() for s in found]
    ends = pa.array(np.cumsum(offsets, dtype=np.int32))
    lists = pa.ListArray.from_arrays(ends, pa.array(flat, _SPAN), type=SPANS.field("spans").type)
    write_columns(path, SPANS, [lists])


class Redaction:
    """The texts of one shard as models read them: its spans replaced by placeholders; without spans as they are."""

    def __init__(self, spans: Mapping[int, list[Span]], placeholders: Mapping[str, str]) -> None:
        self._spans = spans
        self._placeholders = placeholders

    @staticmethod
    def of(corpus: Path, sidecar: Path | None, placeholders: Mapping[str, str] | None) -> Redaction:
        """Reads a shard's sidecar. Raises BadRequest if it is not row-aligned with the corpus shard."""
        if sidecar is None or placeholders is None:
            return Redaction({}, {})
        column = read_table(sidecar, ["spans"])["spans"].combine_chunks()
        if len(column) != num_rows(corpus):
            raise BadRequest(f"{sidecar.name}: {len(column)} rows, but the corpus shard has {num_rows(corpus)}")
        counts = np.asarray(column.value_lengths())
        found = {
            row: [Span(s["start"], s["end"], s["kind"]) for s in column[row].as_py()]
            for row in np.flatnonzero(counts).tolist()
        }
        return Redaction(found, placeholders)

    def texts(self, rows: npt.NDArray[np.int64], texts: pa.Array) -> pa.Array:
        """The column of texts of some rows of the shard, as models read them."""
        if self._spans.keys().isdisjoint(rows.tolist()):
            return texts
        return string_array([self.text(row, text) for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True)])

    def text(self, row: int, text: str) -> str:
        """The text of a row of the shard, as models read it."""
        spans = self._spans.get(row)
        return text if spans is None else replaced(text, spans, self._placeholders)


def check_placeholders(stage: str, personal_data: ArtifactRef | None, placeholders: Json | None) -> None:
    """Raises BadRequest unless both or neither are given, with a placeholder for each kind."""
    if (personal_data is None) != (placeholders is None):
        raise BadRequest(f"{stage}: request.personalData and request.placeholders are given together or not at all")
    if placeholders is not None and set(placeholders) != set(KINDS):
        raise BadRequest(f"{stage}: request.placeholders: expected {list(KINDS)}, got {sorted(placeholders)}")
