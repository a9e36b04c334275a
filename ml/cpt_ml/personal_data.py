"""Where a text has e-mail addresses, telephone numbers and identity numbers, in time linear in its length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_LOCAL_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}$")
_DOMAIN = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}(?![A-Za-z0-9])")
_MAX_LOCAL_PART = 64
# numbers with a country code, of North America and of China; bare digits are telephone numbers in China alone
_PHONE = re.compile(
    r"""(?<![\w.+-])(?:
        \+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}
      | (?:1[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[.-])\d{3}[.-]\d{4}
      | 1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})
      | 0\d{2,3}-\d{7,8}
    )(?![\w-])""",
    re.VERBOSE | re.ASCII,
)
_CHINESE_ID = re.compile(
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[0-9Xx](?![0-9A-Za-z])",
    re.ASCII,
)
_US_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])", re.ASCII)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS = "10X98765432"
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 8, 15


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a text are of this kind: email, phone, chinese-id, us-ssn."""

    start: int
    end: int
    kind: str


def personal_data(text: str) -> list[Span]:
    """The spans in order; where two overlap, the first one, of those that begin together the longest."""
    found = sorted([*_emails(text), *_numbers(text)], key=lambda s: (s.start, -s.end))
    kept: list[Span] = []
    for span in found:
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def counted(spans: list[Span]) -> str:
    """How many of each kind, such as `email 2, phone 1`."""
    return ", ".join(f"{kind} {n}" for kind, n in sorted(Counter(s.kind for s in spans).items()))


def _emails(text: str) -> Iterator[Span]:
    for at in re.finditer("@", text):
        before = _LOCAL_PART.search(text[max(0, at.start() - _MAX_LOCAL_PART) : at.start()])
        domain = _DOMAIN.match(text, at.end())
        if before and domain:
            yield Span(at.start() - len(before.group()), domain.end(), "email")


def _numbers(text: str) -> Iterator[Span]:
    for found in _PHONE.finditer(text):
        if MIN_PHONE_DIGITS <= sum(map(str.isdigit, found.group())) <= MAX_PHONE_DIGITS:
            yield Span(found.start(), found.end(), "phone")
    for found in _CHINESE_ID.finditer(text):
        if is_chinese_id(found.group()):
            yield Span(found.start(), found.end(), "chinese-id")
    for found in _US_SSN.finditer(text):
        yield Span(found.start(), found.end(), "us-ssn")


def is_chinese_id(number: str) -> bool:
    """Whether the last of 18 characters is the check digit of the others (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return _CHECK_DIGITS[total % 11] == number[17].upper()
