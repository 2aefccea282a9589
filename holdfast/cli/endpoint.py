"""``holdfast endpoint``: configuration files of what directs clients to the primary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.errors import BadInput

if TYPE_CHECKING:
    from holdfast.config.endpoints import HaproxyConfig
    from holdfast.config.schema import ClusterConfig, ManagerConfig

app = typer.Typer(
    help="Configuration files for what directs clients to the primary.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def endpoint() -> None:
    """Configuration files for what directs clients to the primary."""


@app.command()
def haproxy(
    config: Annotated[Path, typer.Option("--config", help="The manager's file (YAML).")],
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="The cluster; needed if the file has several.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The HAProxy; needed if the cluster has several.")
    ] = None,
) -> None:
    """Print the configuration of HAProxy for a cluster."""
    from holdfast.config.load import manager_config
    from holdfast.endpoint.haproxy_file import render, targets

    chosen = _cluster(manager_config(config), cluster)
    one = _haproxy(chosen, name)
    print(render(chosen.name, targets(chosen), one), end="")


def _cluster(config: ManagerConfig, name: str | None) -> ClusterConfig:
    known = {each.name: each for each in config.clusters}
    if name is None and len(known) == 1:
        return config.clusters[0]
    if name not in known:
        given = f"there is no {name}: " if name else "is needed: "
        raise BadInput("--cluster", f"{given}the file has {', '.join(known)}")
    return known[name]


def _haproxy(cluster: ClusterConfig, name: str | None) -> HaproxyConfig:
    known = {each.called: each for each in cluster.endpoints.haproxy}
    if not known:
        raise BadInput(
            "endpoints.haproxy",
            f"cluster {cluster.name} has none: add it with socket, write and read, as docs/endpoints.md shows",
        )
    if name is None and len(known) == 1:
        return cluster.endpoints.haproxy[0]
    if name not in known:
        given = f"there is no {name}: " if name else "is needed: "
        raise BadInput("--name", f"{given}{cluster.name} has {', '.join(known)}")
    return known[name]
