"""A replica's progress, and that its source no longer has what it needs, are reported as positions in the source's
binlog."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.view import Replication
from holdfast.server.base import Deadline
from tests.integration.servers import CLIENT, BareServer, bare_servers, wait_until


@pytest.fixture(params=list(Flavor))
def pair(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 2) as servers:
        servers[0].adapter.prepare_primary(0, Deadline(8))
        servers[0].adapter.open(Deadline(8))
        servers[0].sql("CREATE TABLE app.t (v TEXT)", account=CLIENT)
        yield servers


def replication(server: BareServer) -> Replication:
    return server.adapter.observe(Deadline(8)).replication


def end_of_binlog(primary: BareServer) -> tuple[int, int]:
    last = sorted(primary.datadir.glob("binlog.0*"))[-1]
    return int(last.suffix[1:]), last.stat().st_size


def test_a_learner_tells_up_to_where_it_has_fetched_and_applied(pair: list[BareServer]) -> None:
    primary, learner = pair
    learner.adapter.follow(primary.source(learner), False, Deadline(8))
    primary.sql("FLUSH BINARY LOGS")
    primary.sql("INSERT INTO app.t VALUES ('x')", account=CLIENT)
    head = end_of_binlog(primary)

    def is_there() -> bool:
        now = replication(learner)
        places = [(each.file, each.offset) for each in (now.fetched, now.executed)]
        return places == [head, head]

    wait_until(is_there, 5, "fetched and applied up to the end")
    assert not replication(learner).purged


def test_one_whose_source_has_purged_what_it_needs_says_so(pair: list[BareServer]) -> None:
    primary, learner = pair
    for _ in range(2):
        primary.sql("FLUSH BINARY LOGS")
        primary.sql("INSERT INTO app.t VALUES ('x')", account=CLIENT)
    last = sorted(primary.datadir.glob("binlog.0*"))[-1].name
    primary.sql(f"PURGE BINARY LOGS TO '{last}'")
    learner.adapter.follow(primary.source(learner), False, Deadline(8))
    wait_until(lambda: replication(learner).purged, 5, "purged is told")
    print(replication(learner).error)
