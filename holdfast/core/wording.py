"""How lists and numbers are put into sentences."""

from __future__ import annotations

from collections.abc import Collection


def agree(names: Collection[str], one: str, several: str) -> str:
    """``m2 hears``; ``m2, m3 hear``."""
    return f"{', '.join(names)} {one if len(names) == 1 else several}"


def counted(count: int, one: str, several: str = "") -> str:
    """``1 acknowledgement``; ``2 acknowledgements``."""
    return f"{count} {one if count == 1 else several or one + 's'}"
