"""docs/configuration.md names every key there is, or the page that does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import holdfast
from holdfast.config.schema import AgentConfig, ManagerConfig
from holdfast.config.settings import SettingsDocument

PAGE = (Path(holdfast.__file__).parent.parent / "docs" / "configuration.md").read_text()
ELSEWHERE = {"endpoints", "hooks", "vip"}
"""Keys whose own keys have a page of their own, which is named beside them."""


def models(annotation: object) -> set[type[BaseModel]]:
    """All models within a type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for part in get_args(annotation) for found in models(part)}


def keys(model: type[BaseModel]) -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        if name not in ELSEWHERE:
            for inner in models(field.annotation):
                found |= keys(inner)
    return found


@pytest.mark.parametrize("model", [AgentConfig, ManagerConfig, SettingsDocument])
def test_every_key_has_a_row(model: type[BaseModel]) -> None:
    first_cells = " ".join(re.findall(r"^\| ([^|]+)\|", PAGE, re.MULTILINE))
    named = {word for cell in re.findall(r"`([^`]+)`", first_cells) for word in cell.split(".")}
    assert keys(model) - named == set()
