"""ingest: sources become corpus shards; what cannot be read is quarantined, each line with a reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cpt_ml.clean_corpus import clean_schema
from cpt_ml.contract import parse
from cpt_ml.corpus import CORPUS
from cpt_ml.corpus_shards import (
    BatchWriter,
    ShardWriter,
    int_array,
    record_batch,
    same_strings,
    string_array,
    text_lengths,
)
from cpt_ml.ingest_columns import Rows, mapped, mapped_pairs, own_ids
from cpt_ml.ingest_columns import normal_texts as normal_texts_column
from cpt_ml.job import Job, Unit
from cpt_ml.json_lines import Unreadable
from cpt_ml.normalise import normalise, not_normal
from cpt_ml.source_rows import Bad, Batch, Columns, jsonl_batches, parquet_batches, text_batches
from cpt_ml.store import ArtifactRef, Attempt, Json

KINDS = frozenset(["web", "encyclopedia", "book", "qa", "paper", "math", "code", "synthetic"])
# ISO 639-1; a longer code is taken as it stands
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki
kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no
nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te
tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
LANGUAGES = frozenset(_CODES.split())
QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("line", pa.int64()),
        ("offset", pa.int64()),
        ("sha256", pa.string()),
        ("reason", pa.string()),
    ]
)
MAX_EXAMPLES = 10
MAX_ID_CHARS = 200
# where a request does not say
SHARD_DOCS = 1_000_000
SHARD_BYTES = 256 << 20
RECENT_IDS = 1 << 19
MAX_REMEMBERED = 10_000  # of what few values are expected of


@dataclass(frozen=True)
class FieldMapping:
    """Which field of an object carries what."""

    text: str
    id: str
    language: str
    kind: str
    topic: str
    origin: str
    license: str


@dataclass(frozen=True)
class Source:
    """A file, or a folder of text files; `language`, `kind`, `license` hold for documents that do not say their own.

    `part` is the file's path within a source that is a folder of files.
    """

    name: str
    part: str | None
    file: ArtifactRef
    format: Literal["jsonl", "parquet", "text"]
    fields: FieldMapping
    language: str | None
    kind: str | None
    license: str | None
    use: Literal["train", "validate"]
    clean: Literal[True] | None

    @property
    def full_name(self) -> str:
        """The source's name, with the file's where it has several."""
        return f"{self.name}/{self.part}" if self.part else self.name


@dataclass(frozen=True)
class IngestRequest:
    """The stage's request; a unit sees one of its sources. Limits of a shard are of documents and bytes of text."""

    sources: list[Source]
    max_quarantine_ratio: float
    shard_docs: int | None
    shard_bytes: int | None


@dataclass
class Documents:
    """Rows of the corpus, column by column."""

    ids: list[str] = field(default_factory=list[str])
    texts: list[str] = field(default_factory=list[str])
    languages: list[str] = field(default_factory=list[str])
    kinds: list[str] = field(default_factory=list[str])
    labels: list[str | None] = field(default_factory=list[str | None])
    origins: list[str] = field(default_factory=list[str])
    licenses: list[str] = field(default_factory=list[str])
    lines: list[int] = field(default_factory=list[int])

    def extend(self, more: Documents) -> None:
        """Adds rows."""
        for name in Documents.__dataclass_fields__:
            getattr(self, name).extend(getattr(more, name))

    def drop(self, indices: set[int]) -> None:
        """Takes rows away."""
        for column in (getattr(self, name) for name in Documents.__dataclass_fields__):
            column[:] = [v for i, v in enumerate(column) if i not in indices]


def run(job: Job) -> None:
    """Writes `corpus-00000.parquet`, … and `quarantine.parquet` of each source (columns: docs/data-formats.md).

    Lines that are not blank (rows, files of text) = kept + quarantined, exactly; blank ones are numbered but not
    counted. Counts of a unit: lines, kept, quarantined, keptBytes (UTF-8), byReason, bySource, byLanguage (kept);
    beside them `examples`, the first ten quarantined as {line, offset, reason}. Never fails on what a line holds: the
    ratio is judged afterwards. Memory does not grow with a source but for 8 bytes a document: digests of its ids.
    """
    request = parse(IngestRequest, job.request)
    limits = (request.shard_docs or SHARD_DOCS, request.shard_bytes or SHARD_BYTES)
    job.map_units(lambda unit, attempt: ingest_source(job, limits, unit, attempt))


