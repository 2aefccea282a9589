"""GTID algebra, against plain sets of (stream, number)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.gtid import Flavor, GtidSet, everything, issuer_of, parse

UUIDS = [f"{n}e11fa47-71ca-11e1-9e33-c80aa9429562" for n in range(3)]
STREAMS = {
    Flavor.MYSQL: [*UUIDS, f"{UUIDS[0]}:blue"],
    Flavor.MARIADB: ["0-1", "0-2", "1-1"],
}
ISSUERS = {flavor: sorted({issuer_of(flavor, s) for s in STREAMS[flavor]}) for flavor in Flavor}


def plain(gtids: GtidSet) -> set[tuple[str, int]]:
    return {
        (stream, number)
        for stream, spans in gtids.streams.items()
        for low, high in spans
        for number in range(low, high + 1)
    }


def made(flavor: Flavor, members: set[tuple[str, int]]) -> GtidSet:
    whole = GtidSet(flavor, {})
    for stream, number in members:
        whole = whole.union(GtidSet(flavor, {stream: ((number, number),)}))
    return whole


def sets(flavor: Flavor) -> st.SearchStrategy[set[tuple[str, int]]]:
    return st.sets(st.tuples(st.sampled_from(STREAMS[flavor]), st.integers(1, 12)), max_size=25)


@pytest.mark.parametrize("flavor", list(Flavor))
@given(data=st.data())
def test_the_algebra_is_that_of_sets(flavor: Flavor, data: st.DataObject) -> None:
    a, b = data.draw(sets(flavor)), data.draw(sets(flavor))
    first, second = made(flavor, a), made(flavor, b)
    assert plain(first) == a
    assert plain(first.union(second)) == a | b
    assert plain(first.subtract(second)) == a - b
    assert first.contains(second) == (b <= a)
    assert first.count() == len(a)
    assert bool(first) == bool(a)
    assert (first == second) == (a == b)
    assert all(first.has(stream, number) == ((stream, number) in a) for stream, number in a | b)


def whole(flavor: Flavor, issuers: set[str]) -> GtidSet:
    return parse(flavor, ",".join(everything(flavor, each) for each in issuers))


@pytest.mark.parametrize("flavor", list(Flavor))
@given(data=st.data())
def test_a_server_s_streams_can_be_held_as_a_whole(flavor: Flavor, data: st.DataObject) -> None:
    """Each set is compared with the GTIDs for which it is asked; every stream has some of these."""
    issuers = st.sets(st.sampled_from(ISSUERS[flavor]))
    a, b = data.draw(sets(flavor)), data.draw(sets(flavor))
    all_of_a, all_of_b = data.draw(issuers), data.draw(issuers)
    first = made(flavor, a).union(whole(flavor, all_of_a))
    second = made(flavor, b).union(whole(flavor, all_of_b))
    asked = [(stream, number) for stream in STREAMS[flavor] for number in range(1, 14)]
    asked += [(stream, 2**63 - 2) for stream in STREAMS[flavor]]
    for stream, number in asked:
        issuer = issuer_of(flavor, stream)
        in_a = (stream, number) in a or issuer in all_of_a
        in_b = (stream, number) in b or issuer in all_of_b
        assert first.has(stream, number) is in_a
        assert first.union(second).has(stream, number) is (in_a or in_b)
        # of an issuer held as a whole, nothing that is listed is removed
        left = in_a and (not in_b or (issuer in all_of_a and issuer not in all_of_b))
        assert first.subtract(second).has(stream, number) is left
    assert first.contains(second) is not bool(second.subtract(first))
    assert second.subtract(first) == first.subtract(second, reverse=True)
    assert first.contains(made(flavor, a))
    assert first.contains(whole(flavor, all_of_a))
    if flavor is Flavor.MYSQL:
        assert parse(flavor, str(first)) == first
        assert hash(parse(flavor, str(first))) == hash(first)


@pytest.mark.parametrize(
    ("flavor", "text", "inside", "outside"),
    [
        (Flavor.MYSQL, f"{UUIDS[0].upper()}: *", [UUIDS[0], f"{UUIDS[0]}:blue"], [UUIDS[1]]),
        (Flavor.MARIADB, "*-1", ["0-1", "7-1"], ["1-0", "0-11", "1-2"]),
    ],
)
def test_all_of_a_server_is_every_tag_and_domain_and_no_other_server_s(
    flavor: Flavor, text: str, inside: list[str], outside: list[str]
) -> None:
    gtids = parse(flavor, text)
    assert gtids
    assert gtids.issuers == {issuer_of(flavor, inside[0])}
    assert all(gtids.has(stream, 1) and gtids.has(stream, 2**63 - 2) for stream in inside)
    assert not any(gtids.has(stream, 1) for stream in outside)
    assert parse(flavor, str(gtids)) == gtids
    assert gtids != parse(flavor, "")


def test_a_server_whose_streams_are_held_as_a_whole_is_covered_in_every_domain() -> None:
    mine = parse(Flavor.MARIADB, "0-1-5,*-2")
    assert mine.covers(parse(Flavor.MARIADB, "0-2-900,7-2-3"))
    assert not mine.covers(parse(Flavor.MARIADB, "0-2-900,7-3-3"))


@given(members=sets(Flavor.MYSQL))
def test_mysql_text_round_trip(members: set[tuple[str, int]]) -> None:
    gtids = made(Flavor.MYSQL, members)
    assert parse(Flavor.MYSQL, str(gtids)) == gtids


@given(members=sets(Flavor.MARIADB))
def test_the_text_of_any_mariadb_set_can_be_read_again(members: set[tuple[str, int]]) -> None:
    """This is needed for records and for status. A single number means all up to it, as servers print it."""
    gtids = made(Flavor.MARIADB, members)
    again = parse(Flavor.MARIADB, str(gtids))
    assert again.contains(gtids)
    single = any(low == high for spans in gtids.streams.values() for low, high in spans)
    assert single or again == gtids


@given(state=st.dictionaries(st.sampled_from(STREAMS[Flavor.MARIADB]), st.integers(1, 99)))
def test_mariadb_text_round_trip(state: dict[str, int]) -> None:
    text = ",".join(f"{stream}-{number}" for stream, number in sorted(state.items()))
    gtids = parse(Flavor.MARIADB, text)
    assert parse(Flavor.MARIADB, str(gtids)) == gtids
    assert gtids.count() == sum(state.values())


@given(state=st.dictionaries(st.sampled_from(STREAMS[Flavor.MARIADB]), st.integers(1, 99)))
def test_the_text_of_a_mariadb_state_names_the_head_of_each_domain_last(
    state: dict[str, int],
) -> None:
    text = str(parse(Flavor.MARIADB, ",".join(f"{s}-{n}" for s, n in state.items())))
    last = {part.split("-")[0]: int(part.split("-")[2]) for part in text.split(",") if part}
    heads: dict[str, int] = {}
    for stream, number in state.items():
        domain = stream.split("-")[0]
        heads[domain] = max(number, heads.get(domain, 0))
    assert last == heads


@given(members=sets(Flavor.MYSQL), others=sets(Flavor.MYSQL))
def test_on_mysql_to_cover_is_to_contain(
    members: set[tuple[str, int]], others: set[tuple[str, int]]
) -> None:
    first, second = made(Flavor.MYSQL, members), made(Flavor.MYSQL, others)
    assert first.covers(second) == first.contains(second)


@pytest.mark.parametrize(
    ("mine", "theirs", "covers"),
    [
        ("", "", True),
        ("0-1-5", "", True),
        ("", "0-1-1", False),
        ("0-1-5", "0-1-5", True),
        ("0-1-5", "0-1-6", False),
        ("0-1-9,0-2-12", "0-1-10", True),  # what lies before 0-2-12 cannot be listed
        ("0-1-5", "0-2-5", False),  # the same position in the line, another transaction: diverged
        ("0-1-5,1-1-3", "0-1-4,1-1-4", False),
    ],
)
def test_on_mariadb_heads_are_compared_domain_by_domain(
    mine: str, theirs: str, covers: bool
) -> None:
    assert parse(Flavor.MARIADB, mine).covers(parse(Flavor.MARIADB, theirs)) is covers


def test_mysql_forms_of_writing() -> None:
    uuid = UUIDS[0]
    spread = parse(Flavor.MYSQL, f"{uuid.upper()}:1-3:5 : 4,\n {UUIDS[1]}:7, {uuid}:blue:1-2:red:9")
    assert spread.streams == {
        uuid: ((1, 5),),
        UUIDS[1]: ((7, 7),),
        f"{uuid}:blue": ((1, 2),),
        f"{uuid}:red": ((9, 9),),
    }


def test_heads_for_people() -> None:
    assert parse(Flavor.MARIADB, "0-1-7,0-2-9").last() == "0-2-9"
    assert parse(Flavor.MYSQL, f"{UUIDS[0]}:1-7").last() == "…9562:1-7"
    assert parse(Flavor.MYSQL, f"{UUIDS[0]}:blue:1-7").last() == "…9562:blue:1-7"
    assert parse(Flavor.MARIADB, "0-1-7,0-2-9,7-1-3").last() == "0-2-9,7-1-3"
    assert parse(Flavor.MYSQL, "").last() == ""


@pytest.mark.parametrize(
    ("flavor", "text"),
    [
        (Flavor.MARIADB, "0-1"),
        (Flavor.MARIADB, "0-1-x"),
        (Flavor.MYSQL, "1-2-3"),
        (Flavor.MYSQL, UUIDS[0]),
        (Flavor.MYSQL, f"{UUIDS[0]}:0-3"),
        (Flavor.MYSQL, f"{UUIDS[0]}:5-3"),
        (Flavor.MYSQL, f"{UUIDS[0]}:1-3-4"),
        (Flavor.MYSQL, f"{UUIDS[0]}:blue:*"),
        (Flavor.MYSQL, "*"),
        (Flavor.MARIADB, "*"),
        (Flavor.MARIADB, "*-1-5"),
        (Flavor.MARIADB, "0-*-5"),
    ],
)
def test_what_is_no_gtid_set_is_refused_with_the_offending_part(flavor: Flavor, text: str) -> None:
    with pytest.raises(ValueError, match=r"not|neither"):
        parse(flavor, text)
