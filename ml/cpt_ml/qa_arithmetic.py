"""Word problems of arithmetic in several steps; every number in a solution is computed."""

from __future__ import annotations

from cpt_ml.qa_template import NAMES, THINGS, Draw, Template, Value


def shopping(d: Draw) -> dict[str, Value]:
    a, b, price, other = d.whole(2, 12), d.whole(2, 12), d.whole(2, 30), d.whole(2, 30)
    first, second = a * price, b * other
    return {"who": d.pick(NAMES), "a": a, "b": b, "price": price, "other": other, "first": first, "second": second,
            "answer": first + second}  # fmt: skip


def sharing(d: Draw) -> dict[str, Value]:
    people, each, rest = d.whole(3, 9), d.whole(4, 25), d.whole(0, 2)
    return {"who": d.pick(NAMES), "things": d.pick(THINGS), "people": people, "each": each, "rest": rest,
            "total": people * each + rest, "divided": people * each, "answer": each}  # fmt: skip


def saving(d: Draw) -> dict[str, Value]:
    start, weekly, weeks, spent = d.whole(10, 90), d.whole(3, 40), d.whole(3, 15), d.whole(5, 50)
    earned = weekly * weeks
    return {"who": d.pick(NAMES), "start": start, "weekly": weekly, "weeks": weeks, "spent": spent, "earned": earned,
            "sum": start + earned, "answer": start + earned - spent}  # fmt: skip


def percent(d: Draw) -> dict[str, Value]:
    price, off = 20 * d.whole(2, 60), 5 * d.whole(1, 12)
    saved = price * off // 100
    return {"who": d.pick(NAMES), "price": price, "off": off, "saved": saved, "answer": price - saved}


def boxes(d: Draw) -> dict[str, Value]:
    shelves, boxes_each, inside, broken = d.whole(2, 9), d.whole(2, 9), d.whole(3, 24), d.whole(2, 11)
    total = shelves * boxes_each
    return {"things": d.pick(THINGS), "shelves": shelves, "each": boxes_each, "inside": inside, "broken": broken,
            "total": total, "all": total * inside, "answer": total * inside - broken}  # fmt: skip


def ages(d: Draw) -> dict[str, Value]:
    age, times, years = d.whole(3, 15), d.whole(2, 4), d.whole(2, 20)
    return {"who": d.pick(NAMES), "age": age, "times": times, "years": years, "parent": age * times,
            "then": age + years, "answer": age + age * times + 2 * years}  # fmt: skip


def average(d: Draw) -> dict[str, Value]:
    mean = d.whole(60, 95)
    e, f, g = (d.whole(-9, 9) for _ in range(3))
    scores = [mean + e, mean + f, mean + g, mean - e - f - g]
    return {"who": d.pick(NAMES), "w": scores[0], "x": scores[1], "y": scores[2], "z": scores[3], "sum": sum(scores),
            "answer": mean}  # fmt: skip


def rectangle(d: Draw) -> dict[str, Value]:
    long, wide, cost = d.whole(6, 40), d.whole(3, 20), d.whole(2, 15)
    around = 2 * (long + wide)
    return {"long": long, "wide": wide, "cost": cost, "half": long + wide, "around": around, "answer": around * cost}


