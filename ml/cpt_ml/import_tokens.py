"""import-tokens: files of token ids become a pool as they are, with the text that they stand for beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import CORPUS
from cpt_ml.corpus_shards import BatchWriter, int_array, record_batch, same_strings, string_array, text_lengths
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.megatron import Documents, check_ids, open_documents
from cpt_ml.special_tokens import EOS_NAMES, special_token_id, vocabulary_size
from cpt_ml.store import ArtifactRef, Attempt, Json

INDEX = pa.schema([("offset", pa.uint64()), ("num_tokens", pa.uint32()), ("num_bytes", pa.uint32())])
BATCH_DOCS = 256
BATCH_TOKENS = 1 << 16
# a longer one has lost its boundaries; its text would not fit into memory either
MAX_DOC_TOKENS = 4 << 20
SHARD_DOCS = 1_000_000
SHARD_BYTES = 256 << 20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenFile:
    """A Megatron-LM pair: `file` is its .bin, `index` its .idx. `eod` ends a document (absent: the tokenizer's own)."""

    name: str
    part: str | None
    file: ArtifactRef
    index: ArtifactRef
    language: str
    kind: str
    license: str | None
    eod: int | None

    @property
    def full_name(self) -> str:
        """The source's name, with the file's where it has several."""
        return f"{self.name}/{self.part}" if self.part else self.name


@dataclass(frozen=True)
class ImportTokensRequest:
    """The stage's request; a unit sees one of its files. Limits of a shard are of documents and bytes of text."""

    files: list[TokenFile]
    tokenizer: ArtifactRef
    shard_docs: int | None
    shard_bytes: int | None


def run(job: Job) -> None:
    """Writes of each file `corpus-00000.parquet` (columns of ingest), `tokens-00000.u32`, `index-00000.parquet`, ….

    The ids are those of the file without the `eod` that ends a document (several at its end too); the text is what the
    tokenizer makes of them. Documents in = docs + empty (no other token than eod). Counts: documents, docs, empty,
    tokens, bytes (UTF-8 of the text), eodStripped, eodInside (such ids amid a document, which stay), byLanguage
    (tokens). Raises BadData where files are damaged or an id is none of the tokenizer's, BadRequest for a tokenizer
    that cannot be read. Memory: some MiB, a document of up to 4 Mi ids, and its text.
    """
    import tokenizers  # noqa: PLC0415

    request = parse(ImportTokensRequest, job.request)
    path = job.store.file(request.tokenizer)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as e:  # the binding raises Exception itself
        raise BadRequest(f"import-tokens: {request.tokenizer.uri} is not a tokenizer.json ({e})") from e
    limits = (request.shard_docs or SHARD_DOCS, request.shard_bytes or SHARD_BYTES)
    job.map_units(lambda unit, attempt: _import(job, path, tokenizer, limits, unit, attempt))


def _import(  # noqa: PLR0917
    job: Job, path: Path, tokenizer: Any, limits: tuple[int, int], unit: Unit, attempt: Attempt
) -> Json:
    file = parse(TokenFile, unit.inputs["files"], "files")
    eod = _eod_of(path) if file.eod is None else file.eod
    vocabulary = vocabulary_size(path)
    documents = open_documents(job.store.file(file.index), job.store.file(file.file), file.full_name)
    counts = dict.fromkeys(("docs", "empty", "tokens", "bytes", "eodStripped", "eodInside"), 0)
    with _Shards(attempt, *limits) as shards:
        for first, last in _batches(documents):
            bounds = documents.bounds(first, last)
            ids = np.asarray(documents.ids[bounds[0] : bounds[-1]], dtype=np.int64)
            check_ids(documents, int(bounds[0]), ids, vocabulary)
            begins, ends = bounds[:-1] - bounds[0], _without_eod(ids, bounds - bounds[0], eod)
            lengths = ends - begins
            left = np.flatnonzero(lengths > 0)
            docs = [ids[begins[i] : ends[i]] for i in left.tolist()]
            texts = tokenizer.decode_batch([d.tolist() for d in docs], skip_special_tokens=False)
            column = string_array(texts)
            shards.add(_corpus_rows(file, column, first + 1 + left), docs, text_lengths(column))
            counts["docs"] += len(docs)
            counts["empty"] += len(lengths) - len(docs)
            counts["tokens"] += int(lengths.sum())
            counts["bytes"] += int(text_lengths(column).sum())
            counts["eodStripped"] += len(ids) - int(lengths.sum())
            counts["eodInside"] += sum(int((d == eod).sum()) for d in docs)
            job.beat("import-tokens", last, documents.count, f"documents of {file.full_name}", tokens=counts["tokens"])
    return {
        "outputs": shards.outputs(),
        "counts": {"documents": documents.count, **counts, "byLanguage": {file.language: counts["tokens"]}},
    }


def _eod_of(tokenizer: Path) -> int:
    try:
        return special_token_id(tokenizer, EOS_NAMES, "eod")
    except BadRequest:
        return -1  # no id of a file is


def _batches(documents: Documents) -> Iterator[tuple[int, int]]:
    """Documents in a row, some 65,536 ids together; a longer one alone. Raises BadData for one over 4 Mi ids."""
    first = 0
    while first < documents.count:
        bounds = documents.bounds(first, min(first + BATCH_DOCS, documents.count))
        fit = int(np.searchsorted(bounds - bounds[0], BATCH_TOKENS, side="right")) - 1
        last = first + max(1, min(fit, len(bounds) - 1))
        if (length := int(bounds[last - first] - bounds[0])) > MAX_DOC_TOKENS:
            place = f"{documents.name}, document {first + 1}"
            raise BadData(f"import-tokens: {place}: expected at most {MAX_DOC_TOKENS} tokens, got {length}")
        yield first, last
        first = last


def _without_eod(ids: Ints, bounds: Ints, eod: int) -> Ints:
    """Where each document ends without the `eod` that stand at its end."""
    ends = bounds[1:].copy()
    for i, begin in enumerate(bounds[:-1].tolist()):
        while ends[i] > begin and ids[ends[i] - 1] == eod:
            ends[i] -= 1
    return ends


def _corpus_rows(file: TokenFile, texts: pa.Array, numbers: Ints) -> pa.RecordBatch:
    count = len(numbers)
    columns = {
        "id": string_array([f"{file.full_name}:{n}" for n in numbers.tolist()]),
        "text": texts,
        "language": same_strings(file.language, count),
        "kind": same_strings(file.kind, count),
        "label": string_array([None] * count),
        "source": same_strings(file.name, count),
        "origin": same_strings("", count),
        "license": same_strings(file.license or "unknown", count),
        "use": same_strings("train", count),
        "line": int_array(numbers.tolist()),
    }
    return record_batch(CORPUS, [columns[name] for name in CORPUS.names])


def _numbers(values: Ints, kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.astype(kind.to_pandas_dtype()))])


