"""The shape of the package: dependencies point one way, modules stay small, there is no junk drawer."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import holdfast

ROOT = Path(holdfast.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LARGEST = 400

BELOW = {
    "errors": set(),
    "core": {"errors"},
    "binlog": {"core", "errors"},
    "server": {"core", "errors", "tls"},
    "authority": {"core", "errors"},
    "tls": {"core", "errors"},
    "config": {"core", "errors", "server", "tls"},
    "wire": {"core", "errors"},
    "log": {"config"},
    "store": {"core", "errors"},
    "endpoint": {"core", "errors", "config", "log", "client", "tls"},
    "serving": {"errors", "tls"},
    "guarding": {"core", "errors", "log", "serving"},
    "reloading": {"config", "errors", "log", "tls"},
    "client": {"errors", "tls"},
    "agent": {"core", "errors", "server", "binlog", "config", "wire", "log", "serving", "tls"}
    | {"guarding", "endpoint", "reloading"},
    "manager": {"core", "errors", "store", "config", "wire", "log", "serving", "tls"}
    | {"guarding", "endpoint", "reloading"},
    "sandbox": {"core", "errors", "server", "config", "wire", "log", "client", "agent", "manager"}
    | {"tls", "authority", "endpoint"},
    "cli": {"core", "errors", "config", "log", "client", "agent", "manager", "sandbox"}
    | {"tls", "authority", "endpoint", "reloading"},
}
"""For each part, what it may import of the others."""


def part(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


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
