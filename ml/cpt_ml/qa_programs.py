"""Small programs whose output is asked for; the output is computed beside them, no program text is ever run."""

from __future__ import annotations

from math import gcd

from cpt_ml.qa_template import Draw, Template, Value


def asked(code: str) -> tuple[str, str]:
    """The question about a program, in both languages."""
    return (
        f"What does this Python program print?\n\n```python\n{code}\n```",
        f"下面的 Python 程序会输出什么？\n\n```python\n{code}\n```",
    )


def multiples(d: Draw) -> dict[str, Value]:
    n, k = d.whole(3, 12), d.whole(2, 15)
    terms = [i * k for i in range(1, n + 1)]
    return {"n": n, "k": k, "terms": " + ".join(map(str, terms)), "answer": sum(terms)}


def factorial(d: Draw) -> dict[str, Value]:
    n, value, steps = d.whole(3, 8), 1, ["1"]
    for i in range(2, n + 1):
        value *= i
        steps.append(str(value))
    return {"n": n, "steps": ", ".join(steps), "answer": value}


def fibonacci(d: Draw) -> dict[str, Value]:
    start, n = d.whole(1, 9), d.whole(3, 10)
    a, b, steps = start, start + 1, [f"({start}, {start + 1})"]
    for _ in range(n):
        a, b = b, a + b
        steps.append(f"({a}, {b})")
    return {"start": start, "second": start + 1, "n": n, "steps": " → ".join(steps), "answer": a}


def euclid(d: Draw) -> dict[str, Value]:
    common = d.whole(2, 20)
    x, y = common * d.whole(6, 40), common * d.whole(2, 30)
    a, b, steps = x, y, [f"({x}, {y})"]
    while b:
        a, b = b, a % b
        steps.append(f"({a}, {b})")
    return {"x": x, "y": y, "steps": " → ".join(steps), "answer": gcd(x, y)}


def digits(d: Draw) -> dict[str, Value]:
    n = d.whole(1000, 999_999)
    return {"n": n, "terms": " + ".join(reversed(str(n))), "answer": sum(map(int, str(n)))}


def filtered(d: Draw) -> dict[str, Value]:
    n, k = d.whole(10, 40), d.whole(3, 7)
    found = [i for i in range(1, n + 1) if i % k == 1]
    return {"n": n, "k": k, "found": ", ".join(map(str, found)), "answer": len(found)}


def collatz(d: Draw) -> dict[str, Value]:
    n = d.whole(3, 24)
    x, path = n, [n]
    while x != 1:
        x = x // 2 if x % 2 == 0 else 3 * x + 1
        path.append(x)
    return {"n": n, "path": " → ".join(map(str, path)), "answer": len(path) - 1}


def maximum(d: Draw) -> dict[str, Value]:
    values = [d.whole(1, 99) for _ in range(d.whole(4, 8))]
    high, low = max(values), min(values)
    return {"values": ", ".join(map(str, values)), "high": high, "low": low, "answer": high - low}


def power(d: Draw) -> dict[str, Value]:
    base, exponent, modulus = d.whole(2, 9), d.whole(2, 6), d.whole(7, 97)
    value = base**exponent
    return {"base": base, "exponent": exponent, "modulus": modulus, "value": value, "times": value // modulus,
            "answer": value % modulus}  # fmt: skip


TEMPLATES = [
    Template(
        "multiples",
        multiples,
        asked("total = 0\nfor i in range(1, {n} + 1):\n    total += i * {k}\nprint(total)"),
        (
            "The loop runs for i from 1 to {n} and adds i × {k} each time:\n{terms} = {answer}.",
            "循环中 i 从 1 到 {n}，每次加上 i × {k}：\n{terms} = {answer}。",
        ),
    ),
    Template(
        "factorial",
        factorial,
        asked(
            "def f(n):\n    return 1 if n <= 1 else n * f(n - 1)\n\n\nprint(f({n}))",
        ),
        (
            "The function is the factorial. From f(1) to f({n}) its values are {steps}.\nSo f({n}) = {answer}.",
            "这个函数计算阶乘。从 f(1) 到 f({n}) 的值依次是 {steps}。\n所以 f({n}) = {answer}。",
        ),
    ),
    Template(
        "fibonacci",
        fibonacci,
        asked("a, b = {start}, {second}\nfor _ in range({n}):\n    a, b = b, a + b\nprint(a)"),
        (
            "The pair (a, b) changes {n} times:\n{steps}.\nAt the end a = {answer}.",
            "数对 (a, b) 变化了 {n} 次：\n{steps}。\n最后 a = {answer}。",
        ),
    ),
    Template(
        "euclid",
        euclid,
        asked("a, b = {x}, {y}\nwhile b:\n    a, b = b, a % b\nprint(a)"),
        (
            "This is Euclid's algorithm. The pair (a, b) runs through\n{steps}.\n"
            "The greatest common divisor of {x} and {y} is {answer}.",
            "这是辗转相除法。数对 (a, b) 依次是\n{steps}。\n{x} 和 {y} 的最大公约数是 {answer}。",
        ),
    ),
    Template(
        "digits",
        digits,
        asked("n, s = {n}, 0\nwhile n > 0:\n    s += n % 10\n    n //= 10\nprint(s)"),
        (
            "The loop takes the digits of {n} from the right and adds them up:\n{terms} = {answer}.",
            "循环从右到左取出 {n} 的各位数字并相加：\n{terms} = {answer}。",
        ),
    ),
    Template(
        "filtered",
        filtered,
        asked("count = 0\nfor i in range(1, {n} + 1):\n    if i % {k} == 1:\n        count += 1\nprint(count)"),
        (
            "Counted are the numbers up to {n} that leave the remainder 1 when divided by {k}:\n{found}.\n"
            "There are {answer} of them.",
            "被计数的是不超过 {n} 且除以 {k} 余 1 的数：\n{found}。\n一共有 {answer} 个。",
        ),
    ),
    Template(
        "collatz",
        collatz,
        asked(
            "x, steps = {n}, 0\nwhile x != 1:\n    x = x // 2 if x % 2 == 0 else 3 * x + 1\n    steps += 1\n"
            "print(steps)"
        ),
        (
            "Even numbers are halved, odd ones become 3x + 1:\n{path}.\nThat takes {answer} steps.",
            "偶数减半，奇数变为 3x + 1：\n{path}。\n一共用了 {answer} 步。",
        ),
    ),
    Template(
        "maximum",
        maximum,
        asked("values = [{values}]\nprint(max(values) - min(values))"),
        (
            "The largest value is {high} and the smallest is {low}.\nTheir difference is {high} − {low} = {answer}.",
            "最大的数是 {high}，最小的数是 {low}。\n它们的差是 {high} − {low} = {answer}。",
        ),
    ),
    Template(
        "power",
        power,
        asked("print({base} ** {exponent} % {modulus})"),
        (
            "{base} to the power of {exponent} is {value}.\n{value} = {times} × {modulus} + {answer}, "
            "so the remainder is {answer}.",
            "{base} 的 {exponent} 次方是 {value}。\n{value} = {times} × {modulus} + {answer}，所以余数是 {answer}。",
        ),
    ),
]