def pages(d: Draw) -> dict[str, Value]:
    first, more, days = d.whole(5, 30), d.whole(2, 8), d.whole(4, 9)
    last = first + more * (days - 1)
    return {"who": d.pick(NAMES), "first": first, "more": more, "days": days, "gaps": days - 1, "last": last,
            "ends": first + last, "answer": (first + last) * days // 2}  # fmt: skip


TEMPLATES = [
    Template(
        "shopping",
        shopping,
        (
            "{who} buys {a} notebooks for {price} dollars each and {b} pens for {other} dollars each. "
            "How many dollars does {who} pay altogether?",
            "{who}买了{a}个笔记本，每个{price}元，又买了{b}支钢笔，每支{other}元。{who}一共付了多少元？",
        ),
        (
            "The notebooks cost {a} × {price} = {first} dollars.\nThe pens cost {b} × {other} = {second} dollars.\n"
            "Together that is {first} + {second} = {answer} dollars.",
            "笔记本的价钱是 {a} × {price} = {first} 元。\n钢笔的价钱是 {b} × {other} = {second} 元。\n"
            "合计 {first} + {second} = {answer} 元。",
        ),
    ),
    Template(
        "sharing",
        sharing,
        (
            "{who} has {total} {things} and shares them equally among {people} friends, so that {rest} are left. "
            "How many does each friend get?",
            "{who}有{total}{things}，平均分给{people}个朋友后还剩{rest}。每个朋友分到多少？",
        ),
        (
            "Without the rest there are {total} − {rest} = {divided} to share.\n"
            "Each friend gets {divided} ÷ {people} = {answer}.",
            "去掉剩下的，一共分出 {total} − {rest} = {divided}。\n每个朋友分到 {divided} ÷ {people} = {answer}。",
        ),
    ),
    Template(
        "saving",
        saving,
        (
            "{who} has {start} dollars and saves {weekly} dollars a week for {weeks} weeks. Then {who} spends {spent} "
            "dollars on a present. How many dollars are left?",
            "{who}原有{start}元，此后每周存{weekly}元，存了{weeks}周，然后花{spent}元买了一份礼物。还剩多少元？",
        ),
        (
            "In {weeks} weeks {who} saves {weekly} × {weeks} = {earned} dollars.\n"
            "That makes {start} + {earned} = {sum} dollars.\n"
            "After the present {sum} − {spent} = {answer} dollars remain.",
            "{weeks}周共存 {weekly} × {weeks} = {earned} 元。\n加上原有的钱是 {start} + {earned} = {sum} 元。\n"
            "买礼物后还剩 {sum} − {spent} = {answer} 元。",
        ),
    ),
    Template(
        "percent",
        percent,
        (
            "A coat costs {price} dollars. In the sale it is {off}% cheaper. How many dollars does {who} pay for it?",
            "一件大衣原价{price}元，打折时便宜了{off}%。{who}买这件大衣要付多少元？",
        ),
        (
            "The reduction is {price} × {off} ÷ 100 = {saved} dollars.\n"
            "{who} pays {price} − {saved} = {answer} dollars.",
            "便宜的金额是 {price} × {off} ÷ 100 = {saved} 元。\n{who}要付 {price} − {saved} = {answer} 元。",
        ),
    ),
    Template(
        "boxes",
        boxes,
        (
            "A shop has {shelves} shelves with {each} boxes on each shelf, and {inside} {things} in each box. "
            "{broken} of "
            "them are damaged. How many are still good?",
            "商店里有{shelves}个货架，每个货架上有{each}个箱子，每个箱子里装{inside}{things}，其中共有{broken}是坏的。"
            "还有多少是好的？",
        ),
        (
            "There are {shelves} × {each} = {total} boxes.\nThey hold {total} × {inside} = {all} {things}.\n"
            "Of these {all} − {broken} = {answer} are good.",
            "箱子一共有 {shelves} × {each} = {total} 个。\n里面一共有 {total} × {inside} = {all}{things}。\n"
            "好的有 {all} − {broken} = {answer}。",
        ),
    ),
    Template(
        "ages",
        ages,
        (
            "{who} is {age} years old, and {who}'s mother is {times} times as old. How old will the two be "
            "together in "
            "{years} years?",
            "{who}今年{age}岁，妈妈的年龄是{who}的{times}倍。{years}年后两人的年龄之和是多少？",
        ),
        (
            "The mother is {age} × {times} = {parent} years old now.\n"
            "In {years} years {who} will be {age} + {years} = "
            "{then}.\nTogether they are {age} + {parent} now, and each grows {years} years older: "
            "{age} + {parent} + 2 × {years} = {answer}.",
            "妈妈今年 {age} × {times} = {parent} 岁。\n{years}年后{who}是 {age} + {years} = {then} 岁。\n"
            "两人现在共 {age} + {parent} 岁，每人再长{years}岁：{age} + {parent} + 2 × {years} = {answer}。",
        ),
    ),
    Template(
        "average",
        average,
        (
            "{who} scored {w}, {x}, {y} and {z} points in four tests. What is the average score?",
            "{who}四次测验的成绩分别是{w}、{x}、{y}和{z}分，平均分是多少？",
        ),
        (
            "The sum of the scores is {w} + {x} + {y} + {z} = {sum}.\nThe average is {sum} ÷ 4 = {answer}.",
            "总分是 {w} + {x} + {y} + {z} = {sum}。\n平均分是 {sum} ÷ 4 = {answer}。",
        ),
    ),
    Template(
        "rectangle",
        rectangle,
        (
            "A garden is a rectangle of {long} m by {wide} m. A metre of fence costs {cost} dollars. What does "
            "a fence "
            "around the garden cost?",
            "一个长方形花园长{long}米，宽{wide}米，篱笆每米{cost}元。围着花园一圈的篱笆要多少元？",
        ),
        (
            "Length and width add up to {long} + {wide} = {half} m.\nThe perimeter is 2 × {half} = {around} m.\n"
            "The fence costs {around} × {cost} = {answer} dollars.",
            "长与宽之和是 {long} + {wide} = {half} 米。\n周长是 2 × {half} = {around} 米。\n"
            "篱笆的价钱是 {around} × {cost} = {answer} 元。",
        ),
    ),
    Template(
        "pages",
        pages,
        (
            "{who} reads {first} pages of a book on the first day and {more} pages more each day than the day before. "
            "How many pages has {who} read after {days} days?",
            "{who}第一天读了{first}页书，以后每天比前一天多读{more}页。{days}天一共读了多少页？",
        ),
        (
            "On the last day {who} reads {first} + {gaps} × {more} = {last} pages.\nFirst and last day together are "
            "{first} + {last} = {ends} pages.\nThe sum of the series is {ends} × {days} ÷ 2 = {answer} pages.",
            "最后一天读了 {first} + {gaps} × {more} = {last} 页。\n"
            "第一天与最后一天之和是 {first} + {last} = {ends} 页。\n"
            "等差数列的和是 {ends} × {days} ÷ 2 = {answer} 页。",
        ),
    ),
]
