"""filter: named rules that drop documents no model should learn from (after Gopher, C4 and YuLan-GARDEN)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, RowWriter, dropped, kept, read_rows
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.words import num_han, words

ROWS_PER_BEAT = 500
DISTINCT_SPAN = 400  # words; longer texts repeat themselves by nature
BOILERPLATE_LINE_CHARS = 120

# a question mark between letters is what a lossy conversion leaves of a character; □ is not here, since editors of
# old Chinese books write it for characters that are lost
_DAMAGED = re.compile("[\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff■]|(?<=[^\\W\\d_])\\?(?=[^\\W\\d_])")
_LATIN_MOJIBAKE = re.compile(
    "[\u00c2\u00c3\u00e2-\u00ef][\ufffd\u00a0-\u00bf\u2018-\u203a\u20ac\u0152-\u017e\u02c6\u02dc]"
)
_NOT_ASCII = re.compile("[\u0080-\U0010ffff]+")
_NOT_SYMBOLS = re.compile(r"[\w\s]+")
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_DIGITS = re.compile(r"\d+")
_BOILERPLATE = re.compile(
    r"cookies?\b|privacy policy|terms of (use|service)|all rights reserved|sign (in|up)\b|log ?in\b|subscribe"
    r"|newsletter|(share|follow us) on|tweet this|click here|back to top|skip to|(next|previous|print this) page"
    r"|cart \(\d|add to cart"
    r"|^register|^contact( us)?$|^careers$|^press$|advertisement|download our app|javascript|copyright ©"
    r"|网站地图|版权所有|翻版必究|立即购买|^登录|^注册|客服热线|猜你喜欢|限时优惠|关注(微信)?公众号|相关阅读|上一篇|下一篇"
    r"|免责声明|隐私政策|加入购物车|联系我们|返回顶部|下载(本站)?app|备案号|招聘信息|扫一扫|点击(这里|此处|查看|下载)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FilterRules:
    """Thresholds of the rules; a document is dropped by the first one it breaks."""

    min_chars_han: int
    min_words: int
    max_symbol_ratio: float
    min_alphabetic_ratio: float
    max_duplicate_line_ratio: float
    max_top_ngram_ratio: float
    min_distinct_word_ratio: float
    max_boilerplate_line_ratio: float
    max_garbled_ratio: float
    min_code_alphabetic_ratio: float
    max_code_line_chars: int


@dataclass(frozen=True)
class FilterRequest:
    """The stage's request."""

    corpus: ArtifactRef
    rules: FilterRules


@dataclass(frozen=True)
class Text:
    """A document as the rules look at it."""

    text: str
    words: list[str]
    lines: list[str]
    han: int

    @staticmethod
    def of(text: str) -> Text:
        return Text(text, words(text), [s for line in text.split("\n") if (s := line.strip())], num_han(text))


# a rule gives the measured value when a document breaks it, else None
Rule = Callable[[Text, FilterRules], float | None]


def too_short(t: Text, rules: FilterRules) -> float | None:
    """Under 20 tokens (arXiv:2412.17743): a quatrain of classical Chinese has 20 characters and stays."""
    limit = rules.min_chars_han if 2 * t.han > len(t.words) else rules.min_words
    return len(t.words) if len(t.words) < limit else None


def garbled(t: Text, rules: FilterRules) -> float | None:
    """Characters that betray a wrong decoding, as a share of all."""
    marks = len(_DAMAGED.findall(t.text)) + len(_LATIN_MOJIBAKE.findall(t.text))
    ratio = marks / len(t.text)
    if ratio > rules.max_garbled_ratio:
        return ratio
    recovered = _gbk_mojibake(t.text) / len(t.text)
    return recovered if recovered > 0.2 else None


def symbols(t: Text, rules: FilterRules) -> float | None:
    """Characters that are neither letters, digits nor white space, as a share of all."""
    ratio = len(_NOT_SYMBOLS.sub("", t.text)) / len(t.text)
    return ratio if ratio > rules.max_symbol_ratio else None


def alphabetic(t: Text, rules: FilterRules) -> float | None:
    """Letters (Han characters too) as a share of what is not white space."""
    ratio = _alphabetic_ratio(t.text)
    return ratio if ratio < rules.min_alphabetic_ratio else None


def duplicate_lines(t: Text, rules: FilterRules) -> float | None:
    """Characters in lines that stood there before, numbers apart, as a share of all lines' characters."""
    seen: set[str] = set()
    repeated = total = 0
    for line in t.lines:
        shape = _DIGITS.sub("0", line.lower())
        total += len(shape)
        repeated += len(shape) if shape in seen else 0
        seen.add(shape)
    return repeated / total if repeated > rules.max_duplicate_line_ratio * total else None


