"""The Restart command's first half: the server is shut down in order, or continues as before. Close is half of it."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.steps import KnownStep
from holdfast.core.view import MemberState, Receiver
from holdfast.errors import HoldfastError, OutcomeUnknown, Refused
from holdfast.server.base import Account, Deadline, Server, Source

PREPARE_SECONDS = 10.0
"""How long it may take until the server can be shut down; after that it continues as before."""

UNDO_SECONDS = 3.0


def end_in_order(
    server: Server,
    server_run: ServerRun,
    state: MemberState,
    replication: Account,
    term: int,
    deadline: Deadline,
    done: Callable[[str], None],
) -> None:
    """End a primary when no commit waits, and a replica when it has applied all that it received.

    :raises Refused: the server cannot be brought there; it continues as before
    :raises DeadlinePassed: the server was asked to end, and has not
    """
    patience = deadline.within(PREPARE_SECONDS)
    follows = state.replication.source
    try:
        if follows:
            server.stop_receiver(patience)
            done(KnownStep.RECEIVER_STOPPED)
            server.drain(patience)
            done("applied")
            # else MySQL would wait a minute for the rest of a transaction that was half received
            server.hold_applier(patience)
            done("applier stopped")
        elif state.writable or state.semi_sync.source:
            server.quiesce(patience)
            done("no commit waits")
        deadline.check("shutting down")
        server.part(patience)
    except HoldfastError as error:
        try:
            _undo(server, state, replication, deadline.afresh(UNDO_SECONDS))
        except HoldfastError as trouble:
            raise OutcomeUnknown(
                f"it is not shut down ({error}), and does not run as before either: {trouble}"
            ) from error
        raise Refused(f"it runs on as before: {error}") from error
    server_run.end_in_order(f"restarting by term {term}", deadline.left, server.close)
    done("server ended")


def close(server: Server, was_open: bool, deadline: Deadline, done: Callable[[str], None]) -> None:
    """Have a primary take no more writes.

    :raises Refused: a commit waits, or is under way; the server continues as before
    """
    try:
        server.quiesce(deadline)
    except HoldfastError:
        if was_open:
            server.open(deadline.afresh(UNDO_SECONDS))
        raise
    done("no commit waits")


def _undo(server: Server, state: MemberState, replication: Account, deadline: Deadline) -> None:
    host, _, port = state.replication.source.rpartition(":")
    if host and state.replication.receiver is not Receiver.OFF:
        server.follow(Source(host, int(port), replication), state.semi_sync.replica, deadline)
    if state.writable:
        server.open(deadline)
