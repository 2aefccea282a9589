"""A cluster with certificates everywhere: failover, repair and clones work as usual, and no secret is exposed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import yaml

from holdfast.core.answers.access import AccessRole
from holdfast.core.commands import Fence
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, HoldfastError, Refused, Unreachable
from holdfast.http.manager_client import ManagerClient
from holdfast.http.wire import CommandRequest
from holdfast.sandbox.local import cluster as sandboxes
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.files import write_files
from holdfast.sandbox.local.spec import CLUSTER, MOST_MEMBERS
from holdfast.sandbox.waiting import remove_quietly
from holdfast.server.authentication import authentication_string
from holdfast.server.connection import encryption
from holdfast.tls import Files, authority, contexts
from tests.integration.cluster import admin, wait_failed_over, writing
from tests.integration.ports import free_base_port

HOST = "127.0.0.1"


class Encrypted:
    """A sandbox whose agents, manager and servers have certificates; tokens are needed as well."""

    def __init__(self, folder: Path, flavor: Flavor) -> None:
        self.certs = folder / "certs"
        authority.make_ca(self.certs)
        self.sandbox = Sandbox.create(folder / "sandbox", flavor, 3, free_base_port())
        self.url = self.sandbox.spec.manager_url.replace("http://", "https://")
        self.context = contexts(self.files("alice", AccessRole.ADMIN))[1]
        self.sandbox._client = self.client()

    def client(self) -> ManagerClient:
        self.sandbox.spec.token_file.touch(mode=0o600)
        self.sandbox.spec.token_file.write_text(self.token + "\n")
        return ManagerClient(self.url, self.token, self.context)

    @property
    def token(self) -> str:
        return "t0ken-of-a-sandbox-with-certificates"

    def files(self, name: str, *roles: AccessRole, cluster: str = CLUSTER) -> Files:
        if not (self.certs / f"{name}.pem").exists():
            authority.issue(self.certs, name, [HOST], roles=roles, clusters=[cluster])
        return Files(self.certs / "ca.pem", self.certs / f"{name}.pem", self.certs / f"{name}.key")

    def rewrite(self) -> None:
        """Rewrite the sandbox's files, with certificates."""
        spec = self.sandbox.spec
        manager: dict[str, Any] = yaml.safe_load(spec.manager_config.read_text())
        manager["tls"] = named(self.files("manager", AccessRole.MANAGER))
        for member in manager["clusters"][0]["members"]:
            member["agent"] = member["agent"].replace("http://", "https://")
        spec.manager_config.write_text(yaml.safe_dump(manager))
        for each in spec.members:
            server = self.files(f"{each.name}-server", AccessRole.SERVER)
            agent: dict[str, Any] = yaml.safe_load(each.agent_config.read_text())
            agent["tls"] = named(self.files(each.name, AccessRole.AGENT))
            agent["server"]["tls"] = named(server)
            each.agent_config.write_text(yaml.safe_dump(agent))
            options = encryption.option_file(server).items()
            with each.option_file.open("a") as file:
                file.writelines(f"{name} = {value}\n" for name, value in options)

    def secrets(self) -> dict[str, str]:
        """Secrets that must not be readable anywhere: by what they are."""
        accounts, spec = self.sandbox.accounts, self.sandbox.spec
        found = {"token": self.token, "administrator": accounts.admin.password}
        for member in spec.members:
            password = accounts.replication(member.name).password
            found[f"replication of {member.name}"] = password
            if spec.flavor is Flavor.MARIADB:
                found[f"hash of {member.name}"] = authentication_string(spec.flavor, password)
        for path in self.certs.glob("*.key"):
            found[path.name] = path.read_text().splitlines()[1]
        return found


def named(files: Files) -> dict[str, str]:
    return dict(zip(("ca", "cert", "key"), encryption.named(files), strict=True))


@pytest.fixture(scope="module")
def encrypted(flavor: Flavor) -> Iterator[Encrypted]:
    with begun(flavor) as made:
        for number in range(1, MOST_MEMBERS + 1):
            user = made.sandbox.accounts.replication(f"m{number}").user
            statement = f"ALTER USER '{user}'@'%' REQUIRE X509"
            admin(made.sandbox, made.sandbox.primary(), statement)
        yield made


