"""Lines of JSON as objects: orjson reads them, and Python's strict reader judges what orjson cannot vouch for.

orjson takes the last of two equal keys, an integer of any size (as a float), and deeper nesting than Python does. What
it read is taken only where none of that can be: a line's colons are those of its keys and those inside its strings, so
one colon more is a key that was lost. Every other line, and all that orjson refuses, is judged, so that what comes out,
and with which reason it does not, is Python's alone.
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

import orjson

from cpt_ml.lines import Line
from cpt_ml.store import Json

MAX_FLOAT = 1e18  # below it no integer is read as a float
MAX_DEPTH = 500  # Python's own limit depends on its version and on who calls
VOUCHED_DEPTH = 50


class Unreadable(Exception):
    """A line that cannot become a document; the message is the reason's name, never text of the line."""


def parse_line(line: Line) -> Json:
    """The JSON object of a line. Raises Unreadable if it is none, or could be read in two ways."""
    if line.problem:
        raise Unreadable(line.problem)
    try:
        value = json.loads(line.data.decode(), object_pairs_hook=_object, parse_constant=_not_json)
    except UnicodeDecodeError:
        raise Unreadable("not-utf8") from None
    except RecursionError:
        raise Unreadable("nested-too-deep") from None
    except ValueError:
        raise Unreadable("not-json") from None
    if not isinstance(value, dict):
        raise Unreadable("not-an-object")
    if _too_deep(value):
        raise Unreadable("nested-too-deep")
    return cast("Json", value)


def vouched(raw: bytes) -> Json | None:
    """The object of a line, exactly as parse_line reads it, or None where only that can tell."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    # a colon may be written as an escape: then there are fewer in the line than in its strings
    if type(value) is not dict or b"\\u003" in raw:
        return None
    expected = len(value) + "".join(value).count(":")
    for v in value.values():
        expected += v.count(":") if type(v) is str else _colons(v)
    return cast("Json", value) if expected == raw.count(b":") else None


def _colons(value: Any, depth: int = 1) -> float:
    """Colons that the JSON of a value has outside and inside its strings; NaN where it may not be what was written."""
    if type(value) is str:
        return value.count(":")
    if value is None or type(value) is bool or type(value) is int:
        return 0
    if type(value) is float:
        return 0 if -MAX_FLOAT < value < MAX_FLOAT else math.nan
    if depth == VOUCHED_DEPTH:
        return math.nan
    if type(value) is dict:
        return len(value) + sum(_colons(v, depth + 1) for part in (value, value.values()) for v in part)
    return sum(_colons(v, depth + 1) for v in value)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [v for values in inner for v in values]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> Json:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Unreadable("duplicate-key")
    return value


def _not_json(_name: str) -> None:
    raise Unreadable("not-json")
