"""How lists, numbers, moments and durations are put into sentences, and by which key sentences are compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from holdfast.core.gtid import SEQUENCE_STEP, Flavor, GtidSet

DAY_SECONDS = 86_400


def agree(names: Collection[str], one: str, several: str) -> str:
    """``m2 hears``; ``m2, m3 hear``."""
    return f"{', '.join(names)} {one if len(names) == 1 else several}"


def once(parts: Iterable[str]) -> str:
    """All parts in one sentence; a part that another one already contains is left out."""
    text = ""
    for part in parts:
        if part not in text:
            text = text + "; " + part if text else part
    return text


def counted(count: int, one: str, several: str = "") -> str:
    """``1 acknowledgement``; ``2 acknowledgements``."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def some_of(count: int, names: Collection[str]) -> str:
    """That many of the names: ``m2``; ``m2, m3``; ``1 of m2, m3``."""
    listed = ", ".join(names)
    return listed if count >= len(names) else f"{count} of {listed}"


def transactions(gtids: GtidSet) -> str:
    """How many transactions these are, if that is known.

    MariaDB's servers share the numbers of a domain, and begin anew, far higher, with each primary: in a stream that is
    not known from before nothing can be counted.
    """
    count = gtids.count()
    if gtids.flavor is Flavor.MARIADB:
        unknown = any(spans[0][0] == 1 < spans[-1][1] for spans in gtids.streams.values())
        if unknown or count >= SEQUENCE_STEP:
            return "transactions"
    return counted(count, "transaction")


def moment(at: float, now: float) -> str:
    """``08:12 UTC``, with the number of days that it is ahead.

    :param at, now: seconds since 1970
    """
    days = int(at // DAY_SECONDS) - int(now // DAY_SECONDS)
    minutes = int(at % DAY_SECONDS) // 60
    ahead = f" in {counted(days, 'day')}" if days > 0 else ""
    return f"{minutes // 60:02}:{minutes % 60:02} UTC{ahead}"


class Reason(str):
    """A sentence for display, with the key by which it is compared.

    It stays a Reason when it is put together with ``+`` and :func:`joined`. An f-string makes a plain ``str`` of it,
    which is compared as it stands: right for what is only shown.

    :ivar key: the sentence without how long it has lasted
    """

    __slots__ = ("key",)
    key: str

    def __new__(cls, text: str, key: str) -> Reason:
        made = super().__new__(cls, text)
        made.key = key
        return made

    def __add__(self, other: str) -> Reason:
        return Reason(str.__add__(self, other), self.key + key_of(other))

    def __radd__(self, other: str) -> Reason:
        return Reason(str.__add__(other, self), key_of(other) + self.key)

    def __reduce__(self) -> tuple[type[Reason], tuple[str, str]]:
        return Reason, (str(self), self.key)


def lasting(seconds: float, digits: int = 0) -> Reason:
    """``12 s``: how long something has lasted, or how long ago it was."""
    return Reason(f"{seconds:.{digits}f} s", "")


def key_of(text: str) -> str:
    """The key by which a sentence is compared."""
    return text.key if isinstance(text, Reason) else text


def joined(separator: str, parts: Iterable[str]) -> str:
    """``separator.join(parts)``; a Reason if one of them is."""
    text = ""
    for number, part in enumerate(parts):
        text = text + separator + part if number else part
    return text


def capitalised(text: str) -> str:
    """The sentence with a capital: ``The server …``; a member's name stays as it is."""
    if not text.startswith(("the ", "a ")):
        return text
    first = text[0].upper()
    key = first + key_of(text)[1:]
    text = first + text[1:]
    return Reason(text, key) if key != text else text


def is_under_way(kind: str) -> str:
    """:param kind: of a transition"""
    return f"{_KINDS.get(kind, f'a {kind}')} is under way"


_KINDS = {"strengthen": "a change to mode strong", "bootstrap": "the opening of the first primary"}
"""Kinds whose names are no nouns to an operator."""
