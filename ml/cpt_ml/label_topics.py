"""label-topics: a seed sample labelled by a model, for languages and taxonomies without labels."""

from __future__ import annotations

import contextlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from cpt_ml import chat_endpoint
from cpt_ml.chat_endpoint import ChatEndpoint, Interrupted, QuestionRefused
from cpt_ml.contract import parse
from cpt_ml.corpus import keep_mask, num_rows, read_rows, write_columns, write_manifest, write_rows
from cpt_ml.errors import BadData, BadRequest, StoreCorrupt
from cpt_ml.failpoint import failpoint
from cpt_ml.hash_share import share_of
from cpt_ml.job import Job
from cpt_ml.label_prompt import ANSWER_TOKENS, Prompt, estimated_tokens, label_in, mark_of, messages, schema, sent
from cpt_ml.store import ArtifactRef, Attempt, Json

LABELS = pa.schema([("label", pa.string())])
QUARANTINE = pa.schema([(name, pa.string()) for name in ("language", "id", "reason", "answer")])
TRIES_A_DOCUMENT = 3  # answers that are none of the labels
FIRST_ANSWERS = 16
ROUND = 16  # questions for each thread between two looks at `pause`
BEAT_SECONDS = 0.5
KEPT_ANSWER_CHARS = 500
UNREADABLE = "not-a-label"


@dataclass(frozen=True)
class LabelledLanguage:
    """A taxonomy, and its topics: what an answer may be."""

    taxonomy: str
    topics: list[str]


@dataclass(frozen=True)
class LabelTopicsRequest:
    """contracts/src/label-topics.ts."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    languages: dict[str, LabelledLanguage]
    kinds: list[str]
    docs_per_language: int
    max_doc_chars: int
    max_tokens: int
    model: str
    prompt: Prompt
    seed: int


@dataclass(frozen=True)
class Chosen:
    """A document of the sample; `number` is its place in it, by which its answer is kept."""

    number: int
    language: str
    shard: int
    row: int
    id: str


def run(job: Job) -> None:
    """Writes row-aligned `labels` (null: not labelled) and `quarantine.parquet` (documents without a label, and why).

    The estimated cost is logged before the first question. Every answer is put into the store as it comes, under
    the job's checkpoints: another attempt asks for what is left. Texts are read a row group at a time; the sample's
    ids are in memory. Raises BadRequest or NotPermitted where no question can be answered, TryAgain when the
    endpoint is down, BadData where there is no document.
    """
    request = parse(LabelTopicsRequest, job.request)
    at = chat_endpoint.settings()
    corpus = list(job.store.shards(request.corpus))
    sample = drawn(job, request, corpus)
    if not sample:
        languages = ", ".join(request.languages)
        raise BadData(f"label-topics: no document of {languages} and of kind {request.kinds} is left to label")
    estimate, wanted = afforded(job, request, corpus, sample)
    journal = Journal(job, sample)
    job.log("label-estimate", model=request.model, alreadyAnswered=len(journal.entries), **estimate)
    if not wanted:
        raise BadRequest(f"label-topics: maxTokens {request.max_tokens} pays for no document; expected more")
    with ChatEndpoint(at, request.model) as endpoint:
        asking = Asking(job, request, endpoint, journal)
        asking.ask_all(texts(request, corpus, wanted), len(wanted), at.concurrency)
    attempt = job.attempt()
    refs = written(attempt, corpus, sample, journal)
    job.commit(attempt, {**refs, "estimate": estimate, "counts": counted(sample, journal)})


def drawn(job: Job, request: LabelTopicsRequest, corpus: list[Path]) -> list[Chosen]:
    """The sample, in the order in which it is worth its money: of every language and source one in turn, by hash."""
    drops = [list(job.store.shards(d)) for d in request.drops]
    best: defaultdict[tuple[str, str], list[tuple[float, int, int, str]]] = defaultdict(list)
    for shard, path in enumerate(corpus):
        job.beat("label-topics: drawing", shard, len(corpus), "shards")
        mask = keep_mask(path, [d[shard] for d in drops])
        for row, doc in enumerate(read_rows(path, ["id", "language", "kind", "source"])):
            if mask[row] and doc["language"] in request.languages and doc["kind"] in request.kinds:
                heap = best[doc["language"], doc["source"]]
                candidate = (-share_of(request.seed, doc["id"]), shard, row, doc["id"])
                if len(heap) < request.docs_per_language:
                    heapq.heappush(heap, candidate)
                else:
                    heapq.heappushpop(heap, candidate)
    turns: defaultdict[str, list[tuple[int, float, int, int, str]]] = defaultdict(list)
    for (language, _), heap in best.items():
        turns[language] += [
            (turn, -share, shard, row, id) for turn, (share, shard, row, id) in enumerate(sorted(heap, reverse=True))
        ]
    ranked = [
        (place, language, shard, row, id)
        for language, of in turns.items()
        for place, (_, _, shard, row, id) in enumerate(sorted(of)[: request.docs_per_language])
    ]
    return [Chosen(n, language, shard, row, id) for n, (_, language, shard, row, id) in enumerate(sorted(ranked))]


def afforded(
    job: Job, request: LabelTopicsRequest, corpus: list[Path], sample: list[Chosen]
) -> tuple[Json, list[Chosen]]:
    """What asking is expected to cost, and the first documents of the sample that the budget pays for."""
    around = {
        language: num_tokens(messages(request.prompt, of.topics, "", mark_of(0, "", ""), again=False))
        for language, of in request.languages.items()
    }
    cost = [0] * len(sample)
    for i, (chosen, text) in enumerate(texts(request, corpus, sample)):
        cost[chosen.number] = around[chosen.language] + estimated_tokens(text)
        if i % 256 == 0:
            job.beat("label-topics: estimating", i, len(sample), "documents")
    prompt_tokens, docs = 0, 0
    for tokens in cost:
        if prompt_tokens + tokens + (docs + 1) * ANSWER_TOKENS > request.max_tokens:
            break
        prompt_tokens, docs = prompt_tokens + tokens, docs + 1
    estimate = {"docs": docs, "promptTokens": prompt_tokens, "completionTokens": docs * ANSWER_TOKENS}
    return estimate, sample[:docs]


def num_tokens(question: list[Json]) -> int:
    """About how many tokens a question has."""
    return sum(estimated_tokens(m["content"]) for m in question)


def texts(request: LabelTopicsRequest, corpus: list[Path], wanted: list[Chosen]) -> Iterator[tuple[Chosen, str]]:
    """The documents in corpus order with what is sent of their texts, a row group in memory."""
    by_shard: defaultdict[int, dict[int, Chosen]] = defaultdict(dict)
    for chosen in wanted:
        by_shard[chosen.shard][chosen.row] = chosen
    for shard in sorted(by_shard):
        for row, doc in enumerate(read_rows(corpus[shard], ["text"])):
            if found := by_shard[shard].get(row):
                yield found, sent(doc["text"], request.max_doc_chars)


class Journal:
    """Answers by their document's place in the sample: put into the store one by one, durable before the next."""

    def __init__(self, job: Job, sample: list[Chosen]) -> None:
        self._backend = job.store.backend
        self._prefix = f"checkpoints/{job.fingerprint[:2]}/{job.fingerprint}/"
        self.entries: dict[int, Json] = {}
        for i, key in enumerate(self._backend.list(self._prefix)):
            entry: Any = json.loads(self._backend.get(key) or b"{}")
            number = int(Path(key).stem)
            if number >= len(sample) or entry.get("id") != sample[number].id:
                raise StoreCorrupt(f"label-topics: {self._backend.where(key)} is no answer of this sample; remove it")
            self.entries[number] = cast(Json, entry)
            job.beat("label-topics: reading answers", i, len(sample), "documents")

    def put(self, chosen: Chosen, entry: Json) -> None:
        """Keeps an answer."""
        data = json.dumps({"format": "cpt-label/1", "id": chosen.id, **entry}, ensure_ascii=False).encode()
        self._backend.put_if_absent(f"{self._prefix}{chosen.number:08d}.json", data)
        self.entries[chosen.number] = entry
        failpoint("answer-kept")

    @property
    def tokens(self) -> int:
        """What all answers have cost."""
        return sum(e["promptTokens"] + e["completionTokens"] for e in self.entries.values())


