"""Rules of the house that a reader of the source could check, checked."""

import ast
from collections.abc import Iterator

from arch.source import called_names, imported_modules, length, modules

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
HOOKS = "models/taps.py"
FOREIGN_FILES = "dictionaries/formats/files.py"


def test_there_is_source_to_check() -> None:
    assert {"core/types.py", HOOKS, "cli/app.py", "training/loop.py"} <= set(modules())


def test_hooks_are_registered_in_one_module() -> None:
    registering = {
        path
        for path, tree in modules().items()
        if any("register" in name and "hook" in name for name in called_names(tree))
    }
    assert registering == {HOOKS}


def test_nothing_is_unpickled_and_no_foreign_code_is_run() -> None:
    libraries = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    calls = {"torch.save", "torch.hub.load", "eval", "exec"}
    for path, tree in modules().items():
        assert not imported_modules(tree) & libraries, path
        assert not called_names(tree) & calls, path
        for keyword in (node for node in ast.walk(tree) if isinstance(node, ast.keyword)):
            if keyword.arg in ("trust_remote_code", "allow_pickle"):
                assert ast.unparse(keyword.value) == "False", path


def test_a_foreign_pickle_is_loaded_as_tensors_alone_and_in_one_module() -> None:
    loads = [
        (path, ast.unparse(node))
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert [path for path, _ in loads] == [FOREIGN_FILES]
    assert all("weights_only=True" in call for _, call in loads)


def test_only_the_command_line_prints_or_exits() -> None:
    for path, tree in modules().items():
        if not path.startswith("cli/") and path != "__main__.py":
            assert not called_names(tree) & {"print", "exit", "sys.exit"}, path
            assert not imported_modules(tree) & {"typer", "rich", "argparse"}, path


def test_modules_are_short() -> None:
    assert {path: length(path) for path in modules() if length(path) > LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    long = {
        f"{path}: {function.name}": lines
        for path, tree in modules().items()
        for function, lines in _functions(tree)
        if lines > LONGEST_FUNCTION
    }
    assert long == {}


def _functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, int]]:
    """Every function with the length of its body, the docstring left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert [path for path in modules() if drawers & set(path.removesuffix(".py").split("/"))] == []


def test_nothing_inherits_from_a_final_class() -> None:
    """A subclass of a concrete class would need reading two classes to know one."""
    closed = {node.name for node in _classes() if _is_closed(node)}
    inherited = {ast.unparse(base) for node in _classes() for base in node.bases}
    assert inherited & closed == set()


def _classes() -> Iterator[ast.ClassDef]:
    for tree in modules().values():
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def _is_closed(node: ast.ClassDef) -> bool:
    marks = {ast.unparse(mark).split("(")[0] for mark in node.decorator_list}
    abstract = "ABC" in {ast.unparse(base) for base in node.bases}
    return bool(marks & {"final", "dataclass"}) and not abstract
