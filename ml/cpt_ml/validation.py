"""Perplexity on the frozen validation sets: the trainer, evaluate-perplexity and compare-perplexity share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpt_ml.errors import BadData, Diverged
from cpt_ml.nll import document_nll
from cpt_ml.store import ArtifactRef, Attempt, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from cpt_ml.world import World

StratumKey = tuple[str, str, str, str | None]


@dataclass(frozen=True)
class ValidationSettings:
    """contracts/src/evaluate-perplexity.ts: both sides of a comparison must agree on it."""

    sets: ArtifactRef
    window_tokens: int
    max_tokens_per_doc: int


def per_doc_schema() -> pa.Schema:
    """Columns of per-doc.parquet. pyarrow is imported where parquet is touched: a step of training needs none."""
    import pyarrow as pa  # noqa: PLC0415

    text = [(name, pa.string()) for name in ("id", "set", "language", "kind", "topic")]
    return pa.schema([*text, ("nll_sum", pa.float64()), ("num_tokens", pa.uint32()), ("num_bytes", pa.uint32())])


def measure(  # noqa: PLR0917
    model: Any,
    device: str,
    sets: Path,
    tokenizer: Path,
    settings: ValidationSettings,
    batch_tokens: int,
    attempt: Attempt,
    beat: Callable[[int, int], None],
    world: World | None = None,
) -> Json:
    """Measures every document of the sets, writes per-doc.parquet, and returns a PerplexityMeasurement.

    Several processes share the documents; the first one writes, the others return {}. Windows do not overlap; a
    document's first token is never scored and its bytes are not counted. Raises Diverged if a document's loss is not
    finite, BadData if no document has a token to score.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    from cpt_ml.corpus import ROW_GROUP, read_table  # noqa: PLC0415

    rows = read_table(sets).to_pylist()
    encoder: Any = Tokenizer.from_file(str(tokenizer))
    encodings = encoder.encode_batch([r["text"] for r in rows], add_special_tokens=False)
    docs = [np.array(e.ids, dtype=np.uint32) for e in encodings]
    window = settings.window_tokens
    scores = document_nll(model, docs, window, window, settings.max_tokens_per_doc, batch_tokens, device, beat, world)
    for row, encoding, (nll_sum, num_tokens) in zip(rows, encodings, scores, strict=True):
        if not np.isfinite(nll_sum):
            raise Diverged(f"validation: the loss of document {row['id']} is {nll_sum}")
        row["nll_sum"], row["num_tokens"] = nll_sum, num_tokens
        row["num_bytes"] = scored_bytes(row["text"], encoding.offsets, num_tokens)
    if world is not None and world.rank > 0:
        return {}
    schema = per_doc_schema()
    table = pa.table({n: [r[n] for r in rows] for n in schema.names}, schema=schema)
    pq.write_table(table, attempt.path("per-doc.parquet"), compression="zstd", row_group_size=ROW_GROUP)
    return {"perDoc": attempt.ref("per-doc.parquet"), "strata": strata_losses(rows)}


def scored_bytes(text: str, offsets: Sequence[tuple[int, int]], num_scored: int) -> int:
    """UTF-8 bytes of tokens 1 … num_scored. A character split between the first token and the next counts whole."""
    return len(text[offsets[1][0] : offsets[num_scored][1]].encode()) if num_scored else 0


def stratum_key(row: Json) -> StratumKey:
    return row["set"], row["language"], row["kind"], row["topic"]


def by_stratum(rows: Sequence[Json]) -> list[tuple[StratumKey, list[Json]]]:
    """Rows with scored tokens by stratum, sorted by set, language, kind and topic. Raises BadData if there are none."""
    groups: dict[StratumKey, list[Json]] = {}
    for row in rows:
        if row["num_tokens"]:
            groups.setdefault(stratum_key(row), []).append(row)
    if not groups:
        raise BadData("validation: no document of the sets has a token to score")
    return sorted(groups.items(), key=lambda g: (*g[0][:3], g[0][3] or ""))


def strata_losses(rows: Sequence[Json]) -> list[Json]:
    """Token-weighted loss of each stratum: nats per token and per UTF-8 byte."""
    result: list[Json] = []
    for (set_, language, kind, topic), docs in by_stratum(rows):
        nll, tokens, size = (sum(d[n] for d in docs) for n in ("nll_sum", "num_tokens", "num_bytes"))
        result.append(
            {"language": language, "kind": kind, "topic": topic, "set": set_, "docs": len(docs), "tokens": tokens,
             "bytes": size, "nllPerToken": nll / tokens, "nllPerByte": nll / max(size, 1)}
        )  # fmt: skip
    return result