class Asking:
    """Questions in flight, and their answers on the way into the journal."""

    def __init__(self, job: Job, request: LabelTopicsRequest, endpoint: ChatEndpoint, journal: Journal) -> None:
        self.job = job
        self.request = request
        self.endpoint = endpoint
        self.journal = journal
        self._spent = journal.tokens
        self._works = any(e["label"] is not None for e in journal.entries.values())
        self._failed: list[tuple[Chosen, Json]] = []

    def ask_all(self, documents: Iterator[tuple[Chosen, str]], total: int, width: int) -> None:
        """Asks about what has no answer, `width` at a time, while the budget lasts.

        Raises BadRequest where the first answers are all unusable: then it is not the documents.
        """
        left = (d for d in documents if d[0].number not in self.journal.entries)
        with ThreadPoolExecutor(width) as threads:
            while batch := list(islice(left, ROUND * width)):
                if not self._round(threads, batch, total, width):
                    self.job.log("label-budget-spent", tokens=self._spent, maxTokens=self.request.max_tokens)
                    break
                self.job.check_pause()
        if self._failed:
            raise self._nothing_usable()

    def _round(self, threads: ThreadPoolExecutor, batch: list[tuple[Chosen, str]], total: int, width: int) -> bool:
        """Whether the budget lasted for all of them."""
        waiting = batch[::-1]
        flying: dict[Future[Json], Chosen] = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < width and self._spent < self.request.max_tokens:
                    chosen, text = waiting.pop()
                    flying[threads.submit(self._label, chosen, text)] = chosen
                if not flying:
                    return False
                self._keep(flying, BEAT_SECONDS)
                self.job.beat("label-topics: asking", len(self.journal.entries), total, "documents", tokens=self._spent)
        except BaseException:
            # what is on its way back is paid for
            self.endpoint.leaving.set()
            while flying:
                with contextlib.suppress(Exception):
                    self._keep(flying, None)
            raise
        return True

    def _keep(self, flying: dict[Future[Json], Chosen], timeout: float | None) -> None:
        """Takes in the answers that are there. Raises what stopped a question, once the others are kept."""
        done, _ = wait(flying, timeout, FIRST_COMPLETED)
        stopped: BaseException | None = None
        for future in done:
            chosen, error = flying.pop(future), future.exception()
            if error is None:
                self._take(chosen, future.result())
            elif not isinstance(error, Interrupted):
                stopped = error
        if stopped is not None:
            raise stopped
        if not self._works and len(self._failed) >= FIRST_ANSWERS:
            raise self._nothing_usable()

    def _take(self, chosen: Chosen, entry: Json) -> None:
        """Keeps an answer; until one is a label, the others may be the endpoint's fault, and are not kept."""
        self._spent += entry["promptTokens"] + entry["completionTokens"]
        self._works = self._works or entry["label"] is not None
        if not self._works:
            self._failed.append((chosen, entry))
            return
        for of, earlier in (*self._failed, (chosen, entry)):
            self.journal.put(of, earlier)
        self._failed = []

    def _nothing_usable(self) -> BadRequest:
        reasons = Counter(e["reason"] for _, e in self._failed)
        return BadRequest(
            f"label-topics: none of the first {len(self._failed)} documents got a label ({dict(reasons)}); expected"
            f" {self.request.model} at CPT_LABEL_URL to know response_format json_schema and to answer with a label"
        )

    def _label(self, chosen: Chosen, text: str) -> Json:
        """The journal's entry of a document: its label, or why it has none."""
        request, labels = self.request, self.request.languages[chosen.language].topics
        mark = mark_of(request.seed, chosen.id, text)
        entry: Json = {"label": None, "reason": UNREADABLE, "answer": None}
        entry |= {"requests": 0, "retries": 0, "promptTokens": 0, "completionTokens": 0}
        for number in range(TRIES_A_DOCUMENT):
            question = messages(request.prompt, labels, text, mark, again=number > 0)
            try:
                answer = self.endpoint.ask(question, schema(labels))
            except QuestionRefused as e:
                return {**entry, "reason": str(e)}
            entry["requests"] += 1
            entry["retries"] += answer.retries
            # an endpoint that does not count is counted for, or the budget would not hold
            entry["promptTokens"] += answer.prompt_tokens or num_tokens(question)
            entry["completionTokens"] += answer.completion_tokens or estimated_tokens(answer.text or "")
            entry["answer"] = (answer.text or "")[:KEPT_ANSWER_CHARS]
            if label := label_in(answer.text, labels):
                return {**entry, "label": label, "reason": None, "answer": None}
        return entry


