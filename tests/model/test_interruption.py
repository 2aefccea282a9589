"""A failover, a restart in place and a return, interrupted after each step and continued by another manager."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.core.change.restart import CLOSING
from holdfast.core.gtid import Flavor
from holdfast.core.record import to_json
from holdfast.core.settings import Durability, MemberSettings, Mode, Settings, WhenAlone
from tests.model.interrupting import (
    failover,
    interrupted,
    lost_primary,
    restart_in_place,
    whole,
    write,
)
from tests.model.manage import Run


def frozen_primary(run: Run) -> None:
    """The primary's agent lives, and kills the server, which resumes in the middle of all this, unless it is dead by
    then."""
    write(run, 6)
    run.world.hosts["m1"].frozen = True


def frozen_host(run: Run) -> None:
    """Agent and server stop together; after a while both resume."""
    write(run, 6)
    run.world.hosts["m1"].halted = True


def power_cut(run: Run) -> None:
    write(run, 6)
    for host in run.world.hosts.values():
        host.crash()


def replica_crash(run: Run) -> None:
    write(run, 6)
    run.world.hosts["m3"].crash()


def frozen_voter(run: Run) -> None:
    """The voter resumes when everything else has ended."""
    write(run, 6)
    run.world.hosts["m3"].frozen = True


def cut_off_voter(run: Run) -> None:
    write(run, 6)
    run.world.cut.add(frozenset({"m1", "m3"}))
    write(run, 3)


def written_by_hand(run: Run) -> None:
    write(run, 6)
    run.world.write_by_hand(run.world.hosts["m3"])


def unfit(run: Run) -> None:
    write(run, 6)
    run.world.hosts["m2"].crash()
    run.world.hosts["m2"].unfit = "its clone was broken off"


def to_async(run: Run) -> None:
    write(run, 6)
    run.world.settings = Settings(mode=Mode.ASYNC)


def from_semi_sync(run: Run) -> None:
    run.world.settings = Settings(mode=Mode.SEMI_SYNC)
    run.calm()
    write(run, 6)
    run.world.settings = Settings()


def fewer_voters(run: Run) -> None:
    write(run, 6)
    run.world.settings = Settings(members={"m2": MemberSettings(voter=False)})


def all_vote_again(run: Run) -> None:
    """On MySQL the number of acknowledgements rises when the third member is back."""
    run.world.settings = Settings(durability=Durability.ALL)
    run.calm()
    write(run, 6)
    assert run.record
    run.world.hosts[max(run.record.target.names())].crash()


def serves_alone(run: Run) -> None:
    """The primary's voters freeze; it continues without them."""
    run.world.settings = Settings(when_alone=WhenAlone.SERVE)
    write(run, 6)
    run.world.hosts["m2"].frozen = run.world.hosts["m3"].frozen = True


def planned_restart(run: Run) -> None:
    write(run, 6)
    record = run.record
    assert record
    run.stored = to_json(replace(record, transition=CLOSING))


def preferred_lacks_something(run: Run) -> None:
    """The primary dies; the preferred member has received less than the other."""
    run.world.settings = Settings(members={"m3": MemberSettings(priority=200)})
    write(run, 6)
    run.world.hosts["m3"].receiving = False
    write(run, 3)
    run.world.hosts["m1"].crash()


def begun(flavor: Flavor, disaster: Callable[[Run], None]) -> Run:
    run = Run(1, 3, flavor)
    run.calm()
    assert run.well, run.reason
    disaster(run)
    return run


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize(
    "disaster",
    [
        failover,
        frozen_primary,
        frozen_host,
        lost_primary,
        restart_in_place,
        power_cut,
        replica_crash,
        frozen_voter,
        cut_off_voter,
        written_by_hand,
        unfit,
        to_async,
        from_semi_sync,
        fewer_voters,
        all_vote_again,
        serves_alone,
        planned_restart,
        preferred_lacks_something,
    ],
    ids=lambda disaster: disaster.__name__,
)
@pytest.mark.parametrize("broken", ["after", "before", "within"])
def test_another_manager_goes_on_from_any_step(
    flavor: Flavor, disaster: Callable[[Run], None], broken: str
) -> None:
    interrupted_at = 0
    while interrupted(
        begun(flavor, disaster), interrupted_at, broken, over=lambda run: run.well, ends=whole
    ):
        interrupted_at += 1
    assert interrupted_at >= 4, "there were hardly any steps: nothing was tested"