def top_ngram(t: Text, rules: FilterRules) -> float | None:
    """Words covered by the most frequent pair of words, as a share of all."""
    pairs = Counter(zip(t.words, t.words[1:], strict=False))
    ratio = 2 * max(pairs.values(), default=0) / max(1, len(t.words))
    return ratio if ratio > rules.max_top_ngram_ratio else None


def few_distinct_words(t: Text, rules: FilterRules) -> float | None:
    """Different words, numbers apart, among the first 400: lists of keywords and generated markup have few."""
    span = _DIGITS.sub("0", " ".join(t.words[:DISTINCT_SPAN])).split()
    ratio = len(set(span)) / max(1, len(span))
    return ratio if ratio < rules.min_distinct_word_ratio else None


def boilerplate(t: Text, rules: FilterRules) -> float | None:
    """Short lines with the phrases of navigation, consent and shops, as a share of all lines."""
    hits = sum(len(line) <= BOILERPLATE_LINE_CHARS and _BOILERPLATE.search(line) is not None for line in t.lines)
    ratio = hits / max(1, len(t.lines))
    return ratio if ratio > rules.max_boilerplate_line_ratio else None


def code_alphabetic(t: Text, rules: FilterRules) -> float | None:
    """Letters as a share of what is not white space: data and minified assets have few."""
    ratio = _alphabetic_ratio(t.text)
    return ratio if ratio < rules.min_code_alphabetic_ratio else None


def code_line_length(t: Text, rules: FilterRules) -> float | None:
    """Characters of the longest line: minified or generated code has long ones."""
    longest = max(map(len, t.lines), default=0)
    return longest if longest > rules.max_code_line_chars else None


PROSE: dict[str, Rule] = {
    "too-short": too_short,
    "garbled": garbled,
    "duplicate-lines": duplicate_lines,
    "boilerplate": boilerplate,
    "few-distinct-words": few_distinct_words,
    "top-ngram": top_ngram,
    "symbols": symbols,
    "not-alphabetic": alphabetic,
}
CODE: dict[str, Rule] = {
    "too-short": too_short,
    "garbled": garbled,
    "code-line-length": code_line_length,
    "code-not-alphabetic": code_alphabetic,
}


def judge(text: str, kind: str, rules: FilterRules) -> Json:
    """The verdict on one document: kept, or the first rule that it breaks and the value measured."""
    t = Text.of(text)
    for name, rule in (CODE if kind == "code" else PROSE).items():
        value = rule(t, rules)
        if value is not None:
            return dropped(name, f"{value:.4g}")
    return kept()


def run(job: Job) -> None:
    """Writes `verdicts.parquet` of each shard, row-aligned. Counts: docs, kept, byReason, byLanguage (kept)."""
    request = parse(FilterRequest, job.request)
    job.map_units(lambda unit, attempt: _filter(job, request.rules, unit, attempt))


def _filter(job: Job, rules: FilterRules, unit: Unit, attempt: Attempt) -> Json:
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    entry = unit.inputs["corpus"]
    with RowWriter(attempt.path("verdicts.parquet"), VERDICTS) as verdicts:
        for row in read_rows(job.store.shard(entry), ["text", "kind", "language"]):
            verdict = judge(row["text"], row["kind"], rules)
            verdicts.append(verdict)
            if verdict["keep"]:
                by_language[row["language"]] += 1
            else:
                by_reason[verdict["reason"]] += 1
            if verdicts.rows % ROWS_PER_BEAT == 0:
                job.beat("filter", verdicts.rows, entry["rows"], "documents")
    return {
        "outputs": {"verdicts": [attempt.shard("verdicts.parquet", verdicts.rows)]},
        "counts": verdict_counts(verdicts.rows, by_reason, by_language),
    }


def verdict_counts(docs: int, by_reason: Counter[str], by_language: Counter[str]) -> Json:
    """Counts that every dropping stage returns: docs judged = kept + dropped by reason; byLanguage counts the kept."""
    return {
        "docs": docs,
        "kept": docs - by_reason.total(),
        "byReason": dict(sorted(by_reason.items())),
        "byLanguage": dict(sorted(by_language.items())),
    }


def _alphabetic_ratio(text: str) -> float:
    return len(_NOT_LETTERS.sub("", text)) / max(1, len("".join(text.split())))


def _gbk_mojibake(text: str) -> int:
    """Han characters that appear when the text's GB 18030 bytes are read as UTF-8: few in real Chinese."""
    return sum(
        num_han(run.replace("\ufffd", "").encode("gb18030", "ignore").decode("utf-8", "ignore"))
        for run in _NOT_ASCII.findall(text)
    )
