"""The JSON files in which a sandbox and a lab keep what they are: replaced as a whole, checked when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from holdfast.errors import BadInput, first_wrong

Form = TypeVar("Form")


def write(path: Path, value: Any) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1, default=str) + "\n")
    new.replace(path)


def read(path: Path, missing: str) -> dict[str, Any]:
    """:param missing: what to say if the file does not exist

    :raises BadInput: it does not, or it is damaged
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput("--dir", missing) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(found, dict):
        raise _damaged(path, f"it is no object, but {type(found).__name__}")
    return found


def parsed(form: type[Form], found: dict[str, Any], path: Path) -> Form:
    """:raises BadInput: it lacks something, or has something else in its place"""
    try:
        return TypeAdapter(form).validate_python(found)
    except ValidationError as error:
        raise _damaged(path, first_wrong(error.errors())) from None


def _damaged(path: Path, why: object) -> BadInput:
    return BadInput("--dir", f"cannot read {path}: {why}")
