"""docs/configuration.md has a row for every key of both files and for every setting, with its default, and no other."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

import holdfast
from holdfast.config.schema import AgentConfig, ManagerConfig
from holdfast.config.settings import SettingsDocument, defaults, keys, layer_of_pairs

PAGE = (Path(holdfast.__file__).parent.parent / "docs" / "configuration.md").read_text()
FILES = {"The agent's file": AgentConfig, "The manager's file": ManagerConfig}
SETTINGS = "Settings of a cluster"
MEMBER = "NAME"
EMPTY: tuple[Any, ...] = (None, "", (), {}, SettingsDocument())
"""Defaults that a page describes in words."""

each_file = pytest.mark.parametrize(("heading", "model"), FILES.items(), ids=list(FILES))


def rows(heading: str) -> dict[str, str]:
    """The first table below a heading: by key, the content of its column *default*."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| `([^`]+)` \| ([^|]*?) ?\| ", section, re.MULTILINE)
    assert len(dict(cells)) == len(cells), "a key stands there twice"
    return dict(cells)


def inner(annotation: Any) -> list[type[BaseModel]]:
    """The models within a type, except settings: they have a table of their own."""
    if annotation is SettingsDocument:
        return []
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in inner(part)]


def leaves(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that holds a value, by its dotted path."""
    for name, field in model.model_fields.items():
        below = inner(field.annotation)
        for each in below:
            yield from leaves(each, f"{before}{name}.")
        if not below:
            yield before + name, field


def paths(model: type[BaseModel]) -> set[str]:
    """Every key that there is, those that hold others included."""
    found = {path for path, _ in leaves(model)}
    return found | {
        path.rsplit(".", count)[0] for path in found for count in range(path.count(".") + 1)
    }


@each_file
def test_every_key_of_a_file_has_a_row(heading: str, model: type[BaseModel]) -> None:
    named = set(rows(heading))
    assert {path for path, _ in leaves(model)} - named == set()
    assert named - paths(model) == set()


@each_file
def test_a_row_tells_the_default(heading: str, model: type[BaseModel]) -> None:
    wrong = {}
    for path, field in leaves(model):
        told = rows(heading)[path]
        if field.is_required():
            if told:
                wrong[path] = "has none"
        elif field.default not in EMPTY:
            kind: Any = field.annotation
            value = yaml.safe_load(told.strip("`"))
            row = create_model("Row", value=(kind, field)).model_validate({"value": value})
            if row.model_dump()["value"] != field.default:
                wrong[path] = f"is {field.default}"
    assert wrong == {}


def test_every_setting_has_a_row_with_its_default() -> None:
    told = rows(SETTINGS)
    assert list(told) == keys([MEMBER])
    given = {key: cell.strip("`") for key, cell in told.items() if cell.startswith("`")}
    assert {**defaults([MEMBER]), **layer_of_pairs(given)} == defaults([MEMBER])
    assert set(told) - set(given) == {f"members.{MEMBER}.zone"}
