"""Loads a configuration file, or says in one line which key is wrong and why."""

from __future__ import annotations

import stat
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from holdfast.config.complaint import Model, validated
from holdfast.config.schema import AccountConfig, AgentConfig, ManagerConfig
from holdfast.errors import BadInput
from holdfast.server.base import Account


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
    store = config.store
    if store.path is not None and not store.path.parent.is_dir():
        raise BadInput(f"{path.name}: store", f"{store.path.parent} is no directory")
    if store.password_file is not None:
        secret(store.password_file, "store.password_file")
    return config


def account(config: AccountConfig, key: str) -> Account:
    read = partial(secret, config.password_file, key)
    return Account(config.user, read(), read=read)


def secret(path: Path, key: str) -> str:
    """The first line of a file that holds a password or token."""
    return _lines(path, key)[0]


def _lines(path: Path, key: str) -> tuple[str, ...]:
    """The first line, and the non-empty lines below it."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(key, f"cannot read {path}: {error}") from None
    if not lines or not lines[0].strip():
        raise BadInput(key, f"{path} is empty")
    return tuple(line.strip() for line in lines if line.strip())


def token(path: Path, key: str) -> str:
    """A bearer token: a process that can read it may do all that its owner may.

    :raises BadInput: also when everybody on this host can read it
    """
    return private_lines(path, key)[0]


def private_lines(path: Path, key: str) -> tuple[str, ...]:
    """:raises BadInput: it cannot be read, is empty, or can be read by everybody on this host"""
    found = _lines(path, key)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise BadInput(key, f"every user of this host can read {path} ({mode:04o}): chmod 600 it")
    return found


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
    data = mapping(text, path.name)
    return validated(model, data, path.name)


def mapping(text: str, where: str) -> dict[str, Any]:
    """A document's keys and values.

    :raises BadInput: it is no valid YAML, gives a key twice, or is no mapping
    """
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise BadInput(where, f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadInput(where, "must be a mapping of keys to values")
    return data


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice; the plain loader silently keeps the last one."""

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
