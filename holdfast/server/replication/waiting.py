"""How commits of a primary wait for acknowledgements: semi-sync's source side.

Changed on a running primary without a moment in which a commit could complete unacknowledged:

* It is never switched off and on again, because that answers OK to every commit that waits. There are two exceptions:
  the change from a wait without end to one that ends (the new time-out would never release what already waits), and a
  server that has given up waiting, so that no commit waits.
* Another time-out holds for commits that begin to wait from then on. A commit that already waits may still time out,
  and then for all (``switched_off`` counts it).
* After a time-out the server waits again without help once a replica has acknowledged the newest transaction. On an
  idle server there may be none to acknowledge: a row of ours helps.
* A commit reads the wait point twice, before and after the engine's commit. A commit between the two when AFTER_COMMIT
  becomes AFTER_SYNC waits at neither. So all commits are blocked for that change.
"""

from __future__ import annotations

from dataclasses import dataclass

from pymysql.constants import ER

from holdfast.core.observed.tally import Tally
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, Row, StatementRefused


@dataclass(frozen=True, slots=True)
class Names:
    """Names of variables and limits of one flavor.

    :ivar prefix: of variables and of status
    :ivar replica: the same, of a replica's side
    :ivar without_replicas: whether commits still wait if no replica is connected
    :ivar count: how many acknowledgements; "" if it is always one
    :ivar never: the longest time-out, in milliseconds
    """

    prefix: str
    replica: str
    without_replicas: str
    count: str
    never: int

    @property
    def columns(self) -> str:
        """The columns of a SELECT whose row :func:`semi_sync` reads."""
        return (
            f"@@global.{self.prefix}_enabled AS source_side, "
            f"@@global.{self.prefix}_timeout AS timeout, "
            f"@@global.{self.prefix}_wait_point AS wait_point, "
            f"@@global.{self.without_replicas} AS waits_alone, "
            f"{f'@@global.{self.count}' if self.count else '1'} AS acks"
        )


MARIADB = Names(
    prefix="rpl_semi_sync_master",
    replica="rpl_semi_sync_slave",
    without_replicas="rpl_semi_sync_master_wait_no_slave",
    count="",
    never=18446744073709551615,
)

MYSQL = Names(
    prefix="rpl_semi_sync_source",
    replica="rpl_semi_sync_replica",
    without_replicas="rpl_semi_sync_source_wait_no_replica",
    count="rpl_semi_sync_source_wait_for_replica_count",
    never=4294967295,
)


def semi_sync(names: Names, row: Row, status: Row, replica: bool = False) -> SemiSync:
    """:param row: with :attr:`Names.columns`; :param status: of :func:`look_at_status`, if the source side is on"""
    if not row["source_side"]:
        return SemiSync(replica=replica)
    prefix = names.prefix.capitalize()
    timeout = int(row["timeout"])
    return SemiSync(
        source=True,
        acks=int(row["acks"]),
        clients=int(status[f"{prefix}_clients"]),
        replica=replica,
        timeout_seconds=0.0 if timeout >= names.never else timeout / 1000,
        wait_point=WaitPoint(str(row["wait_point"]).lower()),
        degraded=status[f"{prefix}_status"] != "ON",
        waiting=int(status[f"{prefix}_wait_sessions"]),
        waits_alone=bool(row["waits_alone"]),
        tally=Tally(
            acknowledged=int(status[f"{prefix}_yes_tx"]),
            let_through=int(status[f"{prefix}_no_tx"]),
            switched_off=int(status[f"{prefix}_no_times"]),
        ),
    )


def look_at_status(connection: Connection, names: Names, deadline: Deadline) -> Row:
    """The whole status of the source side in one look."""
    rows = connection.look(f"SHOW GLOBAL STATUS LIKE '{names.prefix}%'", deadline)
    if not rows:
        raise Refused(
            f"the server has no status {names.prefix}: its semi-sync plugin is not loaded"
        )
    return {str(row["Variable_name"]): row["Value"] for row in rows}


def status(connection: Connection, name: str, deadline: Deadline) -> str:
    """One status value of semi-sync."""
    rows = connection.look(f"SHOW GLOBAL STATUS LIKE '{name.capitalize()}'", deadline)
    if not rows:
        raise Refused(
            f"the server has no status {name.capitalize()}: its semi-sync plugins are not loaded"
        )
    return str(rows[0]["Value"])


