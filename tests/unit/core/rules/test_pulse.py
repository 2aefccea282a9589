"""For how long a member owes an acknowledgement, and for what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.observed.lapse import Lapse
from holdfast.core.rules.pulse import Pulse, felt, lapses
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    Seen,
    SemiSync,
    ServerStatus,
    Sighting,
    Unseen,
    View,
)

UUID = "11111111-71ca-11e1-9e33-c80aa9429562"


def server(name: str, flavor: Flavor, upto: int, **changes: Any) -> MemberState:
    gtids = f"0-1-{upto}" if flavor is Flavor.MARIADB else f"{UUID}:1-{upto}"
    state = MemberState(
        name,
        flavor,
        server=ServerStatus.UP,
        incarnation=f"{name}.1",
        received=gtids,
        applied=gtids,
        replication=Replication("p:3306", Receiver.ON, True),
    )
    return replace(state, **changes)


class Looks:
    """Feels the pulses at each look, and reports what is held against x."""

    def __init__(self) -> None:
        self.pulses: dict[str, Pulse] = {}

    def at(self, now: float, primary: MemberState, x: Sighting | MemberState) -> Lapse | None:
        sighting = Seen(x, now) if isinstance(x, MemberState) else x
        view = View({"p": Seen(primary, now), "x": sighting}, now)
        self.pulses = felt(self.pulses, "p", view)
        return lapses(self.pulses).get("x")


@pytest.fixture(params=list(Flavor))
def flavor(request: pytest.FixtureRequest) -> Flavor:
    return Flavor(request.param)


def test_one_that_is_always_a_little_behind_never_owes_for_long(flavor: Flavor) -> None:
    looks = Looks()
    for second in range(9):
        primary = server("p", flavor, 10 * second + 10)
        found = looks.at(second, primary, server("x", flavor, 10 * second + 5))
        assert found is None or found.seconds <= 1.0


def test_one_that_receives_nothing_of_what_is_committed(flavor: Flavor) -> None:
    looks = Looks()
    assert looks.at(0.0, server("p", flavor, 10), server("x", flavor, 10)) is None
    assert looks.at(0.5, server("p", flavor, 20), server("x", flavor, 10)) is None
    found = looks.at(2.0, server("p", flavor, 30), server("x", flavor, 10))
    assert found == Lapse(1.5, "it does not receive what the primary commits")
    assert looks.at(2.5, server("p", flavor, 30), server("x", flavor, 30)) is None


def test_nothing_is_owed_where_nothing_is_written(flavor: Flavor) -> None:
    looks = Looks()
    for second in range(100):
        assert looks.at(second, server("p", flavor, 10), server("x", flavor, 10)) is None


def test_commits_that_wait_show_who_receives_them(flavor: Flavor) -> None:
    """Nothing is committed while they wait. On MySQL the primary does not even show what waits."""
    waiting = SemiSync(source=True, acks=2, waiting=3)
    looks, well = Looks(), Looks()
    shown = 12 if flavor is Flavor.MARIADB else 10  # what is in its binlog, or what is committed
    for now in (0.0, 1.0, 3.0):
        primary = server("p", flavor, shown, semi_sync=waiting if now else SemiSync())
        guilty = looks.at(now, primary, server("x", flavor, 10))
        innocent = well.at(now, primary, server("x", flavor, 12))
    assert guilty
    assert guilty.seconds >= 2.0
    assert innocent is None


def test_commits_that_wait_for_long_are_held_against_the_primary_itself(flavor: Flavor) -> None:
    looks = Looks()
    waiting = SemiSync(source=True, acks=1, waiting=2)
    for now, upto in ((0.0, 10), (1.0, 11), (2.0, 11), (3.0, 11)):
        looks.at(now, server("p", flavor, upto, semi_sync=waiting), server("x", flavor, upto))
    assert lapses(looks.pulses)["p"] == Lapse(2.0, "its commits wait")
    looks.at(4.0, server("p", flavor, 11), server("x", flavor, 11))
    assert "p" not in lapses(looks.pulses)


def test_an_answer_that_is_late_makes_nobody_guilty(flavor: Flavor) -> None:
    """The primary is seen often; the member's last answer was good, and the next has not come yet."""
    looks = Looks()
    looks.at(0.0, server("p", flavor, 10), server("x", flavor, 10))
    good = Seen(server("x", flavor, 19), 0.9)
    for now, upto in ((1.0, 20), (2.0, 30), (3.0, 40)):
        found = looks.at(now, server("p", flavor, upto), good)
        assert found is None or found.seconds < 1.0


def test_a_server_that_does_not_answer_owes_since_it_fell_silent(flavor: Flavor) -> None:
    looks = Looks()
    looks.at(0.0, server("p", flavor, 10), server("x", flavor, 10))
    frozen = server("x", flavor, 10, silent_seconds=0.7)
    found = looks.at(1.0, server("p", flavor, 10), frozen)
    assert found is not None
    assert found.seconds >= 0.7
    assert found.reason == "its server does not answer"


def test_an_agent_that_does_not_answer(flavor: Flavor) -> None:
    looks = Looks()
    looks.at(0.0, server("p", flavor, 10), server("x", flavor, 10))
    found = looks.at(4.0, server("p", flavor, 10), Unseen("refused", since=1.0))
    assert found == Lapse(4.0, "its agent does not answer")


def test_a_receiver_that_is_not_connected(flavor: Flavor) -> None:
    looks = Looks()
    looks.at(0.0, server("p", flavor, 10), server("x", flavor, 10))
    cut = server("x", flavor, 10, replication=Replication("p:3306", Receiver.CONNECTING, True))
    assert looks.at(1.5, server("p", flavor, 10), cut) == Lapse(
        1.5, "its receiver is not connected"
    )


def test_one_that_is_down_is_no_matter_of_patience(flavor: Flavor) -> None:
    down = server("x", flavor, 10, server=ServerStatus.DOWN, received="", applied="")
    assert Looks().at(9.0, server("p", flavor, 10), down) is None


def test_what_another_primary_had_is_not_asked_for(flavor: Flavor) -> None:
    looks = Looks()
    looks.at(0.0, server("p", flavor, 90), server("x", flavor, 10))
    looks.at(1.0, server("p", flavor, 90), server("x", flavor, 10))
    after = server("p", flavor, 10, incarnation="p.2")
    assert looks.at(9.0, after, server("x", flavor, 10)) is None


def test_what_a_primary_cannot_write_is_owed_by_nobody(flavor: Flavor) -> None:
    looks = Looks()
    for second in range(1, 10):
        stuck = server("p", flavor, second, stuck_seconds=second)
        assert looks.at(second, stuck, server("x", flavor, 1)) is None
