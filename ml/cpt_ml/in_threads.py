"""Work on many files at a time: reading and hashing let other threads run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
Tell = Callable[[int, int], None]  # how many are done, and of how many


def tell_nobody(_done: int, _total: int) -> None: ...


def in_threads(work: Callable[[A], B], items: Sequence[A], threads: int, tell: Tell = tell_nobody) -> list[B]:
    """What `work` gives for each item, in order; `tell` is called after each, in this thread. Raises what one raises,
    once those at work are done; the rest is not begun."""
    if threads == 1 or len(items) < 2:
        given: list[B] = []
        for item in items:
            given.append(work(item))
            tell(len(given), len(items))
        return given
    from concurrent.futures import ThreadPoolExecutor, as_completed  # noqa: PLC0415

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                tell(done, len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [f.result() for f in futures]
