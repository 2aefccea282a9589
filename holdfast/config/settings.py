"""The settings of a cluster as operators write them: keys, values, their meaning, and what fits together.

They come as a nested document (a file's ``settings:``) or flat, by dotted keys (``members.m1.priority``). Inside, a
layer is flat and canonical: numbers of seconds and bytes, values that JSON can hold. Layers are laid over each other
key by key: the defaults, the manager's file, and what the store remembers of changes at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from holdfast.config.complaint import did_you_mean, validated
from holdfast.config.values import (
    Count,
    Duration,
    Name,
    Size,
    StrictModel,
    seconds,
    show_bytes,
    show_seconds,
)
from holdfast.core.settings import (
    PROFILES,
    Durability,
    MemberSettings,
    Mode,
    Profile,
    Settings,
    WaitPoint,
    WhenAlone,
)
from holdfast.core.timing import Timing, contradictions
from holdfast.errors import BadInput

Value = str | int | float | bool | None
Layer = Mapping[str, Value]

HIGHEST_PRIORITY = 1000
MOST_ACKS = 6
NEVER = "never"
_DAY = 86400.0


def _lag(value: Any) -> float | None:
    """``none`` means no limit: written explicitly, not left out."""
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    return seconds(value)


def _patience(value: Any) -> float | None:
    """``never`` is no duration: written explicitly, not left out."""
    if value is None or (isinstance(value, str) and value.strip().lower() == NEVER):
        return None
    return seconds(value)


class MemberDocument(StrictModel):
    """``members.NAME``."""

    priority: Annotated[Count, Field(ge=0, le=HIGHEST_PRIORITY)] = 100
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,63}$")] = ""
    voter: bool = True
    max_lag: Annotated[Annotated[float, Field(ge=0, le=_DAY)] | None, BeforeValidator(_lag)] = None


class SettingsDocument(StrictModel):
    """All settings; a document does not set the keys that it leaves out."""

    mode: Mode = Mode.STRONG
    durability: Durability = Durability.MAJORITY
    when_alone: WhenAlone = WhenAlone.BLOCK
    wait_point: WaitPoint = WaitPoint.AFTER_SYNC
    ack_count: Annotated[Count, Field(ge=0, le=MOST_ACKS)] = 0
    semi_sync_timeout: Annotated[Duration, Field(gt=0, le=_DAY)] = 10.0
    ack_patience: Annotated[Duration, Field(gt=0, le=_DAY)] = 1.0
    strong_sync_threshold: Annotated[Size, Field(ge=0)] = 100 * 1024 * 1024
    allow_loss: bool = False
    automatic_failover: bool = True
    failovers_per_hour: Annotated[Count, Field(ge=0, le=1000)] = 12
    failover_interval: Annotated[Duration, Field(ge=0, le=_DAY)] = 0.0
    write_patience: Annotated[Duration, Field(gt=0, le=_DAY)] = 5.0
    repair_after: Annotated[
        Annotated[float, Field(ge=0, le=366 * _DAY)] | None, BeforeValidator(_patience)
    ] = 60.0
    events: bool = True
    verify_every: Annotated[Duration, Field(ge=0, le=366 * _DAY)] = 0.0
    profile: Profile = Profile.DEFAULT
    heartbeat: Annotated[Duration, Field(ge=0.02, le=60)] | None = None
    lease: Annotated[Duration, Field(gt=0, le=600)] | None = None
    detection: Annotated[Duration, Field(gt=0, le=600)] | None = None
    members: dict[Name, MemberDocument] = Field(default_factory=dict)


MEANINGS = {
    "mode": "strong: voters have a commit before it is answered; semi-sync: or a time-out passed; async: they need not",
    "durability": "how many voters must have a commit: majority, all, or zones (a majority, one in another zone)",
    "when_alone": "without any other voter: block acknowledges nothing, serve continues without a second copy",
    "wait_point": "wait before a row is visible (after_sync), or after (after_commit)",
    "ack_count": "the lowest number of acknowledgements, if more are wanted than durability asks for",
    "semi_sync_timeout": "mode semi-sync: after this time a commit is answered without acknowledgement",
    "ack_patience": "how long acknowledgements of a voter may be overdue before it is removed from the voters",
    "strong_sync_threshold": "how much a member may still have to apply when it is admitted to the voters",
    "allow_loss": "in modes semi-sync and async: allow a failover to a replica that may lack acknowledged commits",
    "automatic_failover": "false: a primary that died is restarted in place",
    "failovers_per_hour": "the highest number of automatic failovers in an hour; 0: no limit",
    "failover_interval": "the shortest time between two automatic failovers; 0: none",
    "write_patience": "a primary that answers, but on which no write succeeds, is replaced after this time; one that "
    "answers nothing and that no member can replace is restarted in place after four times this time",
    "repair_after": "a member whose applier is broken is replaced by a copy after this time; each repair that has "
    "not helped doubles it; never: only when an operator orders it",
    "events": "the event scheduler runs on the primary and nowhere else; false: Holdfast leaves it alone",
    "verify_every": "how often each member's tables are compared with the primary's; 0: only on an operator's order",
    "profile": "heartbeat, lease and detection together: default, or fast for quiet machines and networks",
    "heartbeat": "interval at which an agent and a replication source send something even when nothing has changed",
    "lease": "how long a primary may answer clients after its lease was last renewed",
    "detection": "how long a member may be silent before it counts as lost",
}
MEMBER_MEANINGS = {
    "priority": "which member takes over when several could: the highest priority; 0: it never becomes primary",
    "zone": "members in one zone may be lost together",
    "voter": "false: it stays a standby; its acknowledgements never count",
    "max_lag": "how far its applier may be behind for it to take over; none: no limit",
}
_PRICES = {
    (
        "mode",
        "semi-sync",
    ): "a commit may be answered that no other server has, once the time-out has passed: "
    "losing the primary then loses it",
    (
        "mode",
        "async",
    ): "commits are answered before any other server has them: losing the primary loses the last ones",
    (
        "when_alone",
        "serve",
    ): "a primary that is left alone keeps taking writes: what it then commits is lost with it",
    (
        "wait_point",
        "after_commit",
    ): "other sessions see a row before a voter has it: a failover may take back what "
    "they have read",
    (
        "allow_loss",
        True,
    ): "in modes semi-sync and async a replica may take over that lacks acknowledged commits",
}
_TIMES = tuple(each.name for each in fields(Timing))
_AS_SECONDS = {
    "semi_sync_timeout",
    "ack_patience",
    "max_lag",
    "failover_interval",
    "write_patience",
    "repair_after",
    "verify_every",
    *_TIMES,
}
_AS_BYTES = {"strong_sync_threshold"}


def layer(document: Mapping[str, Any]) -> dict[str, Value]:
    """A nested document, validated.

    :raises BadInput: naming the dotted key
    """
    return flat(validated(SettingsDocument, document))


def flat(document: SettingsDocument) -> dict[str, Value]:
    """What a validated document sets, by dotted key."""
    found: dict[str, Value] = {}
    for key, value in document.model_dump(mode="json", exclude_unset=True).items():
        if key != "members":
            found[key] = value
            continue
        for name, member in value.items():
            found |= {f"members.{name}.{part}": each for part, each in member.items()}
    return found


def layer_of_pairs(pairs: Mapping[str, Any]) -> dict[str, Value]:
    """Dotted keys with values as operators write them, validated.

    :raises BadInput: naming the key
    """
    return layer(nested(pairs))


def nested(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The document that sets these dotted keys."""
    document: dict[str, Any] = {}
    for key, value in pairs.items():
        if key.partition(".")[0] != "members":
            document[key] = value
            continue
        name, part = member_key(key)
        document.setdefault("members", {}).setdefault(name, {})[part] = value
    return document


