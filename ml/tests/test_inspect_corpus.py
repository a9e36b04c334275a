"""inspect_corpus: one document with all that was decided about it, found by its name, its line or its fate."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, doc, json_lines, request, rows, source
from tiny import make_model, make_tokenizer

from cpt_ml.contract import parse
from cpt_ml.inspect_corpus import Find, InspectRequest, inspect
from cpt_ml.store import Json

ANY = Find(id=None, count=5, seed=0, step=None, reason=None, kept=False, source=None, language=None)
NEWS = [doc("a", PROSE), doc("b", PROSE), doc("c", PROSE_ZH, lang="zh"), doc("d", "too short")]
WIKI = [doc(str(i), f"{PROSE} The note of evening number {i} was lost in the storm.") for i in range(9)]


class Prepared:
    """Two sources through filter, dedup, tokenize and score-ppl, in shards of three documents."""

    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench
        news = source(workbench, "news", json_lines(NEWS) + b"not json\n")
        asked = {"sources": [news, source(workbench, "wiki", json_lines(WIKI))], "maxQuarantineRatio": 1.0}
        made = workbench.run("ingest", {**asked, "shardDocs": 3})
        self.corpus = made["corpus"]
        filtered = workbench.run("filter", request("filter", corpus=self.corpus))["verdicts"]
        self.dedup = workbench.run("dedup", request("dedup", corpus=self.corpus, drops=[filtered]))["verdicts"]
        tokenizer = make_tokenizer(workbench)
        asked = {"corpus": self.corpus, "drops": [filtered, self.dedup], "tokenizer": tokenizer}
        tokenized = workbench.run("tokenize", request("tokenize", **asked))
        self.index, self.tokens = tokenized["index"], tokenized["tokens"]
        asked = {"tokens": self.tokens, "index": self.index, "scorer": make_model(workbench)}
        self.scores = workbench.run("score-ppl", request("score-ppl", **asked))["scores"]
        steps = [{"stage": "filter", "verdicts": filtered}, {"stage": "dedup", "verdicts": self.dedup}]
        pool = {"corpus": self.corpus, "quarantine": made["quarantine"], "steps": steps, "topics": None}
        self.pools = [{**pool, "index": self.index, "scores": self.scores}]

    def ask(self, find: Find, plans: list[Json] | None = None) -> Json:
        asked = {"roots": self.workbench.roots, "pools": self.pools, "plans": plans or [], "validation": []}
        return inspect(parse(InspectRequest, {**asked, "find": asdict(find)}))

    def one(self, id: str) -> Json:
        (found,) = self.ask(replace(ANY, id=id))["documents"]
        return found


@pytest.fixture
def prepared(workbench: Workbench) -> Prepared:
    return Prepared(workbench)


def test_a_document_has_its_verdicts_with_their_reasons_and_what_it_was_kept_instead_of(prepared: Prepared) -> None:
    kept, copy, short = (prepared.one(f"news:{id}") for id in "abd")
    assert (kept["text"], kept["source"], kept["line"]) == (PROSE, "news", 1)
    assert [(v["stage"], v["keep"], v["reason"]) for v in copy["verdicts"]] == [
        ("filter", True, None),
        ("dedup", False, "exact-duplicate"),
    ]
    assert copy["verdicts"][1]["evidence"] == "news:a"
    assert short["verdicts"][0]["reason"] == "too-short"
    assert copy["verdicts"][1]["cluster"] == kept["verdicts"][1]["cluster"]
    size, ids = copy["verdicts"][1]["cluster"]["size"], copy["verdicts"][1]["cluster"]["ids"]
    assert size == len(ids)
    assert {"news:a", "news:b"} <= set(ids)


def test_its_tokens_and_perplexity_are_those_of_the_sidecars(prepared: Prepared) -> None:
    every = rows(prepared.workbench, prepared.corpus)
    place = next(i for i, row in enumerate(every) if row["id"] == "news:c")
    found = prepared.one("news:c")
    index, score = (rows(prepared.workbench, ref)[place] for ref in (prepared.index, prepared.scores))
    assert found["tokens"] == {"offset": index["offset"], "count": index["num_tokens"], "bytes": len(PROSE_ZH.encode())}
    assert found["nll"] == pytest.approx(score["nll"])
    assert found["scoredTokens"] == score["num_tokens"] > 0
    assert math.isfinite(found["nll"])
    assert prepared.one("news:d")["nll"] is None


def test_a_document_is_found_by_its_line_too_and_a_line_that_could_not_be_read_is_told(prepared: Prepared) -> None:
    assert prepared.one("news:3")["id"] == "news:c"
    # the id of a document goes before the line of another
    assert prepared.one("wiki:3")["line"] == 4
    found = prepared.ask(replace(ANY, id="news:5"))
    assert found["documents"] == []
    assert [(q["line"], q["reason"]) for q in found["quarantined"]] == [(5, "not-json")]
    nothing = prepared.ask(replace(ANY, id="web:5"))
    assert (nothing["documents"], nothing["quarantined"], nothing["sources"]) == ([], [], ["news", "wiki"])


def test_a_document_is_found_where_it_lies(prepared: Prepared) -> None:
    assert prepared.one("@2/1")["id"] == "wiki:1"
    assert prepared.one("@2/1")["place"] == {"pool": 0, "shard": 2, "row": 1}
    for nowhere in ("@1/1", "@99/0", "@1", "@-1/0"):
        assert prepared.ask(replace(ANY, id=nowhere))["documents"] == []


def test_a_sample_is_of_those_that_fit_and_another_seed_draws_others(prepared: Prepared) -> None:
    dropped = prepared.ask(replace(ANY, step="filter", reason="too-short"))
    assert [d["id"] for d in dropped["documents"]] == ["news:d"]
    assert (dropped["fitting"], dropped["looked"]) == (1, 13)
    assert prepared.ask(replace(ANY, step="filter", reason="garbled"))["documents"] == []
    wiki = [d["id"] for d in prepared.ask(replace(ANY, source="wiki", count=100))["documents"]]
    assert wiki == [f"wiki:{i}" for i in range(9)]
    assert [d["id"] for d in prepared.ask(replace(ANY, language="zh"))["documents"]] == ["news:c"]
    kept = prepared.ask(replace(ANY, kept=True, count=100))
    assert all(v["keep"] for d in kept["documents"] for v in d["verdicts"])
    judged = {
        d["id"] for step in ("filter", "dedup") for d in prepared.ask(replace(ANY, step=step, count=99))["documents"]
    }
    assert len(kept["documents"]) + len(judged) == 13
    drawn = [tuple(d["id"] for d in prepared.ask(replace(ANY, count=3, seed=s))["documents"]) for s in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_what_plans_drew_of_a_document_is_told_in_their_order(prepared: Prepared) -> None:
    index = rows(prepared.workbench, prepared.index)
    tokens = sum(r["num_tokens"] for r in index)
    strata = [{"language": language, "kind": "web", "topic": None, "ratio": 0.5} for language in ("en", "zh")]
    asked = {
        "pools": [{"corpus": prepared.corpus, "tokens": prepared.tokens, "index": prepared.index, "topics": None}],
        "tokenizer": make_tokenizer(prepared.workbench),
        "strata": strata,
        "tokenBudget": 64,
        "sequenceTokens": 16,
        "order": "random",
        "previous": None,
        "band": {"fromTokens": 0, "toTokens": 64, "totalTokens": max(64, tokens)},
    }
    asked["pools"][0]["scores"] = None  # type: ignore[index]
    plan = prepared.workbench.run("sample-mixture", request("sample-mixture", **asked))["plan"]
    (found,) = prepared.ask(replace(ANY, id="news:c"), [plan, plan])["documents"]
    assert [d["plan"] for d in found["drawn"]] == [1, 2]
    assert found["drawn"][0]["tokens"] == sum(p["length"] for p in found["drawn"][0]["pieces"]) > 0
    (dropped,) = prepared.ask(replace(ANY, id="news:d"), [plan])["documents"]
    assert dropped["drawn"] == []


def test_a_shard_that_is_damaged_is_said_so_and_nothing_of_it_is_shown(prepared: Prepared) -> None:
    path = prepared.workbench.shards(prepared.scores)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)
    asked: dict[str, Any] = {"roots": prepared.workbench.roots, "pools": prepared.pools, "plans": [], "validation": []}
    done = subprocess.run(
        [sys.executable, "-m", "cpt_ml.inspect_corpus"],
        cwd=Path(__file__).parents[1],
        input=json.dumps({**asked, "find": asdict(replace(ANY, id="news:a"))}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "has sha256" in json.loads(done.stdout)["error"]
