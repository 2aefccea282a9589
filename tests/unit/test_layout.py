"""The shape of the package: dependencies point one way, folders and modules stay small, a name is one thing."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import holdfast

ROOT = Path(holdfast.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LARGEST = 400
MOST_FILES = 15
MOST_PARAMETERS = 8

BELOW = {
    "errors": set(),
    "core": {"errors"},
    "binlog": {"core", "errors"},
    "tls": {"core", "errors"},
    "server": {"core", "errors", "tls"},
    "config": {"core", "errors", "server", "tls"},
    "log": {"config"},
    "http": {"core", "errors", "log", "tls"},
    "reloading": {"config", "errors", "log", "tls"},
    "store": {"core", "errors"},
    "endpoint": {"core", "errors", "config", "log", "http", "tls"},
    "agent": {"core", "errors", "server", "binlog", "config", "log", "http", "tls"}
    | {"endpoint", "reloading"},
    "manager": {"core", "errors", "store", "config", "log", "http", "tls"}
    | {"endpoint", "reloading"},
    "sandbox": {"core", "errors", "server", "config", "log", "http", "agent", "manager"}
    | {"tls", "endpoint"},
    "cli": {"core", "errors", "config", "log", "http", "agent", "manager", "sandbox"}
    | {"tls", "endpoint", "reloading"},
}
"""For each part, which others it may import."""


def named(module: Path) -> str:
    """Its name in imports."""
    parts = module.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {named(module): module for module in MODULES}


def part(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def room(name: str) -> str:
    """The folder of a module; a module beside folders is a room of its own."""
    folder = NAMES[name].parent
    if NAMES[name].name != "__init__.py" and any(each.is_dir() for each in rooms_in(folder)):
        return name
    return named(folder / "__init__.py")


def rooms_in(folder: Path) -> Iterator[Path]:
    return (each.parent for each in folder.glob("*/__init__.py"))


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(module: Path) -> None:
    lines = len(module.read_text().splitlines())
    assert lines <= LARGEST, f"{lines} lines: split it"
    assert module.stem not in {"utils", "helpers", "common", "misc"}
    own = part(module)
    if own == "__init__":
        return
    ours = {n.split(".")[1] for n in imported(module) if n.startswith("holdfast.")} - {own}
    assert ours <= BELOW[own], f"{own} must not import {sorted(ours - BELOW[own])}"
    if own == "core":
        others = {n.split(".")[0] for n in imported(module)} - {"holdfast", "__future__"}
        assert others <= set(sys.stdlib_module_names), "core is standard library only"
        assert not others & {"logging", "random", "time", "socket", "os", "datetime"}, (
            "core is pure"
        )


def test_no_folder_needs_another_one_in_a_circle() -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for name, module in NAMES.items():
        used = imported(module) & set(NAMES)
        # ``from package import module`` means the module
        used -= {each for each in used if any(other.startswith(f"{each}.") for other in used)}
        needs[room(name)] |= {room(each) for each in used} - {room(name)}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' needs '.join(error.args[1][::-1])}")


@pytest.mark.parametrize("folder", sorted({module.parent for module in MODULES}), ids=str)
def test_a_folder_can_be_looked_over(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES


def test_public_classes_have_names_of_their_own() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, module in NAMES.items():
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name)
    assert {name: there for name, there in found.items() if len(there) > 1} == {}


def test_no_function_takes_too_many_parameters() -> None:
    """A command's options are its parameters: Typer needs that."""
    found = {}
    commands = set(
        re.findall(r"\.command\([^)]*\)\(\w+\.(\w+)\)", (ROOT / "cli" / "main.py").read_text())
    )
    assert commands
    for name, module in NAMES.items():
        for node in ast.walk(ast.parse(module.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if part(module) == "cli" and (
                node.name in commands
                or any(".command" in ast.unparse(each) for each in node.decorator_list)
            ):
                continue
            taken = node.args
            names = [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
            count = len([each for each in names if each not in ("self", "cls")])
            count += bool(taken.vararg) + bool(taken.kwarg)
            if count > MOST_PARAMETERS:
                found[f"{name}:{node.lineno} {node.name}"] = count
    assert found == {}


def test_what_the_type_checker_passes_over_has_a_reason_beside_it() -> None:
    repository = ROOT.parent
    found = [
        f"{path.relative_to(repository)}:{number}"
        for folder in ("holdfast", "tests", "bench", "scripts")
        for path in (repository / folder).rglob("*")
        if path.suffix == ".py" or path.name in ("get-servers", "mutants")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# type: ignore\[[^]]+\](?!  # \w)", line)
    ]
    assert found == []