def counted(sample: list[Chosen], journal: Journal) -> Json:
    """What was asked, what came of it, and what it cost."""
    answers = [(c, journal.entries[c.number]) for c in sample if c.number in journal.entries]
    by_topic = Counter(f"{c.language}/{e['label']}" for c, e in answers if e["label"] is not None)
    by_reason = Counter(e["reason"] for _, e in answers if e["label"] is None)
    sums = {k: sum(e[k] for _, e in answers) for k in ("requests", "retries", "promptTokens", "completionTokens")}
    return {
        "sampled": len(sample),
        "labelled": by_topic.total(),
        "quarantined": by_reason.total(),
        "unasked": len(sample) - len(answers),
        **sums,
        "byReason": dict(sorted(by_reason.items())),
        "byTopic": dict(sorted(by_topic.items())),
    }


def written(attempt: Attempt, corpus: list[Path], sample: list[Chosen], journal: Journal) -> Json:
    """Writes the sidecar of every shard, and the quarantine; returns their references."""
    found: defaultdict[int, dict[int, str]] = defaultdict(dict)
    quarantine: list[Json] = []
    for chosen in sample:
        entry = journal.entries.get(chosen.number)
        if entry and entry["label"] is not None:
            found[chosen.shard][chosen.row] = entry["label"]
        elif entry:
            told = {"reason": entry["reason"], "answer": entry["answer"]}
            quarantine.append({"language": chosen.language, "id": chosen.id, **told})
    shards: list[Json] = []
    for shard, path in enumerate(corpus):
        rows, name = num_rows(path), f"labels-{shard:05d}.parquet"
        write_columns(attempt.path(name), LABELS, [pa.array([found[shard].get(r) for r in range(rows)], pa.string())])
        shards.append(attempt.shard(name, rows))
    write_rows(attempt.path("quarantine.parquet"), QUARANTINE, quarantine)
    return {"labels": write_manifest(attempt, "labels", shards), "quarantine": attempt.ref("quarantine.parquet")}
