"""filter: each rule drops what it is for, and spares what looks like it."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, Workbench
from documents import PROSE, PROSE_ZH, bytes_of, corpus_of, doc, ingest, json_lines, request, rows, source
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt_ml import filter_rules
from cpt_ml.contract import parse
from cpt_ml.filter import BATCH_CHARS, FilterRequest, judge, verdicts_of
from cpt_ml.filter_rules import Facts, FilterRules
from cpt_ml.store import Json
from cpt_ml.text_columns import TextColumns
from cpt_ml.words import words

RULES = parse(FilterRequest, request("filter")).rules
VERDICTS: list[Json] = json.loads((Path(__file__).parent / "filter_verdicts.json").read_bytes())
GROUPS: Json = json.loads((FIXTURES.parent / "filter-groups.json").read_bytes())
SIZES = {"minLineWords", "shortLineChars", "chars"}  # of what a rule counts, not whether it is on
# every rule off, so that one alone can be on
OFF: Json = {
    "minCharsHan": 0,
    "minWords": 0,
    "maxSymbolRatio": 1,
    "minAlphabeticRatio": 0,
    "maxDuplicateLineRatio": 1,
    "maxTopNgramRatio": 1,
    "minDistinctWordRatio": 0,
    "maxBoilerplateLineRatio": 1,
    "maxGarbledRatio": 1,
    "minCodeAlphabeticRatio": 0,
    "maxCodeLineChars": 10**9,
}


def rules_of(change: Json) -> FilterRules:
    """Only what `change` sets is on; of a group that it names, only the thresholds that it sets."""
    groups: Json = {}
    for group in change.keys() & GROUPS.keys():
        off = {key: False if isinstance(value, bool) else None for key, value in GROUPS[group].items()}
        groups[group] = {**off, **{key: GROUPS[group][key] for key in SIZES & off.keys()}, **change[group]}
    return parse(FilterRequest, request("filter", rules={**OFF, **change, **groups})).rules


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


def test_chinese_that_was_read_in_the_wrong_encoding_is_garbled() -> None:
    wrong = PROSE_ZH.encode().decode("gb18030", "ignore")
    assert judge(wrong, "web", RULES, "zh")["reason"] == "garbled"


@pytest.mark.parametrize("case", VERDICTS, ids=lambda c: c["rule"])
def test_a_rule_drops_beyond_its_threshold_and_not_at_it(case: Json) -> None:
    rules = rules_of(case["rules"])

    def verdict(text: str) -> Json:
        return judge(text, case["kind"], rules, case["language"])

    assert verdict(case["passes"])["keep"]
    assert verdict(case["at"])["keep"]
    assert verdict(case["fails"]) == {"keep": False, "reason": case["rule"], "evidence": case["evidence"]}
    facts = Facts([case["at"]], [case["kind"]], [case["language"]], rules)
    named = [r for r in filter_rules.RULES if r.name == case["rule"] and r.limit(rules) is not None]
    rule = next(r for r in named if r.applies(facts).any())
    assert rule.measure(facts)[0] == rule.limit(rules)


def test_languages_that_are_written_alike_count_as_one_and_text_without_letters_as_none() -> None:
    strict = rules_of({"language": {"kinds": ["web"], "maxOtherProbability": 0, "chars": 300}})
    assert judge("阿拉上海人讲闲话，侬晓得伐？伊拉勿来。", "web", strict, "zh")["keep"]
    assert judge("12 34, 56!", "web", strict, "en")["keep"]
    assert judge("Das Wetter war schlecht.", "web", strict, "en")["evidence"].startswith("de ")


def test_every_rule_has_a_verdict_on_record() -> None:
    assert {c["rule"] for c in VERDICTS} == {r.name for r in filter_rules.RULES}


def test_rules_of_a_group_leave_other_kinds_alone() -> None:
    listed = "- one\n- two"
    on = rules_of({"gopher": {"kinds": ["web"], "maxBulletLineRatio": 0.5}})
    assert not judge(listed, "web", on)["keep"]
    assert judge(listed, "book", on)["keep"]


TEXT = st.text(st.sampled_from("ab c.\n-Ⅳ'’1,中文。\U0001f600\u3000\ufffd{_"), max_size=60)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, st.sampled_from(["web", "code"])), min_size=1, max_size=6))
def test_a_document_is_judged_the_same_alone_and_beside_others(docs: list[tuple[str, str]]) -> None:
    rules = parse(FilterRequest, request("filter", rules=everything_on())).rules
    together = verdicts_of([{"text": t, "kind": k, "language": "zh"} for t, k in docs], rules)
    assert together == [judge(t, k, rules, "zh") for t, k in docs]


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_columns_have_the_words_lines_and_paragraphs_of_the_texts(texts: list[str]) -> None:
    columns = TextColumns(texts)

    def pieces(segments: Any) -> list[list[str]]:
        found: list[list[str]] = [[] for _ in texts]
        for d, a, b in zip(
            segments.doc,
            segments.start - columns.starts[segments.doc],
            segments.end - columns.starts[segments.doc],
            strict=True,
        ):
            found[d].append(texts[d][a:b])
        return found

    assert [[w.lower() for w in of] for of in pieces(columns.words)] == [words(t) for t in texts]
    assert pieces(columns.raw_lines) == [t.split("\n") for t in texts]
    assert pieces(columns.lines) == [[s for line in t.split("\n") if (s := line.strip())] for t in texts]
    stripped = [
        [p for p in t.strip().replace("\n\n\n", "\n\n").replace("\n\n\n", "\n\n").split("\n\n") if p] for t in texts
    ]
    assert ["".join(p).replace("\n", "") for p in pieces(columns.paragraphs)] == [
        "".join(p).replace("\n", "") for p in stripped
    ]
    assert ["".join(p) for p in pieces(columns.tokens)] == ["".join(t.split()) for t in texts]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=60),
    st.lists(st.text("cde ", max_size=30), max_size=2),
)
def test_repeated_n_grams_are_those_of_a_plain_count(letters: list[str], others: list[str]) -> None:
    limits = {"maxTopGramRatios": [0, 0, 0], "maxDuplicateGramRatios": [0] * 6}
    text = " ".join(letters)
    facts = Facts(
        [*others, text],
        ["web"] * (len(others) + 1),
        ["en"] * (len(others) + 1),
        rules_of({"gopher": {"kinds": ["web"], **limits}}),
    )
    for n in (2, 3, 4):
        counts = Counter(" ".join(letters[i : i + n]) for i in range(len(letters) - n + 1))
        gram, most = counts.most_common(1)[0] if counts else ("", 0)
        assert facts.gram_ratios["top", n][-1] == (len(gram) * most / len(text) if most > 1 else 0)
    for n in range(5, 11):
        assert facts.gram_ratios["duplicate", n][-1] == repeated_chars(letters, n) / len(text)


def repeated_chars(tokens: list[str], n: int) -> int:
    """Gopher's duplicate n-grams as datatrove counts them: each one found is skipped as a whole."""
    seen: set[tuple[str, ...]] = set()
    at = chars = 0
    while at + n <= len(tokens):
        gram = tuple(tokens[at : at + n])
        chars += len("".join(gram)) if gram in seen else 0
        at += n if gram in seen else 1
        seen.add(gram)
    return chars


