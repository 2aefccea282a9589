"""Bar a member, so that it cannot acknowledge: its replication account is locked, and its connections are ended.

Nothing of this is written to the binlog, and nothing waits behind commits that wait for an acknowledgement.

A missing account is created, locked: if it were created later, by hand or from a restored dump, it would let in a
member that is barred. Only :func:`unbar` opens an account: the manager, which knows the voters, requests that.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pymysql.constants import ER

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.server.authentication import Login, authentication_string
from holdfast.server.base import Deadline
from holdfast.server.connection import processlist
from holdfast.server.connection.hangup import FromReplicas, hang_up
from holdfast.server.connection.sql import Connection, Row, StatementRefused

LOGGING_IN = "unauthenticated user"
LOGIN_SECONDS = 0.1
"""How long a connection that was logging in when its account was locked may take to be admitted or refused."""

HUNG_UP_SECONDS = 0.02
"""In this time a connection that was shut down has been read to its end."""
KILL_AGAIN_SECONDS = 0.1

REPLICATORS_SECONDS = 5.0
"""How often to look up which accounts may replicate, and which of them are locked (perhaps by hand)."""

REPLICATION = "REPLICATION SLAVE"
RIGHTS = {
    Flavor.MARIADB: REPLICATION,
    Flavor.MYSQL: f"{REPLICATION}, BACKUP_ADMIN",  # to be cloned from
}
"""The privileges that a member's replication account must have."""
GRANTED = {
    Flavor.MARIADB: f"CONNECTION ADMIN, {RIGHTS[Flavor.MARIADB]}",
    Flavor.MYSQL: f"CONNECTION_ADMIN, {RIGHTS[Flavor.MYSQL]}",
}
"""The privileges that it is given: with them it can log in also when clients hold all connections (``slots.py``)."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Queries of one flavor.

    :ivar applied: the variable with the GTIDs in the server's own binlog
    :ivar replicators: names of the accounts that may replicate, and whether one of that name is locked
    :ivar hosts: host parts of a user's accounts, and whether each may replicate
    :ivar sessions: all sessions, with columns id, user, command, state, port (of the other end)
    :ivar mute: state of a killed session that only has to leave the thread that receives acknowledgements: MySQL's
        thread checks for that once a second. The KILL has shut down its socket: the kernel rejects what arrives then
        (tested)
    """

    flavor: Flavor
    applied: str
    replicators: str
    hosts: str
    sessions: str
    mute: str


MARIADB = Catalog(
    flavor=Flavor.MARIADB,
    applied="@@global.gtid_binlog_state",
    replicators="SELECT u.User AS user, MAX(JSON_VALUE(p.Priv, '$.account_locked') IN ('1', 'true')) AS locked "
    "FROM mysql.user u JOIN mysql.global_priv p ON (p.User, p.Host) = (u.User, u.Host) "
    "WHERE u.Repl_slave_priv = 'Y' GROUP BY 1 ORDER BY 1",
    hosts="SELECT Host AS host, Repl_slave_priv AS may FROM mysql.user WHERE User = %s AND is_role = 'N'",
    sessions="SELECT ID AS id, USER AS user, COMMAND AS command, STATE AS state, "
    "SUBSTRING_INDEX(HOST, ':', -1) AS port FROM information_schema.PROCESSLIST",
    mute="",
)

MYSQL = Catalog(
    flavor=Flavor.MYSQL,
    applied="@@global.gtid_executed",
    replicators="SELECT User AS user, MAX(account_locked = 'Y') AS locked FROM mysql.user "
    "WHERE Repl_slave_priv = 'Y' AND User <> 'root' AND User NOT LIKE 'mysql.%' GROUP BY 1 ORDER BY 1",
    hosts="SELECT Host AS host, Repl_slave_priv AS may FROM mysql.user WHERE User = %s",
    sessions="SELECT ID AS id, USER AS user, COMMAND AS command, STATE AS state, "
    "SUBSTRING_INDEX(HOST, ':', -1) AS port FROM performance_schema.processlist",
    mute="Waiting to finalize termination",
)

