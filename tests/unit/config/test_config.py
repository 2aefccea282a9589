"""Bad configuration gets one line that names the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.config.load import agent_config, manager_config, token
from holdfast.errors import BadInput
from holdfast.manager.daemon import candidate
from holdfast.manager.leader.desired import Given
from holdfast.store.base import LeadershipCandidate


@pytest.fixture
def agent(tmp_path: Path) -> dict[str, Any]:
    for name in ("my.cnf", "admin", "replication", "token"):
        (tmp_path / name).write_text("secret\n")
    (tmp_path / "data").mkdir()
    return {
        "cluster": "c",
        "name": "m1",
        "listen": "127.0.0.1:7401",
        "token_file": str(tmp_path / "token"),
        "state_dir": str(tmp_path / "state"),
        "server": {
            "flavor": "mariadb",
            "command": ["mariadbd"],
            "option_file": str(tmp_path / "my.cnf"),
            "datadir": str(tmp_path / "data"),
            "socket": str(tmp_path / "s"),
            "binlog_index": str(tmp_path / "data/binlog.index"),
            "admin": {"user": "holdfast", "password_file": str(tmp_path / "admin")},
        },
        "replication": {"user": "repl_m1", "password_file": str(tmp_path / "replication")},
    }


@pytest.fixture
def manager(tmp_path: Path) -> dict[str, Any]:
    return {
        "listen": "127.0.0.1:7400",
        "token_file": str(tmp_path / "token"),
        "store": str(tmp_path / "store.db"),
        "clusters": [
            {
                "name": "c",
                "members": [
                    {"name": f"m{i}", "agent": f"http://127.0.0.1:740{i}", "host": "h", "port": i}
                    for i in (1, 2, 3)
                ],
            }
        ],
    }


def error(load: Callable[[Path], object], folder: Path, data: object) -> str:
    path = folder / "file.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    with pytest.raises(BadInput) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_files_load(tmp_path: Path, agent: dict[str, Any], manager: dict[str, Any]) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(agent))
    assert agent_config(path).name == "m1"
    path.write_text(yaml.safe_dump(manager))
    assert len(manager_config(path).clusters[0].members) == 3


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("server", "portt"), 1, "server.portt: unknown key"),
        (("server", "sockett"), "x", "server.sockett: unknown key; did you mean socket?"),
        (("listen",), "7401", "listen: must be HOST:PORT"),
        (("listen",), "0.0.0.0:7401", "tls is required: 0.0.0.0:7401 is not a loopback"),
        (("token_file",), None, "token_file is required without tls: every user of this host"),
        (("server", "flavor"), "oracle", "server.flavor: "),
        (("server", "command"), [], "server.command: "),
        (("server", "command"), "mariadbd", "server.command: "),
        (("server", "option_file"), "/nowhere/my.cnf", "server.option_file: cannot read /nowhere"),
        (("server", "datadir"), "/nowhere", "server.datadir: /nowhere is no directory"),
        (
            ("replication", "password_file"),
            "/nowhere",
            "replication.password_file: cannot read /nowhere",
        ),
        (("name",), "m 1", "name: "),
    ],
)
def test_agent(
    tmp_path: Path, agent: dict[str, Any], place: tuple[str, ...], value: object, message: str
) -> None:
    inner = agent
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert message in error(agent_config, tmp_path, agent)


def test_a_missing_key_is_named(tmp_path: Path, agent: dict[str, Any]) -> None:
    del agent["server"]["admin"]
    assert "server.admin: required, and not there" in error(agent_config, tmp_path, agent)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"name": "m1"}, "name 'm1' is used twice"),
        ({"agent": "http://127.0.0.1:7401"}, "agent 'http://127.0.0.1:7401' is used twice"),
        ({"port": 1}, "host:port 'h:1' is used twice"),
        ({"port": 0}, "clusters.c.members.m3.port: "),
        ({"port": "x"}, "clusters.c.members.m3.port: "),
        ({"agent": "127.0.0.1"}, "clusters.c.members.m3.agent: must start with http"),
    ],
)
def test_manager(
    tmp_path: Path, manager: dict[str, Any], member: dict[str, Any], message: str
) -> None:
    manager["clusters"][0]["members"][2].update(member)
    assert message in error(manager_config, tmp_path, manager)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mod": "strong"}, "clusters.c.settings.mod: unknown key; did you mean mode?"),
        (
            {"members": {"m1": {"zon": 1}}},
            "settings.members.m1.zon: unknown key; did you mean zone",
        ),
        ({"members": {"m9": {}}}, None),
        ({"members": {"m9": {"zone": "a"}}}, "settings: members.m9.zone: there is no member m9"),
        ({"durability": "zones"}, "settings: members.m1.zone: is needed with durability zones"),
        ({"ack_patience": "soon"}, "settings.ack_patience: must be a duration"),
    ],
)
def test_settings_of_a_cluster(
    tmp_path: Path, manager: dict[str, Any], settings: dict[str, Any], message: str | None
) -> None:
    manager["clusters"][0]["settings"] = settings
    if message:
        assert message in error(manager_config, tmp_path, manager)
    else:
        (tmp_path / "file.yaml").write_text(yaml.safe_dump(manager))
        manager_config(tmp_path / "file.yaml")


def test_an_account_is_that_of_the_file_or_named_after_the_member(
    tmp_path: Path, manager: dict[str, Any]
) -> None:
    manager["clusters"][0]["members"][1]["account"] = "replicator2"
    manager["clusters"][0]["settings"] = {"mode": "async"}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(manager))
    given = Given.by(manager_config(tmp_path / "file.yaml").clusters[0])
    assert [member.account for member in given.members] == ["repl_m1", "replicator2", "repl_m3"]
    assert given.settings == {"mode": "async"}


def test_clusters_of_one_name(tmp_path: Path, manager: dict[str, Any]) -> None:
    manager["clusters"].append(manager["clusters"][0])
    assert "clusters: name 'c' is used twice" in error(manager_config, tmp_path, manager)


def test_a_mistyped_key_is_named_and_not_that_the_right_one_is_missing(
    tmp_path: Path, manager: dict[str, Any]
) -> None:
    manager["stroe"] = manager.pop("store")
    assert "stroe: unknown key; did you mean store?" in error(manager_config, tmp_path, manager)


def test_a_store_in_no_folder(tmp_path: Path, manager: dict[str, Any]) -> None:
    manager["store"] = "/nowhere/store.db"
    assert "store: /nowhere is no directory" in error(manager_config, tmp_path, manager)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: [", "not valid YAML"),
        ("listen: a\nlisten: b\n", "key 'listen' is given twice"),
        ("- 1\n", "must be a mapping"),
        ("", "must be a mapping"),
    ],
)
def test_what_is_no_mapping(tmp_path: Path, text: str, message: str) -> None:
    assert message in error(manager_config, tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--config: cannot read"):
        agent_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (5, "store: "),
        ({}, "store: must be the path of a SQLite file, or a mapping with endpoints"),
        ({"endpoints": ["etcd1:2379"]}, "store.endpoints.0: must start with http"),
        (
            {"endpoint": ["http://etcd1:2379"]},
            "store.endpoint: unknown key; did you mean endpoints",
        ),
        (
            {"endpoints": ["http://u:p@etcd1:2379"]},
            "store.endpoints.0: must hold no user and no password",
        ),
        ({"endpoints": ["http://e:2379"], "path": "/tmp/x"}, "store: must be the path of"),
        ({"endpoints": ["http://e:2379"], "prefix": "holdfast"}, "store.prefix: "),
        ({"endpoints": ["http://e:2379"], "user": "u"}, "user and password_file go together"),
        ({"endpoints": ["http://e:2379"], "tls": {"ca": "/ca"}}, "store: endpoints: tls is set"),
        (
            {"endpoints": ["https://e:2379"], "tls": {"ca": "/ca", "cert": "/c"}},
            "store.tls: cert and key go together",
        ),
        (
            {"endpoints": ["http://e:2379"], "user": "u", "password_file": "/nowhere/p"},
            "store.password_file: cannot read /nowhere/p",
        ),
    ],
)
def test_a_store_that_is_not_well_described(
    tmp_path: Path, manager: dict[str, Any], store: object, message: str
) -> None:
    manager["store"] = store
    assert message in error(manager_config, tmp_path, manager)


def test_managers_over_etcd_know_who_they_are(tmp_path: Path, manager: dict[str, Any]) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    manager |= {
        "name": "b",
        "url": "http://db2:7400/",
        "store": {
            "endpoints": ["https://etcd1:2379", "https://etcd2:2379/"],
            "tls": {"ca": "/ca.pem"},
            "user": "holdfast",
            "password_file": str(tmp_path / "password"),
        },
    }
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(manager))
    config = manager_config(path)
    assert config.store.endpoints == ("https://etcd1:2379", "https://etcd2:2379")
    assert config.store.prefix == "/holdfast/"
    assert candidate(config) == LeadershipCandidate("b", "http://db2:7400", "db2")


def test_a_manager_that_says_nothing_of_itself_is_known_by_where_it_listens(
    tmp_path: Path, manager: dict[str, Any]
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(manager))
    who = candidate(manager_config(path))
    assert (who.url, who.host) == ("http://127.0.0.1:7400", "127.0.0.1")
    assert who.name.endswith(":7400")


def test_a_token_that_everybody_on_the_host_can_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    for mode in (0o644, 0o604, 0o602):
        path.chmod(mode)
        with pytest.raises(BadInput, match=f"token_file: every user .*{mode:04o}.*chmod 600"):
            token(path, "token_file")
    for mode in (0o600, 0o640, 0o400):
        path.chmod(mode)
        assert token(path, "token_file") == "s3cret"
