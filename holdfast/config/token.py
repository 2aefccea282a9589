"""A bearer token that can be changed while its users run, and its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from holdfast.config.load import private_lines


class TokenFile:
    """A bearer token: of several lines of its file the first is sent, and each is accepted.

    So a token can be changed without a moment in which hosts refuse each other, which would cost a primary its lease:
    add the new one as a second line everywhere, then make it the first everywhere, then remove the former one.

    :ivar renewed: called after another token was taken over
    """

    def __init__(self, path: Path, key: str) -> None:
        """:raises BadInput: it cannot be read, is empty, or can be read by everybody on this host"""
        self._key = key
        self._tokens = self.read(path)
        self.renewed: list[Callable[[], None]] = []

    @property
    def sent(self) -> str:
        return self._tokens[0]

    @property
    def accepted(self) -> tuple[str, ...]:
        return self._tokens

    def read(self, path: Path) -> tuple[str, ...]:
        """What a file holds now; nothing is taken over. :raises BadInput: as the constructor"""
        return private_lines(path, self._key)

    def take(self, tokens: tuple[str, ...]) -> bool:
        """Use these from now on; returns whether they differ from the former."""
        if tokens == self._tokens:
            return False
        self._tokens = tokens
        for each in self.renewed:
            each()
        return True

    @classmethod
    def at(cls, path: Path | None, key: str) -> TokenFile | None:
        return cls(path, key) if path is not None else None
