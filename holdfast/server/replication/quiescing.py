"""Before a primary is shut down in order: bring it to a state in which no commit waits, and none will.

A clean shutdown answers OK to every commit that waits for an acknowledgement (MySQL), so there must be none.
"""

from __future__ import annotations

from collections.abc import Callable

from pymysql.constants import ER

from holdfast.errors import HoldfastError, Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, StatementRefused
from holdfast.server.replication.barring import Catalog, kill
from holdfast.server.replication.waiting import Names, look_at

REFUSING_SECONDS = 3.0
"""How long commits that are under way may take, before the server continues as before."""

ENDING_SECONDS = 0.5
SENDING_SECONDS = 1.0


def refuse_writes(
    side: Connection, other: Connection, catalog: Catalog, variable: str, deadline: Deadline
) -> None:
    """Refuse writes; returns once no commit is under way.

    :param side: a session whose lock waits are short
    :param other: ends that session if this is called off: otherwise its statement would take effect later
    :raises Refused: commits did not end in time
    """
    patience = deadline.within(REFUSING_SECONDS)
    while True:
        side.look("SELECT 1", deadline)
        session = side.session_id
        try:
            side.run(f"SET GLOBAL {variable} = 1", deadline)
            return
        except StatementRefused as error:
            if error.code != ER.LOCK_WAIT_TIMEOUT:
                raise
        except HoldfastError:
            end_statement(other, catalog, session, deadline)
            raise
        if not patience.left:
            raise Refused(f"commits are under way for more than {REFUSING_SECONDS:g} s")
        deadline.check("refusing new commits")


def settle(
    side: Connection,
    names: Names,
    catalog: Catalog,
    end_clients: Callable[[Deadline], None],
    deadline: Deadline,
) -> None:
    """End the clients of a server that refuses writes, and let its replicas receive the rest.

    :raises Refused: a commit still waits
    """
    end_clients(deadline)  # clients that connect later cannot write
    patience = deadline.afresh(SENDING_SECONDS)
    while patience.left and not _all_sent(side, catalog, deadline):
        deadline.check("sending the rest of the binlog")
        deadline.clock.sleep(0.002)
    waiting = look_at(side, names, deadline).waiting
    if waiting:
        raise Refused(f"{waiting} commits wait for an acknowledgement")


def end_statement(other: Connection, catalog: Catalog, session: int, given_up: Deadline) -> None:
    """End a session whose statement was given up: the statement would take effect later."""
    deadline = given_up.afresh(ENDING_SECONDS)
    while other.look(f"{catalog.sessions} WHERE ID = {session}", deadline):
        kill(other, session, deadline)
        deadline.check("ending a statement that was called off")
        deadline.clock.sleep(0.002)


def _all_sent(side: Connection, catalog: Catalog, deadline: Deadline) -> bool:
    states = [
        str(row["state"]).lower()
        for row in side.look(catalog.sessions, deadline)
        if "dump" in str(row["command"]).lower()
    ]
    return all("has sent all binlog" in state for state in states)
