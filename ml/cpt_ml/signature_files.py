"""The sidecar `signatures.parquet`: what dedup knows of a document without its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml.corpus import ROW_GROUP, Mask
from cpt_ml.errors import BadRequest
from cpt_ml.minhash import NOTHING, Signatures, permutations, signatures
from cpt_ml.text_batches import text_batches
from cpt_ml.text_digests import text_digests
from cpt_ml.word_columns import Texts, gram_column, word_column
from cpt_ml.words import Hashes

DIGESTS = ("digest_high", "digest_low")


@dataclass(frozen=True)
class SignatureSettings:
    """What signatures are made with; only such with the same settings can be compared."""

    ngram: int
    num_permutations: int
    seed: int

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """As it stands in the file."""
        text = f"ngram {self.ngram}, {self.num_permutations} permutations, seed {self.seed}"
        return {b"cpt.signatures": text.encode()}


def least(k: int) -> str:
    """Name of the column of permutation k."""
    return f"least_{k:04d}"


class SignatureWriter:
    """Writes signatures.parquet, a row group in memory at a time. A context manager."""

    def __init__(self, path: Path, settings: SignatureSettings) -> None:
        self.rows = 0
        self._count = settings.num_permutations
        fields: list[Any] = [(name, pa.uint64()) for name in DIGESTS]
        fields += [("num_grams", pa.uint32()), *((least(k), pa.uint32()) for k in range(self._count))]
        self._schema = pa.schema(fields, metadata=settings.metadata)
        # random numbers: nothing to gain from compression, dictionaries and least and greatest values
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._clear()

    def _clear(self) -> None:
        self._filled = 0
        self._judged = np.zeros(ROW_GROUP, dtype=np.bool_)
        self._digests = np.zeros((2, ROW_GROUP), dtype=np.uint64)
        self._grams = np.zeros(ROW_GROUP, dtype=np.uint32)
        self._least = np.full((self._count, ROW_GROUP), NOTHING)

    def skip_to(self, row: int) -> None:
        """Rows before `row` that were not put are not judged: their digest is null."""
        while self.rows + self._filled < row:
            self._filled = min(ROW_GROUP, row - self.rows)
            self._flush_if_full()

    def put(
        self, rows: npt.NDArray[np.int64], digests: Hashes, num_grams: npt.NDArray[Any], values: Signatures
    ) -> None:
        """Digests of shape (2, documents) and signatures of rows in ascending order, all after those put before."""
        at = 0
        while at < len(rows):
            self.skip_to(int(rows[at]))
            end = int(np.searchsorted(rows, self.rows + ROW_GROUP))
            places = rows[at:end] - self.rows
            self._judged[places] = True
            self._digests[:, places] = digests[:, at:end]
            self._grams[places] = num_grams[at:end]
            self._least[:, places] = values[:, at:end]
            self._filled = int(places[-1]) + 1
            self._flush_if_full()
            at = end

    def _flush_if_full(self) -> None:
        if self._filled == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        n = self._filled
        if n:
            columns = [pa.array(d[:n], mask=~self._judged[:n]) for d in self._digests]
            columns += [pa.array(self._grams[:n]), *(pa.array(values[:n]) for values in self._least)]
            self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=ROW_GROUP)
            self.rows += n
        self._clear()

    def __enter__(self) -> SignatureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def write_signatures(
    corpus: Path, judged: Mask, path: Path, settings: SignatureSettings, beat: Callable[[int], None]
) -> int:
    """Writes the sidecar of a corpus shard; returns how many judged documents have no word."""
    multiply, add = permutations(settings.num_permutations, settings.seed)
    without_words = 0
    with SignatureWriter(path, settings) as writer:
        for rows, batch in text_batches(corpus, judged):
            texts = Texts.of(batch)
            grams = gram_column(word_column(texts), settings.ngram)
            num_grams = np.diff(grams.offsets)
            without_words += int(np.count_nonzero(num_grams == 0))
            writer.put(rows, text_digests(texts), num_grams, signatures(grams, multiply, add))
            beat(int(rows[-1]) + 1)
        writer.skip_to(len(judged))
    return without_words


def check_signatures(path: Path, rows: int, settings: SignatureSettings) -> None:
    """Raises BadRequest if a sidecar is not row-aligned or was made with other settings."""
    with pq.ParquetFile(path) as file:
        found = (file.schema_arrow.metadata or {}).get(b"cpt.signatures", b"none").decode()
        expected = settings.metadata[b"cpt.signatures"].decode()
        if found != expected:
            raise BadRequest(f"{path.name}: signatures of {found}, but dedup was asked for {expected}")
        if file.metadata.num_rows != rows:
            raise BadRequest(f"{path.name}: {file.metadata.num_rows} rows, but the corpus shard has {rows}")
