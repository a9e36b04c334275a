"""Where a text has e-mail addresses, telephone numbers and identity numbers, in time linear in its length.

Found: e-mail addresses (RFC 5321 without quoted local parts); telephone numbers of China (mobile, landline), of North
America (NANP) and any in international form (ITU-T E.164), and after words such as `Tel.` or `电话` whatever has
7 to 13 digits; Chinese identity numbers (GB 11643-1999, with region, date and check digit), US social security numbers
(as the SSA issued them) and payment cards (ISO/IEC 7812, Luhn). Not found: IP addresses, which name machines, and what
is written for people alone (`ann at example dot org`).
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

EMAIL, PHONE, ID_NUMBER = KINDS = ("email", "phone", "id-number")

_LOCAL_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}$")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,5}([A-Za-z]{2,24})(?![A-Za-z0-9])")
_MAX_LOCAL_PART = 64
_USER_OF_URL = re.compile(r"://[^\s/]*$")
_COPY_PATH = re.compile(r":[A-Za-z~/]")  # git@github.com:owner/name
# top-level domains: those of two letters, and of the others those that people have addresses under
_LONG_DOMAINS = frozenset(
    re.findall(
        "[a-z]+",
        "com org net edu gov mil int info biz name pro museum aero coop jobs mobi tel travel asia cat xyz online "
        "site shop store club vip top tech app dev cloud email live news blog agency academy expert group health "
        "law legal life london media network nyc berlin paris tokyo school science social solutions space studio "
        "support systems team today university website work world design digital center company consulting church "
        "community foundation institute wiki example test",
    )
)
# of two letters, but after an @ and a name more often the ending of a file or a slot of an object
_NO_DOMAINS = frozenset(("js", "ts", "gz"))

_RUN = re.compile(r"[+(（]?[0-9](?:[-. ()（）]{0,2}[0-9]){6,}[Xx]?")
# what a number may not stand behind or before: it is a part of something longer then, a price or a quantity
_BEHIND = r"(?<![0-9A-Za-z_+=&%#$€£¥￥\\@])(?<![0-9A-Za-z]-)(?<![0-9][.,:])"
_BEFORE = r"(?![0-9A-Za-z_%％$€£@])(?![-.,:][0-9])(?!\s?[元万亿年个次吨米])"

_CHINESE_MOBILE = r"1(?:3[0-9]|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])"
_CHINESE_AREA = r"(?:10|2[0-9]|[3-9][0-9]{2})"
_US_AREA = r"(?!200|300|[2-9]11|37[0-9]|96[0-9]|[2-9]9[0-9])[2-9][0-9]{2}"
_US_EXCHANGE = r"(?![2-9]11)[2-9][0-9]{2}"
# ten or eleven bare digits are a telephone number in China alone, and there of mobiles
_PHONE = re.compile(
    rf"""{_BEHIND}(?:
        (?:(?:\+|00)86[ -]?)?{_CHINESE_MOBILE}(?:[0-9]{{8}}|-[0-9]{{4}}-[0-9]{{4}}|[ ][0-9]{{4}}[ ][0-9]{{4}})
      | (?:(?:\+|00)86[ -]?[(（]?0?{_CHINESE_AREA}[)）]?[ -]?|[(（]0{_CHINESE_AREA}[)）][ -]?|0{_CHINESE_AREA}[ -])
        [2-8](?:[0-9]{{3}}[ -][0-9]{{4}}|[0-9]{{2}}[ -][0-9]{{4}}|[0-9]{{6,7}})(?:-[0-9]{{1,5}})?
      | (?:\+?1[ .-]?)?(?:\({_US_AREA}\)[ ]?|{_US_AREA}[.-]){_US_EXCHANGE}[.-][0-9]{{4}}
      | \+1[ ]?{_US_AREA}[ ]?{_US_EXCHANGE}[ ]?[0-9]{{4}}
    ){_BEFORE}""",
    re.VERBOSE,
)
_INTERNATIONAL = re.compile(rf"{_BEHIND}\+[1-9](?:[ .-]?\(?[0-9]\)?){{7,15}}{_BEFORE}")
_AFTER_CUE = re.compile(rf"{_BEHIND}\(?[0-9](?:[ )-]?\(?[0-9]){{6,12}}{_BEFORE}")
_PHONE_CUE = re.compile(
    r"(?:(?<![A-Za-z])(?:tel|telephone|phone|fax|mobile|cell|cellphone|whatsapp|call|dial)(?![A-Za-z])"
    r"|电话|手机|传真|热线|联系方式|致电)(?:[\s.:：()（）\[\]#-]{0,4}(?:no|number|us|me|at|号码?|为|是)?)?[\s.:：()（）\[\]#-]{0,4}$",
    re.IGNORECASE,
)
_OTHER_CUE = re.compile(
    r"(?:isbn|issn|doi|arxiv|pmid|pmc|order|invoice|serial|sku|patent|gtin|ean|upc|tracking|订单|单号|编号|货号|流水|条码|版号)"
    r"[^0-9\n]{0,10}$",
    re.IGNORECASE,
)
_YEARS = re.compile(r"(?:1[5-9]|20)[0-9]{2}[- ](?:(?:1[5-9]|20)[0-9]{2}|[01]?[0-9][- ][0-3]?[0-9])$")
_LINK = re.compile(r"://|www\.|(?<![0-9])10\.[0-9]{4,9}/")
_DECIMAL = re.compile(r"\+[0-9]+\.[0-9]+$")
_TRUNK_ZERO = re.compile(r"\(0\)")
_COUNTRY_CODES = re.compile(
    r"1|7|2(?:0|7|1[1-368]|[2346][0-9]|5[0-8]|9[0178])|3(?:[0-469]|5[0-9]|7[0-8]|8[0-35-79])|4(?:[013-9]|2[013])"
    r"|5(?:[1-8]|0[0-9]|9[0-9])|6(?:[0-6]|7[02-9]|8[0-35-9]|9[0-2])|8(?:[1246]|5[02356]|80|86)|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68])"
)

_CHINESE_ID = re.compile(
    r"(?<![0-9A-Za-z])([1-9][0-9]{5})((?:18|19|20)[0-9]{2})([01][0-9])([0-3][0-9])[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_CHINESE_REGIONS = frozenset(
    (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83)
)
_US_SSN = re.compile(rf"{_BEHIND}(?!000|666|9)[0-9]{{3}}-(?!00)[0-9]{{2}}-(?!0000)[0-9]{{4}}{_BEFORE}")
_CARD = re.compile(
    rf"{_BEHIND}(?:[2-6][0-9]{{3}}([ -])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}|3[47][0-9]{{2}}([ -])[0-9]{{6}}\2[0-9]{{5}}"
    rf"|3[47][0-9]{{13}}|[2-6][0-9]{{15}}|62[0-9]{{17}}){_BEFORE}"
)
_CARD_ISSUERS = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)|3[47]|35(?:2[89]|[3-8][0-9])|6(?:011|4[4-9]|5|2)"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS = "10X98765432"
_CUE_CHARS = 32
_TOKEN_CHARS = 200
COUNTRY_LETTERS = 2
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 8, 15


@dataclass(frozen=True)
class Span:
    """Characters (Unicode code points) `start` to `end` of a text are of this kind: email, phone, id-number."""

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


def replaced(text: str, spans: list[Span], placeholders: Mapping[str, str]) -> str:
    """The text with its kind's placeholder in place of each span; spans are in order and do not overlap."""
    pieces: list[str] = []
    at = 0
    for span in spans:
        pieces += (text[at : span.start], placeholders[span.kind])
        at = span.end
    return "".join([*pieces, text[at:]])


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for at in re.finditer("@", text):
        before = _LOCAL_PART.search(text[max(0, at.start() - _MAX_LOCAL_PART) : at.start()])
        domain = _DOMAIN.match(text, at.end())
        if before and domain and _is_top_level(domain[1].lower()):
            start = at.start() - len(before.group())
            link = _USER_OF_URL.search(text[max(0, start - _CUE_CHARS) : start])
            if not link and not _COPY_PATH.match(text, domain.end()):
                yield Span(start, domain.end(), EMAIL)