def ingest_source(job: Job, limits: tuple[int, int], unit: Unit, attempt: Attempt) -> Json:
    """Ingests one source and returns the unit's result; `limits`: documents and bytes of text a shard."""
    source = parse(Source, unit.inputs["sources"], "sources")
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    examples: list[Json] = []
    kept_bytes = 0
    reader = _Reader(source)
    with (
        ShardWriter(attempt, "corpus", clean_schema() if source.clean else CORPUS, *limits) as corpus,
        BatchWriter(attempt.path("quarantine.parquet"), QUARANTINE) as quarantine,
    ):
        for batch in batches(job, source):
            rows, bad = reader.documents(batch)
            if rows is not None:
                lengths = text_lengths(rows.columns["text"])
                corpus.add(record_batch(CORPUS, [rows.columns[name] for name in CORPUS.names]), lengths)
                kept_bytes += int(lengths.sum())
                by_language.update(rows.by_language)
            if bad:
                quarantine.add(_quarantine_rows(source, bad))
                by_reason.update(b.reason for b in bad)
                first = bad[: MAX_EXAMPLES - len(examples)]
                examples += [{"line": b.line, "offset": b.offset, "reason": b.reason} for b in first]
            job.beat("ingest", batch.offset, 0, f"bytes of {source.full_name}")
    return {
        "outputs": {
            "corpus": corpus.shards(),
            "quarantine": [attempt.shard("quarantine.parquet", quarantine.rows)],
        },
        "counts": {
            "lines": corpus.rows + quarantine.rows,
            "kept": corpus.rows,
            "quarantined": quarantine.rows,
            "keptBytes": kept_bytes,
            "byReason": dict(sorted(by_reason.items())),
            "bySource": {source.name: corpus.rows},
            "byLanguage": dict(sorted(by_language.items())),
        },
        "examples": examples,
    }


def batches(job: Job, source: Source) -> Iterator[Batch | Columns]:
    """What the source's file or folder holds, by its format."""
    fields = source.fields
    if source.format == "text":
        path = job.store.folder(source.file) if source.file.uri.endswith("/") else job.store.file(source.file)
        return text_batches(path, fields.text, fields.id)
    path = job.store.file(source.file)
    if source.format == "parquet":
        return parquet_batches(path, [getattr(fields, name) for name in FieldMapping.__dataclass_fields__])
    strings = [fields.text, fields.language, fields.kind, fields.topic, fields.origin, fields.license]
    return jsonl_batches(path, strings, fields.id)


def _quarantine_rows(source: Source, bad: list[Bad]) -> pa.RecordBatch:
    columns = [
        same_strings(source.full_name, len(bad)),
        int_array([b.line for b in bad]),
        int_array([b.offset for b in bad]),
        string_array([b.sha256 for b in bad]),
        string_array([b.reason for b in bad]),
    ]
    return record_batch(QUARANTINE, columns)