def look_at(connection: Connection, names: Names, deadline: Deadline) -> SemiSync:
    row = connection.look(f"SELECT {names.columns}", deadline)[0]
    if not row["source_side"]:
        return SemiSync()
    return semi_sync(names, row, look_at_status(connection, names, deadline))


def refuse_acks(names: Names, acks: int) -> None:
    """:raises Refused: the server cannot wait for so many acknowledgements"""
    if acks < 0:
        raise Refused(f"{acks} acknowledgements: must not be negative")
    if acks > 1 and not names.count:
        raise Refused(f"{acks} acknowledgements: MariaDB can wait for one")


def switch_off(connection: Connection, names: Names, deadline: Deadline) -> None:
    """Commits no longer wait for acknowledgements. Answers OK to those that wait."""
    connection.run(f"SET GLOBAL {names.prefix}_enabled = 0", deadline)


def switch_on(
    connection: Connection,
    barrier: Connection,
    names: Names,
    acks: int,
    timeout_seconds: float,
    wait_point: WaitPoint,
    again: bool,
    deadline: Deadline,
) -> None:
    """Set everything that waiting depends on, no matter how the server was started.

    :param barrier: a session whose lock waits are short, for the change of the wait point
    :param again: if the server has given up waiting, begin at once
    :raises Refused: the wait point cannot be changed while commits wait; the rest was set
    """
    off_first = again and _given_up(connection, names, deadline)
    row = connection.look(f"SELECT {names.columns}", deadline)[0]
    milliseconds = max(1, round(timeout_seconds * 1000)) if timeout_seconds else names.never
    values: dict[str, int | str] = {
        names.without_replicas: 1,
        f"{names.prefix}_timeout": min(milliseconds, names.never),
    }
    if names.count:
        values[names.count] = acks
    where = f"{names.prefix}_wait_point"
    point: dict[str, int | str] = {where: wait_point.value.upper()}
    now = str(row["wait_point"]).lower()
    if row["source_side"] and timeout_seconds and int(row["timeout"]) >= names.never:
        switch_off(connection, names, deadline)
    if row["source_side"] and (now, wait_point) == ("after_commit", WaitPoint.AFTER_SYNC):
        _set(connection, {**values, f"{names.prefix}_enabled": 1}, deadline)
        _move_to_after_sync(barrier, point, deadline)
    else:
        # in one statement: an agent that ends in between leaves nothing switched off
        switch = f"{names.prefix}_enabled"
        _set(connection, {**values, **point, switch: 1}, deadline, switch if off_first else "")


def _given_up(connection: Connection, names: Names, deadline: Deadline) -> bool:
    """Whether commits no longer wait since a time-out, or since no replica was connected: it must be switched off and
    on again.

    Without that the server waits again only once a replica has acknowledged the newest transaction. Until then, which
    may be for as long as voters are cut off, every commit would be answered OK. If a replica acknowledges at this very
    moment, the few commits that have begun to wait since are let through like those before them, and counted.
    """
    now = look_at(connection, names, deadline)
    return now.source and now.degraded and not now.waiting


def _move_to_after_sync(
    barrier: Connection, point: dict[str, int | str], deadline: Deadline
) -> None:
    with barrier.one_session(deadline):
        try:
            barrier.run("FLUSH TABLES WITH READ LOCK", deadline)
        except StatementRefused as error:
            if error.code != ER.LOCK_WAIT_TIMEOUT:
                raise
            raise Refused(
                "commits wait for an acknowledgement, or a statement runs for long: the wait point is changed "
                "once they have ended, ask again"
            ) from error
        _set(barrier, point, deadline)
        barrier.run("UNLOCK TABLES", deadline)


def _set(
    connection: Connection, values: dict[str, int | str], deadline: Deadline, off_first: str = ""
) -> None:
    """Set the values in this order. :param off_first: a variable that is 0 for a moment before, or \"\""""
    settings = [f"GLOBAL {off_first} = 0"] if off_first else []
    settings += [f"GLOBAL {name} = {value}" for name, value in values.items()]
    connection.run(f"SET {', '.join(settings)}", deadline)
