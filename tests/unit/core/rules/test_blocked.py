"""Status says that the cluster takes writes only if a client's commit completes, as far as is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.answers.status import Status, status
from holdfast.core.decide import decide
from holdfast.core.observed.lapse import Lapse
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.view import SemiSync, View
from tests.unit.looks import CLUSTER, RECORD, down, primary, replica, unseen, view

SILENT = Lapse(1.2, "its server does not answer")
ALONE = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a")}), 0),))


def shown(seen: View, record: Record = RECORD) -> Status:
    return status(CLUSTER, record, seen, decide(CLUSTER, record, seen))


def well(**changes: object) -> View:
    return view(primary(**changes), replica("m2"), replica("m3"))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (
            replace(well(), lapses={"m2": SILENT, "m3": SILENT}),
            "none of its voters can acknowledge (m2: its server does not answer; m3: its server does not answer); ",
        ),
        (
            view(primary(), down("m2"), replica("m3", incarnation="b")),
            "(m2: its server is down; m3: it was restarted, and does not vote yet); ",
        ),
        (
            replace(
                view(primary(), ("m2", unseen("m2")), down("m3")),
                lapses={"m2": Lapse(1.0, "its agent does not answer")},
            ),
            "(m2: its agent does not answer; m3: its server is down); ",
        ),
        (replace(well(), lapses={"m1": Lapse(3.4, "its commits wait")}), "acknowledged for 3 s"),
        (well(stuck_seconds=1.5, stuck="no space is left"), "for 2 s (no space is left); "),
        (well(silent_seconds=1.0), "its server has not answered for 1 s; "),
        (
            well(locked_seconds=2.0),
            "a session holds a lock, such as FLUSH TABLES WITH READ LOCK, for which writes have waited for 2 s; ",
        ),
    ],
)
def test_commits_that_do_not_come_through_are_told_first(seen: View, why: str) -> None:
    found = shown(seen)
    assert not found.writable
    assert not found.whole
    assert found.reason.startswith("commits on m1 are blocked: ")
    assert why in found.reason


@pytest.mark.parametrize(
    "seen",
    [
        well(),
        replace(well(), lapses={"m2": SILENT}),
        replace(well(), lapses={"m2": SILENT, "m3": Lapse(0.4, SILENT.reason)}),
        view(primary(), down("m2"), ("m3", unseen("m3"))),
        replace(well(), lapses={"m1": Lapse(0.9, "its commits wait")}),
        well(silent_seconds=0.9, stuck_seconds=0.9),
    ],
)
def test_what_passes_by_itself_and_what_one_voter_owes_blocks_nobody(seen: View) -> None:
    found = shown(seen)
    assert found.writable
    assert "blocked" not in found.reason


@pytest.mark.parametrize(
    "waits",
    [
        SemiSync(),
        SemiSync(source=True, acks=1, timeout_seconds=5.0),
        SemiSync(source=True, acks=1, degraded=True),
    ],
)
def test_where_commits_wait_for_nobody_or_not_for_ever_no_voter_is_missed(waits: SemiSync) -> None:
    seen = replace(well(semi_sync=waits), lapses={"m2": SILENT, "m3": SILENT})
    assert shown(seen).writable


def test_one_that_is_not_open_is_not_blocked_but_closed() -> None:
    found = shown(well(writable=False))
    assert not found.writable
    assert "blocked" not in found.reason
    assert shown(view(primary(semi_sync=SemiSync()), down("m2"), down("m3")), ALONE).writable


def test_a_full_disk_is_told_once() -> None:
    full = "no space is left in /data"
    found = shown(well(stuck_seconds=1.5, stuck=full, full=full))
    assert found.reason.count(full) == 1
