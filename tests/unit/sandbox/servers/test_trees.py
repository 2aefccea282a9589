"""Which server is used, and the error when none can be."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

import holdfast
from holdfast.errors import BadInput, Refused
from holdfast.sandbox.servers import trees

MARIADB = "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)"
MYSQL = "/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))"


def make_server(prefix: Path, name: str, says: str) -> Path:
    """An installation below `prefix` whose server is a script that only prints its version."""
    binary = prefix / "bin" / name
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.write_text(f"#!/bin/sh\necho '{says}'\n")
    binary.chmod(0o755)
    share = prefix / "share" / "mysql"
    (share / "english").mkdir(parents=True, exist_ok=True)
    (share / "english" / "errmsg.sys").touch()
    (share / "mysql_system_tables.sql").touch()
    return binary


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no server at all."""
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path" / "bin"))
    monkeypatch.setattr(trees, "SYSTEM_FOLDERS", ())


def test_no_server_says_how_to_get_one() -> None:
    with pytest.raises(BadInput, match="run scripts/get-servers mariadb"):
        trees.find("mariadb")


def test_a_server_on_path_is_found(tmp_path: Path) -> None:
    binary = make_server(tmp_path / "path", "mariadbd", MARIADB)
    tree = trees.find("mariadb")
    assert tree.binary == binary
    assert tree.command == (str(binary),)
    assert tree.version == (10, 11, 19)
    assert tree.version_text == "10.11.19-MariaDB-0+deb12u1"
    assert tree.share_dir == tmp_path / "path" / "share" / "mysql"


def test_the_option_goes_before_path(tmp_path: Path) -> None:
    make_server(tmp_path / "path", "mysqld", MYSQL)
    named = make_server(tmp_path / "opt", "mysqld", MYSQL.replace("9.7.4", "8.4.6"))
    assert trees.find("mysql", named).version == (8, 4, 6)


def test_mysqld_on_path_that_is_mariadb_is_no_mysql(tmp_path: Path) -> None:
    make_server(tmp_path / "path", "mysqld", MARIADB)
    with pytest.raises(BadInput, match="no usable mysql server on PATH"):
        trees.find("mysql")
    assert trees.find("mariadb").version == (10, 11, 19)


@pytest.mark.parametrize(
    ("flavor", "says"),
    [("mariadb", MARIADB.replace("10.11.19", "10.11.11")), ("mysql", MYSQL.replace("9.7", "8.0"))],
)
def test_a_server_that_is_too_old_is_refused(
    flavor: trees.Flavor, says: str, tmp_path: Path
) -> None:
    binary = make_server(tmp_path / "path", trees.PROGRAMS[flavor][0], says)
    assert trees.on_path(flavor) is None
    with pytest.raises(BadInput, match="or later") as refused:
        trees.find(flavor, binary)
    assert refused.value.key == "server.binary"


def test_a_program_that_is_no_server_is_refused(tmp_path: Path) -> None:
    binary = make_server(tmp_path / "opt", "mysqld", "hello")
    with pytest.raises(BadInput, match="is not a mysql server; it says: 'hello'"):
        trees.find("mysql", binary)
    with pytest.raises(BadInput, match="is not a file"):
        trees.find("mysql", tmp_path / "nowhere")


def test_half_a_tree_is_not_used(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "servers" / "mysql"
    (root / "usr" / "sbin").mkdir(parents=True)
    with pytest.raises(BadInput, match="none in"):
        trees.find("mysql")
    (root / trees.STAMP).touch()
    with pytest.raises(BadInput, match="not a whole tree"):
        trees.find("mysql")


def test_a_tool_answers_to_both_of_its_names(tmp_path: Path) -> None:
    binary = make_server(tmp_path / "path", "mariadbd", MARIADB)
    client = make_server(tmp_path / "path", "mariadb-dump", "x")
    tree = trees.find("mariadb", binary)
    assert tree.tool("mysqldump") == tree.tool("mariadb-dump") == (str(client),)
    with pytest.raises(BadInput, match="does not come with"):
        tree.tool("mbstream")


@pytest.fixture(scope="module")
def get_servers() -> ModuleType:
    """``scripts/get-servers`` as a module."""
    script = Path(holdfast.__file__).parent.parent / "scripts" / "get-servers"
    spec = spec_from_loader("get_servers", SourceFileLoader("get_servers", str(script)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        patch.setitem(sys.modules, "get_servers", module)
        patch.setattr("sys.path", list(sys.path))
        spec.loader.exec_module(module)
    return module


DEB822 = """\
# written by hand
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://vendor.example/linux/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
deb cdrom:[Debian 12]/ bookworm main
deb http://vendor.example/debian stable vendor # not ours
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64,arm64 signed-by=/k/debian-archive-keyring.gpg] http://mirror.example/d bookworm main
deb http://mirror.example/debian-security bookworm-security main
"""


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("debian.sources", DEB822, "http://mirror.example/debian"),
        ("debian.list", ONE_LINE, "http://mirror.example/d"),
    ],
)
def test_the_mirror_is_read_from_either_format_of_apt(
    get_servers: ModuleType,
    name: str,
    text: str,
    mirror: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / name).write_text(text)
    monkeypatch.setattr(get_servers, "SOURCES", tmp_path)
    sid = get_servers.sources_for("mysql")
    assert [(source.uris, source.suites) for source in sid] == [((mirror,), ("sid",))]
    assert "debian-archive-keyring" in sid[0].text()
    release = [suite for source in get_servers.sources_for("mariadb") for suite in source.suites]
    assert release[0] == "bookworm"
    assert len(release) == 2


def test_a_machine_without_a_debian_mirror_is_told_what_to_do(
    get_servers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_servers, "SOURCES", tmp_path)
    with pytest.raises(Refused, match="put it on PATH"):
        get_servers.sources_for("mysql")


def test_a_companion_is_taken_from_path_or_from_its_tree_or_said_how_to_get(
    tmp_path: Path,
) -> None:
    with pytest.raises(BadInput, match="run scripts/get-servers nft"):
        trees.companion("nft")
    usr = tmp_path / "cache" / "servers" / "nft" / "usr"
    loader = usr / "lib" / "x86_64-linux-gnu" / "ld-linux-x86-64.so.2"
    for file in (loader, usr / "sbin" / "nft"):
        file.parent.mkdir(parents=True)
        file.touch()
    by_loader = (str(loader), "--library-path", str(loader.parent), str(usr / "sbin" / "nft"))
    assert trees.companion("nft") == by_loader
    installed = make_server(tmp_path / "path", "nft", "nftables")
    assert trees.companion("nft") == (str(installed),)