@contextmanager
def begun(flavor: Flavor, empty: bool = False) -> Iterator[Encrypted]:
    """:param empty: from empty data directories"""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as folder:
        made = Encrypted(Path(folder), flavor)
        for member in made.sandbox.spec.members if empty else ():
            member.datadir.mkdir(parents=True)

        def with_certificates(*arguments: Any) -> None:
            write_files(*arguments)
            made.rewrite()

        try:
            with patch.object(sandboxes, "write_files", with_certificates):
                made.sandbox.up()
                yield made
        finally:
            remove_quietly(made.sandbox)


def test_empty_data_directories_become_a_cluster_with_certificates(flavor: Flavor) -> None:
    with begun(flavor, empty=True) as made:
        sandbox = made.sandbox
        assert sandbox.wait_whole()["writable"]
        lost = sandbox.kill_server("primary")
        wait_failed_over(sandbox, lost)
        sandbox.wait_whole()
        report = sandbox.manager.check(CLUSTER)
        found = [each for member in report["members"] for each in member["findings"]]
        assert [each for each in found if each["level"] == "wrong"] == []


def test_replication_is_encrypted_and_a_check_finds_nothing_against_it(
    encrypted: Encrypted,
) -> None:
    report = encrypted.sandbox.manager.check(CLUSTER)
    for member in report["members"]:
        found = {each["level"] for each in member["findings"] if each["key"] == "tls"}
        assert found == ({"ok"} if member["member"] else set()), member


def test_it_fails_over_and_heals_with_certificates(encrypted: Encrypted) -> None:
    sandbox = encrypted.sandbox
    with writing(sandbox, run=1) as writers:
        writers.wait_for(50)
        deposed = sandbox.kill_server("primary")
        wait_failed_over(sandbox, deposed)
        writers.wait_for(50)
        sandbox.wait_whole()
    writers.check()


def test_whoever_has_no_certificate_gets_nothing(encrypted: Encrypted) -> None:
    manager = ManagerClient(encrypted.url, encrypted.token)
    with pytest.raises(Unreachable, match="was not signed by the CA that we trust"):
        manager.clusters()
    manager.close()
    manager = ManagerClient(encrypted.url, "wr0ng", encrypted.context)
    with pytest.raises(BadInput, match="does not accept the token"):
        manager.clusters()
    manager.close()


def test_a_certificate_gives_the_rights_of_its_role_and_no_other(encrypted: Encrypted) -> None:
    """Those that are on the hosts of a real cluster, its servers' included; and a foreign one of the same CA."""
    sandbox = encrypted.sandbox
    member = sandbox.spec.members[0]
    url = f"https://{HOST}:{member.agent_port}"
    fence = CommandRequest.of(2**40, Fence()).model_dump_json()
    headers = {"Authorization": f"Bearer {encrypted.token}", "Content-Type": "application/json"}

    def asked(who: Files, method: str, path: str, content: str = "") -> httpx.Response:
        with httpx.Client(verify=contexts(who)[1], headers=headers, trust_env=False) as http:
            return http.request(method, url + path, content=content)

    before = sandbox.status()
    others = {
        "m2": encrypted.files("m2"),
        "m2-server": encrypted.files("m2-server"),
        "alice": encrypted.files("alice"),
        "mallory": encrypted.files("mallory", AccessRole.MANAGER, cluster="another"),
        "old": encrypted.files("old"),
    }
    for name, files in others.items():
        answer = asked(files, "POST", "/v1/command", fence)
        assert (answer.status_code, answer.json()["error"]) == (403, "Refused"), name
        assert f"the certificate of {name} " in answer.json()["message"]
        data = asked(files, "GET", "/v1/data")
        assert data.status_code == (200 if name == "m2" else 403), name
    after = sandbox.status()
    assert (after["term"], after["primary"], after["whole"]) == (
        before["term"],
        before["primary"],
        True,
    ), "nobody was fenced, and nobody has promised a term"

    def manager(name: str, *roles: AccessRole) -> ManagerClient:
        context = contexts(encrypted.files(name, *roles))[1]
        return ManagerClient(encrypted.url, encrypted.token, context)

    with closing(manager("vera", AccessRole.VIEWER)) as viewer:
        assert viewer.status(CLUSTER)["whole"]
        with pytest.raises(Refused, match="is that of viewer, and this is for operator"):
            viewer.pause(CLUSTER, "no")
    with closing(manager("oscar", AccessRole.OPERATOR)) as operator:
        operator.pause(CLUSTER, "a look")
        operator.resume(CLUSTER)
        with pytest.raises(Refused, match="is that of operator, and this is for admin"):
            operator.change_settings(CLUSTER, {"mode": "async"})
    for name in ("old", "m2-server"):
        with closing(manager(name)) as none, pytest.raises(Refused, match=f"certificate of {name}"):
            none.status(CLUSTER)


