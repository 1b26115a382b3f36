"""The package's source, parsed once for the architecture tests."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "pellucid"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its path below `src/pellucid`."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def length(path: str) -> int:
    """How many lines a module has."""
    return len((PACKAGE / path).read_text(encoding="utf-8").splitlines())


def called_names(tree: ast.AST) -> set[str]:
    """The dotted name of everything that is called, as far as it can be written down."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def imported_modules(tree: ast.AST) -> set[str]:
    """Every module that is imported, anywhere in the source."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found
