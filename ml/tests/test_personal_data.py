"""personal_data: e-mail addresses, telephone and identity numbers are found, and what looks like them is not."""

from __future__ import annotations

from collections import Counter

import pytest
from personal_cases import cases

from cpt_ml.personal_data import KINDS, Span, counted, is_chinese_id, is_luhn, personal_data, replaced

FOUND = {
    "Write to ann.b+list@mail.example.org, please.": [("ann.b+list@mail.example.org", "email")],
    "邮箱:li@example.com。电话：13812345678，": [("li@example.com", "email"), ("13812345678", "phone")],
    "Call (212) 555-0123 or 212-555-0199.": [("(212) 555-0123", "phone"), ("212-555-0199", "phone")],
    "Tel. +44 20 7946 0958": [("+44 20 7946 0958", "phone")],
    "座机 010-62345678 和 138 1234 5678": [("010-62345678", "phone"), ("138 1234 5678", "phone")],
    "身份证号：11010519491231002X。": [("11010519491231002X", "id-number")],
    "SSN 219-09-9999.": [("219-09-9999", "id-number")],
    "+86-10-62345678 (010)62345678-801，（021）6234 5678": [
        ("+86-10-62345678", "phone"),
        ("(010)62345678-801", "phone"),
        ("（021）6234 5678", "phone"),
    ],
    "13812345678/13912345678": [("13812345678", "phone"), ("13912345678", "phone")],
    "+44 (0)20 7946 0958, +1 (212) 555-0199": [("+44 (0)20 7946 0958", "phone"), ("+1 (212) 555-0199", "phone")],
    "tel: 2125550199, 电话 62345678": [("2125550199", "phone"), ("62345678", "phone")],
    "4111 1111 1111 1111, 3782-822463-10005": [
        ("4111 1111 1111 1111", "id-number"),
        ("3782-822463-10005", "id-number"),
    ],
}
NOT_FOUND = [
    "From 1914-1918 and 1939-1945 there was war.",
    "pi is 3.14159265358979 and e is 2.71828182845904",
    "@decorator\ndef f(a@b): x @ y, user@localhost, @mention",
    "ISBN 978-3-16-148410-0, order 123456789012345678",
    "身份证号：110105194912310021",
    "SSN 000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",
    "version 1.2.3-4567, 192.168.100.200, 2020-01-02 10:11:12",
    "ten digits alone are nothing: 2125550199; mobile 2010-2015; the range 200-300-4000",
    "https://a.com/13812345678.html, doi 10.1145/13812345678, 13812345678元, $13812345678, order 13812345678",
    "icon@2x.png, git@github.com:ann/repo.git, https://user:pw@host.com/, seurat@meta.data",
    "4111 1111 1111 1112, 1234567890123, CAS 7732-18-5, x=+12345678, 1.2.840.113549.1.1.11",
    "身份证号：990105194912310026, 110105194902310022",
]


@pytest.mark.parametrize("text", FOUND)
def test_each_kind_is_found_where_it_stands(text: str) -> None:
    assert [(text[s.start : s.end], s.kind) for s in personal_data(text)] == FOUND[text]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_years_versions_and_numbers_with_a_wrong_check_digit_are_left_alone(text: str) -> None:
    assert personal_data(text) == []


def test_one_check_digit_of_eleven_is_right() -> None:
    assert [d for d in "0123456789X" if is_chinese_id(f"11010519491231002{d}")] == ["X"]


def test_one_check_digit_of_ten_is_right() -> None:
    assert [d for d in "0123456789" if is_luhn(f"411111111111111{d}")] == ["1"]


def test_each_span_is_replaced_by_the_placeholder_of_its_kind() -> None:
    text = "a@b.org, 李: 13812345678; 𝒳 c@d.org"
    found = personal_data(text)
    assert [(s.start, s.end) for s in found] == [(0, 7), (12, 23), (27, 34)]
    read = replaced(text, found, {"email": "<email>", "phone": "[tel]", "id-number": ""})
    assert read == "<email>, 李: [tel]; 𝒳 <email>"
    assert replaced(text, [Span(9, 10, "id-number")], dict.fromkeys(KINDS, "")) == text.replace("李", "")


def test_precision_and_recall_on_labelled_sentences() -> None:
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    wrong: list[str] = []
    labelled = list(cases())
    for case in labelled:
        mine = [(case.text[s.start : s.end], s.kind) for s in personal_data(case.text)]
        there.update(kind for _, kind in case.truth)
        found.update(kind for _, kind in mine)
        right.update(kind for value, kind in mine if (value, kind) in case.truth)
        wrong += [f"{case.text!r}: {mine}" for m in mine if m not in case.truth]
    precision = {kind: right[kind] / found[kind] for kind in KINDS}
    recall = {kind: right[kind] / there[kind] for kind in KINDS}
    for kind in KINDS:
        print(f"{kind}: {there[kind]} there, precision {precision[kind]:.3f}, recall {recall[kind]:.3f}")
    assert len(labelled) > 400
    assert wrong == []
    # what is not found: [at], numbers of one country without its code or a word before, passports
    assert recall["email"] >= 0.85
    assert recall["phone"] >= 0.88
    assert recall["id-number"] >= 0.88


def test_kinds_are_counted_in_one_line() -> None:
    text = "a@b.org c@d.org 212-555-0199"
    assert counted(personal_data(text)) == "email 2, phone 1"


@pytest.mark.parametrize("text", ["@" * 100_000, "a" * 100_000 + "@", "+1" * 100_000, "1 " * 100_000, "a@b." * 50_000])
def test_text_made_to_be_slow_is_not(text: str) -> None:
    assert len(personal_data(text)) <= len(text)
