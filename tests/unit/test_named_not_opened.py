"""A primary that was named and follows its predecessor still: nobody can be barred there, so it is opened first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.commands import Bar, Promote
from holdfast.core.decide import decide
from holdfast.core.decision import Send
from holdfast.core.lapse import Lapse
from holdfast.core.record import Kind, Step, Transition
from holdfast.core.view import Receiver, Replication, SemiSync
from tests.unit.looks import CLUSTER, RECORD, primary, replica, view

NAMED = replace(RECORD, transition=Transition(Kind.SWITCHOVER, Step.OPEN))
OFF = Replication("127.0.0.1:3301", Receiver.OFF, True)


@pytest.mark.parametrize("follows", [True, False])
def test_a_voter_that_does_not_acknowledge_is_barred_once_it_is_opened(follows: bool) -> None:
    source = Replication("127.0.0.1:3302", Receiver.ON, True) if follows else Replication()
    named = primary(
        writable=False, replication=source, semi_sync=SemiSync(source=not follows, acks=1)
    )
    lapses = {"m3": Lapse(9.0, "its receiver is not connected")}
    seen = view(named, replica("m2"), replica("m3", replication=OFF), lapses=lapses)
    sent = [s.command for s in decide(CLUSTER, NAMED, seen).steps if isinstance(s, Send)]
    assert any(isinstance(each, Bar) for each in sent) is not follows
    assert any(isinstance(each, Promote) for each in sent) is follows
