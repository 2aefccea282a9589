"""SIGHUP to agent and manager: they read their file again, and take over what can change while they run.

Everything is read before anything is taken over: if a file is broken, nothing changes. What can be taken over is the
log level, the content of token files, and that of certificates (which are reread every few seconds anyway). Other
differences in the file, or in a file of secrets, are logged: they need a restart of this process, which leaves servers
as they are.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from holdfast import log
from holdfast.config.schema import AgentConfig, ManagerConfig
from holdfast.config.token import TokenFile
from holdfast.errors import HoldfastError
from holdfast.tls import Certificates

LOG_LEVEL = "log_level"

Config = TypeVar("Config", bound=AgentConfig | ManagerConfig)

logger = logging.getLogger(__name__)

_early: list[int] = []


def outlive() -> None:
    """Call before a file is read for the first time: a SIGHUP that comes before :func:`heed` would end the process."""
    _early.clear()
    signal.signal(signal.SIGHUP, lambda number, frame: _early.append(number))


class Reloads(Protocol):
    def ask(self) -> None: ...


def heed(stop: Callable[[], None], reloading: Reloads) -> None:
    """Make the signals end this process in order, or read its file again. Call within its loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reloading.ask)
    if _early:
        reloading.ask()


class Reloading(Generic[Config]):
    """:param path: of the file
    :param running: its content when this process was started
    :param read: reads it
    :param tokens: by the key that names their file
    :param secrets: contents of other files that were read at the start, by the key that names them
    """

    def __init__(
        self,
        path: Path,
        running: Config,
        read: Callable[[Path], Config],
        tokens: Mapping[str, TokenFile | None],
        certificates: Certificates | None,
        secrets: Callable[[Config], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._path = path
        self._running = running
        self._read = read
        self._tokens = {key: token for key, token in tokens.items() if token is not None}
        self._certificates = certificates
        self._secrets = secrets
        self._known = dict(secrets(running))
        self._asked = threading.Event()
        self._working = threading.Lock()

    def ask(self) -> None:
        """Reload in a separate thread: a disk that stalls must not delay a lease."""
        if not self._asked.is_set():
            self._asked.set()
            threading.Thread(target=self._work, name="reload", daemon=True).start()

    def _work(self) -> None:
        with self._working:
            self._asked.clear()
            try:
                text = self.reload()
            except HoldfastError as error:
                text = f"SIGHUP: nothing is changed: {error}"
                log.say(logger, text, logging.ERROR)
            except Exception:
                logger.exception("SIGHUP: nothing is changed: reading %s again failed", self._path)
            else:
                log.say(logger, text)

    def reload(self) -> str:
        """Reload; returns what was done, in one line. :raises HoldfastError: nothing was"""
        new = self._read(self._path)
        found = {
            key: token.read(path)
            for key, token in self._tokens.items()
            if (path := getattr(new, key)) is not None
        }
        secrets = dict(self._secrets(new))
        renewed = self._certificates.look() if self._certificates else False

        done = ["certificates are renewed"] if renewed else []
        done += [f"{key} is renewed" for key in found if self._tokens[key].take(found[key])]
        if new.log_level is not self._running.log_level:
            log.set_level(new.log_level)
            done.append(f"{LOG_LEVEL} is {new.log_level}")
        taken = {LOG_LEVEL: new.log_level} | {key: getattr(new, key) for key in found}
        self._running = cast(Config, self._running.model_copy(update=taken))
        rest = [*differences(self._running.model_dump(), new.model_dump())]
        rest += [
            f"{key} (its content)"
            for key in self._known
            if key in secrets and secrets[key] != self._known[key] and key not in rest
        ]
        text = f"SIGHUP: {self._path.name} was read again: {', '.join(done) or 'nothing is new'}"
        return text + (f"; needs a restart: {', '.join(rest)}" if rest else "")


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Dotted keys of what differs; elements with a name are identified by it."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            inside = f"{where}.{key}" if where else str(key)
            yield from differences(before.get(key), after.get(key), inside)
    elif (one := _by_name(before)) and (other := _by_name(after)):
        yield from differences(one, other, where)
    elif before != after:
        yield where


def _by_name(value: Any) -> dict[str, Any]:
    """A list of elements with names as a mapping; {} for any other value."""
    if not isinstance(value, list | tuple) or not value:
        return {}
    if not all(isinstance(each, dict) and "name" in each for each in value):
        return {}
    return {str(each["name"]): each for each in value}