def everything_on() -> Json:
    """All rules, for web and code, at thresholds that random text is on both sides of."""
    groups: Json = {}
    for group, rules in GROUPS.items():
        groups[group] = {key: value if isinstance(value, bool | list) else 1 for key, value in rules.items()}
        groups[group] |= {key: 0.4 for key in rules if key.endswith("Ratio")}
        groups[group] |= {"kinds": ["web", "code"]} if "kinds" in rules else {}
    del groups["language"]  # it has its own tests, and takes its time
    groups["gopher"] |= {"maxDuplicateGramRatios": [0.1] * 6, "maxWords": 8, "maxMeanWordChars": 3}
    groups["c4"] |= {"maxWordChars": 8}
    groups["fineweb"] |= {"shortLineChars": 5}
    return {**request("filter")["rules"], "minWords": 2, "minCharsHan": 2, **groups}


def test_a_document_longer_than_a_batch_is_judged_as_a_whole(workbench: Workbench) -> None:
    long = "\n".join(f"{i} {PROSE}" for i in range(BATCH_CHARS // len(PROSE) + 10))
    result = run(workbench, [doc("a", PROSE), doc("b", long), doc("c", PROSE)])
    assert [r["reason"] for r in rows(workbench, result["verdicts"])] == [None, "duplicate-lines", None]


def test_a_long_text_takes_at_most_80_bytes_of_memory_a_byte() -> None:
    """So one of 16 MiB, the longest that ingest lets through, takes at most 1.5 GB with all rules on."""
    rules = parse(FilterRules, everything_on())
    peaks: dict[int, int] = {}
    for size in (30_000, 150_000, 450_000):
        words_there = enumerate(islice(cycle(PROSE.split()), size // 6))
        text = " ".join(f"{word}{i % 5}" + ("," if i % 9 else ".\n") for i, word in words_there)
        facts = Facts([text], ["web"], ["en"], rules)
        if peaks:  # the first one makes tables that stay
            tracemalloc.start()
        for rule in filter_rules.RULES:
            if rule.limit(rules) is not None:
                rule.measure(facts)
        peaks[len(text)] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    _, (small, less), (large, more) = sorted(peaks.items())
    assert (more - less) / (large - small) <= 80


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


def test_a_clean_source_is_kept_as_it_is_and_dedup_still_looks_at_it(workbench: Workbench) -> None:
    garbage = [doc("g", "!!! ### !!!"), doc("p", PROSE)]
    raw = source(workbench, "raw", json_lines(garbage))
    clean = source(workbench, "clean", json_lines(garbage), clean=True)
    corpus = ingest(workbench, raw, clean)["corpus"]
    result = workbench.run("filter", request("filter", corpus=corpus))
    assert [(r["keep"], r["reason"] is None) for r in rows(workbench, result["verdicts"])] == [
        (False, False), (True, True), (True, True), (True, True),
    ]  # fmt: skip
    deduplicated = workbench.run("dedup", request("dedup", corpus=corpus, drops=[result["verdicts"]]))
    assert [r["keep"] for r in rows(workbench, deduplicated["verdicts"])] == [True, True, True, False]
