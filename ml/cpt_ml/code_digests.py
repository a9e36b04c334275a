"""A digest of each stage's code: of what it means, not of how it is written down.

`python -m cpt_ml.code_digests [--package FOLDER] [--lock uv.lock]` prints {stage: {digest, parts}} as JSON, where
`parts` names what the digest is made of: the modules of ours that the stage reaches by its imports, lazy ones too, and
the libraries that those import, at the versions that uv.lock pins. Comments, docstrings, layout and the order of
imports do not count. contracts/fixtures/code-digests.json locks the digests; docs/architecture.md, Identity, says why.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "cpt_ml"
ENTRY_POINT = "run"
# what is imported under another name than it is installed by
DISTRIBUTIONS = {"fasttext": "fasttext-numpy2", "lm_eval": "lm-eval"}
# what cannot change a result: why each may be left out
INFRASTRUCTURE = {
    "__init__": "empty",
    "__main__": "parses the command line",
    "checkpoint_chain": "keeps and finds checkpoints; that a resumed run ends with the same bits is tested by kills",
    "code_digests": "this tool",
    "disk_store": "moves bytes whose digests are checked",
    "durable_files": "writes files whole; the digest of a folder is tested against TypeScript's",
    "errors": "how a job ends, not what it commits",
    "failpoint": "dies where a test asks for it, and does nothing else",
    "job": "beats, lease, claim and commit around a stage's result",
    "process_identity": "tells processes apart",
    "s3_store": "moves bytes whose digests are checked",
    "store": "moves bytes whose digests are checked",
    "warm": "forks jobs; forked and cold runs are tested to commit the same bytes",
}


class UnknownLibrary(Exception):
    """An import that is neither ours, nor Python's, nor pinned."""


def code_digests(package: Path, lock: Path) -> dict[str, dict[str, Any]]:
    """{stage: {digest, parts: {name: digest or version}}} of every module with an entry point.

    Raises UnknownLibrary when a module imports a library that the lock does not pin.
    """
    trees = {path.stem: ast.parse(path.read_bytes(), str(path)) for path in sorted(package.glob("*.py"))}
    versions = pinned_versions(lock)
    stages = [n for n, tree in trees.items() if n not in INFRASTRUCTURE and _has_entry_point(tree)]
    return {name.replace("_", "-"): _stage(name, trees, versions) for name in stages}


def pinned_versions(lock: Path) -> dict[str, str]:
    """Versions by distribution; several, where the lock pins one for each platform."""
    found: dict[str, set[str]] = {}
    for p in tomllib.loads(lock.read_text())["package"]:
        found.setdefault(p["name"], set()).add(p.get("version", ""))
    return {name: " ".join(sorted(v)) for name, v in found.items()}


def module_digest(tree: ast.Module) -> str:
    """Digest of what a module means: equal for two texts that differ in comments, docstrings and layout."""
    return hashlib.sha256(json.dumps(_meaning(tree), ensure_ascii=True).encode()).hexdigest()[:16]


def _stage(name: str, trees: dict[str, ast.Module], versions: dict[str, str]) -> dict[str, Any]:
    modules = _reached(name, trees)
    parts = {f"{PACKAGE}.{m}": module_digest(trees[m]) for m in modules}
    parts |= {lib: versions[lib] for m in modules for lib in _libraries(m, trees[m], versions)}
    parts = dict(sorted(parts.items()))
    return {"digest": hashlib.sha256(json.dumps(parts).encode()).hexdigest(), "parts": parts}


def _reached(name: str, trees: dict[str, ast.Module]) -> list[str]:
    """The module itself and everything of ours that it imports, directly or not, less the infrastructure."""
    seen: set[str] = set()
    left = [name]
    while left:
        module = left.pop()
        if module in seen or module in INFRASTRUCTURE or module not in trees:
            continue
        seen.add(module)
        left += [m for full in _imported(trees[module]) if (m := _own(full)) is not None]
    return sorted(seen)


def _own(full: str) -> str | None:
    parts = full.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def _libraries(module: str, tree: ast.Module, versions: dict[str, str]) -> Iterator[str]:
    for full in _imported(tree):
        top = full.split(".")[0]
        if top in (PACKAGE, "__future__") or top in sys.stdlib_module_names:
            continue
        name = DISTRIBUTIONS.get(top, re.sub(r"[-_.]+", "-", top).lower())
        if name not in versions:
            raise UnknownLibrary(
                f"{PACKAGE}.{module} imports {top}, and uv.lock pins no {name}: add it to ml/pyproject.toml, or, where "
                f"it is installed by another name, to DISTRIBUTIONS in ml/cpt_ml/code_digests.py"
            )
        yield name


def _imported(tree: ast.Module) -> Iterator[str]:
    """Full names of all that is imported anywhere in a module; `from a import b` may mean the module a.b."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom(level=level) if level > 0:
                base = f"{PACKAGE}.{node.module}" if node.module else PACKAGE
                yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case _:
                pass


def _has_entry_point(tree: ast.Module) -> bool:
    return any(isinstance(n, ast.FunctionDef) and n.name == ENTRY_POINT for n in tree.body)


def _meaning(value: object) -> Any:
    """JSON of a syntax tree. Empty fields are left out: Python versions differ in which ones they have."""
    if isinstance(value, list):
        return [_meaning(v) for v in _imports_sorted(value)]
    if isinstance(value, ast.Constant):
        return ["Constant", type(value.value).__name__, repr(value.value)]
    if not isinstance(value, ast.AST):
        return value
    fields = {k: v for k, v in ast.iter_fields(value) if k not in ("type_comment", "type_ignores")}
    if isinstance(value, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = _without_docstring(value.body)
    return [type(value).__name__, {k: _meaning(v) for k, v in fields.items() if v is not None and v != []}]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
        case _:
            return body


def _imports_sorted(nodes: list[Any]) -> list[Any]:
    """The statements with each run of imports in one order."""
    result: list[Any] = []
    run: list[Any] = []
    for node in [*nodes, None]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names.sort(key=lambda alias: (alias.name, alias.asname or ""))
            run.append(node)
            continue
        result += sorted(run, key=lambda i: json.dumps(_meaning(i)))
        run = []
        if node is not None:
            result.append(node)
    return result


def main() -> int:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(prog="cpt_ml.code_digests", description=__doc__)
    parser.add_argument("--package", type=Path, default=here)
    parser.add_argument("--lock", type=Path, default=here.parent / "uv.lock")
    args = parser.parse_args()
    try:
        print(json.dumps(code_digests(args.package, args.lock), indent=1))
    except UnknownLibrary as e:
        print(f"code_digests: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
