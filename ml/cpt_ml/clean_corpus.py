"""Corpus shards of a source that was filtered before: they say so in their metadata, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.corpus import CORPUS

CLEAN = {b"cpt-clean": b"true"}


def clean_schema() -> pa.Schema:
    """The schema of a corpus shard that filter keeps as it is."""
    return CORPUS.with_metadata(CLEAN)


def is_clean(corpus: Path) -> bool:
    """Whether a corpus shard is of a source that was filtered before."""
    return CLEAN.items() <= (pq.read_schema(corpus).metadata or {}).items()
