"""Sides that each run a loop of their own, made to go step by step, one after the other, in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Work = Callable[[Callable[[], None]], Any]


class Turns:
    """One side computes at a time, all others wait: what disturbs the machine disturbs all sides alike."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, list[float]] = {}
        self._order: list[str] = []
        self._at = 0
        self._began = 0.0
        self._changed = threading.Condition()

    def run(self, sides: dict[str, Work]) -> dict[str, Any]:
        """Runs each side in a thread of its own and returns what they return.

        A side calls what it is given at the end of each of its steps. `seconds` then has the seconds of each step but
        the first, which begins with the side's set-up, and the last, which ends with what comes after it.
        """
        self._order, self.seconds = list(sides), {name: [] for name in sides}
        with ThreadPoolExecutor(len(sides)) as pool:
            running = {name: pool.submit(self._side, name, work) for name, work in sides.items()}
            results = {name: future.result() for name, future in running.items()}
        self.seconds = {name: of[1:-1] for name, of in self.seconds.items()}
        return results

    def _side(self, name: str, work: Work) -> Any:
        with self._changed:
            self._wait(name)
        try:
            return work(lambda: self._step_done(name))
        finally:
            with self._changed:
                self._at %= len(self._order)
                at = self._order.index(name)
                self._order.remove(name)
                self._at = at % len(self._order) if self._order else 0
                self._changed.notify_all()

    def _step_done(self, name: str) -> None:
        self.seconds[name].append(self.clock() - self._began)
        with self._changed:
            self._at = (self._order.index(name) + 1) % len(self._order)
            self._changed.notify_all()
            self._wait(name)

    def _wait(self, name: str) -> None:
        self._changed.wait_for(lambda: self._order[self._at] == name)
        self._began = self.clock()