CATALOGS = {each.flavor: each for each in (MARIADB, MYSQL)}


def bar(side: Connection, catalog: Catalog, user: str, deadline: Deadline) -> None:
    """Lock all accounts of ``user``, end their connections, and wait until those are gone.

    A dump thread takes its connection out of the thread that receives acknowledgements before it ends.

    :param side: a session that writes no binlog
    """
    _alter(side, catalog, user, "LOCK", deadline)
    both = (user, LOGGING_IN)
    asked = f"{catalog.sessions} WHERE USER IN (%s, %s)"
    begun = deadline.clock.monotonic()
    suspects: set[int] | None = None
    killed: dict[int, float] = {}
    while True:
        rows = processlist.look(side, asked, deadline, lambda row: row["user"] in both, both)
        logging_in = {int(row["id"]) for row in rows if row["user"] == LOGGING_IN}
        mute = {int(row["id"]) for row in rows if catalog.mute and row["state"] == catalog.mute}
        mute &= set(killed)
        own = {int(row["id"]) for row in rows} - logging_in - mute
        # a login that begins from here on is refused; these may have passed that check
        suspects = logging_in if suspects is None else suspects & logging_in
        if not own and not suspects:
            return
        now = deadline.clock.monotonic()
        if catalog.mute and own - set(killed):
            _hang_up(side, [row for row in rows if row["id"] in own], deadline)
        for each in own | (suspects if now - begun > LOGIN_SECONDS else set()):
            if now - killed.get(each, -1.0) > KILL_AGAIN_SECONDS:
                kill(side, each, deadline)
                killed[each] = now
        deadline.check(f"ending the connections of {user}")
        deadline.clock.sleep(0.002)


def unbar(side: Connection, catalog: Catalog, user: str, deadline: Deadline) -> None:
    _alter(side, catalog, user, "UNLOCK", deadline)


@dataclass(frozen=True, slots=True)
class Replicators:
    """:ivar names: of the accounts that may replicate; :ivar barred: those of them that are locked"""

    names: tuple[str, ...]
    barred: tuple[str, ...]


def replicators(eyes: Connection, catalog: Catalog, deadline: Deadline) -> Replicators:
    rows = eyes.look(catalog.replicators, deadline)
    names = tuple(str(row["user"]) for row in rows)
    return Replicators(names, tuple(str(row["user"]) for row in rows if row["locked"]))


def mend(
    side: Connection, catalog: Catalog, user: str, login: Login, rights: str, deadline: Deadline
) -> None:
    """Make the replication account ``user`` log in that way, and let it replicate.

    A locked account stays locked, and a missing one is created locked: see the head of this file.

    :param side: a session that writes no binlog
    """
    clause = login.clause(catalog.flavor)
    hosts = [str(row["host"]) for row in side.look(catalog.hosts, deadline, (user,))]
    for host in hosts:
        side.run(f"ALTER USER %s@%s {clause}", deadline, (user, host))
    if not hosts:
        side.run(f"CREATE USER %s@'%%' {clause} ACCOUNT LOCK", deadline, (user,))
    for host in hosts or ["%"]:
        side.run(f"GRANT {rights} ON *.* TO %s@%s", deadline, (user, host))


def lock(side: Connection, catalog: Catalog, user: str, deadline: Deadline) -> None:
    """Refuse further logins of ``user``; its present sessions stay."""
    _alter(side, catalog, user, "LOCK", deadline)


def end(side: Connection, catalog: Catalog, sessions: Collection[int], deadline: Deadline) -> None:
    """End these sessions, and wait until nothing that they send is received any more."""
    left, told = set(sessions), False
    while left:
        if not told:
            if catalog.mute:
                there = processlist.look(side, catalog.sessions, deadline, _each)
                _hang_up(side, [row for row in there if row["id"] in left], deadline)
            for each in left:
                kill(side, each, deadline)
            told = True
        rows = processlist.look(side, catalog.sessions, deadline, _each)
        left &= {int(row["id"]) for row in rows if not catalog.mute or row["state"] != catalog.mute}
        if not left:
            return
        deadline.check("ending the sessions of replicas")
        deadline.clock.sleep(0.002)