def member_key(key: str) -> tuple[str, str]:
    """``members.NAME.PART`` -> name and part; a name may contain dots.

    :raises BadInput: it is not of that form
    """
    name, _, part = key.removeprefix("members.").rpartition(".")
    if not key.startswith("members.") or not name or not part:
        raise BadInput(key, f"must be members.NAME.{'|'.join(MEMBER_MEANINGS)}")
    return name, part


def known_key(key: str) -> None:
    """:raises BadInput: there is no such key"""
    if key.partition(".")[0] == "members":
        part, known = member_key(key)[1], list(MEMBER_MEANINGS)
    else:
        part, known = key, list(MEANINGS)
    if part not in known:
        raise BadInput(key, f"unknown key{did_you_mean(part, known)}")


def keys(members: Iterable[str]) -> list[str]:
    """Every key that a cluster of these members has."""
    return [*MEANINGS, *(f"members.{name}.{part}" for name in members for part in MEMBER_MEANINGS)]


def meaning(key: str) -> str:
    if key.startswith("members."):
        return MEMBER_MEANINGS[member_key(key)[1]]
    return MEANINGS[key]


def shown(key: str, value: Value) -> str:
    """A value as an operator would write it."""
    part = key.rpartition(".")[2]
    if value is None:
        return NEVER if part == "repair_after" else "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if part in _AS_SECONDS:
        return show_seconds(float(value))
    return show_bytes(int(value)) if part in _AS_BYTES else str(value)


