"""``holdfast certs``, and the options by which commands show a certificate."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import BadInput, Refused
from holdfast.manager.api.app import make_app
from holdfast.tls import Files, authority, contexts
from tests.unit.served import Authority, served

TOKEN = "s3cret-t0ken"


def holdfast(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200", **environment},
    )


def test_five_commands_make_certificates_that_fit(tmp_path: Path) -> None:
    folder = str(tmp_path / "certs")
    said = holdfast("certs", "init", "--dir", folder, "--cluster", "shop")
    assert (said.returncode, said.stderr) == (0, "")
    assert "shop Holdfast CA, until 20" in said.stdout
    where = ("--host", "10.0.0.1", "--host", "::1", "--dir", folder)
    said = holdfast("certs", "issue", "db1", "--role", "agent", *where)
    assert (said.returncode, said.stderr) == (0, "")
    assert "agent of shop; good for db1, 10.0.0.1, ::1" in said.stdout
    shown = json.loads(holdfast("certs", "show", "--dir", folder, "--json").stdout)
    assert [(each["name"], each["authority"]) for each in shown] == [
        ("shop Holdfast CA", True),
        ("db1", False),
    ]
    assert shown[1]["hosts"] == ["db1", "10.0.0.1", "::1"]
    assert (shown[1]["roles"], shown[1]["clusters"]) == (["agent"], ["shop"])
    assert 820 <= shown[1]["days_left"] <= 825
    contexts(
        Files(tmp_path / "certs/ca.pem", tmp_path / "certs/db1.pem", tmp_path / "certs/db1.key")
    )
    people = holdfast("certs", "show", "--dir", folder)
    assert "825 days" in people.stdout or "824 days" in people.stdout


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    Authority(tmp_path / "ca").files("a")
    for name in ("ca.key", "a.key"):
        assert stat.S_IMODE((tmp_path / "ca" / name).stat().st_mode) == 0o600


def test_nothing_is_overwritten_unless_it_is_asked_for(tmp_path: Path) -> None:
    folder = str(tmp_path / "certs")
    for words in (("init",), ("issue", "db1", "--role", "agent")):
        assert holdfast("certs", *words, "--dir", folder).returncode == 0
        before = {path: path.read_bytes() for path in (tmp_path / "certs").iterdir()}
        again = holdfast("certs", *words, "--dir", folder)
        assert again.returncode == 1
        assert "is there already: nothing was written" in again.stderr
        assert {path: path.read_bytes() for path in (tmp_path / "certs").iterdir()} == before
    anew = ("certs", "issue", "db1", "--role", "agent", "--dir", folder, "--force")
    assert holdfast(*anew).returncode == 0
    assert (tmp_path / "certs/db1.pem").read_bytes() != before[tmp_path / "certs/db1.pem"]


def test_without_a_role_none_is_made(tmp_path: Path) -> None:
    authority.make_ca(tmp_path)
    for words, message in (
        ((), "--role: is needed: agent, manager, viewer, operator, admin, server"),
        (("--role", "root"), "--role: 'root' is none of agent, manager,"),
        (("--role", "agent", "--cluster", "a b"), "--cluster: 'a b' must be letters"),
    ):
        said = holdfast("certs", "issue", "db1", "--dir", str(tmp_path), *words)
        assert (said.returncode, said.stdout) == (1, "")
        assert message in said.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem"]


@pytest.mark.parametrize(
    ("of_ca", "words", "clusters"),
    [
        ("", (), ["*"]),
        ("shop", (), ["shop"]),
        ("shop", ("--cluster", "a", "--cluster", "b"), ["a", "b"]),
        ("shop", ("--cluster", "*"), ["*"]),
    ],
)
def test_a_certificate_is_for_the_clusters_of_its_ca_unless_others_are_named(
    tmp_path: Path, of_ca: str, words: tuple[str, ...], clusters: list[str]
) -> None:
    authority.make_ca(tmp_path, of_ca)
    roles = ("--role", "manager", "--role", "viewer")
    said = holdfast("certs", "issue", "x", "--dir", str(tmp_path), *roles, *words)
    assert said.returncode == 0, said.stderr
    described = authority.describe(tmp_path / "x.pem")
    assert described.roles == ("manager", "viewer")
    assert list(described.clusters) == clusters


@pytest.mark.parametrize(
    ("name", "hosts", "days", "message"),
    [
        ("../x", (), 1, "NAME: "),
        ("ca", (), 1, "NAME: ca is the authority itself"),
        ("a b", (), 1, "NAME: "),
        ("a", ("x y",), 1, "--host: 'x y' is neither"),
        ("a", ("1.2.3.4/24",), 1, "--host: "),
        ("a", (), 0, "--days: "),
    ],
)
def test_what_no_certificate_can_have_is_refused(
    tmp_path: Path, name: str, hosts: tuple[str, ...], days: int, message: str
) -> None:
    authority.make_ca(tmp_path)
    with pytest.raises(BadInput, match=message):
        authority.issue(tmp_path, name, hosts, days)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem"]


def test_without_a_ca_it_is_said_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holdfast certs init --dir"):
        authority.issue(tmp_path, "a")


def test_a_ca_with_the_key_of_another_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        authority.make_ca(tmp_path / name)
    authority.ca_key(tmp_path / "one").replace(authority.ca_key(tmp_path / "two"))
    with pytest.raises(Refused, match="is not the key of"):
        authority.issue(tmp_path / "two", "a")


def test_a_certificate_does_not_outlive_its_ca(tmp_path: Path) -> None:
    ca = authority.make_ca(tmp_path)
    assert authority.issue(tmp_path, "a", days=authority.CA_DAYS).ends <= ca.ends


def test_issuing_is_quick(tmp_path: Path) -> None:
    authority.make_ca(tmp_path)
    took = []
    for number in range(10):
        begun = time.perf_counter()
        authority.issue(tmp_path, f"m{number}", ["10.0.0.1"])
        took.append(time.perf_counter() - begun)
    assert sorted(took)[5] < 0.05


# what commands show


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def url(ca: Authority, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with served(make_app({}, TOKEN), contexts(ca.files("manager", "127.0.0.1"))[0]) as port:
        yield f"https://127.0.0.1:{port}"


def options(files: Files) -> tuple[str, ...]:
    return (
        *("--tls-ca", str(files.ca)),
        *("--tls-cert", str(files.cert)),
        *("--tls-key", str(files.key)),
    )


def test_options_and_environment_name_a_certificate(
    url: str, ca: Authority, tmp_path: Path
) -> None:
    mine = ca.files("alice")
    asked = ("status", "--manager", url, "--token-file", str(tmp_path / "token"))
    # a manager answered: it has no clusters
    wanted = "--cluster: is needed: the manager has none"
    assert wanted in holdfast(*options(mine), *asked).stderr
    environment: dict[str, Any] = {
        "HOLDFAST_TLS_CA": str(mine.ca),
        "HOLDFAST_TLS_CERT": str(mine.cert),
        "HOLDFAST_TLS_KEY": str(mine.key),
    }
    assert wanted in holdfast(*asked, **environment).stderr


def test_what_is_wrong_with_ones_certificate_is_said_in_one_line(
    url: str, ca: Authority, tmp_path: Path
) -> None:
    mine, theirs = ca.files("alice"), Authority(tmp_path / "other").files("bob")
    asked = ("status", "--manager", url)
    tries = {
        (): (3, "its certificate was not signed by the CA that we trust"),
        options(theirs): (3, "its certificate was not signed by the CA that we trust"),
        options(mine)[:4]: (1, "--tls-key: is needed too, beside --tls-ca, --tls-cert"),
        options(Files(mine.ca, theirs.cert, theirs.key)): (1, "--tls-cert: .* was not signed by"),
        options(Files(mine.ca, mine.cert, theirs.key)): (1, "--tls-key: .* is not the key of"),
        options(Files(mine.ca, mine.cert, tmp_path / "x")): (1, "--tls-key: cannot read .*/x"),
        options(mine): (1, "--token-file: the manager at .* wants a token, and none was given"),
    }
    for words, (code, message) in tries.items():
        said = holdfast(*words, *asked)
        assert said.returncode == code, said.stderr
        assert re.search(message, said.stderr), said.stderr
        assert said.stderr.count("\n") == 1
        assert TOKEN not in said.stderr
