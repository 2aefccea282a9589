"""The message for a document that its model does not accept: the key, and one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from holdfast.errors import BadInput, first_wrong

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Any, where: str = "") -> Model:
    """``data`` as ``model``.

    :param where: put before the key
    :raises BadInput: naming the first key that is wrong
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = first_wrong(error.errors(include_url=False))
    key = ".".join(_named(data, [part for part in wrong.place if part != "[key]"]))
    meant = _meant(model, wrong.place) if wrong.unknown else ""
    place = ": ".join(part for part in (where, key) if part) or "document"
    raise BadInput(place, wrong.message + meant)


def _named(data: Any, location: Sequence[str | int]) -> Iterator[str]:
    """The place in words: an element of a list by its name, where it has one."""
    for part in location:
        inner: Any = None
        if isinstance(data, Mapping):
            inner = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            inner = data[part]
        name = inner.get("name") if isinstance(part, int) and isinstance(inner, Mapping) else None
        yield name if isinstance(name, str) else str(part)
        data = inner


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``"; did you mean X?"``, or nothing when nothing known is close."""
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _meant(model: type[BaseModel], location: Sequence[str | int]) -> str:
    known: list[str] = []
    for each in _models(model):
        known += each.model_fields
    return did_you_mean(str(location[-1]), known)


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and the models that its fields hold, directly or in a tuple or mapping."""
    found = [model]
    for info in model.model_fields.values():
        for inner in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += _models(inner)
    return found
