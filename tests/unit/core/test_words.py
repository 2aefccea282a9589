"""What the program says to people is plain English: words that its readers stumble over are kept out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import holdfast
from tests.model.reasons import BANNED, LONGEST, unclear

PACKAGE = Path(holdfast.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


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


def test_no_text_has_a_word_that_is_kept_out() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in FILES
        for line, text in _said(path)
        if BANNED.search(text)
    ]
    assert found == []


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
