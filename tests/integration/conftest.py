"""Fixtures: clusters of real servers. A server that is missing is a failure, never a skip."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from tests.integration.cluster import Clusters

SHARED = pytest.StashKey[Clusters]()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Tests that share servers run one after the other, and in one process where there are several (pytest -n).

    First come those of the clusters that all files share, server by server: those that want another one than three
    voters come last, so that the usual one is not made again after them. Then file by file.
    """
    for item in filter(_is_here, items):
        where = "clusters" if _shares(item) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(f"{where}-{_server(item)}"))
    yield  # pytest puts those that share a fixture side by side, and xdist reads the marks
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in items):
        raise pytest.UsageError("this pytest-xdist keeps no groups together with this pytest")
    items.sort(key=_turn)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A cluster that no further test needs is removed."""
    made = item.config.stash.get(SHARED, None)
    if made is not None and nextitem is not None and not _shares(nextitem):
        made.remove()


def _turn(item: pytest.Item) -> tuple[str, bool]:
    if not _shares(item):
        return "the rest", False
    return _server(item), "cluster" not in getattr(item, "fixturenames", ())


def _is_here(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


def _shares(item: pytest.Item) -> bool:
    return "clusters" in getattr(item, "fixturenames", ())


def _server(item: pytest.Item) -> str:
    found: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    names = {str(value) for value in found.values()} & set(Flavor)
    return min(names, default="any")


@pytest.fixture(scope="session")
def clusters(pytestconfig: pytest.Config) -> Iterator[Clusters]:
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as folder:
        made = Clusters(Path(folder))
        pytestconfig.stash[SHARED] = made
        yield made
        made.remove()


@pytest.fixture(scope="module", params=[Flavor.MARIADB, Flavor.MYSQL], ids=lambda each: each.value)
def flavor(request: pytest.FixtureRequest) -> Flavor:
    return Flavor(request.param)


@pytest.fixture
def cluster(clusters: Clusters, flavor: Flavor) -> Sandbox:
    """A whole cluster of three; it may contain what other tests wrote."""
    return clusters.whole(flavor)


@pytest.fixture
def fresh_cluster(clusters: Clusters, flavor: Flavor) -> Sandbox:
    """A whole cluster of three in which nothing has happened yet."""
    return clusters.fresh(flavor)


@pytest.fixture
def run(clusters: Clusters) -> int:
    """A number for the test's workload that no other has."""
    return clusters.next_run()
