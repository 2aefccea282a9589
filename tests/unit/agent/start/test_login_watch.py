"""The agent tries its two accounts again and again, and reports which one is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.start.login_watch import MENDED_SECONDS, KeptLogins, LoginWatch
from holdfast.config.load import secret
from holdfast.core.gtid import Flavor
from holdfast.core.observed.logins import Logins
from holdfast.core.view import MemberState, Receiver, Replication, ServerStatus
from holdfast.errors import Unreachable
from holdfast.server.base import Account, Source
from tests.unit.hand_clock import HandClock

FOLLOWING = Replication("h:3306", Receiver.ON, True)


def watching(
    own: Callable[[], str],
    let_in: Callable[[Source], str],
    account: Account | None = None,
    now: Callable[[], float] = time.monotonic,
) -> tuple[PublishedState, KeptLogins, LoginWatch]:
    published = PublishedState(
        MemberState(
            "m1",
            Flavor.MARIADB,
            server=ServerStatus.UP,
            incarnation="a",
            replication=FOLLOWING,
        ),
        HandClock(now),
    )
    told = KeptLogins(published)
    return (
        published,
        told,
        LoginWatch(published, told, account or Account("r", "p"), own, let_in, Path("/pw")),
    )


def test_what_is_not_let_in_is_told_until_it_is() -> None:
    said = {"own": "error 1045: no", "source": "error 1045, no"}
    published, _, watch = watching(lambda: said["own"], lambda _: said["source"])
    watch.step()
    assert (published.state.logins.shut_out, published.state.logins.denied) == tuple(said.values())
    assert "/pw" in published.state.reason
    said.update(own="", source="")
    watch.step()
    assert (
        published.state.logins.shut_out
        == published.state.logins.denied
        == published.state.reason
        == ""
    )


def test_what_was_told_of_a_run_that_ended_is_told_no_longer() -> None:
    """The end of a server clears what was published of its logins: the alarm once stayed for good."""
    said = {"own": "error 1045: no"}
    published, _, watch = watching(lambda: said["own"], lambda _: "")
    watch.step()
    published.change(incarnation="b", logins=Logins())
    said["own"] = ""
    watch.step()
    assert published.state.reason == ""


def test_what_cannot_be_told_stays_as_it_was() -> None:
    answers = iter(["error 1045: no"])

    def own() -> str:
        try:
            return next(answers)
        except StopIteration:
            raise Unreachable("too many connections") from None

    published, _, watch = watching(own, lambda _: "")
    watch.step()
    watch.step()
    assert published.state.logins.shut_out == "error 1045: no"


def test_it_is_tried_with_the_password_that_the_file_holds_now(tmp_path: Path) -> None:
    path = tmp_path / "pw"
    path.write_text("new\n")
    tried: list[str] = []

    def let_in(source: Source) -> str:
        tried.append(source.account.password)
        return ""

    account = Account("r", "old", read=partial(secret, path, "pw"))
    published, _, watch = watching(lambda: "", let_in, account)
    watch.step()
    path.write_text("")
    watch.step()
    assert tried == ["new", "old"]
    published.change(replication=Replication())
    watch.step()
    assert len(tried) == 2, "it follows nobody"


def test_that_an_account_was_mended_is_told_for_a_while() -> None:
    now = [100.0]
    published, told, watch = watching(lambda: "", lambda _: "", now=lambda: now[0])
    told.mended("a", "repl_m2", logged=False)
    assert (published.state.logins.mended, published.state.logins.owed) == (
        ("repl_m2",),
        ("repl_m2",),
    )
    told.mended("a", "repl_m2", logged=True)
    watch.step()
    assert (published.state.logins.mended, published.state.logins.owed) == (("repl_m2",), ())
    now[0] += MENDED_SECONDS
    watch.step()
    assert published.state.logins.mended == ()