def _each(_: Row) -> bool:
    return True


def _hang_up(side: Connection, rows: Iterable[Row], deadline: Deadline) -> None:
    """Shut down the connections of replicas' sessions on MySQL before they are killed.

    If the KILL comes while the thread that receives acknowledgements reads from the session, that thread reads for
    ever, and no acknowledgement of any replica counts any more: all commits wait (found on 9.7.4: twice in 630 times
    under load; in 800 times never when the connection was shut down from outside first, which is read to its end). If
    that is not permitted (``server/connection/hangup.py``), only the KILL is used.
    """
    ports = frozenset(
        int(row["port"])
        for row in rows
        if "Dump" in str(row["command"]) and str(row["port"]).isdigit()
    )
    if not ports:
        return
    own = side.look("SELECT @@port AS own", deadline)[0]["own"]
    if hang_up(side.server_pid(), FromReplicas(int(own), ports)):
        deadline.clock.sleep(HUNG_UP_SECONDS)


def kill(side: Connection, session_id: int, deadline: Deadline) -> None:
    try:
        side.run(f"KILL {session_id}", deadline)
    except StatementRefused as error:
        if error.code != ER.NO_SUCH_THREAD:
            raise


def _alter(side: Connection, catalog: Catalog, user: str, what: str, deadline: Deadline) -> None:
    rows = side.look(catalog.hosts, deadline, (user,))
    if not rows and what == "LOCK":
        nobody_knows = Login(authentication_string(catalog.flavor, secrets.token_hex(24)))
        mend(side, catalog, user, nobody_knows, REPLICATION, deadline)
        return
    if not rows:
        raise Refused(f"no account {user} on this server: create the member's replication account")
    hosts = [str(row["host"]) for row in rows]
    names = ", ".join("%s@%s" for _ in hosts)
    accounts = [part for host in hosts for part in (user, host)]
    side.run(f"ALTER USER {names} ACCOUNT {what}", deadline, accounts)
    if all(row["may"] != "Y" for row in rows):  # else it would not be known as barred
        side.run(f"GRANT {REPLICATION} ON *.* TO {names}", deadline, accounts)


class MemberAccounts:
    """The members' replication accounts on this server.

    :param side: a session that writes no binlog; :param eyes: a session for looks
    :param admin: the agent's own account; :param let_write: lets it write on a read-only server
    """

    def __init__(
        self,
        catalog: Catalog,
        side: Connection,
        eyes: Connection,
        admin: str,
        let_write: Callable[[Deadline], None],
    ) -> None:
        self._catalog = catalog
        self._side = side
        self._eyes = eyes
        self._admin = admin
        self._let_write = let_write
        self._known = Replicators((), ())
        self._known_until = 0.0

    def forget(self) -> None:
        """Look the accounts up with the next look."""
        self._known_until = 0.0

    def look(self, deadline: Deadline) -> Replicators:
        """The accounts that may replicate; looked up now and then."""
        now = deadline.clock.monotonic()
        if now >= self._known_until:
            self._known = replicators(self._eyes, self._catalog, deadline)
            self._known_until = now + REPLICATORS_SECONDS
        return self._known

    def bar(self, user: str, deadline: Deadline) -> None:
        if user == self._admin:
            raise Refused(f"{user} is the agent's own account: locked, nobody could unlock it")
        self._change(lambda: bar(self._side, self._catalog, user, deadline), deadline)

    def unbar(self, user: str, deadline: Deadline) -> None:
        self._change(lambda: unbar(self._side, self._catalog, user, deadline), deadline)

    def mend(self, user: str, login: Login, deadline: Deadline) -> None:
        rights = GRANTED[self._catalog.flavor]
        self._change(
            lambda: mend(self._side, self._catalog, user, login, rights, deadline), deadline
        )

    def _change(self, alter: Callable[[], None], deadline: Deadline) -> None:
        try:
            alter()
        except StatementRefused as error:
            if error.code != ER.OPTION_PREVENTS_STATEMENT:
                raise
            self._let_write(deadline)
            alter()
        finally:
            self.forget()
