"""tokenize: every document's token ids, back to back, and an index of where each one lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import RowWriter, keep_mask, read_rows
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json

INDEX = pa.schema([("offset", pa.uint64()), ("num_tokens", pa.uint32()), ("num_bytes", pa.uint32())])
DOCS_PER_BATCH = 256


@dataclass(frozen=True)
class TokenizeRequest:
    """The stage's request; `tokenizer` is a tokenizer.json."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    tokenizer: ArtifactRef


def run(job: Job) -> None:
    """Writes of each shard `tokens.u32` (little-endian, no BOS or EOS) and `index.parquet`, 0 for dropped rows.

    Counts: docs, tokens, bytes (UTF-8), byLanguage (tokens). Raises BadRequest if the tokenizer cannot be loaded.
    """
    import tokenizers  # noqa: PLC0415

    request = parse(TokenizeRequest, job.request)
    path = job.store.file(request.tokenizer)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the binding raises Exception itself
        raise BadRequest(f"tokenize: {request.tokenizer.uri} is not a tokenizer.json ({e})") from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    job.map_units(lambda unit, attempt: _tokenize(job, tokenizer, unit, attempt))


def _tokenize(job: Job, tokenizer: Any, unit: Unit, attempt: Attempt) -> Json:
    by_language: Counter[str] = Counter()
    num_tokens = num_bytes = 0
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    rows = zip(read_rows(path, ["text", "language"]), judged, strict=True)
    with (
        attempt.path("tokens.u32").open("wb") as tokens,
        RowWriter(attempt.path("index.parquet"), INDEX) as index,
    ):
        while batch := list(islice(rows, DOCS_PER_BATCH)):
            texts = [row["text"] for row, keep in batch if keep]
            encoded: Iterator[Any] = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
            for row, keep in batch:
                if not keep:
                    index.append({"offset": 0, "num_tokens": 0, "num_bytes": 0})
                    continue
                ids = np.array(next(encoded).ids, dtype="<u4")
                size = len(row["text"].encode())
                index.append({"offset": num_tokens, "num_tokens": len(ids), "num_bytes": size})
                tokens.write(ids.tobytes())
                num_tokens += len(ids)
                num_bytes += size
                by_language[row["language"]] += len(ids)
            job.beat("tokenize", index.rows, entry["rows"], "documents", tokens=num_tokens)
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
