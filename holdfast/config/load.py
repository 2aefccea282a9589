"""Load a configuration file, or say in one line which key is wrong and why."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from holdfast.config.schema import AccountConfig, AgentConfig, ManagerConfig
from holdfast.errors import BadInput
from holdfast.server.base import Account

Model = TypeVar("Model", bound=BaseModel)


def agent_config(path: Path) -> AgentConfig:
    """:raises BadInput: also when a file that it names cannot be read"""
    config = _load(path, AgentConfig)
    _readable(path, "server.option_file", config.server.option_file)
    if not config.server.datadir.is_dir():
        raise BadInput(f"{path.name}: server.datadir", f"{config.server.datadir} is no directory")
    account(config.server.admin, "server.admin.password_file")
    account(config.replication, "replication.password_file")
    return config


def manager_config(path: Path) -> ManagerConfig:
    """:raises BadInput: also when a file that it names cannot be read"""
    config = _load(path, ManagerConfig)
    if not config.store.parent.is_dir():
        raise BadInput(f"{path.name}: store", f"{config.store.parent} is no directory")
    return config


def account(config: AccountConfig, key: str) -> Account:
    return Account(config.user, secret(config.password_file, key))


def secret(path: Path, key: str) -> str:
    """The first line of a file that holds a password or token."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(key, f"cannot read {path}: {error}") from None
    if not lines or not lines[0].strip():
        raise BadInput(key, f"{path} is empty")
    return lines[0].strip()


def _readable(path: Path, key: str, named: Path) -> None:
    try:
        named.open().close()
    except OSError as error:
        raise BadInput(f"{path.name}: {key}", f"cannot read {named}: {error.strerror}") from None


def _load(path: Path, model: type[Model]) -> Model:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("--config", f"cannot read {path}: {error}") from None
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise BadInput(path.name, f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadInput(path.name, "must be a mapping of keys to values")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown key{_meant(model, first['loc'])}"
        elif first["type"] == "missing":
            message = "required, and not there"
        raise BadInput(f"{path.name}: {key}" if key else path.name, message) from None


def _meant(model: type[BaseModel], location: Sequence[str | int]) -> str:
    known: list[str] = []
    for each in _models(model):
        known += each.model_fields
    close = get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and the models that its fields hold, directly or in a tuple."""
    found = [model]
    for info in model.model_fields.values():
        for inner in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += _models(inner)
    return found


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice; the plain loader keeps the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
