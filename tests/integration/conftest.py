"""Fixtures: clusters of real servers. A server that is missing is a failure, never a skip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.cluster import Sandbox
from tests.integration.cluster import Clusters


@pytest.fixture(scope="session")
def clusters() -> Iterator[Clusters]:
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as folder:
        made = Clusters(Path(folder))
        yield made
        made.remove()


@pytest.fixture(scope="module", params=[Flavor.MARIADB, Flavor.MYSQL], ids=lambda each: each.value)
def flavor(request: pytest.FixtureRequest) -> Flavor:
    return Flavor(request.param)


@pytest.fixture
def cluster(clusters: Clusters, flavor: Flavor) -> Sandbox:
    """A whole cluster of three; what other tests wrote may be in it."""
    return clusters.whole(flavor)


@pytest.fixture
def fresh_cluster(clusters: Clusters, flavor: Flavor) -> Sandbox:
    """A whole cluster of three in which nothing has happened yet."""
    return clusters.fresh(flavor)


@pytest.fixture
def run(clusters: Clusters) -> int:
    """A number for the test's workload that no other has."""
    return clusters.next_run()