class _Shards:
    """Row-aligned shards of corpus, tokens and index, of at most so many documents and bytes of text each."""

    def __init__(self, attempt: Attempt, max_docs: int, max_bytes: int) -> None:
        self._attempt, self._max_docs, self._max_bytes = attempt, max_docs, max_bytes
        self._rows: list[int] = []
        self._begin()

    def add(self, corpus: pa.RecordBatch, docs: list[Ints], lengths: Ints) -> None:
        """Adds documents: rows of the corpus, their ids, and the bytes of their texts."""
        at = 0
        while at < len(docs):
            room = self._max_docs - self._docs
            fit = int(np.searchsorted(np.cumsum(lengths[at : at + room]), self._max_bytes - self._bytes, side="right"))
            if fit == 0 and self._docs:
                self._end()
                self._begin()
                continue
            self._write(corpus.slice(at, max(fit, 1)), docs[at : at + max(fit, 1)], lengths[at : at + max(fit, 1)])
            at += max(fit, 1)

    def outputs(self) -> Json:
        """Manifest entries by kind, once all is written."""
        names = {"corpus": "corpus-{:05d}.parquet", "tokens": "tokens-{:05d}.u32", "index": "index-{:05d}.parquet"}
        return {
            kind: [self._attempt.shard(name.format(i), rows) for i, rows in enumerate(self._rows)]
            for kind, name in names.items()
        }

    def _write(self, corpus: pa.RecordBatch, docs: list[Ints], lengths: Ints) -> None:
        sizes = np.fromiter(map(len, docs), dtype=np.int64, count=len(docs))
        offsets = self._tokens + np.cumsum(sizes) - sizes
        columns = zip(INDEX, (offsets, sizes, lengths), strict=True)
        self._corpus.add(corpus, lengths)
        self._index.add(record_batch(INDEX, [_numbers(v, f.type) for f, v in columns]))
        for ids in docs:
            self._file.write(ids.astype("<u4").tobytes())
        self._docs += len(docs)
        self._bytes += int(lengths.sum())
        self._tokens += int(sizes.sum())

    def _begin(self) -> None:
        number = len(self._rows)
        self._docs = self._bytes = self._tokens = 0
        self._corpus = BatchWriter(self._attempt.path(f"corpus-{number:05d}.parquet"), CORPUS)
        self._index = BatchWriter(self._attempt.path(f"index-{number:05d}.parquet"), INDEX)
        self._file = self._attempt.path(f"tokens-{number:05d}.u32").open("wb")

    def _end(self) -> None:
        self._corpus.close()
        self._index.close()
        self._file.close()
        self._rows.append(self._docs)

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end()
        else:
            self._corpus.abandon()
            self._index.abandon()
            self._file.close()
