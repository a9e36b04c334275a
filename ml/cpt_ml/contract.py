"""Strict parsing of a request into a frozen dataclass: the Python side of contracts/src.

Unknown keys, missing keys and wrong types are errors that name the path, what was expected and what came. Defaults are
filled in TypeScript before a fingerprint is taken, so no field has a default here.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from cpt_ml.errors import BadRequest
from cpt_ml.store import ArtifactRef

T = TypeVar("T")


def parse(cls: type[T], value: object, path: str = "request") -> T:
    """Builds `cls` from JSON. Raises BadRequest listing every problem."""
    problems: list[str] = []
    result = _parse(cls, value, path, problems)
    if problems:
        raise BadRequest("; ".join(problems))
    return result


def _parse(kind: Any, value: object, path: str, problems: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _parse_union(args, value, path, problems)
    if origin is typing.Literal:
        return value if value in args else _wrong(path, f"one of {list(args)}", value, problems)
    if origin is list:
        if not isinstance(value, list):
            return _wrong(path, "a list", value, problems)
        return [_parse(args[0], v, f"{path}[{i}]", problems) for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            return _wrong(path, "an object", value, problems)
        return {k: _parse(args[1], v, f"{path}.{k}", problems) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path, problems)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, bool):
        return _wrong(path, "int", value, problems)
    if not isinstance(value, kind):
        return _wrong(path, kind.__name__, value, problems)
    return value


def _parse_union(args: tuple[Any, ...], value: object, path: str, problems: list[str]) -> Any:
    if value is None and type(None) in args:
        return None
    # members that are objects are told apart by their literal `kind`
    tries = [a for a in args if a is not type(None)]
    if isinstance(value, dict) and "kind" in value:
        for a in tries:
            hint = typing.get_type_hints(a).get("kind") if dataclasses.is_dataclass(a) else None
            if hint is not None and value["kind"] in typing.get_args(hint):
                return _parse(a, value, path, problems)
    if len(tries) == 1:
        return _parse(tries[0], value, path, problems)
    return _wrong(path, " or ".join(getattr(a, "__name__", str(a)) for a in tries), value, problems)


def _parse_dataclass(kind: Any, value: object, path: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        return _wrong(path, f"an object ({kind.__name__})", value, problems)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    keys = {_camel(n): n for n in names}
    for k in value:
        if k not in keys:
            problems.append(f"{path}.{k}: unknown key; expected {sorted(keys)}")
    fields: dict[str, Any] = {}
    for key, name in keys.items():
        if key in value:
            fields[name] = _parse(hints[name], value[key], f"{path}.{key}", problems)
        elif type(None) in typing.get_args(hints[name]):
            fields[name] = None
        else:
            problems.append(f"{path}.{key}: missing")
            fields[name] = None
    return None if kind is ArtifactRef and problems else kind(**fields)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _wrong(path: str, expected: str, value: object, problems: list[str]) -> None:
    problems.append(f"{path}: expected {expected}, got {str(value)[:80]!r}")
