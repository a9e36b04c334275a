"""What the families of synthetic problems share: draws that never change, and templates in two languages."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
# a value of a template: a number, or a word in English and in Chinese
Value = int | str | tuple[str, str]
LANGUAGES = ("en", "zh")

NAMES = [("Anna", "小安"), ("Ben", "小本"), ("Carla", "小卡"), ("David", "大卫"), ("Emma", "艾玛"), ("Li Ming", "李明"),
         ("Wang Fang", "王芳"), ("Zhang Wei", "张伟"), ("Maria", "玛丽"), ("Omar", "奥马尔")]  # fmt: skip
THINGS = [("pencils", "支铅笔"), ("apples", "个苹果"), ("books", "本书"), ("stamps", "张邮票"), ("marbles", "颗弹珠"),
          ("eggs", "个鸡蛋"), ("oranges", "个橙子"), ("cards", "张卡片")]  # fmt: skip


class Draw:
    """Seeded choices from `random()` alone, whose sequence Python promises not to change."""

    def __init__(self, seed: int, document: int) -> None:
        self._random = random.Random(f"{seed}:{document}").random

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.whole(0, len(choices) - 1)]

    def chance(self, share: float) -> bool:
        return self._random() < share


@dataclass(frozen=True)
class Template:
    """One kind of problem: `draw` gives the values, `answer` among them, the texts say them in English and Chinese."""

    name: str
    draw: Callable[[Draw], dict[str, Value]]
    problem: tuple[str, str]
    solution: tuple[str, str]


@dataclass(frozen=True)
class Problem:
    """A problem with its worked solution; `answer` is what the solution's last line says."""

    template: str
    problem: str
    solution: str
    answer: str
    wrong: bool

    @property
    def text(self) -> str:
        return f"[Problem]\n{self.problem}\n\n[Solution]\n{self.solution}"


ANSWER = ("Answer: ", "答案：")


def render(template: Template, language: str, draw: Draw, wrong_share: float) -> Problem:
    """Draws the values of a template and writes it out; the answer is off by a little in `wrong_share` of all."""
    which = LANGUAGES.index(language)
    values = template.draw(draw)
    said = {k: v[which] if isinstance(v, tuple) else v for k, v in values.items()}
    wrong = draw.chance(wrong_share)
    off = draw.whole(1, 9) * draw.pick((-1, 1))
    answer = str(int(str(values["answer"])) + off) if wrong else str(values["answer"])
    worked = template.solution[which].format(**said)
    return Problem(
        template.name,
        template.problem[which].format(**said),
        f"{worked}\n{ANSWER[which]}{answer}",
        answer,
        wrong,
    )
