"""filter: each rule drops what it is for, and spares what looks like it."""

from __future__ import annotations

import pytest
from conftest import Workbench
from documents import PROSE, PROSE_ZH, bytes_of, corpus_of, doc, request, rows

from cpt_ml.contract import parse
from cpt_ml.filter import FilterRequest, judge
from cpt_ml.store import Json

RULES = parse(FilterRequest, request("filter")).rules

DROPPED = {
    "too-short": "Almost immediately after leaving the harbour",
    "garbled": PROSE_ZH.encode().decode("latin-1").replace("\x81", "\ufffd"),
    "duplicate-lines": "\n".join(f"user{i} posted on 2020-01-{i}\nnice post, thanks" for i in range(10, 30)),
    "boilerplate": "Skip to main content\nSign in\nAccept all cookies\nShare on Facebook\nBack to top\n"
    "Terms of use\nPrivacy policy\nClick here to subscribe to our newsletter",
    "few-distinct-words": ", ".join(["buy now", "cheap", "discount", "online"] * 40),
    "top-ngram": " ".join(f"{c} and then" for c in "abcdefghijklmnopqrstuvwxyz"),
    "symbols": "a+b*c/(d-e)^{f}<=>[g]!=|h|&&~i;" * 3 + " one two three four five six seven eight nine ten",
    "not-alphabetic": " ".join(f"{w} {10**15 + i}" for i, w in enumerate(PROSE.split())),
}
KEPT = {
    "prose": PROSE,
    "Chinese prose": PROSE_ZH,
    "a quatrain": "静夜思\n床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
    "mathematics": "Let $f(x)=x^2+1$. Then $f'(x)=2x$, so $f$ has its only minimum at $x=0$, where $f(0)=1$; hence "
    "$f(x)\\ge 1$ for all real $x$, and equality holds only there.",
    "a question mark at the end": "Who wrote this? Nobody knows. " + PROSE,
}


@pytest.mark.parametrize("reason", DROPPED)
def test_each_rule_drops_what_it_is_for(reason: str) -> None:
    assert judge(DROPPED[reason], "web", RULES)["reason"] == reason


@pytest.mark.parametrize("what", KEPT)
def test_good_text_of_every_sort_is_kept(what: str) -> None:
    assert judge(KEPT[what], "web", RULES)["keep"]


def test_code_is_judged_by_the_rules_of_code() -> None:
    braces = "\n".join(f"    if (left[{i}] != right[{i}]) {{ [&]() {{ sum += !f(1, 2); }}(); }}" for i in range(20))
    assert judge(braces, "code", RULES)["keep"]
    assert not judge(braces, "web", RULES)["keep"]
    assert judge("x = 1\n" * 30 + "y" * 2000, "code", RULES) == {
        "keep": False,
        "reason": "code-line-length",
        "evidence": "2000",
    }


def test_verdicts_are_row_aligned_and_counted_by_reason(workbench: Workbench) -> None:
    docs = [doc("a", PROSE), doc("b", "too short"), doc("c", PROSE_ZH, lang="zh"), doc("d", "short, too")]
    result = run(workbench, docs)
    assert rows(workbench, result["verdicts"]) == [
        {"keep": True, "reason": None, "evidence": None},
        {"keep": False, "reason": "too-short", "evidence": "2"},
        {"keep": True, "reason": None, "evidence": None},
        {"keep": False, "reason": "too-short", "evidence": "2"},
    ]
    assert result["counts"] == {
        "docs": 4,
        "kept": 2,
        "byReason": {"too-short": 2},
        "byLanguage": {"en": 1, "zh": 1},
    }


def test_the_same_corpus_gives_the_same_bytes(workbench: Workbench) -> None:
    docs = [doc(name, text) for name, text in (*DROPPED.items(), *KEPT.items())]
    first = bytes_of(workbench, run(workbench, docs)["verdicts"])
    assert bytes_of(workbench, run(workbench, docs)["verdicts"]) == first


def run(workbench: Workbench, docs: list[Json]) -> Json:
    return workbench.run("filter", request("filter", corpus=corpus_of(workbench, docs)))
