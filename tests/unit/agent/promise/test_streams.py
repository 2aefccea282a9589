"""A server that lacks a whole stream of its own was emptied by an operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.agent.promise.streams import KnownStreams, taken_away
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync, Tail, TailVerdict
from holdfast.errors import Refused
from tests.unit.agent_world import do_now

OWN = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"
HAD = {Flavor.MARIADB: "0-1-9,0-2-12", Flavor.MYSQL: f"{OWN}:1-9,{OTHER}:1-3"}
LESS = {Flavor.MARIADB: "0-1-4,0-2-12", Flavor.MYSQL: f"{OWN}:1-4,{OTHER}:1-3"}
GONE = {Flavor.MARIADB: "0-2-12", Flavor.MYSQL: f"{OTHER}:1-3"}


@dataclass
class Look:
    applied: str
    writable: bool = False
    semi_sync: SemiSync = field(default_factory=SemiSync)
    replication: Replication = field(default_factory=lambda: Replication(receiver=Receiver.ON))


@dataclass
class Agent:
    """One run of the agent."""

    flavor: Flavor
    folder: Path
    data: str = "these"

    def __post_init__(self) -> None:
        self.unfit: list[tuple[str, bool]] = []
        self.killed: list[str] = []
        self.published = PublishedState(MemberState("m1", self.flavor, 3))
        self.part = KnownStreams(
            self.published,
            self.folder,
            do_now,
            lambda why, reset: self.unfit.append((why, reset)),
            self.killed.append,
            lambda: self.data,
        )

    def look(self, applied: str, run: str = "a", **more: Any) -> bool:
        """Whether it is found to be unfit."""
        self.part.seen(cast(Any, Look(applied, **more)), run)
        return bool(self.unfit)


@pytest.fixture(params=list(Flavor))
def flavor(request: pytest.FixtureRequest) -> Flavor:
    return cast(Flavor, request.param)


def test_who_has_nothing_of_another_any_more_is_cloned(flavor: Flavor, tmp_path: Path) -> None:
    assert not Agent(flavor, tmp_path).look(HAD[flavor])
    for left in ("", GONE[flavor]):
        again = Agent(flavor, tmp_path)
        assert again.look(left), left
        assert again.unfit[0][1], "its own transactions are given up by nobody for that"
        assert not again.killed


@pytest.mark.parametrize(("before", "after"), [("these", "those"), ("these", ""), ("", "")])
def test_other_data_in_its_place_may_be_the_only_copy(
    flavor: Flavor, tmp_path: Path, before: str, after: str
) -> None:
    """Looks of a run that continues, of the next one, and of another agent's."""
    assert not Agent(flavor, tmp_path, before).look(HAD[flavor])
    again = Agent(flavor, tmp_path, after)
    assert again.look("")
    assert not again.unfit[0][1], "an operator decides"
    again.part.unfit("its binary log was reset", True)
    assert not again.unfit[1][1]


def test_data_that_was_put_there_is_not_the_clusters_before_it_has_replicated(
    flavor: Flavor, tmp_path: Path
) -> None:
    alone = Replication()
    first = Agent(flavor, tmp_path)
    first.look(HAD[flavor], replication=alone)
    again = Agent(flavor, tmp_path)
    assert again.look("", replication=alone)
    assert not again.unfit[0][1]


def test_which_data_it_was_is_not_forgotten_for_other_data(flavor: Flavor, tmp_path: Path) -> None:
    agent = Agent(flavor, tmp_path)
    agent.look(HAD[flavor])
    agent.data = "those"
    assert not agent.look(HAD[flavor], "b")
    agent.part.unfit("its binary log was reset", True)
    assert not agent.unfit[0][1]


def test_the_end_of_a_stream_may_go(flavor: Flavor, tmp_path: Path) -> None:
    assert not Agent(flavor, tmp_path).look(HAD[flavor])
    assert not Agent(flavor, tmp_path).look(LESS[flavor])


def test_a_run_that_is_watched_is_not_compared(flavor: Flavor, tmp_path: Path) -> None:
    """What its agent removes (a rewind) is allowed; another rule is for what an operator removes (``receipts.py``)."""
    agent = Agent(flavor, tmp_path)
    assert not agent.look(HAD[flavor])
    assert not agent.look(GONE[flavor])
    assert not Agent(flavor, tmp_path).look(GONE[flavor])
    assert agent.look("", run="b")


def test_what_was_cut_is_not_missed(flavor: Flavor, tmp_path: Path) -> None:
    assert not Agent(flavor, tmp_path).look(HAD[flavor])
    again = Agent(flavor, tmp_path)
    again.published.change(tail=Tail(TailVerdict.CUT))
    assert not again.look(GONE[flavor])


def test_other_data_begin_anew(flavor: Flavor, tmp_path: Path) -> None:
    first = Agent(flavor, tmp_path)
    first.look(HAD[flavor])
    first.part.forget()
    assert not Agent(flavor, tmp_path).look(GONE[flavor])


@pytest.mark.parametrize("more", [{"writable": True}, {"semi_sync": SemiSync(source=True, acks=1)}])
def test_a_primary_is_killed_for_nobody_finds_his_place_there(
    flavor: Flavor, tmp_path: Path, more: dict[str, Any]
) -> None:
    Agent(flavor, tmp_path).look(HAD[flavor])
    again = Agent(flavor, tmp_path)
    with pytest.raises(Refused, match="killed"):
        again.look("", **more)
    assert again.killed


@pytest.mark.parametrize("text", ['["0-1"', '{"streams": ["0-1"]}', '{"data": "x"}', "[]"])
def test_a_torn_file_says_nothing(text: str, flavor: Flavor, tmp_path: Path) -> None:
    (tmp_path / "streams").write_text(text)
    assert not Agent(flavor, tmp_path).look("")


def test_a_domain_may_be_deleted_as_a_whole() -> None:
    known = ["0-1", "0-2", "7-1"]
    assert taken_away(Flavor.MARIADB, known, ["0-1", "0-2"]) == []
    assert taken_away(Flavor.MARIADB, known, ["0-2", "7-1"]) == ["0-1"]
    assert taken_away(Flavor.MARIADB, known, []) == known
