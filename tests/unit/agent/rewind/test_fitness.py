"""What is wrong with a member's data is on disk before it is published, and is published again after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.rewind import _heads, _in_order
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor, parse
from holdfast.core.observed.comparison import Difference
from holdfast.core.view import MemberState
from holdfast.errors import Refused
from holdfast.server.data.digest import parse_table, table_name
from holdfast.server.data.rewind import RewindRepair

REPAIR = RewindRepair("x", "0-1-9", "0-1-5", "0-1-5")


def started(folder: Path) -> tuple[Fitness, MemberState]:
    published = PublishedState(MemberState("a", Flavor.MARIADB))
    fitness = Fitness(folder, published)
    return fitness, published.state


def test_a_rewind_that_was_begun_is_known_after_a_restart(tmp_path: Path) -> None:
    started(tmp_path)[0].begin_rewind(REPAIR, ("app.b", "app.a"))
    fitness, state = started(tmp_path)
    assert (fitness.repair, state.suspects) == (REPAIR, ("app.a", "app.b"))
    fitness.end_rewind()
    fitness.begin_rewind(REPAIR, ("app.c",))
    fitness.end_rewind()
    fitness, state = started(tmp_path)
    assert (fitness.repair, state.suspects) == (None, ("app.a", "app.b", "app.c"))
    fitness.compared()
    assert started(tmp_path)[1].suspects == ()
    assert not fitness.path.exists()


def test_unfit_stays_until_the_data_was_replaced(tmp_path: Path) -> None:
    started(tmp_path)[0].declare_unfit("rows\ndiffer")
    fitness, state = started(tmp_path)
    assert state.unfit == "rows differ"
    fitness.forget()
    assert started(tmp_path)[1].unfit == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"suspects": [', "JSON"),
        ("[]", "must be an object"),
        ('{"suspects": [], "repair": null}', "unfit: required, and not there"),
        ('{"suspects": [], "unfit": ""}', "repair: required, and not there"),
        ('{"unfit": "", "repair": null}', "suspects: required, and not there"),
        ('{"suspects": [], "unfit": "", "repair": {"name": "x", "was": ""}}', "repair.becomes: "),
        ('{"suspects": [], "unfit": "", "repair": null, "differs": [{"table": "a"}]}', "ranges: "),
    ],
)
def test_a_file_that_is_damaged_or_lacks_something_makes_the_member_unfit(
    tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "fitness").write_text(text)
    unfit = started(tmp_path)[1].unfit
    assert "cannot be read, so a rewind may be half done: " in unfit
    assert why in unfit
    assert "\n" not in unfit


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "fitness").write_text(
        '{"suspects": ["app.a"], "unfit": "rows differ", "repair": {"name": "x", "was": "0-1-9", '
        '"becomes": "0-1-5", "slave_pos": "0-1-5"}}'
    )
    fitness, state = started(tmp_path)
    assert (state.suspects, state.unfit, fitness.repair) == (("app.a",), "rows differ", REPAIR)
    assert (fitness.xa, fitness.unlogged, fitness.was_reset, state.differs) == (
        {},
        False,
        False,
        (),
    )


def test_what_the_version_before_wrote_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "fitness").write_text(
        '{"suspects": [], "unfit": "", "differs": [{"table": "app.t", "ranges": "id 1 to 9"}], '
        '"repair": null, "xa": {"X\'61\'": "committed"}, "unlogged": true, "reset": true, "later": 1}'
    )
    fitness, state = started(tmp_path)
    assert state.differs == (Difference("app.t", "id 1 to 9"),)
    assert (fitness.xa, fitness.unlogged, fitness.was_reset) == ({"X'61'": "committed"}, True, True)


def test_what_cannot_be_written_is_not_told(tmp_path: Path) -> None:
    fitness = started(tmp_path)[0]
    tmp_path.joinpath("fitness").mkdir()
    with pytest.raises(Refused, match="cannot write"):
        fitness.begin_rewind(REPAIR, ("app.a",))
    assert (fitness.repair, fitness.suspects) == (None, ())


@pytest.mark.parametrize(
    ("before", "applied", "undone", "heads"),
    [
        ("0-1-5,0-2-7", "0-2-7", "0-3-9", "0-2-7"),
        ("0-1-5,0-2-3", "0-1-5", "0-3-9", "0-1-5"),
        ("", "0-1-5", "0-2-6", "0-1-5"),
        ("0-1-5", "0-2-6", "0-2-6", "0-1-5"),
        ("0-1-5", "0-1-5,4-8-2", "0-2-6", "0-1-5,4-8-2"),
    ],
    ids=["head", "other server", "copied, no binlog yet", "undone", "another domain"],
)
def test_gtid_slave_pos_before_what_is_undone(
    before: str, applied: str, undone: str, heads: str
) -> None:
    sets = (parse(Flavor.MARIADB, text) for text in (before, applied, undone))
    assert ",".join(_heads(*sets)) == heads


def test_the_head_of_a_domain_comes_last() -> None:
    state = parse(Flavor.MARIADB, "0-2-9,0-1-12,0-3-4,5-1-1")
    assert _in_order(state) == "0-3-4,0-2-9,0-1-12,5-1-1"


@pytest.mark.parametrize(
    "table", [("app", "t"), ("a.b", "c`d"), ("app", "2024"), ("``", "`.`"), ("sch$ema", "tä_1")]
)
def test_a_table_s_name_is_read_as_it_was_written(table: tuple[str, str]) -> None:
    assert parse_table(table_name(table)) == table


@pytest.mark.parametrize("text", ["", "nodot", ".t", "s.", "`a`", "`a`.`b"])
def test_what_names_no_table(text: str) -> None:
    with pytest.raises(ValueError, match="no "):
        parse_table(text)
