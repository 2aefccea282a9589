"""Plain English: words over which readers stumble are kept out of texts, docstrings and comments."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

import holdfast
from tests.model.reasons import BANNED, LONGEST, unclear

PACKAGE = Path(holdfast.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("holdfast", "bench", "tests")
"""Folders whose docstrings and comments are checked, too."""


def _said(path: Path) -> list[tuple[int, str]]:
    """Every string of a module but docstrings; those of commands, which are their help, are among them."""
    tree = ast.parse(path.read_text())
    silent = set()
    for node in ast.walk(tree):
        is_help = isinstance(node, ast.FunctionDef) and any(
            "command" in ast.unparse(each) for each in node.decorator_list
        )
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) and not is_help else []:
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                silent.add(each.value)
    return [
        (node.lineno, " ".join(node.value.split()))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in silent
    ]


def _explained(path: Path) -> list[tuple[int, str]]:
    """Every docstring of a module, and every comment, which may have several lines."""
    found = [
        (node.lineno, node.value.value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    last = -1
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type != tokenize.COMMENT:
                continue
            line, text = token.start[0], token.string.lstrip("#")
            if line == last + 1:
                line, text = found[-1][0], f"{found.pop()[1]} {text}"
            found.append((line, text))
            last = token.start[0]
    return [(line, " ".join(text.split())) for line, text in found]


def test_no_text_has_a_word_that_is_kept_out() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in FILES
        for line, text in _said(path)
        if BANNED.search(text)
    ]
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_docstring_or_comment_has_a_word_that_is_kept_out(room: str) -> None:
    files = sorted((PACKAGE.parent / room).rglob("*.py"))
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {text}"
        for path in files
        for line, text in _explained(path)
        if BANNED.search(text)
    ]
    assert files
    assert found == []


def test_each_docstring_and_comment_is_read(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        'A = "no docstring"  # a comment\n"""Of\nA."""\n\n\n# all the\n# same\ndef f() -> None:\n    """Does."""\n'
    )
    assert sorted(_explained(module)) == [
        (1, "a comment"),
        (2, "Of A."),
        (6, "all the same"),
        (9, "Does."),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("m1: whoever asks is told", "has a word that is kept out: 'whoever'"),
        ("the primary is gone", "names neither a member nor the cluster"),
        ("m1 " + "x" * LONGEST, "has a part of 163 characters"),
    ],
)
def test_what_is_unclear_is_noticed(text: str, why: str) -> None:
    assert unclear(text, "c") == why
    assert re.fullmatch(r"", unclear("m1 is primary and takes writes; all members vote", "c"))
