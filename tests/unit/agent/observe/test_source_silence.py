"""For how long a source was silent: reported soon, and never more than it was."""

from __future__ import annotations

from holdfast.agent.observe.source_silence import LATE_SECONDS, Hearing
from holdfast.core.view import Receiver, Replication

LOOK = 0.01


class Replica:
    """Looks at a replica; a look begins at ``now``."""

    def __init__(self) -> None:
        self.hearing = Hearing()
        self.source = "a:1"
        self.receiver = Receiver.ON
        self.came = 0

    def look(self, now: float) -> float:
        replication = Replication(self.source, self.receiver)
        return self.hearing.heard(now, now + LOOK, replication, (self.came,))


def test_a_source_that_speaks_is_heard() -> None:
    replica = Replica()
    for number in range(10):
        replica.came = number
        assert replica.look(number / 4) == 0


def test_silence_counts_from_the_end_of_the_look_that_heard_something() -> None:
    replica = Replica()
    replica.look(0.0)
    replica.came = 1
    replica.look(0.25)
    assert replica.look(0.5) == 0.24
    assert replica.look(0.75) == 0.49
    assert replica.look(1.30) == 0.99, "half a second of the longer pause"
    replica.came = 2
    assert replica.look(1.4) == 0


def test_a_host_that_was_frozen_has_not_found_its_source_silent() -> None:
    replica = Replica()
    replica.look(0.0)
    assert replica.look(600.0) == LATE_SECONDS
    replica.came = 1
    assert replica.look(600.1) == 0


def test_what_arrived_before_the_connection_was_lost_was_heard() -> None:
    replica = Replica()
    replica.look(0.0)
    replica.came, replica.receiver = 1, Receiver.CONNECTING
    assert replica.look(0.4) == 0
    assert replica.look(0.8) == 0.39


def test_a_receiver_that_was_told_to_stop_is_not_one_that_hears_nothing() -> None:
    replica = Replica()
    replica.look(0.0)
    assert replica.look(0.2) == 0.19
    replica.receiver = Receiver.OFF
    assert [replica.look(0.4), replica.look(5.0), replica.look(10.0)] == [0.19, 0.19, 0.19]
    replica.receiver = Receiver.CONNECTING
    assert replica.look(10.21) == 0.39


def test_a_connection_is_a_sign_of_life() -> None:
    replica = Replica()
    replica.receiver = Receiver.CONNECTING
    replica.look(0.0)
    assert replica.look(0.4) == 0.39
    replica.receiver = Receiver.ON
    assert replica.look(0.8) == 0


def test_another_source_has_not_been_silent_yet() -> None:
    replica = Replica()
    replica.look(0.0)
    replica.look(0.4)
    replica.source, replica.receiver = "b:1", Receiver.CONNECTING
    assert replica.look(0.8) == 0
    assert replica.look(1.0) == 0.19


def test_who_follows_nobody_misses_nobody() -> None:
    replica = Replica()
    replica.source, replica.receiver = "", Receiver.OFF
    assert [replica.look(each / 2) for each in range(9)] == [0] * 9
