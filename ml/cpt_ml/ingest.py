"""ingest: source files become corpus shards; what cannot be read is quarantined by line, with a reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, cast

import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import CORPUS, RowWriter
from cpt_ml.job import Job, Unit
from cpt_ml.lines import Line, read_lines
from cpt_ml.normalise import normalise
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
LINES_PER_BEAT = 1000


@dataclass(frozen=True)
class FieldMapping:
    """Which JSON field carries what."""

    text: str
    id: str
    language: str
    kind: str
    topic: str
    origin: str
    license: str


@dataclass(frozen=True)
class Source:
    """One file of JSON Lines; `language`, `kind` and `license` hold for documents that do not say their own."""

    name: str
    file: ArtifactRef
    format: Literal["jsonl"]
    fields: FieldMapping
    language: str | None
    kind: str | None
    license: str | None
    use: Literal["train", "validate"]


@dataclass(frozen=True)
class IngestRequest:
    """The stage's request; a unit sees one of its sources."""

    sources: list[Source]
    max_quarantine_ratio: float


class Unreadable(Exception):
    """A line that cannot become a document; the message is the reason's name, never text of the line."""


def run(job: Job) -> None:
    """Writes `corpus.parquet` and `quarantine.parquet` of each source (columns: docs/data-formats.md).

    Lines that are not blank = kept + quarantined, exactly; blank ones are numbered but not counted. Counts of a unit:
    lines, kept, quarantined, keptBytes (UTF-8), byReason, bySource, byLanguage (kept); beside them `examples`, the
    first ten quarantined as {line, offset, reason}. Never fails on what a line holds: the ratio is judged afterwards.
    """
    job.map_units(lambda unit, attempt: _ingest(job, unit, attempt))


def _ingest(job: Job, unit: Unit, attempt: Attempt) -> Json:
    source = parse(Source, unit.inputs["sources"], "sources")
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    examples: list[Json] = []
    kept_bytes = 0
    ids: set[int] = set()
    path = job.store.file(source.file)
    with (
        RowWriter(attempt.path("corpus.parquet"), CORPUS) as corpus,
        RowWriter(attempt.path("quarantine.parquet"), QUARANTINE) as quarantine,
    ):
        for line in read_lines(path):
            try:
                row = document(source, line)
            except Unreadable as e:
                reason = str(e)
                at = {"line": line.number, "offset": line.offset, "reason": reason}
                quarantine.append({"source": source.name, "sha256": line.sha256, **at})
                by_reason[reason] += 1
                if len(examples) < MAX_EXAMPLES:
                    examples.append(at)
            else:
                row["id"] = _unique(row["id"], line.number, ids)
                num_bytes = len(row["text"].encode())
                corpus.append(row, num_bytes)
                kept_bytes += num_bytes
                by_language[row["language"]] += 1
            if (corpus.rows + quarantine.rows) % LINES_PER_BEAT == 0:
                job.beat("ingest", line.offset, 0, f"bytes of {source.name}")
    return {
        "outputs": {
            "corpus": [attempt.shard("corpus.parquet", corpus.rows)],
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


def document(source: Source, line: Line) -> Json:
    """The corpus row of one line. Raises Unreadable with the reason's name."""
    value = parse_line(line)
    fields = source.fields
    text = value.get(fields.text)
    if text is None:
        raise Unreadable("text-missing")
    if not isinstance(text, str):
        raise Unreadable("text-not-a-string")
    text = normalise(text)
    if not text:
        raise Unreadable("text-empty")
    language, kind = _language_and_kind(source, value)
    topic = _string(value, fields.topic)
    return {
        "id": f"{source.name}:{_id(value.get(fields.id), line.number)}",
        "text": text,
        "language": language,
        "kind": kind,
        "label": topic or None,
        "source": source.name,
        "origin": _string(value, fields.origin),
        "license": _string(value, fields.license) or source.license or "unknown",
        "use": source.use,
        "line": line.number,
    }


def parse_line(line: Line) -> Json:
    """The JSON object of a line. Raises Unreadable if it is none, or could be read in two ways."""
    if line.problem:
        raise Unreadable(line.problem)
    try:
        value = json.loads(line.data.decode(), object_pairs_hook=_object, parse_constant=_not_json)
    except UnicodeDecodeError:
        raise Unreadable("not-utf8") from None
    except RecursionError:
        raise Unreadable("nested-too-deep") from None
    except ValueError:
        raise Unreadable("not-json") from None
    if not isinstance(value, dict):
        raise Unreadable("not-an-object")
    return cast("Json", value)


def _object(pairs: list[tuple[str, Any]]) -> Json:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Unreadable("duplicate-key")
    return value


def _not_json(_name: str) -> None:
    raise Unreadable("not-json")


def _language_and_kind(source: Source, value: Json) -> tuple[str, str]:
    """A language field that says `code` means English of kind code (arXiv:2407.18743)."""
    language = value.get(source.fields.language)
    kind = value.get(source.fields.kind)
    language = source.language if language is None else language
    kind = source.kind if kind is None else kind
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


def _long_code(language: str) -> bool:
    return 3 <= len(language) <= 8 and language.isascii() and language.isalpha() and language.islower()


def _id(value: object, line_number: int) -> str:
    """The document's own id if it is a string or a whole number, else its line."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = normalise(value)[:200] if isinstance(value, str) else ""
    return text or str(line_number)


def _unique(id: str, line_number: int, ids: set[int]) -> str:
    """The id, or with its line where the source has used it before; `ids` keeps 8 bytes of each."""
    if _short_hash(id) in ids:
        id = f"{id}#{line_number}"
    ids.add(_short_hash(id))
    return id


def _short_hash(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest())


def _string(value: Json, field: str) -> str:
    found = value.get(field)
    return normalise(found) if isinstance(found, str) else ""