def price(key: str, value: Value) -> str:
    """What choosing the value gives up, in one sentence, or \"\"."""
    return _PRICES.get((key, value), "")


def defaults(members: Iterable[str]) -> dict[str, Value]:
    return values(Settings(), members)


def values(settings: Settings, members: Iterable[str]) -> dict[str, Value]:
    """Settings as a layer that sets everything."""
    found: dict[str, Value] = {
        key: getattr(settings.timing if key in _TIMES else settings, key) for key in MEANINGS
    }
    for name in members:
        for part in MEMBER_MEANINGS:
            found[f"members.{name}.{part}"] = getattr(settings.member(name), _field(part))
    return found


def effective(layers: Sequence[Layer], members: Sequence[str]) -> Settings:
    """Later layers win, key by key. Settings of members that are not in ``members`` are left out."""
    merged: dict[str, Value] = {}
    for each in layers:
        merged |= each
    document = validated(SettingsDocument, nested(merged))
    own = {f.name for f in fields(Settings)} - {"members", "timing"}
    times = {key: given for key in _TIMES if (given := getattr(document, key)) is not None}
    return Settings(
        **{key: getattr(document, key) for key in own},
        timing=replace(PROFILES[document.profile], **times),
        members={
            name: MemberSettings(each.priority, each.zone, each.voter, each.max_lag)
            for name, each in document.members.items()
            if name in members
        },
    )


def refuse_strangers(keys: Iterable[str], members: Sequence[str]) -> None:
    """:raises BadInput: a key names a member that does not exist"""
    for key in keys:
        if not key.startswith("members."):
            continue
        name = member_key(key)[0]
        if name not in members:
            raise BadInput(key, f"there is no member {name}; there are {', '.join(members)}")


def check(settings: Settings, members: Sequence[str]) -> None:
    """Check that the settings fit together, and with the members.

    :raises BadInput: naming a key that does not, and what to do
    """
    for key, why in contradictions(settings.timing):
        raise BadInput(key, why)
    voting = [name for name in members if settings.member(name).voter]
    if not voting:
        raise BadInput("members", "no member may vote: leave voter: true for one at least")
    if not any(settings.member(name).priority for name in voting):
        raise BadInput(
            "members", "no member that may vote has a priority above 0: nobody could be primary"
        )
    if settings.ack_count > len(voting) - 1:
        raise BadInput(
            "ack_count",
            f"{settings.ack_count} acknowledgements take {settings.ack_count + 1} members that "
            f"may vote, and there are {len(voting)}",
        )
    if settings.durability is Durability.ZONES:
        for name in voting:
            if not settings.member(name).zone:
                raise BadInput(
                    f"members.{name}.zone", "is needed with durability zones, as it may vote"
                )
        zones = {settings.member(name).zone for name in voting}
        if len(zones) < 2:
            raise BadInput(
                "durability",
                f"zones needs members that may vote in two zones at least; all are in {zones.pop()}",
            )


def _field(part: str) -> str:
    return "max_lag_seconds" if part == "max_lag" else part
