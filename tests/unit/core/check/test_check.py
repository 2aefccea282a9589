"""What is right and wrong with members, from made-up facts: each rule by the one fact that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.check.facts import Boot, Facts, Space, Tables, Unit, Upstream
from holdfast.core.check.findings import Finding, Level
from holdfast.core.check.member import ADMIN_PRIVILEGES, check_member
from holdfast.core.check.together import check
from holdfast.core.check.variables import demands
from holdfast.core.gtid import Flavor
from holdfast.core.observed.dumps import Acks, Dump

BOTH = pytest.mark.parametrize("flavor", list(Flavor))
SIDES = {Flavor.MARIADB: ("master", "slave"), Flavor.MYSQL: ("source", "replica")}


def good(flavor: Flavor, number: int = 1) -> Facts:
    """A member with which nothing is wrong."""
    own = {
        "datadir": "/data",
        "socket": "/sock",
        "port": "3306",
        "server_id": str(number),
    }
    wanted = {demand.name: demand.wanted for demand in demands(flavor)}
    running = {
        **wanted,
        **own,
        "log_bin": "ON",
        "log_bin_basename": "/data/binlog",
        "max_allowed_packet": "100",
        f"{SIDES[flavor][1]}_max_allowed_packet": "200",
        "event_scheduler": "OFF",
        "plugin_dir": "/plugins",
        "lower_case_table_names": "0",
    }
    running |= (
        {"gtid_domain_id": "0"}
        if flavor is Flavor.MARIADB
        else {"server_uuid": f"uuid-{number}", "ssl_cert": ""}
    )
    return Facts(
        member=f"m{number}",
        flavor=flavor,
        version="10.11.19-MariaDB" if flavor is Flavor.MARIADB else "9.7.4",
        datadir="/data",
        socket="/sock",
        variables=running,
        boot=Boot("/my.cnf", {**wanted, **own, "log_bin": "binlog", "max_binlog_size": "128M"}),
        spaces=(Space("/data", 100, 50),),
        privileges=ADMIN_PRIVILEGES[flavor],
        account=f"repl_m{number}",
        replicators=frozenset({"repl_m1", "repl_m2"}),
        backup_admins=frozenset({"repl_m1", "repl_m2"}),
        installed=frozenset({"semisync_source.so", "semisync_replica.so"}),
        pid=77,
        foreign=Tables(),
        keyless=Tables(),
        listen="127.0.0.1:7400",
        clock_offset=0.0,
    )


def running(facts: Facts, **variables: str) -> Facts:
    return replace(facts, variables={**facts.variables, **variables})


def without(facts: Facts, name: str) -> Facts:
    return replace(facts, variables={k: v for k, v in facts.variables.items() if k != name})


def booting(facts: Facts, **options: str) -> Facts:
    return replace(facts, boot=replace(facts.boot, options={**facts.boot.options, **options}))


def found(facts: Facts, key: str) -> list[Finding]:
    return [f for f in check_member(facts) if f.key == key and f.level is not Level.OK]


def only(facts: Facts) -> Finding:
    """The one finding that is not OK."""
    [finding] = [f for f in check_member(facts) if f.level is not Level.OK]
    return finding


def together(*members: Facts, adopting: bool = False) -> list[Finding]:
    report = check("c", members, {}, adopting)
    return [f for m in report.members for f in m.findings if f.level is not Level.OK]


@BOTH
def test_a_member_as_it_should_be_has_nothing_against_it(flavor: Flavor) -> None:
    assert together(good(flavor, 1), good(flavor, 2)) == []


@pytest.mark.parametrize(
    ("flavor", "name"), [(flavor, d.name) for flavor in Flavor for d in demands(flavor)]
)
def test_every_setting_is_looked_at_in_the_option_file(flavor: Flavor, name: str) -> None:
    demand = next(d for d in demands(flavor) if d.name == name)
    other = "OFF" if demand.wanted == "ON" else "ON" if demand.wanted == "OFF" else "7"
    finding = only(booting(good(flavor), **{name: other}))
    assert (finding.key, finding.level) == (demand.key, demand.boot)
    assert (f"{name} = {demand.wanted}" if demand.wanted else f"take {name}") in finding.mend
    assert "/my.cnf" in finding.mend


def test_a_value_is_told_with_the_file_that_it_comes_from() -> None:
    mysql = booting(good(Flavor.MYSQL), read_only="OFF")
    kept = replace(mysql.boot, sources={"read_only": "/data/mysqld-auto.cnf"})
    finding = only(replace(mysql, boot=kept))
    assert finding.text.startswith("/data/mysqld-auto.cnf says read_only = OFF")
    assert finding.mend == "RESET PERSIST IF EXISTS read_only"
    mariadb = running(good(Flavor.MARIADB), gtid_strict_mode="OFF")
    finding = only(replace(mariadb, origins={"gtid_strict_mode": "/etc/extra.cnf"}))
    assert finding.text.startswith("gtid_strict_mode is OFF now (from /etc/extra.cnf)")


@pytest.mark.parametrize(
    ("flavor", "name"),
    [(flavor, d.name) for flavor in Flavor for d in demands(flavor) if d.running],
)
def test_settings_that_a_running_server_keeps_are_looked_at_as_it_runs(
    flavor: Flavor, name: str
) -> None:
    demand = next(d for d in demands(flavor) if d.name == name)
    other = "OFF" if demand.wanted == "ON" else "ON" if demand.wanted == "OFF" else "7"
    finding = only(running(good(flavor), **{name: other}))
    assert (finding.key, finding.level) == (demand.key, demand.running)
    assert "now" in finding.text


@BOTH
def test_what_the_option_file_leaves_out_counts_as_the_servers_default(flavor: Flavor) -> None:
    facts = good(flavor)
    facts = replace(
        facts, boot=replace(facts.boot, options={"datadir": "/data", "socket": "/sock"})
    )
    wrong = {f.key for f in check_member(facts) if f.level is Level.WRONG}
    assert {"read-only", "auto-start", "gtid"} <= wrong
    # MySQL's defaults are good in these, MariaDB's are not
    assert ({"binlog", "applied-changes", "row-format"} <= wrong) is (flavor is Flavor.MARIADB)
    assert "row-image" not in wrong


def test_a_switch_is_known_by_any_of_its_spellings() -> None:
    assert found(booting(good(Flavor.MARIADB), read_only="1"), "read-only") == []
    assert found(booting(good(Flavor.MARIADB), read_only="true"), "read-only") == []
    assert found(booting(good(Flavor.MARIADB), read_only="0"), "read-only")


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("10.6.20-MariaDB", Level.WRONG),
        ("10.11.7-MariaDB", Level.WRONG),
        ("10.11.11-MariaDB", Level.WRONG),
        ("10.11.12-MariaDB", None),
        ("11.4.5-MariaDB", Level.WRONG),
        ("11.4.9-MariaDB", None),
        ("11.6.2-MariaDB", Level.WARNING),
        ("nonsense", Level.WRONG),
    ],
)
def test_mariadb_versions_with_known_bugs_are_refused(version: str, level: Level | None) -> None:
    facts = found(replace(good(Flavor.MARIADB), version=version), "version")
    assert [f.level for f in facts] == ([level] if level else [])


def test_mysql_before_8_4_is_refused() -> None:
    assert found(replace(good(Flavor.MYSQL), version="8.0.44"), "version")[0].level is Level.WRONG
    assert found(replace(good(Flavor.MYSQL), version="8.4.0"), "version") == []


def test_a_binlog_in_innodb_has_no_after_sync_and_is_refused() -> None:
    facts = running(good(Flavor.MARIADB), binlog_storage_engine="innodb")
    assert found(facts, "version")[0].level is Level.WRONG


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [("datadir", "/other"), ("socket", "/other"), ("port", "3307"), ("server_id", "9"),
     ("log_bin", "mysql-bin")],
)  # fmt: skip
def test_an_option_file_that_starts_another_server_is_wrong(
    flavor: Flavor, name: str, value: str
) -> None:
    finding = only(booting(good(flavor), **{name: value}))
    assert (finding.key, finding.level) == ("same-server", Level.WRONG)


@BOTH
def test_a_server_with_another_data_directory_is_not_the_agents(flavor: Flavor) -> None:
    finding = only(running(good(flavor), datadir="/somewhere/"))
    assert finding.key == "same-server"
    assert "/somewhere" in finding.text


@BOTH
def test_filters_are_wrong_in_the_option_file_and_as_it_runs(flavor: Flavor) -> None:
    facts = good(flavor)
    boot = replace(facts, boot=replace(facts.boot, filters=("binlog_do_db=a",)))
    assert only(boot).key == "filters"
    source = Upstream("127.0.0.1", 1, "u", filters=("replicate_do_db=a",), tls=True)
    assert only(replace(facts, upstreams=(source,))).level is Level.WRONG


@BOTH
@pytest.mark.parametrize(
    ("unit", "level"),
    [
        (Unit("mariadb.service", enabled=True), Level.WRONG),
        (Unit("mariadb.service", restart="on-abnormal", runs_it=True), Level.WRONG),
        (Unit("mariadb.service", restart="on-abnormal"), Level.NOTE),
        (Unit("mariadb.service", restart="no", runs_it=True), Level.NOTE),
        (Unit("mariadb.service", masked=True, enabled=True, runs_it=True), None),
    ],
)
def test_nobody_else_may_start_the_server(flavor: Flavor, unit: Unit, level: Level | None) -> None:
    findings = found(replace(good(flavor), units=(unit,)), "service")
    assert [f.level for f in findings] == ([level] if level else [])


@BOTH
def test_a_script_that_starts_the_server_again_is_wrong(flavor: Flavor) -> None:
    assert only(replace(good(flavor), supervisor="mysqld_safe")).level is Level.WRONG


@BOTH
@pytest.mark.parametrize(
    ("free", "level"), [(20, None), (19, Level.WARNING), (5, Level.WARNING), (4, Level.WRONG)]
)
def test_disk_space(flavor: Flavor, free: int, level: Level | None) -> None:
    findings = found(replace(good(flavor), spaces=(Space("/data", 100, free),)), "disk")
    assert [f.level for f in findings] == ([level] if level else [])


def test_semi_sync_that_can_be_loaded_is_loaded_by_adopting_and_else_it_is_wrong() -> None:
    facts = without(good(Flavor.MYSQL), "rpl_semi_sync_replica_enabled")
    assert only(facts).level is Level.WRONG
    assert only(replace(facts, plugins=frozenset({"semisync_replica.so"}))).level is Level.WARNING


def test_semi_sync_that_would_be_gone_after_a_restart_is_wrong() -> None:
    facts = replace(good(Flavor.MYSQL), installed=frozenset({"semisync_source.so"}))
    assert "semisync_replica" in only(facts).mend
    assert found(booting(facts, plugin_load="semisync_replica.so"), "plugins") == []


@BOTH
def test_privileges_that_are_missing_are_named(flavor: Flavor) -> None:
    finding = only(replace(good(flavor), privileges=ADMIN_PRIVILEGES[flavor] - {"RELOAD"}))
    assert (finding.key, finding.level) == ("privileges", Level.WRONG)
    assert "lacks RELOAD" in finding.text
    everything = frozenset({"ALL PRIVILEGES", "GRANT OPTION"})
    assert found(replace(good(flavor), privileges=everything), "privileges") == []
    no_grants = frozenset({"ALL PRIVILEGES"})
    assert "GRANT OPTION" in only(replace(good(flavor), privileges=no_grants)).text


@BOTH
def test_a_server_that_could_not_be_fenced_is_wrong(flavor: Flavor) -> None:
    assert only(replace(good(flavor), pid=0)).level is Level.WRONG
    assert only(replace(good(flavor), signals=False)).level is Level.WRONG


@BOTH
def test_tables_that_are_worse_off_are_named(flavor: Flavor) -> None:
    facts = replace(good(flavor), foreign=Tables(7, ("a.b", "a.c")))
    assert only(facts).text.startswith("7 tables (a.b, a.c, …) not InnoDB")
    assert only(replace(good(flavor), keyless=Tables(1, ("a.b",)))).text.startswith("1 table (a.b)")
    assert only(replace(good(flavor), keyless=None)).level is Level.NOTE


@BOTH
def test_a_server_that_cannot_be_asked_is_wrong_and_its_files_are_judged_all_the_same(
    flavor: Flavor,
) -> None:
    facts = replace(booting(good(flavor), read_only="OFF"), problem="no answer", variables={})
    wrong = {f.key for f in check_member(facts) if f.level is Level.WRONG}
    assert wrong == {"server", "read-only"}


@BOTH
def test_an_option_file_that_cannot_be_read_is_wrong(flavor: Flavor) -> None:
    assert only(replace(good(flavor), boot=Boot("/my.cnf", problem="gone"))).key == "option-file"


@BOTH
def test_several_sources_or_one_with_a_name_are_wrong(flavor: Flavor) -> None:
    one = Upstream("127.0.0.1", 1, "u", tls=True)
    two = replace(one, channel="other")
    assert only(replace(good(flavor), upstreams=(one, two))).key == "sources"
    assert only(replace(good(flavor), upstreams=(two,))).key == "sources"


@BOTH
def test_a_replica_that_is_late_on_purpose_is_wrong(flavor: Flavor) -> None:
    late = Upstream("127.0.0.1", 1, "u", tls=True, delay_seconds=3600)
    assert only(replace(good(flavor), upstreams=(late,))).key == "delay"


@BOTH
def test_what_leaves_the_host_unencrypted_is_a_warning(flavor: Flavor) -> None:
    assert only(replace(good(flavor), listen="10.0.0.1:7400")).level is Level.WARNING
    far = Upstream("10.0.0.2", 1, "u")
    assert only(replace(good(flavor), upstreams=(far,))).key == "tls"


@BOTH
def test_numbers_that_two_members_share_are_wrong(flavor: Flavor) -> None:
    twin = replace(good(flavor, 1), member="m2", account="repl_m2")
    keys = {f.key for f in together(good(flavor, 1), twin)}
    assert keys == ({"server-ids", "server-uuid"} if flavor is Flavor.MYSQL else {"server-ids"})


def test_one_domain_for_all_members() -> None:
    other = running(good(Flavor.MARIADB, 2), gtid_domain_id="1")
    assert [f.key for f in together(good(Flavor.MARIADB), other)] == ["domain"]


@BOTH
def test_clocks_that_differ_by_more_than_a_second_are_a_warning(flavor: Flavor) -> None:
    late = replace(good(flavor, 2), clock_offset=-1.5)
    [finding] = together(good(flavor), late)
    assert (finding.key, finding.level) == ("clock", Level.WARNING)
    assert "m1 is 1.5 s ahead of that of m2" in finding.text
    assert together(good(flavor), replace(late, clock_offset=-0.9)) == []


@BOTH
def test_an_account_that_is_missing_is_wrong_unless_it_is_going_to_be_made(flavor: Flavor) -> None:
    lacking = replace(good(flavor), replicators=frozenset(), backup_admins=frozenset())
    assert [f.level for f in together(lacking, good(flavor, 2))] == [Level.WRONG]
    [finding] = together(lacking, good(flavor, 2), adopting=True)
    assert finding.level is Level.NOTE
    assert "repl_m1, repl_m2" in finding.text


@BOTH
def test_two_members_with_one_replication_account_are_wrong(flavor: Flavor) -> None:
    [finding] = together(good(flavor), replace(good(flavor, 2), account="repl_m1"))
    assert (finding.key, finding.level) == ("accounts", Level.WRONG)


def test_two_flavors_are_wrong() -> None:
    assert "flavor" in {f.key for f in together(good(Flavor.MARIADB), good(Flavor.MYSQL, 2))}


def test_a_member_that_does_not_answer_is_told_apart() -> None:
    report = check("c", (good(Flavor.MARIADB),), {"m2": "no answer"}, False)
    assert report.unanswered() == ("m2: no answer",)
    assert report.wrong() == ()


@BOTH
def test_replicas_that_are_no_members_are_named_and_may_not_acknowledge(flavor: Flavor) -> None:
    member = Dump(1, "repl_m2", "10.0.0.2", "2", Acks.YES)
    reader = Dump(2, "reports", "10.0.0.8")

    def found(*dumps: Dump, adopting: bool = False) -> list[Finding]:
        primary = replace(good(flavor), dumps=(member, *dumps))
        return together(primary, good(flavor, 2), adopting=adopting)

    assert found() == []
    [note] = found(reader)
    assert (note.key, note.level) == ("replicas", Level.NOTE)
    [wrong] = found(replace(reader, acks=Acks.YES, server="8"))
    assert (wrong.key, wrong.level) == ("replicas", Level.WRONG)
    assert "server 8 at 10.0.0.8, reports, which is no member, acknowledges to m1" in wrong.text
    [unknown] = found(replace(reader, acks=Acks.UNKNOWN))
    assert unknown.level is Level.WARNING
    assert "replicas" not in {f.key for f in found(replace(reader, acks=Acks.YES), adopting=True)}


@BOTH
def test_a_data_directory_behind_a_link_is_the_same_folder(flavor: Flavor) -> None:
    facts = running(booting(good(flavor), datadir="/var/lib/mysql/"), datadir="/mnt/disk/")
    assert found(facts, "same-server")[0].level is Level.WRONG
    real = dict.fromkeys(("/data", "/var/lib/mysql/", "/mnt/disk/"), "/mnt/disk")
    assert found(replace(facts, real=real), "same-server") == []
    link = running(good(flavor), log_bin_basename="/mnt/disk/binlog")
    assert found(link, "same-server")[0].level is Level.WRONG
    assert found(replace(link, real={"/data": "/mnt/disk"}), "same-server") == []


@BOTH
def test_fewer_files_for_the_next_start_are_a_warning(flavor: Flavor) -> None:
    (finding,) = found(replace(good(flavor), open_files=(5000, 1024)), "open-files")
    assert finding.level is Level.WARNING
    assert "may open 5000 files, and its agent lets it have 1024" in finding.text
    assert "LimitNOFILE=5000" in finding.mend
    assert found(replace(good(flavor), open_files=(5000, 5000)), "open-files") == []
    assert found(good(flavor), "open-files") == []


@BOTH
def test_a_server_that_takes_fewer_connections_than_it_should_is_a_warning(flavor: Flavor) -> None:
    facts = replace(good(flavor), open_files=(1024, 1024))
    facts = running(booting(facts, max_connections="900"), max_connections="214")
    (finding,) = found(facts, "open-files")
    assert (finding.level, finding.text) == (
        Level.WARNING,
        "it takes 214 connections, and /my.cnf says 900",
    )


@BOTH
def test_a_server_that_wants_tls_and_members_that_speak_none(flavor: Flavor) -> None:
    facts = running(good(flavor), require_secure_transport="ON")
    assert Level.WRONG in {each.level for each in found(facts, "tls")}
    with_tls = running(replace(facts, encrypting=True), ssl_cert="/c", ssl_ca="/ca")
    assert Level.WRONG not in {each.level for each in found(with_tls, "tls")}
