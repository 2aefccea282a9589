"""Options by which commands find a manager and a cluster."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.errors import BadInput, Unreachable

if TYPE_CHECKING:
    import ssl

    from holdfast.http.manager_client import ManagerClient

URL_VARIABLE = "HOLDFAST_MANAGER"
TOKEN_VARIABLE = "HOLDFAST_TOKEN_FILE"
TLS_VARIABLES = {part: f"HOLDFAST_TLS_{part.upper()}" for part in ("ca", "cert", "key")}
"""Environment variables that name the three files, in the order of ``tls.Files``."""

Manager = Annotated[
    str | None,
    typer.Option(
        "--manager",
        help=f"URL of the manager, or several with commas [default: ${URL_VARIABLE}, else the default sandbox's]",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", help=f"File that holds the bearer token [default: ${TOKEN_VARIABLE}]"
    ),
]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", help="The cluster; needed if the manager has several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def connect(
    url: str | None, token_file: Path | None, cluster: str | None
) -> tuple[ManagerClient, str]:
    """A client of the manager that is meant, and the name of the cluster. Of several managers, the one that leads.

    :raises BadInput: no manager was named, or it has several clusters
    :raises Unreachable: of several managers none answers
    """
    urls, token = _named(url, token_file)
    context = own_certificate()
    if len(urls) > 1:
        from holdfast.cli.kit.leading import find

        return find(urls, token, context, cluster)
    from holdfast.http.manager_client import ManagerClient

    client = ManagerClient(urls[0], token, context)
    return client, cluster or only_cluster(client)


def _named(url: str | None, token_file: Path | None) -> tuple[list[str], str | None]:
    """URLs of managers, and the token for them."""
    url = url or os.environ.get(URL_VARIABLE)
    token_path = token_file or os.environ.get(TOKEN_VARIABLE)
    if not url:
        from holdfast.sandbox.local.spec import default_dir, read_saved, saved_path

        if not saved_path(default_dir()).exists():
            raise BadInput(
                "--manager",
                f"not given, {URL_VARIABLE} is not set, and there is no sandbox in {default_dir()}",
            )
        from holdfast.sandbox.local.crew import stopped

        if why := stopped(default_dir()):
            raise Unreachable(why)
        spec = read_saved(default_dir())[0]
        url = spec.manager_url
        token_path = token_path or (spec.token_file if spec.token_file.exists() else None)
    token = _token(Path(token_path)) if token_path else None
    urls = [each.strip() for each in url.split(",") if each.strip()]
    if not urls:
        raise BadInput("--manager", "is empty")
    return urls, token


def _token(path: Path) -> str:
    from holdfast.config.load import secret

    found = secret(path, "--token-file")
    if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        print(
            f"holdfast: {path}: users other than its owner can read this token ({mode:04o}), and give orders with it: "
            f"chmod 600 {path}",
            file=sys.stderr,
        )
    return found


@contextmanager
def naming(options: Mapping[str, str]) -> Iterator[None]:
    """Make the manager's errors name the option that was given.

    :param options: by the manager's names for them
    """
    try:
        yield
    except BadInput as error:
        raise BadInput(options.get(error.key, error.key), error.message) from None


def own_certificate(of_agents: bool = False) -> ssl.SSLContext | None:
    """The context for connections, by the options before the command, or the environment.

    :param of_agents: the connections go to agents, not to a manager
    :raises BadInput: naming the option: not all three are given, or something is wrong with a file
    """
    named = {part: os.environ.get(variable, "") for part, variable in TLS_VARIABLES.items()}
    if not any(named.values()):
        return None
    for part, path in named.items():
        if not path:
            given = ", ".join(f"--tls-{each}" for each, value in named.items() if value)
            raise BadInput(f"--tls-{part}", f"is needed too, beside {given}")
    from holdfast.core.answers.access import AccessRole
    from holdfast.tls import Files, contexts

    files = Files(*(Path(path).expanduser() for path in named.values()))
    expected = AccessRole.AGENT if of_agents else AccessRole.MANAGER
    return contexts(files, "--tls-", expected=expected)[1]


def only_cluster(client: ManagerClient) -> str:
    names = client.clusters()
    if len(names) != 1:
        raise BadInput("--cluster", f"is needed: the manager has {', '.join(names) or 'none'}")
    return names[0]