class _Reader:
    """Turns objects of one source into documents; knows the ids it has given."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ids = _UsedIds()
        self._places = _Places(source)
        self._strings = _Strings()

    def documents(self, batch: Batch | Columns) -> tuple[Rows | None, list[Bad]]:
        """Rows, if there are any, and all that is quarantined, in order of lines."""
        if isinstance(batch, Columns):
            try:
                rows = self._of_columns(batch)
            except Unreadable:  # one of them: which, and why, is asked of each
                rows = None
            if rows is not None:
                return rows, []
            batch = batch.objects()
        docs, texts, bad = self._of_objects(batch)
        return self._rows(docs, texts) if docs.ids else None, bad

    def _of_columns(self, batch: Columns) -> Rows | None:
        """Rows of a batch whose lines are all documents. Raises Unreadable or returns None if one of them is none."""
        fields, columns = self._source.fields, batch.columns
        texts = normal_texts_column(columns[fields.text])
        if texts is None:
            return None
        languages, kinds, by_language = mapped_pairs(
            columns[fields.language], columns[fields.kind], lambda language, kind: self._places[language, kind]
        )
        default = self._source.license or "unknown"
        numbers = range(batch.number, batch.number + len(texts))
        prefix = self._source.full_name
        ids = [f"{prefix}:{id}" for id in own_ids(columns[fields.id], numbers, _id, MAX_ID_CHARS)]
        return self._with_source(
            {
                "id": string_array(self._ids.unique(ids, numbers)),
                "text": texts,
                "language": languages,
                "kind": kinds,
                "label": mapped(columns[fields.topic], lambda v: self._strings[v] or None),
                "origin": mapped(columns[fields.origin], lambda v: self._strings[v]),
                "license": mapped(columns[fields.license], lambda v: self._strings[v] or default),
                "line": int_array(numbers),
            },
            by_language,
        )

    def _rows(self, docs: Documents, texts: pa.Array) -> Rows:
        return self._with_source(
            {
                "id": string_array(docs.ids),
                "text": texts,
                "language": string_array(docs.languages),
                "kind": string_array(docs.kinds),
                "label": string_array(docs.labels),
                "origin": string_array(docs.origins),
                "license": string_array(docs.licenses),
                "line": int_array(docs.lines),
            },
            Counter(docs.languages),
        )

    def _with_source(self, columns: dict[str, pa.Array], by_language: Counter[str]) -> Rows:
        count = len(columns["text"])
        same = {"source": self._source.name, "use": self._source.use}
        return Rows(columns | {name: same_strings(value, count) for name, value in same.items()}, by_language)

    def _of_objects(self, batch: Batch) -> tuple[Documents, pa.Array, list[Bad]]:
        at, rejected = list(range(len(batch.values))), dict[int, str]()
        try:
            docs = self._columns(batch.numbers, batch.values)
        except (Unreadable, TypeError):  # one of them: which, and why, is asked of each
            docs, at, rejected = self._one_by_one(batch)
        texts, empty = normal_texts(docs)
        if empty:
            docs.drop(set(empty))
            texts = string_array(docs.texts)
            rejected |= {at[i]: "text-empty" for i in empty}
        docs.ids = self._ids.unique(docs.ids, docs.lines)
        if not rejected:
            return docs, texts, batch.bad
        indices = sorted(rejected)
        lines = zip(indices, batch.locate(indices), strict=True)
        bad = [*batch.bad, *(Bad(line.number, line.offset, line.sha256, rejected[i]) for i, line in lines)]
        return docs, texts, sorted(bad, key=lambda b: b.line)

    def _columns(self, numbers: list[int], values: list[Json]) -> Documents:
        """Documents whose texts may not be normal yet. Raises Unreadable or TypeError if one of them is none."""
        source, fields = self._source, self._source.fields
        texts = [_text(value.get(fields.text)) for value in values]
        places = [self._places[v.get(fields.language), v.get(fields.kind)] for v in values]
        default = source.license or "unknown"
        prefix = source.full_name
        return Documents(
            [f"{prefix}:{_id(v.get(fields.id), n)}" for v, n in zip(values, numbers, strict=True)],
            texts,
            [language for language, _ in places],
            [kind for _, kind in places],
            [self._strings[v.get(fields.topic)] or None for v in values],
            [self._strings[v.get(fields.origin)] for v in values],
            [self._strings[v.get(fields.license)] or default for v in values],
            numbers,
        )

    def _one_by_one(self, batch: Batch) -> tuple[Documents, list[int], dict[int, str]]:
        """The documents among the objects, their indices, and why the others are none."""
        docs = Documents()
        at: list[int] = []
        rejected: dict[int, str] = {}
        for i, (number, value) in enumerate(zip(batch.numbers, batch.values, strict=True)):
            known = {f: v for f, v in value.items() if v is None or isinstance(v, str | int | bytes)}
            text = value.get(self._source.fields.text)
            try:
                _text(text)
                self._places.of(value.get(self._source.fields.language), value.get(self._source.fields.kind))
                docs.extend(self._columns([number], [known]))
                at.append(i)
            except Unreadable as e:
                empty = isinstance(text, str) and not normalise(text)
                rejected[i] = "text-empty" if empty else str(e)
        return docs, at, rejected


def normal_texts(docs: Documents) -> tuple[pa.Array, list[int]]:
    """Makes all texts normal; returns them as a column, and the indices of those of which nothing is left."""
    try:
        texts = string_array(docs.texts)
        left = not_normal(texts)
    except UnicodeEncodeError:  # halves of surrogate pairs
        texts, left = None, list(range(len(docs.texts)))
    if not left:
        return texts, []
    for i in left:
        docs.texts[i] = normalise(docs.texts[i])
    return string_array(docs.texts), [i for i in left if not docs.texts[i]]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise Unreadable("text-missing")
    raise Unreadable("not-utf8" if isinstance(value, bytes) else "text-not-a-string")


class _Places(dict[tuple[object, object], tuple[str, str]]):
    """Language and kind by what a document says of them; remembers what it has answered."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, said: tuple[object, object]) -> tuple[str, str]:
        found = self.of(*said)
        if len(self) < MAX_REMEMBERED:
            self[said] = found
        return found

    def of(self, language: object, kind: object) -> tuple[str, str]:
        """What a document says, or else its source. Raises Unreadable with the reason's name.

        A language field that says `code` means English of kind code (arXiv:2407.18743).
        """
        language = self._source.language if language is None else language
        kind = self._source.kind if kind is None else kind
        if language is None:
            raise Unreadable("language-missing")
        if language == "code":
            return "en", "code"
        if not isinstance(language, str) or not (language in LANGUAGES or _long_code(language)):
            raise Unreadable("language-unknown")
        if kind is None:
            raise Unreadable("kind-missing")
        if not isinstance(kind, str) or kind not in KINDS:
            raise Unreadable("kind-unknown")
        return language, kind


