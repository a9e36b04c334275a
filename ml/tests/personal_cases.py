"""Some hundred sentences with personal data, and with what looks like it, with known truth.

The values are drawn by a seed and valid by how they are made (check digits are computed here); the sentences are
written by hand. Also forms that are not looked for, so that recall is not of what was written to be found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

EACH = 6


@dataclass(frozen=True)
class Case:
    """A text and what is personal data in it, as (text, kind)."""

    text: str
    truth: list[tuple[str, str]]


def cases(seed: int = 5) -> Iterator[Case]:
    rng = random.Random(seed)
    for kind, sentences in SENTENCES.items():
        for sentence, make in sentences:
            for _ in range(EACH):
                value = make(rng)
                yield Case(sentence.replace("{}", value), [(value, kind)])
    for sentence, make in LOOK_ALIKES:
        for _ in range(EACH):
            yield Case(sentence.replace("{}", make(rng)), [])


def digits(rng: random.Random, count: int, first: str = "0123456789") -> str:
    return rng.choice(first) + "".join(rng.choice("0123456789") for _ in range(count - 1))


def email(rng: random.Random) -> str:
    name = rng.choice(["ann.lee", "li_wei", "j.o-brien", "x9", "wang.fang+news", "M.Curie", "info"])
    host = rng.choice(
        ["example.com", "mail.tsinghua.edu.cn", "uni-bonn.de", "sub.dept.gov.uk", "qq.com", "acme.museum"]
    )
    return f"{name}@{host}"


def mobile(rng: random.Random) -> str:
    return rng.choice(["13", "18"]) + digits(rng, 9)


def spaced_mobile(rng: random.Random, mark: str = " ") -> str:
    number = mobile(rng)
    return mark.join((number[:3], number[3:7], number[7:]))


def landline(rng: random.Random, form: str = "{}-{}") -> str:
    area, size = rng.choice([("010", 8), ("021", 8), ("0571", 8), ("0931", 7), ("0755", 8)])
    return form.format(area, digits(rng, size, "2345678"))


def us_parts(rng: random.Random) -> tuple[str, str, str]:
    return (
        rng.choice(["212", "415", "617", "702", "808", "919"]),
        digits(rng, 1, "23456789") + "5" + digits(rng, 1),
        digits(rng, 4),
    )


def us(form: str) -> Callable[[random.Random], str]:
    return lambda rng: form.format(*us_parts(rng))


def abroad(rng: random.Random) -> str:
    return rng.choice(
        [
            f"+44 20 {digits(rng, 4, '3789')} {digits(rng, 4)}",
            f"+49 30 {digits(rng, 6, '2345')}",
            f"+33 1 42 {digits(rng, 2)} {digits(rng, 2)} {digits(rng, 2)}",
            f"+81-3-{digits(rng, 4, '3')}-{digits(rng, 4)}",
            f"+7 495 {digits(rng, 3, '2')}-{digits(rng, 2)}-{digits(rng, 2)}",
            f"+852 {digits(rng, 4, '2')} {digits(rng, 4)}",
        ]
    )


def chinese_id(rng: random.Random) -> str:
    region = rng.choice(["110105", "440305", "320102", "510104", "650102"])
    born = f"{rng.randint(1930, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    body = f"{region}{born}{digits(rng, 3)}"
    total = sum(int(d) * (2 ** (17 - i) % 11) for i, d in enumerate(body))
    return body + "0123456789X"[(12 - total % 11) % 11]


def wrong_chinese_id(rng: random.Random) -> str:
    number = chinese_id(rng)
    return number[:17] + rng.choice([d for d in "0123456789X" if d != number[17]])


def ssn(rng: random.Random) -> str:
    return f"{rng.randint(100, 665)}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}"


def card(rng: random.Random, mark: str = " ") -> str:
    body = rng.choice(["4", "51", "62"])
    body += digits(rng, 15 - len(body))
    number = next(body + d for d in "0123456789" if luhn_sum(body + d) % 10 == 0)
    return mark.join(number[i : i + 4] for i in range(0, 16, 4))


def no_card(rng: random.Random) -> str:
    body = "4" + digits(rng, 14)
    number = next(body + d for d in "0123456789" if luhn_sum(body + d) % 10 == 1)
    return " ".join(number[i : i + 4] for i in range(0, 16, 4))


def luhn_sum(number: str) -> int:
    return sum(sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(reversed(number)))


def date(rng: random.Random) -> str:
    return f"{rng.randint(1700, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


SENTENCES: dict[str, list[tuple[str, Callable[[random.Random], str]]]] = {
    "email": [
        ("Please write to {} before Friday.", email),
        ("Contact: {}; she answers within a day", email),
        ("投稿请发至{}，谢谢。", email),
        ("<a href=mailto:{}>mail</a>", email),
        ("Author: Ann Lee ({})", email),
        ("See https://example.org/unsubscribe?user={}", email),
        ("Write to {} (without the spaces).", lambda rng: email(rng).replace("@", " [at] ")),
    ],
    "phone": [
        ("联系电话：{}，李先生", mobile),
        ("手机{}微信同号", mobile),
        ("请拨打 {} 预约", spaced_mobile),
        ("Mobile: {}", lambda rng: spaced_mobile(rng, "-")),
        ("微信 {} 即可", lambda rng: f"+86 {mobile(rng)}"),
        ("座机：{}", landline),
        ("地址：杭州，电话{}转8001", lambda rng: landline(rng, "({}){}")),
        ("热线电话 {}", lambda rng: digits(rng, 8, "2345678")),
        ("Call {} between 9 and 5.", us("({}) {}-{}")),
        ("My number is {}, ask for Bob", us("{}-{}-{}")),
        ("Toll: {}.", us("1-{}-{}-{}")),
        ("Fax {}", us("{}.{}.{}")),
        ("Tel: {}", us("{}{}{}")),
        ("From Europe dial {}, from elsewhere too.", us("+1 {} {} {}")),
        ("Office in London or Tokyo: {}", abroad),
        ("Phone {} (reception)", abroad),
        ("Ring me on {} after six", lambda rng: f"020 7946 {digits(rng, 4)}"),
        ("Unsere Nummer: {}", lambda rng: f"030/{digits(rng, 7, '2345')}"),
    ],
    "id-number": [
        ("身份证号码：{}，特此证明。", chinese_id),
        ("公民身份号码{}", chinese_id),
        ("ID card no. {} was issued in Beijing.", chinese_id),
        ("His SSN is {}.", ssn),
        ("Social security number: {}", ssn),
        ("Paid by card {} on arrival", card),
        ("银行卡号 {} 开户行", lambda rng: card(rng, "")),
        ("Visa: {}", lambda rng: card(rng, "-")),
        ("Passport {} (Germany)", lambda rng: f"C01X{digits(rng, 5)}"),
    ],
}
LOOK_ALIKES: list[tuple[str, Callable[[random.Random], str]]] = [
    ("He was born on {} in Graz.", date),
    ("It lasted from {}.", lambda rng: f"{rng.randint(1800, 1900)}-{rng.randint(1901, 2020)}"),
    (
        "Logged at {} by the server",
        lambda rng: f"{date(rng)} {rng.randint(10, 23)}:{rng.randint(10, 59)}:{rng.randint(10, 59)}",
    ),
    ("ISBN {}", lambda rng: f"978-3-16-{digits(rng, 6)}-{digits(rng, 1)}"),
    ("ISBN-10: {}", lambda rng: digits(rng, 10)),
    ("ISSN {}", lambda rng: f"{digits(rng, 4)}-{digits(rng, 4)}"),
    ("as shown in arXiv:{}v2", lambda rng: f"24{rng.randint(1, 12):02}.{digits(rng, 5)}"),
    ("https://doi.org/10.1145/{}", lambda rng: f"{digits(rng, 7)}.{digits(rng, 7)}"),
    ("doi:10.1016/j.cell.2019.{}", lambda rng: f"{digits(rng, 2)}.{digits(rng, 3)}"),
    ("It costs ${}.", lambda rng: f"{digits(rng, 1, '123')},{digits(rng, 3)},{digits(rng, 3)}.00"),
    ("总投资{}元", lambda rng: "13" + digits(rng, 9)),
    ("The host {} did not answer.", lambda rng: ".".join(str(rng.randint(1, 254)) for _ in range(4))),
    ("fe80::{}", lambda rng: f"{digits(rng, 4)}:{digits(rng, 4)}:{digits(rng, 4)}"),
    (
        "upgrade to version {}",
        lambda rng: f"{rng.randint(1, 20)}.{rng.randint(0, 99)}.{rng.randint(0, 9999)}-{digits(rng, 4)}",
    ),
    ("订单编号：{}", lambda rng: "13" + digits(rng, 9)),
    ("身份证号：{}（有误）", wrong_chinese_id),
    ("row {} of the table", lambda rng: digits(rng, 18, "9")),
    ("The sum is {}", no_card),
    ("see {} in the image folder", lambda rng: f"logo@{rng.randint(2, 3)}x.png"),
    ("git clone git@github.com:{}/repo.git", lambda rng: rng.choice(["ann", "li", "team"])),
    ("follow @{} on the network", lambda rng: rng.choice(["ann", "li_wei", "team.x"])),
    ("x = obj@{}", lambda rng: rng.choice(["meta.data", "assays$RNA", "slot"])),
    ("https://user:{}@host.example.org/path", lambda rng: digits(rng, 6)),
    ("The distance is {} km", lambda rng: f"{digits(rng, 3, '123456789')} {digits(rng, 3)} {digits(rng, 3)}"),
    ("pi is {}", lambda rng: f"3.14159{digits(rng, 12)}"),
    ("timestamp {}", lambda rng: "16" + digits(rng, 8)),
    ("created at {} ms", lambda rng: "16" + digits(rng, 11)),
    ("CAS {}", lambda rng: f"{digits(rng, 4, '56789')}-{digits(rng, 2)}-{digits(rng, 1)}"),
    ("coordinates +{}", lambda rng: f"{rng.randint(10, 89)}.{digits(rng, 6)}, -{rng.randint(10, 89)}.{digits(rng, 6)}"),
    ("part no. {}", lambda rng: f"AB-{digits(rng, 3)}-{digits(rng, 4)}"),
    ("SSN {} is never issued", lambda rng: rng.choice(["000", "666", "9" + digits(rng, 2)]) + "-12-3456"),
    ("the US patent {} of 1999", lambda rng: f"{rng.randint(5, 7)},{digits(rng, 3)},{digits(rng, 3)}"),
    ("UPC {}", lambda rng: digits(rng, 12)),
    ("https://example.com/item/{}.html", mobile),
    ("pages {} of the volume", lambda rng: f"{rng.randint(1000, 1400)}-{rng.randint(1401, 1999)}"),
    ("result: {} ± 0.2", lambda rng: f"{digits(rng, 7, '123456789')}.{digits(rng, 3)}"),
]
