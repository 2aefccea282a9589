"""The form of what a manager reports: plain words, short parts, and the name of a member or of the cluster in it."""

from __future__ import annotations

import re
from functools import lru_cache

LONGEST = 160
"""Characters of one part: a reason has one for each member and each fact, separated by ``;``."""

BANNED = re.compile(
    r"\b(whoever|whom|is told|gives? (its|their) word|goes on|all the same|a person|by a hand|a hand ha[sd]"
    r"|votes no longer|surely|whomever|nobody but|himself|gone on|whose word)\b",
    re.IGNORECASE,
)
_GTIDS = re.compile(r"\b([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+-\d+)[-:.,\w]*")
_MORE = re.compile(r"(, m\d( \([^()]*\))?)+")
"""Further members of a list: its length does not depend on the wording."""


@lru_cache(4096)
def unclear(text: str, cluster: str) -> str:
    """What is wrong with a reason, or ""."""
    if found := BANNED.search(text):
        return f"has a word that is kept out: {found[0]!r}"
    if not re.search(rf"\b(m\d|{re.escape(cluster)})\b", text):
        return "names neither a member nor the cluster"
    longest = max(map(len, _MORE.sub("", _GTIDS.sub("", text)).split("; ")))
    return f"has a part of {longest} characters" if longest > LONGEST else ""
