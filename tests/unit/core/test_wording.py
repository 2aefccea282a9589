"""Lists, numbers and moments in sentences."""

from __future__ import annotations

import pytest

from holdfast.core.gtid import Flavor, parse
from holdfast.core.wording import (
    Point,
    Topic,
    agree,
    counted,
    moment,
    of_member,
    once,
    parts_of,
    points_of,
    quoted,
    saying,
    some_of,
    transactions,
)

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


def test_verbs_and_nouns_agree_with_their_number() -> None:
    assert agree(["m2"], "hears", "hear") == "m2 hears"
    assert agree(["m2", "m3"], "hears", "hear") == "m2, m3 hear"
    assert counted(1, "acknowledgement") == "1 acknowledgement"
    assert counted(0, "acknowledgement") == "0 acknowledgements"
    assert counted(2, "entry", "entries") == "2 entries"
    assert some_of(1, ["m2"]) == "m2"
    assert some_of(2, ["m2", "m3"]) == "m2, m3"
    assert some_of(1, ["m2", "m3"]) == "1 of m2, m3"


@pytest.mark.parametrize(
    ("flavor", "had", "has", "said"),
    [
        (Flavor.MYSQL, "", f"{UUID}:1-6004528", "6004528 transactions"),
        (Flavor.MYSQL, "", f"{UUID}:7", "1 transaction"),
        (Flavor.MARIADB, "0-1-11", "0-1-12", "1 transaction"),
        (Flavor.MARIADB, "0-1-10", "0-1-12", "2 transactions"),
        (Flavor.MARIADB, "", "0-1-12", "transactions"),
        (Flavor.MARIADB, "0-1-12", "0-1-2000003", "transactions"),
    ],
)
def test_numbers_of_mariadb_are_not_called_transactions(
    flavor: Flavor, had: str, has: str, said: str
) -> None:
    assert transactions(parse(flavor, has).subtract(parse(flavor, had))) == said


def test_moments_are_told_with_the_days_that_are_left() -> None:
    day = 86400
    assert moment(8 * 3600 + 12 * 60, 0) == "08:12 UTC"
    assert moment(day + 60, day - 60) == "00:01 UTC in 1 day"
    assert moment(3 * day, 0) == "00:00 UTC in 3 days"


def test_what_is_said_already_is_not_said_again() -> None:
    against = "no space on m1, and " + of_member("m2", "full") + "; " + of_member("m3", "full")
    text = once([against, of_member("m2", "full"), of_member("m3", "slow"), "as ever", "as ever"])
    assert text == "no space on m1, and m2: full; m3: full; m3: slow; as ever"
    assert parts_of(text) == (against, "m3: slow", "as ever")
    assert once([]) == ""


def test_that_one_text_stands_in_another_makes_it_no_repetition() -> None:
    assert once(["m1 is full, and m2", "m2", "is full"]) == "m1 is full, and m2; m2; is full"
    waits = [saying(text, Topic.WAITS, "m1") for text in ("commits on m1 wait", "they are stuck")]
    assert once(waits) == "commits on m1 wait; they are stuck"


def test_what_a_sentence_says_is_known_of_what_is_made_of_it() -> None:
    full = quoted("no space is left", "m2")
    parts = [of_member("m2", once([full, "it is not started"])), "m1 waits"]
    text = once(["for now: " + once(parts) + " (PAUSED)"])
    assert text == "for now: m2: no space is left; it is not started; m1 waits (PAUSED)"
    assert points_of(text) == {
        Point(Topic.QUOTED, "m2", "no space is left"),
        Point(Topic.MEMBER, "m2", "no space is left; it is not started"),
    }
    assert parts_of(once(parts)) == ("m2: no space is left", "it is not started", "m1 waits")
    assert points_of(f"{text}") == frozenset()
