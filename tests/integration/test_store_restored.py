"""A store that is restored from a copy, or lost, under clusters of real servers that are written to."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from tests.integration import etcd as real
from tests.integration.cluster import Clusters, Writers, wait_failed_over, writing

SECONDS = 30.0
MORE = 200


def copy_store(sandbox: Sandbox, to: Path) -> None:
    """A backup of it, made while it is in use."""
    with (
        contextlib.closing(sqlite3.connect(sandbox.spec.store)) as source,
        contextlib.closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


def drop_store(sandbox: Sandbox) -> None:
    store = sandbox.spec.store
    for path in (store, *(store.with_name(store.name + end) for end in ("-wal", "-shm"))):
        path.unlink(missing_ok=True)


def processes(sandbox: Sandbox) -> dict[str, str]:
    """Each server's run."""
    return {each["name"]: each["incarnation"] for each in sandbox.status()["members"]}


def refused_and_repaired(sandbox: Sandbox, writers: Writers, said: str) -> None:
    """The manager decides nothing, writes continue meanwhile, and a repair ends it without touching any server."""
    status = sandbox.wait_until(lambda s: said in s["reason"], SECONDS, said)
    assert f"holdfast store repair {CLUSTER}" in status["reason"]
    writers.wait_for(MORE)
    with pytest.raises(Refused, match=r"trusted|no primary yet"):
        sandbox.manager.pause(CLUSTER, "not by this record")
    looked = sandbox.manager.repair_store(CLUSTER, dry_run=True)
    assert looked["doubts"] == []
    assert said in sandbox.status()["reason"], "nothing was done"
    answer = sandbox.manager.repair_store(CLUSTER)
    assert answer["done"]
    sandbox.wait_whole(SECONDS)
    writers.wait_for(MORE)


@pytest.mark.server
@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_store_that_was_put_back_or_lost_is_rebuilt_while_writes_go_on(
    clusters: Clusters, flavor: Flavor, tmp_path: Path
) -> None:
    sandbox = clusters.whole(flavor)
    backup = tmp_path / "backup.db"
    copy_store(sandbox, backup)
    old = sandbox.primary()
    with writing(sandbox, clusters.next_run()) as writers:
        sandbox.kill_server(old)
        wait_failed_over(sandbox, old)
        sandbox.wait_whole(SECONDS)
        before, primary = processes(sandbox), sandbox.primary()

        sandbox.kill_manager()
        drop_store(sandbox)
        shutil.copy(backup, sandbox.spec.store)
        sandbox.start_manager()
        refused_and_repaired(sandbox, writers, "obeyed a later record than the store has")

        sandbox.kill_manager()
        drop_store(sandbox)
        sandbox.start_manager()
        refused_and_repaired(sandbox, writers, f"the store has no record of {CLUSTER}")
        assert processes(sandbox) == before, "no server was touched"
        assert sandbox.primary() == primary

        # and the cluster is managed: it loses its primary once more
        sandbox.kill_server(primary)
        wait_failed_over(sandbox, primary)
        writers.check()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[real.EtcdCluster]:
    made = real.make(tmp_path / "etcd")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.server
def test_an_etcd_that_is_empty_or_put_back_is_rebuilt(
    clusters: Clusters, etcd: real.EtcdCluster
) -> None:
    sandbox = clusters.whole(Flavor.MARIADB)
    config = sandbox.spec.manager_config
    kept = config.read_text()
    node = etcd.nodes[0]
    data = node.folder / node.name
    with writing(sandbox, clusters.next_run()) as writers:
        try:
            sandbox.kill_manager()
            settings = yaml.safe_load(kept) | {"store": {"endpoints": [node.url]}}
            config.write_text(yaml.safe_dump(settings))
            sandbox.start_manager()
            refused_and_repaired(sandbox, writers, f"the store has no record of {CLUSTER}")

            node.kill()
            shutil.copytree(data, data.with_name("backup"))
            etcd.start()
            sandbox.wait_whole(SECONDS)
            old = sandbox.primary()
            sandbox.kill_server(old)
            wait_failed_over(sandbox, old)
            sandbox.wait_whole(SECONDS)

            node.kill()
            shutil.rmtree(data)
            data.with_name("backup").rename(data)
            etcd.start()  # the manager runs on
            refused_and_repaired(sandbox, writers, "obeyed a later record than the store has")
            writers.check()
        finally:
            sandbox.kill_manager()
            config.write_text(kept)
            clusters.remove()