class _Strings(dict[object, str]):
    """normalise() of what comes again and again; of what is no string it is empty."""

    def __missing__(self, value: object) -> str:
        found = normalise(value) if isinstance(value, str) else ""
        if len(self) < MAX_REMEMBERED:
            self[value] = found
        return found


def _long_code(language: str) -> bool:
    return 3 <= len(language) <= 8 and language.isascii() and language.isalpha() and language.islower()


def _id(value: object, line_number: int) -> str:
    """The document's own id if it is a string or a whole number, else its line."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = normalise(value)[:MAX_ID_CHARS] if isinstance(value, str) else ""
    return text or str(line_number)


class _UsedIds:
    """The ids of a source: the newest in a set, of the others 8 bytes of digest each, in sorted arrays."""

    def __init__(self) -> None:
        self._recent: set[str] = set()
        self._old: list[npt.NDArray[np.uint64]] = []

    def unique(self, ids: list[str], lines: Sequence[int]) -> list[str]:
        """The ids, or with its line where the source has used one before."""
        old = self._among_old(ids)
        result = list(ids)
        for i, id in enumerate(ids):
            if id in self._recent or id in old:
                result[i] = f"{id}#{lines[i]}"
            self._recent.add(result[i])
        if len(self._recent) >= RECENT_IDS:
            self._old.append(np.sort(_short_hashes(self._recent)))
            self._recent = set()
            # as in a binary counter: few arrays, each merged seldom
            while len(self._old) > 1 and len(self._old[-1]) >= len(self._old[-2]):
                self._old[-2:] = [np.sort(np.concatenate(self._old[-2:]))]
        return result

    def _among_old(self, ids: list[str]) -> set[str]:
        if not self._old:
            return set()
        wanted = _short_hashes(ids)
        found = np.zeros(len(wanted), dtype=np.bool_)
        for array in self._old:
            place = np.minimum(np.searchsorted(array, wanted), len(array) - 1)
            found |= array[place] == wanted
        return {ids[i] for i in np.flatnonzero(found).tolist()}


def _short_hashes(ids: Collection[str]) -> npt.NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(id.encode(), digest_size=8).digest() for id in ids)
    return np.frombuffer(digests, dtype=np.uint64)
