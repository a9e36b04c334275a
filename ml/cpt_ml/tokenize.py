"""tokenize: every document's token ids, back to back, and an index of where each one lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.contract import parse
from cpt_ml.corpus import Mask, keep_mask
from cpt_ml.corpus_shards import BatchWriter, record_batch, text_lengths
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.personal_spans import Redaction, check_placeholders
from cpt_ml.store import ArtifactRef, Attempt, Json

INDEX = pa.schema([("offset", pa.uint64()), ("num_tokens", pa.uint32()), ("num_bytes", pa.uint32())])
# small, for the library's memory (some 100 bytes a token) and the processor's caches
DOCS_PER_BATCH = 64
BATCH_BYTES = 256 << 10


@dataclass(frozen=True)
class TokenizeRequest:
    """The stage's request; `tokenizer` is a tokenizer.json, `personal_data` what find-personal-data found."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    tokenizer: ArtifactRef
    personal_data: ArtifactRef | None
    placeholders: dict[str, str] | None


def run(job: Job) -> None:
    """Writes of each shard `tokens.u32` (little-endian, no BOS or EOS) and `index.parquet`, 0 for dropped rows.

    With `personalData` its spans are read as their placeholders. Counts: docs, tokens, bytes (UTF-8, of the texts as
    they are read), byLanguage (tokens). Raises BadRequest if the tokenizer cannot be loaded.
    """
    import tokenizers  # noqa: PLC0415

    request = parse(TokenizeRequest, job.request)
    check_placeholders("tokenize", request.personal_data, request.placeholders)
    path = job.store.file(request.tokenizer)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the binding raises Exception itself
        raise BadRequest(f"tokenize: {request.tokenizer.uri} is not a tokenizer.json ({e})") from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    job.map_units(lambda unit, attempt: tokenize_shard(job, tokenizer, request.placeholders, unit, attempt))


def tokenize_shard(
    job: Job, tokenizer: Any, placeholders: Mapping[str, str] | None, unit: Unit, attempt: Attempt
) -> Json:
    """Tokenizes one corpus shard and returns the unit's result."""
    by_language: Counter[str] = Counter()
    num_tokens = num_bytes = done = 0
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    sidecar = unit.inputs.get("personalData")
    redaction = Redaction.of(path, job.store.shard(sidecar) if sidecar else None, placeholders)
    with (
        attempt.path("tokens.u32").open("wb") as tokens,
        BatchWriter(attempt.path("index.parquet"), INDEX) as index,
    ):
        for batch in batches(path):
            keep = judged[done : done + batch.num_rows]
            kept = batch.filter(_mask(keep))
            # the fast form leaves out where in the text each token lies
            texts = redaction.texts(done + np.flatnonzero(keep), kept.column("text"))
            encoded = [e.ids for e in tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)]
            for ids in encoded:
                tokens.write(np.array(ids, dtype="<u4").tobytes())
            counts = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
            sizes = text_lengths(texts)
            index.add(_index_rows(keep, counts, sizes, num_tokens))
            for language, count in zip(kept.column("language").to_pylist(), counts.tolist(), strict=True):
                by_language[language] += count
            num_tokens += int(counts.sum())
            num_bytes += int(sizes.sum())
            done += batch.num_rows
            job.beat("tokenize", done, entry["rows"], "documents", tokens=num_tokens)
    return {
        "outputs": {
            "tokens": [attempt.shard("tokens.u32", index.rows)],
            "index": [attempt.shard("index.parquet", index.rows)],
        },
        "counts": {
            "docs": int(judged.sum()),
            "tokens": num_tokens,
            "bytes": num_bytes,
            "byLanguage": dict(sorted(by_language.items())),
        },
    }


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Text and language of a corpus shard, some documents at a time."""
    with pq.ParquetFile(path) as file:
        # pages are read as they are needed: a whole row group of texts would be most of the job's memory
        for batch in file.iter_batches(batch_size=DOCS_PER_BATCH, columns=["text", "language"], use_threads=False):
            ends = np.cumsum(text_lengths(batch.column("text")))
            at = 0
            while at < batch.num_rows:
                before = int(ends[at - 1]) if at else 0
                count = max(int(np.searchsorted(ends, before + BATCH_BYTES, side="right")) - at, 1)
                yield batch.slice(at, count)
                at += count


def _mask(keep: Mask) -> pa.Array:
    """A column of booleans."""
    packed = np.packbits(keep, bitorder="little").tobytes()
    return pa.Array.from_buffers(pa.bool_(), len(keep), [None, pa.py_buffer(packed)])


def _index_rows(keep: Mask, counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], first: int) -> pa.RecordBatch:
    """Where the documents' tokens lie, the first of them at token `first`; 0 for dropped rows."""
    types = {"offset": np.uint64, "num_tokens": np.uint32, "num_bytes": np.uint32}
    columns = {name: np.zeros(len(keep), dtype=kind) for name, kind in types.items()}
    columns["offset"][keep] = first + np.cumsum(counts) - counts
    columns["num_tokens"][keep] = counts
    columns["num_bytes"][keep] = sizes
    return record_batch(INDEX, (_numbers(columns[name], INDEX.field(name).type) for name in INDEX.names))


def _numbers(values: npt.NDArray[np.uint32 | np.uint64], kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