def test_secrets_are_nowhere(encrypted: Encrypted) -> None:
    """After the usual work and some that fails: in no log, no argv, no environment, no answer, no record."""
    sandbox, manager = encrypted.sandbox, encrypted.sandbox.manager
    said: list[str] = []
    argv: list[str] = []

    def told(ask: Callable[[], object]) -> None:
        try:
            said.append(json.dumps(ask(), default=str))
        except HoldfastError as error:
            said.append(f"{error!r} {error}")
        argv.extend(shown_by_processes())

    status = sandbox.status()
    replica = next(each["name"] for each in status["members"] if each["name"] != status["primary"])
    data = sandbox.spec.member(replica).datadir / "ibdata1"
    before = data.stat().st_ino
    told(lambda: manager.clone_member(CLUSTER, replica))
    for _ in range(20):
        argv.extend(shown_by_processes())
        if sandbox.status()["whole"]:
            break
    sandbox.wait_whole()
    assert data.stat().st_ino != before, f"it was not cloned: {said[-1]}"
    said.append(json.dumps(sandbox.status(), default=str))
    # operations that fail
    told(lambda: manager.add_member(CLUSTER, "m9", "https://127.0.0.1:1"))
    told(lambda: manager.add_member(CLUSTER, "m8", f"https://u:{encrypted.token}@127.0.0.1:1"))
    told(lambda: manager.clone_member(CLUSTER, status["primary"]))
    told(lambda: manager.change_settings(CLUSTER, {"durability": "none"}))
    told(lambda: manager.adopt(CLUSTER, {}, dry_run=False))
    with closing(ManagerClient(encrypted.url, "wr0ng", encrypted.context)) as stranger:
        told(lambda: stranger.status(CLUSTER))
    barred = sandbox.accounts.replication(replica).user
    # its password is wrong from now on: the receiver is refused when it connects again
    admin(sandbox, sandbox.primary(), f"ALTER USER '{barred}'@'%' IDENTIFIED BY 'an0ther'")
    told(lambda: manager.restart_member(CLUSTER, replica, waiting=True))
    told(lambda: manager.check(CLUSTER))
    password = sandbox.accounts.replication(replica).password
    admin(sandbox, sandbox.primary(), f"ALTER USER '{barred}'@'%' IDENTIFIED BY '{password}'")
    sandbox.wait_whole()
    for ask in (manager.status, manager.settings, manager.members, manager.check):
        told(partial(ask, CLUSTER))
    told(lambda: manager.events(CLUSTER, 0, 0))

    places = {"what was answered": "\n".join(said), "what ps shows": "\n".join(argv)}
    for path in public_files(sandbox.spec.dir):
        places[str(path.relative_to(sandbox.spec.dir))] = path.read_text(errors="replace")
    assert any(name.endswith("agent.log") for name in places), sorted(places)
    assert "store.db" in places
    assert "--config" in places["what ps shows"]
    for what, secret in encrypted.secrets().items():
        for where, text in places.items():
            assert secret not in text, f"{what} stands in {where}"


def public_files(folder: Path) -> Iterator[Path]:
    """All files except data, certificates and files made to hold a secret."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        secret = path.suffix == ".password" or path.name == "token"
        if path.is_file() and "data" not in inside and not secret:
            yield path


def shown_by_processes() -> list[str]:
    """Arguments and environment of every process of this user."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                argv = (folder / "cmdline").read_bytes()
                if b"holdfast" in argv and folder.name != str(os.getpid()):
                    found.append(
                        (argv + (folder / "environ").read_bytes()).decode(errors="replace")
                    )
    return found
