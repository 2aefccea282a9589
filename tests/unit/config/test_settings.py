"""Settings as operators write them: values, keys, what does not fit together, and which layer wins."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from holdfast.config.settings import (
    MEANINGS,
    check,
    defaults,
    effective,
    keys,
    layer,
    layer_of_pairs,
    meaning,
    nested,
    price,
    refuse_strangers,
    shown,
    values,
)
from holdfast.core.settings import Durability, MemberSettings, Mode, Settings, WhenAlone
from holdfast.errors import BadInput

NAMES = ["m1", "m2", "m3"]


@pytest.mark.parametrize(
    ("key", "text", "value", "again"),
    [
        ("mode", "semi-sync", "semi-sync", "semi-sync"),
        ("ack_patience", "500ms", 0.5, "500ms"),
        ("ack_patience", "2s", 2.0, "2s"),
        ("ack_patience", "1.5m", 90.0, "90s"),
        ("semi_sync_timeout", 3, 3.0, "3s"),
        ("strong_sync_threshold", "100MB", 100 * 1024**2, "100MB"),
        ("strong_sync_threshold", "1.5 GiB", 1536 * 1024**2, "1536MB"),
        ("strong_sync_threshold", "1000", 1000, "1000"),
        ("strong_sync_threshold", 0, 0, "0"),
        ("allow_loss", "true", True, "true"),
        ("ack_count", "2", 2, "2"),
        ("members.m1.max_lag", "none", None, "none"),
        ("members.m1.max_lag", "30s", 30.0, "30s"),
        ("members.m1.max_lag", 0, 0.0, "0s"),
        ("members.m1.voter", "no", False, "false"),
        ("members.m1.zone", "eu-1", "eu-1", "eu-1"),
        ("members.m.1.x.priority", "7", 7, "7"),
    ],
)
def test_a_value_is_taken_as_people_write_it_and_shown_so_that_it_can_be_given_again(
    key: str, text: Any, value: Any, again: str
) -> None:
    found = layer_of_pairs({key: text})
    assert found == {key: value}
    assert shown(key, found[key]) == again
    assert layer_of_pairs({key: again}) == found
    assert layer(nested(found)) == json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mod", "x", "mod: unknown key; did you mean mode?"),
        ("members.m1.prio", 1, "members.m1.prio: unknown key; did you mean priority?"),
        ("members.m1", 1, "members.m1: must be members.NAME.priority|zone|voter|max_lag"),
        ("members", 1, "members: must be members.NAME."),
        ("mode", "asynk", "mode: must be 'strong', 'semi-sync' or 'async'"),
        ("ack_count", -1, "ack_count: "),
        ("ack_count", 7, "ack_count: "),
        ("ack_count", True, "ack_count: must be a number"),
        ("ack_patience", 0, "ack_patience: "),
        ("ack_patience", "-1s", "ack_patience: "),
        ("ack_patience", "soon", "ack_patience: must be a duration"),
        ("ack_patience", float("nan"), "ack_patience: must be a duration"),
        ("semi_sync_timeout", True, "semi_sync_timeout: must be a duration"),
        ("strong_sync_threshold", "-1MB", "strong_sync_threshold: "),
        ("strong_sync_threshold", "much", "strong_sync_threshold: must be a size"),
        ("allow_loss", "perhaps", "allow_loss: "),
        ("members.m1.max_lag", -1, "members.m1.max_lag: "),
        ("members.m1.priority", 1001, "members.m1.priority: "),
        ("members.m1.zone", "a b", "members.m1.zone: "),
        ("members.m 1.zone", "a", "members.m 1: "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        layer_of_pairs({key: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_later_layer_wins_key_by_key() -> None:
    settings = effective(
        [
            layer({"mode": "async", "members": {"m1": {"zone": "a", "max_lag": "5s"}}}),
            layer({"when_alone": "serve", "members": {"m1": {"max_lag": None}, "gone": {}}}),
            layer({"mode": "semi-sync", "members": {"gone": {"priority": 1}}}),
        ],
        NAMES,
    )
    assert settings.mode is Mode.SEMI_SYNC
    assert settings.when_alone is WhenAlone.SERVE
    assert settings.members == {"m1": MemberSettings(zone="a", max_lag_seconds=None)}


def test_nothing_set_is_the_default_everywhere() -> None:
    assert effective([], NAMES) == Settings()
    assert list(defaults(NAMES)) == keys(NAMES)
    assert effective([defaults(NAMES)], NAMES) == Settings(
        members={name: MemberSettings() for name in NAMES}
    )
    assert {meaning(key) for key in MEANINGS} == set(MEANINGS.values())


def test_settings_become_a_layer_and_come_back() -> None:
    settings = Settings(
        Mode.ASYNC,
        Durability.ZONES,
        allow_loss=True,
        members={"m1": MemberSettings(0, "a", False, 2.0), "m2": MemberSettings()},
    )
    assert effective([values(settings, ["m1", "m2"])], ["m1", "m2"]) == settings


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"ack_count": 3}, "ack_count: 3 acknowledgements take 4 members that may vote"),
        ({"ack_count": 2, "members.m2.voter": False}, "ack_count: 2 acknowledgements take 3"),
        ({"durability": "zones"}, "members.m1.zone: is needed with durability zones"),
        (
            {"durability": "zones", **{f"members.{name}.zone": "a" for name in NAMES}},
            "durability: zones needs members that may vote in two zones at least; all are in a",
        ),
        (
            {
                "durability": "zones",
                **{f"members.{name}.zone": "a" for name in NAMES},
                "members.m3.zone": "b",
                "members.m3.voter": False,
            },
            "durability: zones needs",
        ),
        ({f"members.{name}.priority": 0 for name in NAMES}, "members: no member that may vote"),
        ({f"members.{name}.voter": False for name in NAMES}, "members: no member may vote"),
        (
            {"members.m1.voter": False, "members.m2.priority": 0, "members.m3.priority": 0},
            "members: no member that may vote has a priority above 0",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(pairs: dict[str, Any], message: str) -> None:
    settings = effective([layer_of_pairs(pairs)], NAMES)
    with pytest.raises(BadInput) as caught:
        check(settings, NAMES)
    assert str(caught.value).startswith(message)


def test_what_fits_together_passes() -> None:
    check(Settings(), NAMES)
    check(Settings(), ["m1"])
    check(Settings(ack_count=2), NAMES)
    zones = {name: MemberSettings(zone=zone) for name, zone in zip(NAMES, "aab", strict=True)}
    check(Settings(durability=Durability.ZONES, members=zones), NAMES)
    zones["m2"] = replace(MemberSettings(), voter=False)
    check(Settings(durability=Durability.ZONES, members=zones), NAMES)


def test_a_member_that_there_is_not_is_named() -> None:
    refuse_strangers(["mode", "members.m1.zone"], NAMES)
    with pytest.raises(
        BadInput, match=r"members\.n1\.zone: there is no member n1; there are m1, m2, m3"
    ):
        refuse_strangers(["members.n1.zone"], NAMES)


def test_what_gives_something_up_says_so() -> None:
    chosen = {"mode": "async", "wait_point": "after_commit", "when_alone": "serve"}
    assert all(price(key, value) for key, value in chosen.items())
    assert price("allow_loss", True)
    assert not any(price(key, value) for key, value in defaults(["m1"]).items())
