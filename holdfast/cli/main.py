"""``holdfast``: the command line.

Exit codes of every command:

    0  done (``status``: the cluster takes writes)
    1  refused, failed, or bad input: nothing or not all was done, and the message says why
    2  the command line itself is wrong
    3  no answer came, or the outcome is unknown
    4  ``status`` only: the cluster does not take writes now
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import (
    adopt,
    certs,
    config,
    endpoint,
    failover,
    hooks,
    member,
    sandbox,
    store,
    switchover,
)
from holdfast.cli.kit.connection import TLS_VARIABLES
from holdfast.cli.show import check, history, status, verify
from holdfast.errors import HoldfastError, OutcomeUnknown, Unreachable

EXIT_CODES = (
    "Exit codes: 0 done; 1 refused, failed or bad input; 2 wrong usage; 3 nobody answered, or the "
    "outcome is unknown; 4 (status) the cluster does not take writes now."
)


class _App(typer.Typer):
    """Turns the errors of Holdfast into one message and an exit code."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except HoldfastError as error:
            print(f"holdfast: {error}", file=sys.stderr)
            sys.exit(3 if isinstance(error, Unreachable | OutcomeUnknown) else 1)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(141)


app = _App(
    name="holdfast",
    help="High availability for MySQL and MariaDB: no acknowledged transaction is lost.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # rich's own takes "[default: …]" for a style, and drops it
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(config.app, name="config")
app.add_typer(member.app, name="member")
app.add_typer(certs.app, name="certs")
app.add_typer(endpoint.app, name="endpoint")
app.add_typer(history.app, name="history")
app.add_typer(hooks.app, name="hooks")
app.add_typer(store.app, name="store")
app.command("status")(status.status)
app.command("check")(check.check)
app.command("adopt")(adopt.adopt)
app.command("restart")(member.restart_all)
app.command("failover")(failover.failover)
app.command("switchover")(switchover.switchover)
app.command("verify")(verify.verify)
app.command("pause")(failover.pause)
app.command("resume")(failover.resume)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def credentials(
    ca: Annotated[
        str | None,
        typer.Option("--tls-ca", help="The CA's certificate [default: $HOLDFAST_TLS_CA]"),
    ] = None,
    cert: Annotated[
        str | None,
        typer.Option("--tls-cert", help="This client's certificate [default: $HOLDFAST_TLS_CERT]"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--tls-key", help="The key of that certificate [default: $HOLDFAST_TLS_KEY]"),
    ] = None,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    for part, path in (("ca", ca), ("cert", cert), ("key", key)):
        if path is not None:
            os.environ[TLS_VARIABLES[part]] = path


Config = Annotated[Path, typer.Option("--config", help="The configuration file (YAML).")]


@app.command()
def agent(config: Config) -> None:
    """Run the agent of one database host."""
    from holdfast.reloading import outlive

    outlive()
    from holdfast.config.load import agent_config

    settings = agent_config(config)
    from holdfast.agent.daemon import run

    run(settings, config)


@app.command()
def manager(config: Config) -> None:
    """Run a manager, of one or more clusters."""
    from holdfast.reloading import outlive

    outlive()
    from holdfast.config.load import manager_config

    settings = manager_config(config)
    from holdfast.manager.daemon import run

    run(settings, config)


if __name__ == "__main__":
    app()
