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


class FrozenSets:
    """The documents of the validation sets, tokenized once, to be scored as often as one likes."""

    def __init__(self, sets: Path, tokenizer: Path, settings: ValidationSettings) -> None:
        from tokenizers import Tokenizer  # noqa: PLC0415

        from cpt_ml.corpus import read_table  # noqa: PLC0415

        self.settings = settings
        self._rows = read_table(sets).to_pylist()
        encoder: Any = Tokenizer.from_file(str(tokenizer))
        self._encodings = encoder.encode_batch([r["text"] for r in self._rows], add_special_tokens=False)
        self._docs = [np.array(e.ids, dtype=np.uint32) for e in self._encodings]

    def score(
        self,
        model: Any,
        device: str,
        batch_tokens: int,
        beat: Callable[[int, int], None],
        world: World | None = None,
    ) -> list[Json]:
        """Each document's row with `nll_sum` (nats), `num_tokens` (scored) and `num_bytes`.

        Several processes share the documents, and each returns all of them. Windows do not overlap; a document's first
        token is never scored and its bytes are not counted. Raises Diverged if a document's loss is not finite.
        """
        window, most = self.settings.window_tokens, self.settings.max_tokens_per_doc
        scores = document_nll(model, self._docs, window, window, most, batch_tokens, device, beat, world)
        scored: list[Json] = []
        for row, encoding, (nll_sum, num_tokens) in zip(self._rows, self._encodings, scores, strict=True):
            if not np.isfinite(nll_sum):
                raise Diverged(f"validation: the loss of document {row['id']} is {nll_sum}")
            num_bytes = scored_bytes(row["text"], encoding.offsets, num_tokens)
            scored.append({**row, "nll_sum": nll_sum, "num_tokens": num_tokens, "num_bytes": num_bytes})
        return scored


def measure(  # noqa: PLR0917
    model: Any,
    device: str,
    sets: Path,
    tokenizer: Path,
    settings: ValidationSettings,
    batch_tokens: int,
    attempt: Attempt,
    beat: Callable[[int, int], None],
) -> Json:
    """Measures every document of the sets as FrozenSets does; see write_measurement for what becomes of it."""
    return write_measurement(FrozenSets(sets, tokenizer, settings).score(model, device, batch_tokens, beat), attempt)


def write_measurement(rows: Sequence[Json], attempt: Attempt) -> Json:
    """Writes per-doc.parquet and returns a PerplexityMeasurement. Raises BadData if nothing can be scored."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    from cpt_ml.corpus import ROW_GROUP  # noqa: PLC0415

    schema = per_doc_schema()
    table = pa.table({n: [r[n] for r in rows] for n in schema.names}, schema=schema)
    pq.write_table(table, attempt.path("per-doc.parquet"), compression="zstd", row_group_size=ROW_GROUP)
    return {"perDoc": attempt.ref("per-doc.parquet"), "strata": strata_losses(rows)}


def nll_per_token(rows: Sequence[Json]) -> float:
    """The loss over all sets in nats per scored token. Raises BadData if there is none."""
    scored = [r for _, docs in by_stratum(rows) for r in docs]
    return sum(r["nll_sum"] for r in scored) / sum(r["num_tokens"] for r in scored)


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