def _is_top_level(name: str) -> bool:
    return name in _LONG_DOMAINS or (len(name) == COUNTRY_LETTERS and name not in _NO_DOMAINS)


def _numbers(text: str) -> Iterator[Span]:
    for run in _RUN.finditer(text):
        begin, end = max(0, run.start() - 1), min(len(text), run.end() + 3)
        for pattern, kind, holds in _NUMBERS:
            for found in pattern.finditer(text, begin, end):
                if holds(found):
                    yield Span(found.start(), found.end(), kind)


def _is_international(found: re.Match[str]) -> bool:
    number = _TRUNK_ZERO.sub("", found.group())
    digits = re.sub(r"\D", "", number)
    if digits.startswith("1") or _DECIMAL.match(number) or not MIN_PHONE_DIGITS <= len(digits) <= MAX_PHONE_DIGITS:
        return False
    return number.count("(") == number.count(")") and bool(_COUNTRY_CODES.match(digits)) and _is_no_other(found)


def _is_phone_after_cue(found: re.Match[str]) -> bool:
    number = found.group()
    if number.count("(") != number.count(")") or _YEARS.match(number) or _in_link(found):
        return False
    return bool(_PHONE_CUE.search(_before(found)))


def _is_no_other(found: re.Match[str]) -> bool:
    """Whether nothing around it says that a number is another: a part of a link, an order, a book."""
    return not _in_link(found) and not _OTHER_CUE.search(_before(found))


def _before(found: re.Match[str]) -> str:
    return found.string[max(0, found.start() - _CUE_CHARS) : found.start()]


def _in_link(found: re.Match[str]) -> bool:
    head = found.string[max(0, found.start() - _TOKEN_CHARS) : found.start()]
    return bool(_LINK.search(head.rsplit(maxsplit=1)[-1])) if head and not head[-1].isspace() else False


def _is_chinese_id(found: re.Match[str]) -> bool:
    region, year, month, day = found.groups()
    if int(region[:2]) not in _CHINESE_REGIONS or not 1 <= int(month) <= 12:
        return False
    return 1 <= int(day) <= calendar.monthrange(int(year), int(month))[1] and is_chinese_id(found.group())


def _is_card(found: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", found.group())
    return bool(_CARD_ISSUERS.match(digits)) and is_luhn(digits) and _is_no_other(found)


_NUMBERS: tuple[tuple[re.Pattern[str], str, Callable[[re.Match[str]], bool]], ...] = (
    (_PHONE, PHONE, _is_no_other),
    (_INTERNATIONAL, PHONE, _is_international),
    (_AFTER_CUE, PHONE, _is_phone_after_cue),
    (_CHINESE_ID, ID_NUMBER, _is_chinese_id),
    (_US_SSN, ID_NUMBER, _is_no_other),
    (_CARD, ID_NUMBER, _is_card),
)


def is_chinese_id(number: str) -> bool:
    """Whether the last of 18 characters is the check digit of the others (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return _CHECK_DIGITS[total % 11] == number[17].upper()


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (2 * int(d) for d in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(d // 10 + d % 10 for d in doubled)) % 10 == 0
