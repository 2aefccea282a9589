"""What is right and wrong with the members together, and so with the whole cluster: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import CheckReport, Finding, Level, MemberFindings, names, ok
from holdfast.core.check.member import check_member
from holdfast.core.gtid import Flavor
from holdfast.core.observed.dumps import Acks

CLOCK_SECONDS = 1.0


def check(
    cluster: str,
    found: Sequence[Facts],
    unanswered: Mapping[str, str],
    adopting: bool,
    further: Sequence[Finding] = (),
) -> CheckReport:
    """Judge all members.

    :param unanswered: members of which nothing is known, and why
    :param adopting: their replication accounts are still to be created
    :param further: what else was found about them together
    """
    members = [MemberFindings(facts.member, tuple(check_member(facts))) for facts in found]
    members += [MemberFindings(name, (), why) for name, why in unanswered.items()]
    together = MemberFindings("", (*check_together(found, adopting), *further))
    return CheckReport(cluster, (*members, together))


def check_together(found: Sequence[Facts], adopting: bool) -> Iterator[Finding]:
    running = [facts for facts in found if not facts.problem]
    yield from _distinct(
        running, "server_id", "server-ids", "put another server_id into its option file"
    )
    uuid = "server_uuid"
    yield from _distinct(
        running, uuid, uuid.replace("_", "-"), "stop it, remove auto.cnf, start it"
    )
    yield from _same(running, "gtid_domain_id", "domain")
    yield from _same(running, "lower_case_table_names", "table-names")
    flavors = {facts.flavor.value for facts in found}
    if len(flavors) > 1:
        yield Finding("flavor", Level.WRONG, f"members run {names(flavors)}", "use one of them")
    yield from _versions(running)
    yield from _accounts(found, running, adopting)
    if not adopting:
        yield from _readers(found, running)
    yield from _clocks(found)


def _distinct(found: Sequence[Facts], name: str, key: str, mend: str) -> Iterator[Finding]:
    values = {facts.member: facts.variables[name] for facts in found if name in facts.variables}
    twins = {value for value in values.values() if list(values.values()).count(value) > 1}
    for value in sorted(twins):
        who = names(member for member, own in values.items() if own == value)
        yield Finding(key, Level.WRONG, f"{who} have the same {name} ({value})", mend)
    if values and not twins:
        yield ok(key, f"each has a {name} of its own")


def _same(found: Sequence[Facts], name: str, key: str) -> Iterator[Finding]:
    values = {facts.member: facts.variables[name] for facts in found if name in facts.variables}
    if len(set(values.values())) > 1:
        said = ", ".join(f"{member} {value}" for member, value in values.items())
        yield Finding(key, Level.WRONG, f"{name} differs ({said})", "set one value on all of them")
    elif values:
        yield ok(key, f"all have the same {name}")


def _versions(found: Sequence[Facts]) -> Iterator[Finding]:
    series = {facts.member: ".".join(facts.version.split(".")[:2]) for facts in found}
    if len(set(series.values())) > 1:
        said = ", ".join(f"{member} {version}" for member, version in series.items())
        text = f"members run different series ({said}): an older server may not follow a newer one"
        yield Finding("versions", Level.WARNING, text, "upgrade the others")
    elif series:
        yield ok("versions", "all run one series")


def _accounts(
    found: Sequence[Facts], running: Sequence[Facts], adopting: bool
) -> Iterator[Finding]:
    key = "accounts"
    users = {facts.member: facts.account for facts in found}
    shared = {user for user in users.values() if list(users.values()).count(user) > 1}
    if shared:
        who = names(member for member, user in users.items() if user in shared)
        text = (
            f"{who} have the same replication account: one could not be barred without the others"
        )
        yield Finding(key, Level.WRONG, text, "give each one its own (replication.user)")
    if adopting and not shared:
        made = names(set(users.values()))
        text = f"holdfast adopt makes {made}, or gives them the agents' passwords"
        yield Finding(key, Level.NOTE, text)
        return
    troubles = False
    for facts in running:
        wanted = {user for member, user in users.items() if member != facts.member}
        lacking = wanted - facts.replicators
        if facts.flavor is Flavor.MYSQL:
            lacking |= wanted - facts.backup_admins
        if not lacking:
            continue
        troubles = True
        rights = "REPLICATION SLAVE" + ", BACKUP_ADMIN" * (facts.flavor is Flavor.MYSQL)
        text = f"{facts.member} has no account {names(lacking)} that may replicate ({rights})"
        exists = lacking <= facts.replicators  # only BACKUP_ADMIN is missing
        level = Level.WARNING if exists else Level.WRONG
        mend = (
            "where the cluster is managed Holdfast makes it within seconds; by hand, here: SET sql_log_bin = 0; "
            f"CREATE USER …; GRANT {rights} ON *.* TO …"
        )
        yield Finding(key, level, text, mend)
    if not shared and not troubles and running:
        yield ok(key, "each member has its own replication account, and all know it")


def _readers(found: Sequence[Facts], running: Sequence[Facts]) -> Iterator[Finding]:
    """Replicas that are no members: those that do not acknowledge are allowed."""
    key = "replicas"
    accounts = {facts.account for facts in found}
    there = [(f, dump) for f in running for dump in f.dumps if dump.account not in accounts]
    for facts, dump in there:
        who = f"server {dump.server}" if dump.server else "a replica"
        who = f"{who} at {dump.host or 'this host'}, {dump.account}, which is no member,"
        if dump.acks is Acks.YES:
            text = f"{who} acknowledges to {facts.member}: a commit that it alone has may be lost"
            mend = "switch its semi-sync off: rpl_semi_sync_replica_enabled (slave) = 0, restart its receiver"
            yield Finding(key, Level.WRONG, text, mend)
        elif dump.acks is Acks.UNKNOWN:
            text = f"{who} reads from {facts.member}, and whether it acknowledges cannot be told"
            mend = "give the server a log_error that is a file, and restart it: its log tells"
            yield Finding(key, Level.WARNING, text, mend)
        else:
            yield Finding(key, Level.NOTE, f"{who} reads from {facts.member}, not acknowledging")
    if running and not any(dump.acks is not Acks.NO for _, dump in there):
        yield ok(key, "only members acknowledge")


def _clocks(found: Sequence[Facts]) -> Iterator[Finding]:
    offsets = {f.member: f.clock_offset for f in found if f.clock_offset is not None}
    if not offsets:
        return
    ahead = max(offsets, key=lambda member: offsets[member])
    behind = min(offsets, key=lambda member: offsets[member])
    apart = offsets[ahead] - offsets[behind]
    if apart > CLOCK_SECONDS:
        text = f"the clock of {ahead} is {apart:.1f} s ahead of that of {behind}"
        yield Finding("clock", Level.WARNING, text, "let both follow a time server (chrony)")
    else:
        yield ok("clock", f"clocks agree within {CLOCK_SECONDS:g} s")
