"""personal_data: e-mail addresses, telephone and identity numbers are found, and what looks like them is not."""

from __future__ import annotations

import pytest

from cpt_ml.personal_data import counted, is_chinese_id, personal_data

FOUND = {
    "Write to ann.b+list@mail.example.org, please.": [("ann.b+list@mail.example.org", "email")],
    "邮箱:li@example.com。电话：13812345678，": [("li@example.com", "email"), ("13812345678", "phone")],
    "Call (212) 555-0123 or 212-555-0199.": [("(212) 555-0123", "phone"), ("212-555-0199", "phone")],
    "Tel. +44 20 7946 0958": [("+44 20 7946 0958", "phone")],
    "座机 010-62345678 和 138 1234 5678": [("010-62345678", "phone"), ("138 1234 5678", "phone")],
    "身份证号：11010519491231002X。": [("11010519491231002X", "chinese-id")],
    "SSN 219-09-9999.": [("219-09-9999", "us-ssn")],
}
NOT_FOUND = [
    "From 1914-1918 and 1939-1945 there was war.",
    "pi is 3.14159265358979 and e is 2.71828182845904",
    "@decorator\ndef f(a@b): x @ y, user@localhost, @mention",
    "ISBN 978-3-16-148410-0, order 123456789012345678",
    "身份证号：110105194912310021",
    "SSN 000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",
    "version 1.2.3-4567, 192.168.100.200, 2020-01-02 10:11:12",
]


@pytest.mark.parametrize("text", FOUND)
def test_each_kind_is_found_where_it_stands(text: str) -> None:
    assert [(text[s.start : s.end], s.kind) for s in personal_data(text)] == FOUND[text]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_years_versions_and_numbers_with_a_wrong_check_digit_are_left_alone(text: str) -> None:
    assert personal_data(text) == []


def test_one_check_digit_of_eleven_is_right() -> None:
    assert [d for d in "0123456789X" if is_chinese_id(f"11010519491231002{d}")] == ["X"]


def test_kinds_are_counted_in_one_line() -> None:
    text = "a@b.org c@d.org 212-555-0199"
    assert counted(personal_data(text)) == "email 2, phone 1"


@pytest.mark.parametrize("text", ["@" * 100_000, "a" * 100_000 + "@", "+1" * 100_000, "1 " * 100_000, "a@b." * 50_000])
def test_text_made_to_be_slow_is_not(text: str) -> None:
    assert len(personal_data(text)) <= len(text)
