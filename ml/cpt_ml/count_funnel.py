"""count-funnel: what each stage left of every source and language, and why it took what it took."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import Mask, read_table
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Json

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CountFunnelRequest:
    """The stage's request; `steps` names the stages whose verdicts `drops` are, in their order."""

    corpus: ArtifactRef
    steps: list[str]
    drops: list[ArtifactRef]
    index: ArtifactRef


@dataclass(frozen=True)
class Column:
    """A column of few different strings: `names`, and of each row its place among them."""

    names: list[str]
    codes: Codes


def run(job: Job) -> None:
    """Writes no file. Counts of a shard: docs, and by source and language docs, left (after each step), tokens, bytes.

    `taken` has, by source, step and reason, each document at the first step that took it. Reads columns of names and
    verdicts, no text: some 40 bytes a document of the shard. Raises BadRequest if the manifests are not row-aligned.
    """
    request = parse(CountFunnelRequest, job.request)
    if len(request.steps) != len(request.drops):
        raise BadRequest(f"count-funnel: {len(request.steps)} steps, but {len(request.drops)} verdicts")
    job.map_units(lambda unit, _: _count(job, request, unit))


def _count(job: Job, request: CountFunnelRequest, unit: Unit) -> Json:
    corpus = read_table(job.store.shard(unit.inputs["corpus"]), ["source", "language"])
    source, language = column(corpus["source"]), column(corpus["language"])
    groups = Groups(source, language)
    left = np.ones(corpus.num_rows, dtype=np.bool_)
    after: dict[str, Codes] = {}
    taken: dict[str, dict[str, dict[str, int]]] = {}
    for step, entry in zip(request.steps, unit.inputs["drops"], strict=True):
        verdicts = _aligned(job.store.shard(entry), ["keep", "reason"], corpus.num_rows)
        keep = verdicts["keep"].to_numpy()
        for (name, reason), count in _reasons(source, column(verdicts["reason"]), left & ~keep).items():
            taken.setdefault(name, {}).setdefault(step, {})[reason] = count
        left &= keep
        after[step] = groups.count(left)
    sizes = _aligned(job.store.shard(unit.inputs["index"]), ["num_tokens", "num_bytes"], corpus.num_rows)
    tokens, num_bytes = (groups.total(sizes[name].to_numpy(), left) for name in ("num_tokens", "num_bytes"))
    return {
        "outputs": {},
        "counts": {
            "docs": corpus.num_rows,
            "bySource": groups.lines(groups.count(np.ones_like(left)), after, tokens, num_bytes),
            "taken": taken,
        },
    }


class Groups:
    """The pairs of source and language that a shard has."""

    def __init__(self, source: Column, language: Column) -> None:
        self._names = [(s, lang) for s in source.names for lang in language.names]
        self._codes = source.codes * len(language.names) + language.codes

    def count(self, rows: Mask) -> Codes:
        """Rows of each group."""
        return np.bincount(self._codes[rows], minlength=len(self._names))

    def total(self, values: npt.NDArray[np.uint32], rows: Mask) -> Codes:
        """Sum of a column over each group; exact up to 2^53."""
        return np.bincount(self._codes[rows], values[rows], minlength=len(self._names)).astype(np.int64)

    def lines(self, docs: Codes, after: dict[str, Codes], tokens: Codes, num_bytes: Codes) -> Json:
        """By source and language, those that are there."""
        found: dict[str, Json] = {}
        for at, (source, language) in enumerate(self._names):
            if docs[at]:
                left = {step: int(counts[at]) for step, counts in after.items()}
                sizes = {"tokens": int(tokens[at]), "bytes": int(num_bytes[at])}
                found.setdefault(source, {})[language] = {"docs": int(docs[at]), "left": left, **sizes}
        return found


def column(values: pa.ChunkedArray) -> Column:
    """A column as names and codes; null counts as the empty string."""
    encoded: Any = values.combine_chunks().fill_null("").dictionary_encode()
    return Column(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))


def _aligned(path: Path, columns: list[str], rows: int) -> pa.Table:
    """Columns of a sidecar. Raises BadRequest if it is not row-aligned."""
    table = read_table(path, columns)
    if table.num_rows != rows:
        raise BadRequest(f"{path.name}: {table.num_rows} rows, but the corpus shard has {rows}")
    return table


def _reasons(source: Column, reason: Column, gone: Mask) -> dict[tuple[str, str], int]:
    """How many documents of each source a step took for each reason."""
    pairs = Counter((source.codes[gone] * len(reason.names) + reason.codes[gone]).tolist())
    each = len(reason.names)
    return {(source.names[code // each], reason.names[code % each]): n for code, n in sorted(pairs.items())}
